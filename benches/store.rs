//! The store's numbers, beside those of the disk under it: `cargo bench --bench store -- [--dir D] [--full]
//! [writes|pages|people]...`.
//!
//! Without `--full` everything is small, so that `cargo test --benches` is a quick smoke test. With it: 64 writers for
//! several seconds, a chat of 100,000 messages, and 50,000 people with 20 chats each. The folder should lie on the
//! disk that will hold the data; a folder in memory measures nothing.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod person;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mommygpt::domain::{ChatId, MessageId, MessageText, Title};
use mommygpt::store::{
    ChatPage, ImportChat, ImportMessage, ImportTree, MessagePage, NewMessage, Parent, SessionToken, Store,
    UserStore,
};

use person::person;

/// How much is measured.
struct Sizes {
    n_writers: usize,
    write_for: Duration,
    n_messages: usize,
    n_people: usize,
    n_chats: usize,
    n_reads: usize,
}

const SMOKE: Sizes = Sizes {
    n_writers: 8,
    write_for: Duration::from_millis(200),
    n_messages: 500,
    n_people: 20,
    n_chats: 5,
    n_reads: 200,
};
const FULL: Sizes = Sizes {
    n_writers: 64,
    write_for: Duration::from_secs(10),
    n_messages: 100_000,
    n_people: 50_000,
    n_chats: 20,
    n_reads: 20_000,
};

/// One part of the benchmark, in a folder of its own.
type Part = fn(&Path, &Sizes);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let full = args.iter().any(|a| a == "--full");
    let dir = args
        .iter()
        .position(|a| a == "--dir")
        .and_then(|i| args.get(i + 1))
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let sizes = if full { FULL } else { SMOKE };
    println!("store: {} sizes, in {}", if full { "full" } else { "smoke" }, dir.display());
    let dir = tempfile::tempdir_in(dir).expect("a folder to measure in");
    let parts: [(&str, Part); 3] = [("writes", writes), ("pages", pages), ("people", people)];
    let named = |name: &str| args.iter().any(|a| a == name);
    let all = !parts.iter().any(|(name, _)| named(name));
    for (name, part) in parts.into_iter().filter(|(name, _)| all || named(name)) {
        part(&dir.path().join(name), &sizes);
    }
}

fn row(what: &str, value: &str) {
    println!("{what:<58} {value:>24}");
}

/// The `q`th part of sorted times.
fn at(sorted: &[Duration], q: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * q) as usize]
}

fn timed<T>(n: usize, mut f: impl FnMut(usize) -> T) -> Vec<Duration> {
    for i in 0..n / 10 {
        std::hint::black_box(f(i));
    }
    let mut times: Vec<Duration> = (0..n)
        .map(|i| {
            let start = Instant::now();
            std::hint::black_box(f(i));
            start.elapsed()
        })
        .collect();
    times.sort();
    times
}

/// How often this disk makes one page durable in a second: what one writer without batches could reach at most.
fn fsync_rate(dir: &Path, lasts: Duration) -> f64 {
    let mut file = File::create(dir.join("probe")).expect("a file");
    file.write_all(&[0; 4096]).and_then(|()| file.sync_all()).expect("a page");
    let (start, mut n) = (Instant::now(), 0);
    while start.elapsed() < lasts {
        file.write_all_at(&[n as u8; 4096], 0).expect("a write");
        file.sync_data().expect("a sync");
        n += 1;
    }
    f64::from(n) / start.elapsed().as_secs_f64()
}

fn writes(dir: &Path, sizes: &Sizes) {
    let store = Store::open(dir).expect("a store");
    let people: Vec<(UserStore, ChatId)> = (0..sizes.n_writers)
        .map(|n| {
            let me = person(&store, n).1;
            let chat = me.create_chat(None, None).expect("a chat").0.id;
            (me, chat)
        })
        .collect();
    let before = fsync_rate(dir, sizes.write_for / 4);
    let (stop, n_acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let commits = store.metrics().n_commits;
    let start = Instant::now();
    let mut waits: Vec<Duration> = std::thread::scope(|s| {
        let threads: Vec<_> = people
            .iter()
            .map(|(me, chat)| {
                let (stop, n_acknowledged) = (&stop, &n_acknowledged);
                s.spawn(move || {
                    let mut waits = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        me.append_user_message(*chat, message()).expect("an acknowledged message");
                        waits.push(start.elapsed());
                        n_acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    waits
                })
            })
            .collect();
        std::thread::park_timeout(sizes.write_for);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|t| t.join().expect("a writer")).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    let n = n_acknowledged.load(Ordering::Relaxed);
    let commits = store.metrics().n_commits - commits;
    let after = fsync_rate(dir, sizes.write_for / 4);
    waits.sort();
    let disk = f64::midpoint(before, after);
    row("disk: syncs/s of one 4 KiB page, before and after", &format!("{before:.0} and {after:.0}"));
    row(
        &format!("disk's rate x {} writers", sizes.n_writers),
        &format!("{:.0}/s", disk * sizes.n_writers as f64),
    );
    let name = format!("acknowledged messages, {} writers", sizes.n_writers);
    row(&name, &format!("{:.0}/s", n as f64 / seconds));
    row(
        "  messages per commit, commits/s",
        &format!("{:.1}, {:.0}", n as f64 / commits as f64, commits as f64 / seconds),
    );
    row(
        "  wait of one writer, p50 and p99",
        &format!("{:.1?} and {:.1?}", at(&waits, 0.5), at(&waits, 0.99)),
    );
}

fn message() -> NewMessage {
    let content = "I had a bad day at school and nobody wanted to sit with me at lunch.".to_owned();
    let content = MessageText::parse(content).expect("a text");
    NewMessage { id: MessageId::new(), parent: Parent::Newest, content, safety: None }
}

fn chat_of(me: &UserStore, n_messages: usize) -> ImportChat {
    let now = me.user().expect("a user").created_at;
    let message = |n: usize| ImportMessage {
        id: None,
        parent: n.checked_sub(1),
        content: format!("message {n}: I had a bad day at school and nobody wanted to sit with me at lunch."),
        is_user: n.is_multiple_of(2),
        created_at: now,
        finish_reason: None,
    };
    ImportChat {
        id: None,
        title: Title::cut("A bad day"),
        created_at: now,
        updated_at: now,
        pinned: false,
        archived: false,
        messages: (0..n_messages).map(message).collect(),
    }
}

fn pages(dir: &Path, sizes: &Sizes) {
    let store = Store::open(dir).expect("a store");
    let (token, me) = person(&store, 0);
    let tree = ImportTree { chats: vec![chat_of(&me, sizes.n_messages)], memories: Vec::new() };
    me.import(tree).expect("an import");
    let chat =
        me.chats(&ChatPage { limit: 1, cursor: None, include_archived: true }).expect("a list").0[0].id;
    let newest = MessagePage { limit: 50, before: None };
    let times = timed(sizes.n_reads, |_| me.messages(chat, &newest).expect("a page"));
    let name = format!("newest page of 50 from {} messages, p50 and p99", sizes.n_messages);
    row(&name, &format!("{:.0?} and {:.0?}", at(&times, 0.5), at(&times, 0.99)));
    let mut next = None;
    let times = timed(sizes.n_reads.min(sizes.n_messages / 50), |_| {
        next = me.messages(chat, &MessagePage { limit: 50, before: next.take() }).expect("a page").1;
    });
    row(
        "  paging back through all of it, p50 and p99",
        &format!("{:.0?} and {:.0?}", at(&times, 0.5), at(&times, 0.99)),
    );
    let start = Instant::now();
    let hits = me.search(&format!("message {}:", sizes.n_messages / 2), 10).expect("a search").len();
    row(&format!("  search to the middle, {hits} hit"), &format!("{:.0?}", start.elapsed()));
    // A killed process never closes its file: a copy of the file in use is what it would leave.
    let crashed = dir.join("crashed");
    std::fs::create_dir(&crashed).expect("a folder");
    for name in ["mommygpt.redb", "epoch"] {
        std::fs::copy(dir.join(name), crashed.join(name)).expect("a copy");
    }
    let start = Instant::now();
    let repaired = Store::open(&crashed).expect("a store");
    row("  opening it after a kill", &format!("{:.0?}", start.elapsed()));
    assert!(repaired.as_user(&token).expect("a read").is_some());
}

fn people(dir: &Path, sizes: &Sizes) {
    let store = Store::open(dir).expect("a store");
    let next = AtomicUsize::new(0);
    // Many at once, because each account waits for its sync.
    let tokens: Vec<SessionToken> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                let (store, next) = (&store, &next);
                s.spawn(move || {
                    let mut tokens = Vec::new();
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= sizes.n_people {
                            return tokens;
                        }
                        let (token, me) = person(store, n);
                        let chats = (0..sizes.n_chats).map(|_| chat_of(&me, 2)).collect();
                        me.import(ImportTree { chats, memories: Vec::new() }).expect("an import");
                        tokens.push(token);
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().expect("a thread")).collect()
    });
    store.close().expect("a clean end");
    drop(store);
    let start = Instant::now();
    let store = Store::open(dir).expect("a store");
    row(
        &format!("opening {} people x {} chats", sizes.n_people, sizes.n_chats),
        &format!("{:.0?}", start.elapsed()),
    );
    row("  size of the file", &format!("{:.1} MiB", store.metrics().file_bytes as f64 / f64::from(1 << 20)));
    let page = ChatPage { limit: 50, cursor: None, include_archived: true };
    let times = timed(sizes.n_reads, |n| {
        // 7919 is prime to the sizes, so this visits everybody in no order.
        let me = store.as_user(&tokens[n * 7919 % tokens.len()]).expect("a read").expect("a session");
        me.chats(&page).expect("a list").0.len()
    });
    let found = format!("{:.0?} and {:.0?}", at(&times, 0.5), at(&times, 0.99));
    row("  session and chat list of anybody, p50 and p99", &found);
}
