//! Files: what is made and who may read it, damaged and foreign ones, copies and bringing them back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mommygpt::domain::ChatId;
use mommygpt::store::{ApiKey, MessagePage, SessionToken, Store, StoreError, backup};
use redb::ReadableDatabase as _;

use crate::store_people::{Person, assert_sound, chat_with, person, said};

const FILE: &str = "mommygpt.redb";

/// A data directory with one person and some messages, closed.
fn furnished() -> (tempfile::TempDir, Person, ChatId) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let someone = person(&store, "a");
    let texts: Vec<String> = (0..20).map(|n| format!("message {n} {}", "x".repeat(n * 50))).collect();
    let chat = chat_with(&someone.at(&store), &texts.iter().map(String::as_str).collect::<Vec<_>>());
    store.close().unwrap();
    (dir, someone, chat)
}

fn assert_intact(store: &Store, someone: &Person, chat: ChatId) {
    assert_sound(store);
    let (page, _) = someone.at(store).messages(chat, &MessagePage { limit: 50, before: None }).unwrap();
    let whole = |(n, m): (usize, &mommygpt::domain::Message)| {
        m.content == format!("message {n} {}", "x".repeat(n * 50))
    };
    assert!(page.len() == 20 && page.iter().enumerate().all(whole));
}

/// Opens a data directory whose file is `bytes`: it works and holds everything, or it is refused as corrupt and left.
fn assert_works_or_refused(bytes: &[u8], someone: &Person, chat: ChatId, what: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    fs::write(&path, bytes).unwrap();
    match Store::open(dir.path()) {
        Ok(store) => {
            // The number outside the database is new here, so the old session is void; the words are still there.
            let token = SessionToken::new();
            let key = store.unlock_with_password(someone.user.id, &someone.wrap_key).unwrap();
            store.create_session(someone.user.id, &key, &token, "x").unwrap();
            let me = store.as_user(&token).unwrap().unwrap();
            let (page, _) = me.messages(chat, &MessagePage { limit: 50, before: None }).unwrap();
            assert_eq!(page.len(), 20, "{what}");
            assert_sound(&store);
            true
        }
        Err(StoreError::Corrupt(why)) => {
            assert!(fs::read(&path).unwrap() == bytes, "{what}: refused ({why}), but the file was changed");
            assert!(StoreError::Corrupt(why).to_string().contains("mommygpt restore"));
            false
        }
        Err(e) => panic!("{what}: {e}"),
    }
}

#[test]
fn each_damaged_byte_of_the_header_is_survived_or_refused() {
    let (dir, someone, chat) = furnished();
    let good = fs::read(dir.path().join(FILE)).unwrap();
    let n_refused = (0..256)
        .filter(|&at| {
            let mut bad = good.clone();
            bad[at] ^= 0xFF;
            !assert_works_or_refused(&bad, &someone, chat, &format!("byte {at}"))
        })
        .count();
    assert!(n_refused > 40, "{n_refused}");
}

#[test]
fn damaged_pages_truncated_and_foreign_files_are_refused_and_left() {
    let (dir, someone, chat) = furnished();
    let good = fs::read(dir.path().join(FILE)).unwrap();
    let mut n_refused = 0;
    for page in 0..good.len() / 4096 {
        // At the start of some pages, and somewhere within the others.
        let at = page * 4096 + [0, 7, (page * 997) % 4096][page % 3];
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let survived = assert_works_or_refused(&bad, &someone, chat, &format!("byte {at}"));
        n_refused += usize::from(!survived);
    }
    assert!(n_refused > 10, "{n_refused} of {} pages", good.len() / 4096);
    for len in [1, 8, 9, 63, 320, 4095, 4096, 8192, good.len() / 2, good.len() - 4096, good.len() - 1] {
        assert_works_or_refused(&good[..len], &someone, chat, &format!("cut at {len}"));
    }
    let foreign = [Vec::new(), b"x".to_vec(), b"SQLite format 3\0".to_vec(), vec![0; 1 << 20]];
    for bytes in foreign {
        assert!(!assert_works_or_refused(&bytes, &someone, chat, "foreign"));
    }
    let mut longer = good.clone();
    longer.resize(good.len() + 4096, 0xAB);
    assert_works_or_refused(&longer, &someone, chat, "extended");
    let other = tempfile::tempdir().unwrap();
    drop(redb::Database::create(other.path().join(FILE)).unwrap());
    let bytes = fs::read(other.path().join(FILE)).unwrap();
    assert!(!assert_works_or_refused(&bytes, &someone, chat, "another program's database"));
}

#[test]
fn a_newer_schema_and_a_directory_in_its_place_are_refused_and_left() {
    let (dir, ..) = furnished();
    let path = dir.path().join(FILE);
    let meta: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("meta");
    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(meta).unwrap().insert(b"schema".as_slice(), 7u32.to_le_bytes().as_slice()).unwrap();
    txn.commit().unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    assert_eq!(Store::open(dir.path()).err(), Some(StoreError::Newer { found: 7, known: 2 }));
    assert!(backup::check(dir.path()).is_err());
    assert!(fs::read(&path).unwrap() == before);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(FILE)).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Corrupt(_))));
}

#[test]
fn a_database_of_the_first_schema_goes_on_as_one_of_the_second() {
    let (dir, someone, chat) = furnished();
    let path = dir.path().join(FILE);
    let table = |name| redb::TableDefinition::<&[u8], &[u8]>::new(name);
    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(table("meta"))
        .unwrap()
        .insert(b"schema".as_slice(), 1u32.to_le_bytes().as_slice())
        .unwrap();
    assert!(txn.delete_table(table("arrivals")).unwrap());
    txn.commit().unwrap();
    drop(db);
    let store = Store::open(dir.path()).unwrap();
    let before = someone.at(&store).newest_message(chat).unwrap();
    assert!(before.is_some());
    assert_sound(&store);
    store.close().unwrap();
    let db = redb::Database::open(&path).unwrap();
    let meta = db.begin_read().unwrap().open_table(table("meta")).unwrap();
    assert_eq!(meta.get(b"schema".as_slice()).unwrap().unwrap().value(), 2u32.to_le_bytes());
}

#[test]
fn the_files_are_their_owners_and_one_process_has_them() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("deep/data");
    let store = Store::open(&dir).unwrap();
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(Store::open(&dir).err(), Some(StoreError::InUse));
    assert_eq!(backup::check(&dir).err(), Some(StoreError::InUse));
    store.close().unwrap();
    assert!(matches!(store.n_users(), Err(StoreError::Unhealthy(_))));
    drop(Store::open(&dir).unwrap());
    assert_eq!(backup::check(&dir).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_backup_under_load_holds_all_acknowledged_before_it_and_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("live")).unwrap();
    let people: Vec<Person> = (0..3).map(|n| person(&store, &format!("p{n}"))).collect();
    let chats: Vec<ChatId> = people.iter().map(|p| chat_with(&p.at(&store), &["zero"])).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let n_written = [const { std::sync::atomic::AtomicUsize::new(1) }; 3];
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|s| {
        for ((who, chat), n) in people.iter().zip(&chats).zip(&n_written) {
            let (me, stop) = (who.at(&store), &stop);
            s.spawn(move || {
                while !stop.load(order) {
                    me.append_user_message(*chat, said("more")).unwrap();
                    n.fetch_add(1, order);
                }
            });
        }
        for round in 0..4 {
            let before: Vec<usize> = n_written.iter().map(|n| n.load(order)).collect();
            let file = dir.path().join(format!("backup-{round}"));
            let report = store.backup(&file).unwrap();
            assert_eq!(report.bytes, fs::metadata(&file).unwrap().len());
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let after: Vec<usize> = n_written.iter().map(|n| n.load(order)).collect();
            let place = dir.path().join(format!("restored-{round}"));
            assert_eq!(backup::restore(&place, &file).unwrap().kept, None);
            let restored = Store::open(&place).unwrap();
            assert_sound(&restored);
            let total = restored.check().unwrap().n_messages as usize;
            // Each writer may be one message ahead of its count.
            assert!(before.iter().sum::<usize>() <= total && total <= after.iter().sum::<usize>() + 3);
        }
        stop.store(true, order);
    });
    assert!(
        matches!(store.backup(&dir.path().join("backup-0")), Err(StoreError::Io(_))),
        "no backup is overwritten"
    );
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n.to_string_lossy().contains("partial")));
}

#[test]
fn a_restore_keeps_the_words_voids_sessions_and_keys_and_keeps_the_old_database() {
    let (dir, someone, chat) = furnished();
    let store = Store::open(dir.path()).unwrap();
    let key = ApiKey::new();
    store.create_api_key(someone.user.id, &someone.data_key, &key, "laptop").unwrap();
    let file = dir.path().join("copy");
    store.backup(&file).unwrap();
    chat_with(&someone.at(&store), &["after the backup"]);
    assert_eq!(backup::restore(dir.path(), &file).err(), Some(StoreError::InUse));
    store.close().unwrap();
    let report = backup::restore(dir.path(), &file).unwrap();
    assert!(report.kept.unwrap().exists());

    let store = Store::open(dir.path()).unwrap();
    assert!(store.as_user(&someone.token).unwrap().is_none());
    assert!(store.as_user_by_key(&key).unwrap().is_none());
    assert!(store.sessions(someone.user.id).unwrap().is_empty());
    assert!(!store.api_keys(someone.user.id).unwrap()[0].usable);
    let data_key = store.unlock_with_password(someone.user.id, &someone.wrap_key).unwrap();
    let again = Person { token: SessionToken::new(), data_key, ..someone };
    store.create_session(again.user.id, &again.data_key, &again.token, "x").unwrap();
    assert_intact(&store, &again, chat);
    assert!(again.at(&store).search("after the backup", 5).unwrap().is_empty());
    // A backup of a restored store says its own count, not the old one.
    let second = dir.path().join("copy-2");
    store.backup(&second).unwrap();
    store.close().unwrap();
    backup::restore(dir.path(), &second).unwrap();
}

#[test]
fn a_damaged_backup_is_refused_before_the_live_database_is_touched() {
    let (dir, someone, chat) = furnished();
    let store = Store::open(dir.path()).unwrap();
    let file = dir.path().join("copy");
    store.backup(&file).unwrap();
    store.close().unwrap();
    let good = fs::read(&file).unwrap();
    let live = fs::read(dir.path().join(FILE)).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let root = good.windows(13).position(|w| w == b"a@example.org").unwrap();
    let bad = [good[..good.len() / 2].to_vec(), Vec::new(), b"garbage".to_vec(), flipped(0), flipped(root)];
    for bytes in bad {
        fs::write(&file, &bytes).unwrap();
        assert!(matches!(backup::restore(dir.path(), &file), Err(StoreError::Corrupt(_))), "{}", bytes.len());
        assert!(fs::read(dir.path().join(FILE)).unwrap() == live);
    }
    assert!(matches!(backup::restore(dir.path(), &dir.path().join("none")), Err(StoreError::Io(_))));
    let store = Store::open(dir.path()).unwrap();
    assert_intact(&store, &someone, chat);
}
