//! The disk fails at every moment, and the power is cut at every moment: nothing acknowledged is lost, nothing is
//! acknowledged after a failure, and what was not acknowledged is there whole or not at all.

use std::sync::Arc;

use mommygpt::domain::{ChatId, FinishReason, MessageId};
use mommygpt::store::{MessagePage, ReplyEnd, SessionToken, Store, StoreError, UserStore};

use crate::store_disk::{Fault, FaultDisk, Op, apply};
use crate::store_people::{Person, assert_sound, chat_with, person, said};

/// A store with one person and one chat, on bytes to start from.
fn ground() -> (Vec<u8>, Person, ChatId) {
    let disk = Arc::new(FaultDisk::default());
    let store = Store::open_on(disk.clone()).unwrap();
    let someone = person(&store, "a");
    let chat = chat_with(&someone.at(&store), &["first"]);
    store.close().unwrap();
    (disk.bytes(), someone, chat)
}

/// What was acknowledged: each text that must be there.
#[derive(Default)]
struct Journal {
    texts: Vec<String>,
    /// The reply's text, once it was acknowledged.
    reply: Option<(MessageId, String)>,
}

/// A little of everything that writes. Returns the first refusal, and goes on to prove that nothing follows it.
fn work(
    me: &UserStore,
    chat: ChatId,
    journal: &mut Journal,
    mut acknowledged: impl FnMut(&Journal),
) -> Vec<StoreError> {
    let mut refusals = Vec::new();
    for n in 0..3 {
        let text = format!("message {n} {}", "x".repeat(300 * n));
        match me.append_user_message(chat, said(&text)) {
            Ok(_) => {
                journal.texts.push(text);
                acknowledged(journal);
            }
            Err(e) => refusals.push(e),
        }
    }
    let reply = MessageId::new();
    let parent = me.newest_message(chat).ok().flatten().map_or(reply, |m| m.id);
    let end = ReplyEnd {
        content: "whole reply".into(),
        finish_reason: FinishReason::Stop,
        timings: None,
        safety: None,
        source: None,
        truncated: false,
    };
    let steps = me
        .begin_reply(chat, reply, parent)
        .map(|_| journal.reply = Some((reply, String::new())))
        .and_then(|()| me.checkpoint_reply(chat, reply, "whole"))
        .map(|()| journal.reply = Some((reply, "whole".into())))
        .and_then(|()| me.finish_reply(chat, reply, end))
        .map(|_| journal.reply = Some((reply, "whole reply".into())));
    match steps {
        Ok(()) => acknowledged(journal),
        Err(e) => refusals.push(e),
    }
    let doomed = me.create_chat(None, None).and_then(|(c, _)| me.delete_chat(c.id));
    refusals.extend(doomed.err());
    refusals
}

/// Everything acknowledged is there, nothing is there by half.
fn verify(store: &Store, someone: &Person, chat: ChatId, journal: &Journal) {
    assert_sound(store);
    let me = someone.at(store);
    let (all, _) = me.messages(chat, &MessagePage { limit: 200, before: None }).unwrap();
    for text in &journal.texts {
        assert_eq!(all.iter().filter(|m| m.content == *text).count(), 1, "{text:?} was acknowledged");
    }
    for m in all.iter().filter(|m| m.is_user && m.content != "first") {
        assert!(m.content.starts_with("message ") && (m.content.len() - 10).is_multiple_of(300));
    }
    if let Some((id, text)) = &journal.reply {
        let reply = all.iter().find(|m| m.id == *id).expect("the reply was acknowledged");
        // A later step of it may have reached the disk before the failure.
        assert!("whole reply".starts_with(&reply.content) && reply.content.starts_with(text.as_str()));
        assert!(reply.finish_reason.is_some(), "after a start no reply is in progress");
    }
}

/// Fails the nth change for every n until a run passes clean; returns how many n there were.
fn sweep(fault: Fault, forever: bool) -> usize {
    let (bytes, someone, chat) = ground();
    for n in 1.. {
        let disk = Arc::new(FaultDisk::with(bytes.clone()));
        disk.arm(n, fault, forever);
        let mut journal = Journal::default();
        if let Ok(store) = Store::open_on(disk.clone()) {
            let me = someone.at(&store);
            let mut after_fault = 0;
            let refusals = work(&me, chat, &mut journal, |_| after_fault += usize::from(disk.fired()));
            if disk.fired() && (fault == Fault::Broken || forever) {
                // A write that was answered while the fault came later, in the background, does not count as after.
                assert!(after_fault == 0 || refusals.is_empty(), "acknowledged after the fault at {n}");
            }
            let why = if fault == Fault::Full {
                StoreError::DiskFull
            } else {
                StoreError::Unhealthy(String::new())
            };
            let kind = std::mem::discriminant(&why);
            let missing = |e: &StoreError| *e == StoreError::NotFound; // what follows a refused step finds nothing
            assert!(
                refusals.iter().all(|e| std::mem::discriminant(e) == kind || missing(e)),
                "{n}: {refusals:?}"
            );
            if !refusals.is_empty() {
                let read = me.messages(chat, &MessagePage { limit: 200, before: None }).unwrap().0;
                let holds = |t: &String| read.iter().any(|m| m.content == *t);
                assert!(journal.texts.iter().all(holds), "reads go on after the fault at {n}");
                if fault == Fault::Broken {
                    assert!(store.healthy().is_err());
                }
            }
        }
        let clean = !disk.fired();
        disk.heal();
        let left = Arc::new(FaultDisk::with(disk.bytes()));
        verify(&Store::open_on(left).unwrap(), &someone, chat, &journal);
        if clean {
            return n;
        }
    }
    unreachable!()
}

#[test]
fn a_broken_disk_at_any_write_loses_nothing_acknowledged() {
    assert!(sweep(Fault::Broken, false) > 50);
    assert!(sweep(Fault::Broken, true) > 50);
}

#[test]
fn a_full_disk_at_any_write_loses_nothing_acknowledged() {
    assert!(sweep(Fault::Full, false) > 50);
    assert!(sweep(Fault::Full, true) > 50);
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_resumes_when_there_is_room() {
    let (bytes, someone, chat) = ground();
    for n in (1..120).step_by(7) {
        let disk = Arc::new(FaultDisk::with(bytes.clone()));
        let store = Store::open_on(disk.clone()).unwrap();
        let me = someone.at(&store);
        disk.arm(n, Fault::Full, true);
        let mut kept = Vec::new();
        let refused = loop {
            let text = format!("message {}", kept.len());
            match me.append_user_message(chat, said(&text)) {
                Ok(_) => kept.push(text),
                Err(e) => break e,
            }
        };
        assert_eq!(refused, StoreError::DiskFull);
        assert_eq!(store.healthy(), Err(StoreError::DiskFull));
        for _ in 0..3 {
            assert_eq!(me.append_user_message(chat, said("still full")).err(), Some(StoreError::DiskFull));
            let (page, _) = me.messages(chat, &MessagePage { limit: 200, before: None }).unwrap();
            assert!(kept.iter().all(|t| page.iter().any(|m| m.content == *t)));
            assert!(store.as_user(&someone.token).unwrap().is_some());
        }
        let phone = SessionToken::new();
        let session = store.create_session(someone.user.id, &someone.data_key, &phone, "phone").unwrap();
        assert!(store.as_user(&phone).unwrap().unwrap().chat(chat).is_ok(), "signing in needs no room");
        assert_eq!(store.sessions(someone.user.id).unwrap().len(), 2);
        disk.heal();
        me.append_user_message(chat, said("room again")).unwrap();
        store.end_session(someone.user.id, session.id).unwrap();
        assert!(store.as_user(&phone).unwrap().is_none());
        assert_eq!(store.healthy(), Ok(()));
        let (page, _) = me.messages(chat, &MessagePage { limit: 200, before: None }).unwrap();
        assert!(!page.iter().any(|m| m.content == "still full"));
        assert_sound(&store);
    }
}

/// A small generator whose seed is printed with a failure.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// What a power cut after the first `n` changes may leave: all that was synced, and of the rest each write whole, not
/// at all, or torn at a sector.
pub(crate) fn power_cut(start: &[u8], log: &[Op], n: usize, dice: &mut Dice) -> Vec<u8> {
    let synced = log[..n].iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |i| i + 1);
    let mut bytes = start.to_vec();
    log[..synced].iter().for_each(|op| apply(&mut bytes, op));
    let mut rest: Vec<&Op> = log[synced..n].iter().collect();
    while !rest.is_empty() {
        // In any order: the disk does not keep ours.
        match (rest.swap_remove(dice.roll(rest.len())), dice.roll(3)) {
            (_, 0) => {}
            (Op::Write(offset, data), 1) if data.len() > 512 => {
                let sectors = 512 * dice.roll(data.len() / 512);
                apply(&mut bytes, &Op::Write(*offset, data[..sectors].to_vec()));
            }
            (op, _) => apply(&mut bytes, op),
        }
    }
    bytes
}

#[test]
fn a_power_cut_at_any_write_and_again_during_repair_loses_nothing_acknowledged() {
    let (bytes, someone, chat) = ground();
    let disk = Arc::new(FaultDisk::with(bytes.clone()));
    let store = Store::open_on(disk.clone()).unwrap();
    let mut marks: Vec<(usize, Journal)> = vec![(0, Journal::default())];
    let mut journal = Journal::default();
    let refusals = work(&someone.at(&store), chat, &mut journal, |j| {
        marks.push((disk.n_logged(), Journal { texts: j.texts.clone(), reply: j.reply.clone() }));
    });
    assert!(refusals.is_empty());
    store.close().unwrap();
    let log = disk.log();
    let mut dice = Dice(0x5EED);
    let mut n_images = 0;
    for n in 0..=log.len() {
        let (_, promised) = marks.iter().rev().find(|(at, _)| *at <= n).unwrap();
        for _ in 0..3 {
            let image = power_cut(&bytes, &log, n, &mut dice);
            let second = Arc::new(FaultDisk::with(image.clone()));
            let store = Store::open_on(second.clone()).unwrap_or_else(|e| panic!("cut after {n}: {e}"));
            verify(&store, &someone, chat, promised);
            drop(store);
            // The power goes again while the first cut is being repaired.
            let repair = second.log();
            let again = power_cut(&image, &repair, dice.roll(repair.len() + 1), &mut dice);
            let store = Store::open_on(Arc::new(FaultDisk::with(again))).unwrap();
            verify(&store, &someone, chat, promised);
            n_images += 2;
        }
    }
    assert!(n_images > 600, "{n_images}");
}
