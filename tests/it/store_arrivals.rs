//! Many people write at once, so their messages go over the journal: nothing acknowledged is lost, everybody reads
//! what they wrote at once, and the rules of a message hold as they do for one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use mommygpt::domain::{ChatId, MessageText};
use mommygpt::store::{ChatPage, MessagePage, NewMessage, Parent, Store, StoreError};

use crate::store_disk::{Fault, FaultDisk};
use crate::store_faults::{Dice, power_cut};
use crate::store_people::{Person, assert_sound, chat_with, person, said};

/// People who write at once: several times as many as make the writer use the journal.
const N_PEOPLE: usize = 24;

/// A store with many people and a chat of each, on bytes to start from.
fn ground() -> (Vec<u8>, Vec<(Person, ChatId)>) {
    let disk = Arc::new(FaultDisk::default());
    let store = Store::open_on(disk.clone()).unwrap();
    let people = (0..N_PEOPLE).map(|n| {
        let someone = person(&store, &format!("p{n}"));
        let chat = chat_with(&someone.at(&store), &["first"]);
        (someone, chat)
    });
    let people = people.collect();
    store.close().unwrap();
    (disk.bytes(), people)
}

/// Everybody writes `n` messages as fast as they are answered, or until they are refused.
fn all_write(
    store: &Store,
    people: &[(Person, ChatId)],
    n: usize,
    acknowledged: impl Fn(usize, &str) + Sync,
) -> Vec<StoreError> {
    let barrier = Barrier::new(people.len());
    std::thread::scope(|s| {
        let writers: Vec<_> = people
            .iter()
            .enumerate()
            .map(|(who, (someone, chat))| {
                let (barrier, acknowledged) = (&barrier, &acknowledged);
                let me = someone.at(store);
                s.spawn(move || {
                    barrier.wait();
                    for i in 0..n {
                        let text = format!("{who} says {i}");
                        match me.append_user_message(*chat, said(&text)) {
                            Ok(_) => acknowledged(who, &text),
                            Err(e) => return Some(e),
                        }
                    }
                    None
                })
            })
            .collect();
        writers.into_iter().filter_map(|w| w.join().unwrap()).collect()
    })
}

/// Everything that somebody was told is stored is there once, in the order of its writing.
fn verify(store: &Store, people: &[(Person, ChatId)], promised: &[(usize, String)]) {
    assert_sound(store);
    for (who, (someone, chat)) in people.iter().enumerate() {
        let page = MessagePage { limit: 200, before: None };
        let all: Vec<String> =
            someone.at(store).messages(*chat, &page).unwrap().0.into_iter().map(|m| m.content).collect();
        let mine = promised.iter().filter(|(w, _)| *w == who);
        let written: Vec<String> = (0..all.len() - 1).map(|i| format!("{who} says {i}")).collect();
        assert_eq!(all[1..], written, "in order, whole, once");
        assert!(mine.count() < all.len(), "person {who} was promised more than there is");
    }
}

#[test]
fn a_power_cut_at_any_write_of_many_loses_nothing_acknowledged() {
    let (bytes, people) = ground();
    let disk = Arc::new(FaultDisk::with(bytes.clone()));
    let store = Store::open_on(disk.clone()).unwrap();
    let marks: Mutex<Vec<(usize, usize, String)>> = Mutex::default();
    let refusals = all_write(&store, &people, 12, |who, text| {
        let mut marks = marks.lock().unwrap();
        marks.push((disk.n_logged(), who, text.to_owned()));
    });
    assert_eq!(refusals, []);
    assert!(store.metrics().n_arrivals > 0, "the journal was used");
    store.close().unwrap();
    let (log, marks, mut dice) = (disk.log(), marks.into_inner().unwrap(), Dice(0xA44));
    for n in (0..=log.len()).step_by(log.len().div_ceil(60)) {
        let promised: Vec<_> =
            marks.iter().filter(|(at, ..)| *at <= n).map(|(_, who, text)| (*who, text.clone())).collect();
        let image = power_cut(&bytes, &log, n, &mut dice);
        let second = Arc::new(FaultDisk::with(image.clone()));
        let store = Store::open_on(second.clone()).unwrap_or_else(|e| panic!("cut after {n}: {e}"));
        verify(&store, &people, &promised);
        drop(store);
        // The power goes again while the journal is being moved.
        let repair = second.log();
        let again = power_cut(&image, &repair, dice.roll(repair.len() + 1), &mut dice);
        verify(&Store::open_on(Arc::new(FaultDisk::with(again))).unwrap(), &people, &promised);
    }
}

#[test]
fn a_disk_that_fails_under_many_loses_nothing_acknowledged_and_goes_on_being_read() {
    let (bytes, people) = ground();
    let mut n_with_journal = 0;
    for (fault, forever) in
        [(Fault::Broken, false), (Fault::Broken, true), (Fault::Full, false), (Fault::Full, true)]
    {
        for n in (1..160).step_by(13) {
            let disk = Arc::new(FaultDisk::with(bytes.clone()));
            let store = Store::open_on(disk.clone()).unwrap();
            disk.arm(n, fault, forever);
            let promised: Mutex<Vec<(usize, String)>> = Mutex::default();
            let refusals = all_write(&store, &people, 8, |who, text| {
                promised.lock().unwrap().push((who, text.to_owned()));
            });
            let full = |e: &StoreError| *e == StoreError::DiskFull;
            assert!(refusals.iter().all(|e| full(e) == (fault == Fault::Full)), "{n}: {refusals:?}");
            let promised = promised.into_inner().unwrap();
            verify(&store, &people, &promised);
            n_with_journal += usize::from(store.metrics().n_arrivals > 0);
            drop(store);
            disk.heal();
            let left = Arc::new(FaultDisk::with(disk.bytes()));
            verify(&Store::open_on(left).unwrap(), &people, &promised);
        }
    }
    assert!(n_with_journal > 10, "the journal was used in {n_with_journal} rounds");
}

#[test]
fn everybody_reads_at_once_what_they_wrote_among_many() {
    let (bytes, people) = ground();
    let store = Store::open_on(Arc::new(FaultDisk::with(bytes))).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        // The others only write, so that batches are large.
        let (reader, writers) = people.split_at(1);
        let load = s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(all_write(&store, writers, 5, |_, _| {}), []);
            }
        });
        let (me, chat) = (reader[0].0.at(&store), reader[0].1);
        for i in 0..60 {
            let mine = said(&format!("mine {i}"));
            let stored = me.append_user_message(chat, mine.clone()).unwrap();
            let again = me.append_user_message(chat, mine.clone()).unwrap();
            assert!(!again.created && again.message == stored.message, "a retry changes nothing");
            let other =
                NewMessage { content: MessageText::parse("other words".to_owned()).unwrap(), ..mine.clone() };
            assert_eq!(me.append_user_message(chat, other).err(), Some(StoreError::Conflict("id_taken")));
            let below = NewMessage { parent: Parent::Of(mine.id), ..said(&format!("below {i}")) };
            assert_eq!(me.append_user_message(chat, below).unwrap().message.parent_id, Some(mine.id));
            if i % 3 == 0 {
                assert_eq!(me.newest_message(chat).unwrap().unwrap().content, format!("below {i}"));
                assert_eq!(me.message(chat, mine.id).unwrap(), stored.message);
                let list = me.chats(&ChatPage { limit: 5, cursor: None, include_archived: true }).unwrap().0;
                assert_eq!(list[0].updated_at, me.newest_message(chat).unwrap().unwrap().created_at);
            }
            if i % 10 == 0 {
                let short = chat_with(&me, &["soon gone"]);
                me.delete_chat(short).unwrap();
                assert_eq!(me.append_user_message(short, said("late")).err(), Some(StoreError::NotFound));
            }
        }
        done.store(true, Ordering::Relaxed);
        load.join().unwrap();
    });
    assert!(store.metrics().n_arrivals > 0, "the journal was used");
    assert_sound(&store);
}

#[test]
fn a_copy_holds_what_waits_in_the_journal() {
    let (bytes, people) = ground();
    let store = Store::open_on(Arc::new(FaultDisk::with(bytes))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(all_write(&store, &people, 6, |_, _| {}), []);
    let copy = dir.path().join("copy");
    store.backup(&copy).unwrap();
    assert!(store.metrics().n_arrivals > 0, "the journal was used");
    let copied = FaultDisk::with(std::fs::read(&copy).unwrap());
    let copied = Store::open_on(Arc::new(copied)).unwrap();
    let report = copied.check().unwrap();
    assert_eq!((report.n_messages, report.problems), (7 * N_PEOPLE as u64, Vec::new()));
}
