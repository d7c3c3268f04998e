//! What models made of chats, kept on disk: nothing of it in clear, bound to its place, gone with its chat, within its
//! budget, and as good as not there when it is damaged.

use std::fs;
use std::path::{Path, PathBuf};

use mommygpt::domain::ChatId;
use mommygpt::store::{KvForm, Store, UserStore};

use crate::store_people::{Person, chat_with, person};

const PAGE_LEN: usize = 32;
const FORM: KvForm = KvForm { page_len: PAGE_LEN, page_bytes: 4096, fingerprint: [7; 32] };
const ROOM: u64 = 1 << 20;

struct House {
    dir: tempfile::TempDir,
    store: Store,
    ada: Person,
    bob: Person,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.keep_kv(ROOM).unwrap();
        let (ada, bob) = (person(&store, "ada"), person(&store, "bob"));
        Self { dir, store, ada, bob }
    }
    fn file(&self, who: &Person, chat: ChatId) -> PathBuf {
        self.dir.path().join("kv").join(who.user.id.to_string()).join(chat.to_string())
    }
}

/// Tokens whose bytes can be searched for.
fn tokens(n_pages: usize) -> Vec<u32> {
    (0..(n_pages * PAGE_LEN) as u32).map(|i| 0x5EC0_0000 + i).collect()
}

fn page(i: usize) -> Vec<u8> {
    format!("keys and values of page {i} ").into_bytes().into_iter().cycle().take(FORM.page_bytes).collect()
}

/// Keeps so many pages of a chat.
fn keep(me: &UserStore, chat: ChatId, n_pages: usize) {
    for i in 0..n_pages {
        assert!(me.keep_page(chat, &FORM, &tokens(i + 1), &page(i)).unwrap(), "page {i}");
    }
}

fn n_kept(me: &UserStore, chat: ChatId) -> usize {
    let kept = me.kept_tokens(chat, &FORM);
    assert_eq!(kept, tokens(kept.len() / PAGE_LEN));
    kept.len() / PAGE_LEN
}

fn contains(path: &Path, needle: &[u8]) -> bool {
    fs::read(path).unwrap().windows(needle.len()).any(|w| w == needle)
}

#[test]
fn pages_come_back_as_they_were_and_are_not_on_disk_in_clear() {
    let house = House::new();
    let me = house.ada.at(&house.store);
    let chat = chat_with(&me, &["hello"]);
    keep(&me, chat, 3);
    let path = house.file(&house.ada, chat);
    assert_eq!(house.store.kept_kv_bytes(), fs::metadata(&path).unwrap().len());
    for i in 0..3 {
        assert_eq!(me.kept_page(chat, &FORM, &tokens(i + 1)).unwrap(), page(i));
        assert!(!contains(&path, &page(i)[..16]));
        assert!(!contains(&path, &tokens(i + 1)[i * PAGE_LEN].to_le_bytes()));
    }
    // Another branch of the chat takes the place of what followed.
    let mut branch = tokens(2);
    branch[PAGE_LEN + 5] = 1;
    assert!(me.kept_page(chat, &FORM, &branch).is_none(), "other tokens before it");
    assert!(me.keep_page(chat, &FORM, &branch, &page(9)).unwrap());
    assert_eq!(me.kept_tokens(chat, &FORM), branch);
    assert_eq!(me.kept_page(chat, &FORM, &branch).unwrap(), page(9));
    assert_eq!(house.store.kept_kv_bytes(), fs::metadata(&path).unwrap().len());
    // A gap is not filled.
    assert!(!me.keep_page(chat, &FORM, &tokens(5), &page(4)).unwrap());
}

#[test]
fn what_belongs_to_another_chat_person_or_model_is_not_read() {
    let house = House::new();
    let (me, other) = (house.ada.at(&house.store), house.bob.at(&house.store));
    let (chat, second, of_bob) = (chat_with(&me, &["a"]), chat_with(&me, &["b"]), chat_with(&other, &["c"]));
    keep(&me, chat, 2);
    keep(&other, of_bob, 1);
    assert_eq!(n_kept(&other, chat), 0);
    for form in [KvForm { fingerprint: [8; 32], ..FORM }, KvForm { page_bytes: 2048, ..FORM }] {
        assert_eq!(me.kept_tokens(chat, &form), Vec::<u32>::new());
        assert!(me.kept_page(chat, &form, &tokens(1)).is_none());
    }
    // Somebody with the disk moves files about.
    let bytes = fs::read(house.file(&house.ada, chat)).unwrap();
    fs::write(house.file(&house.ada, second), &bytes).unwrap();
    fs::write(house.file(&house.bob, of_bob), &bytes).unwrap();
    assert_eq!((n_kept(&me, second), n_kept(&other, of_bob)), (0, 0));
    assert!(me.kept_page(second, &FORM, &tokens(1)).is_none());
    assert!(other.kept_page(of_bob, &FORM, &tokens(1)).is_none());
    // Another model's file is begun anew.
    let form = KvForm { fingerprint: [8; 32], ..FORM };
    assert!(me.keep_page(chat, &form, &tokens(1), &page(0)).unwrap());
    assert_eq!((n_kept(&me, chat), me.kept_tokens(chat, &form)), (0, tokens(1)));
}

#[test]
fn a_torn_or_damaged_file_counts_as_far_as_it_is_whole() {
    let house = House::new();
    let me = house.ada.at(&house.store);
    let chat = chat_with(&me, &["hello"]);
    keep(&me, chat, 3);
    let path = house.file(&house.ada, chat);
    let whole = fs::read(&path).unwrap();
    let record = (whole.len() - 48) / 3;
    for cut in [0, 10, 48, 48 + record / 2, 48 + record, 48 + 2 * record + 100, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let n_whole = cut.saturating_sub(48) / record;
        let n = n_kept(&me, chat);
        assert!(n == n_whole || n == n_whole + 1, "{cut}: {n}");
        let n_read = (1..=3).take_while(|n| me.kept_page(chat, &FORM, &tokens(*n)).is_some()).count();
        assert_eq!(n_read, n_whole, "{cut}");
    }
    for at in (0..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let n = n_kept(&me, chat);
        let n_read = (1..=n).filter(|n| me.kept_page(chat, &FORM, &tokens(*n)).is_some()).count();
        assert!(n < 3 || n_read < 3, "byte {at}");
    }
    fs::write(&path, &whole[..48 + record + 100]).unwrap();
    assert!(me.keep_page(chat, &FORM, &tokens(2), &page(1)).unwrap());
    assert_eq!((n_kept(&me, chat), me.kept_page(chat, &FORM, &tokens(2))), (2, Some(page(1))));
}

#[test]
fn it_goes_with_its_chat_and_its_person() {
    let house = House::new();
    let (me, other) = (house.ada.at(&house.store), house.bob.at(&house.store));
    let (chat, of_bob) = (chat_with(&me, &["a"]), chat_with(&other, &["c"]));
    keep(&me, chat, 2);
    keep(&other, of_bob, 2);
    me.delete_chat(chat).unwrap();
    assert!(!house.file(&house.ada, chat).exists());
    assert!(!me.keep_page(chat, &FORM, &tokens(1), &page(0)).unwrap());
    house.store.delete_user(house.bob.user.id).unwrap();
    assert!(!house.file(&house.bob, of_bob).parent().unwrap().exists());
    assert!(!other.keep_page(of_bob, &FORM, &tokens(1), &page(0)).unwrap());
    assert_eq!(house.store.kept_kv_bytes(), 0);
}

#[test]
fn the_least_recently_used_makes_room_and_one_alone_stays_within_it() {
    let house = House::new();
    let me = house.ada.at(&house.store);
    let chats = [(); 3].map(|()| chat_with(&me, &["a"]));
    keep(&me, chats[0], 2);
    let each = house.store.kept_kv_bytes();
    house.store.keep_kv(2 * each + 100).unwrap();
    keep(&me, chats[1], 2);
    assert_eq!(n_kept(&me, chats[0]), 2);
    keep(&me, chats[2], 2);
    let kept: Vec<usize> = chats.iter().map(|chat| n_kept(&me, *chat)).collect();
    assert_eq!(kept, [2, 0, 2]);
    let n = (0..9).take_while(|i| me.keep_page(chats[2], &FORM, &tokens(i + 1), &page(*i)).unwrap()).count();
    assert_eq!(n, 4, "as many as fit");
    let metrics = house.store.metrics();
    assert_eq!((metrics.kv_bytes, metrics.kv_max_bytes), (house.store.kept_kv_bytes(), 2 * each + 100));
    assert!(house.store.kept_kv_bytes() <= 2 * each + 100);
}

#[test]
fn who_does_not_ask_for_it_keeps_nothing_and_leftovers_are_swept() {
    let House { dir, store, ada, bob: _bob } = House::new();
    let me = ada.at(&store);
    let chat = chat_with(&me, &["a"]);
    keep(&me, chat, 1);
    let path = dir.path().join("kv").join(ada.user.id.to_string());
    let orphan = path.join(ChatId::new().to_string());
    fs::copy(path.join(chat.to_string()), &orphan).unwrap();
    drop(me);
    store.close().unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let me = ada.at(&store);
    assert_eq!(n_kept(&me, chat), 0, "nobody asked yet");
    store.keep_kv(ROOM).unwrap();
    assert_eq!(n_kept(&me, chat), 1);
    assert!(!orphan.exists());
    assert_eq!(store.kept_kv_bytes(), fs::metadata(path.join(chat.to_string())).unwrap().len());
    store.keep_kv(0).unwrap();
    assert!(!dir.path().join("kv").exists());
    assert!(!me.keep_page(chat, &FORM, &tokens(1), &page(0)).unwrap());
}
