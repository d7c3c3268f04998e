//! `kill -9` at any moment loses nothing that was acknowledged.
//!
//! Several clients write to a real server and note every acknowledgement they saw; the server is killed at a random
//! moment and started again over the same data. What was noted must be there, whole and once; what was not noted may be
//! there or not, but never half. This proves the order of our writes; that the disk keeps them is proved elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::app::new_id;
use crate::client::{ask, try_stream};
use crate::program::{Program, Server};

const ROUNDS: u64 = 50;
const WRITERS: usize = 3;

/// What one client saw acknowledged: a message's text by its id, and whole replies by theirs.
#[derive(Default)]
struct Journal {
    chats: BTreeSet<String>,
    sent: BTreeMap<String, String>,
    messages: BTreeSet<String>,
    replies: BTreeMap<String, Value>,
}

/// A small generator for delays; the seed is printed when a round fails.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// From 1 ms to 400 ms, as many short ones as long ones.
    fn delay(&mut self) -> Duration {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(0.001 * 400_f64.powf(unit))
    }
}

#[test]
fn fifty_kills_while_writing_and_streaming_lose_nothing_acknowledged() {
    let program = Program::new();
    let journal = Arc::new(Mutex::new(Journal::default()));
    let server = program.serve(&[]);
    let form = json!({"email": "ada@example.org", "password": "correct horse battery staple"});
    let (status, answer) = server.post("/api/auth/signup", &form);
    assert_eq!(status, 201, "{answer}");
    let token = answer["session_token"].as_str().unwrap().to_owned();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut server = server;
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let (acknowledged, heard) = mpsc::channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (addr, token, journal, stop) =
                    (address(&server), token.clone(), journal.clone(), stop.clone());
                let acknowledged = acknowledged.clone();
                std::thread::spawn(move || write(addr, &token, &journal, &stop, &acknowledged))
            })
            .collect();
        let delay = random.delay();
        // Every other round ends among acknowledgements; the rest may end before the first one.
        if round % 2 == 0 {
            heard.recv_timeout(Duration::from_mins(1)).unwrap();
        }
        let kill_at = Instant::now() + delay;
        while Instant::now() < kill_at {
            std::thread::park_timeout(kill_at.saturating_duration_since(Instant::now()));
        }
        drop(server); // SIGKILL
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        server = program.serve(&[]);
        verify(address(&server), &token, &journal.lock().unwrap(), round, delay);
    }
    let journal = journal.lock().unwrap();
    let n_acknowledged = journal.messages.len() + journal.replies.len();
    assert!(
        n_acknowledged >= ROUNDS as usize / 2,
        "only {n_acknowledged} acknowledgements: nothing was tested"
    );
    assert_eq!(server.stop("-TERM").0, 0);
    let checked = program.good(&["check"], "");
    assert!(!checked.stdout.is_empty(), "{checked:?}");
}

fn address(server: &Server) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.port().parse().unwrap()))
}

/// Makes a chat and writes into it until the server is gone.
fn write(
    addr: SocketAddr,
    token: &str,
    journal: &Mutex<Journal>,
    stop: &AtomicBool,
    acknowledged: &mpsc::Sender<()>,
) {
    let chat = new_id();
    let made = ask("POST", "/api/chats").bearer(token).json(&json!({"id": chat})).try_send(addr);
    if !made.is_ok_and(|a| a.status == 201) {
        return;
    }
    journal.lock().unwrap().chats.insert(chat.clone());
    while !stop.load(Ordering::Relaxed) {
        let (id, content) = (new_id(), format!("I had a day like this: {}", new_id()));
        journal.lock().unwrap().sent.insert(id.clone(), content.clone());
        let request = ask("POST", &format!("/api/chats/{chat}/messages"))
            .bearer(token)
            .json(&json!({"id": id, "content": content}));
        let Ok(mut events) = try_stream(&request, addr) else { return };
        while let Ok(Some(event)) = events.try_next() {
            let mut journal = journal.lock().unwrap();
            match event.event.as_str() {
                // The first byte of the answer comes after the message is durable.
                "message" => {
                    journal.messages.insert(id.clone());
                    // Nobody listens once the round's delay runs.
                    let _ = acknowledged.send(());
                }
                "done" => {
                    journal.replies.insert(event.data["id"].as_str().unwrap().to_owned(), event.data);
                }
                _ => {}
            }
        }
    }
}

fn verify(addr: SocketAddr, token: &str, journal: &Journal, round: u64, delay: Duration) {
    let what = format!("round {round}, killed after {delay:?}");
    let export = ask("GET", "/api/export").bearer(token).send(addr).expect(200).json();
    let chats = export["chats"].as_array().unwrap();
    let ids: BTreeSet<&str> = chats.iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), chats.len(), "{what}: a chat twice");
    for chat in &journal.chats {
        assert!(ids.contains(chat.as_str()), "{what}: chat {chat} is lost");
    }
    let mut stored = BTreeMap::new();
    for message in chats.iter().flat_map(|c| c["messages"].as_array().unwrap()) {
        let id = message["id"].as_str().unwrap();
        assert!(stored.insert(id, message).is_none(), "{what}: message {id} twice");
    }
    for id in &journal.messages {
        assert!(stored.contains_key(id.as_str()), "{what}: message {id} is lost");
    }
    for (id, reply) in &journal.replies {
        assert_eq!(stored.get(id.as_str()), Some(&reply), "{what}: reply {id}");
    }
    for (id, message) in &stored {
        if message["is_user"] == true {
            assert_eq!(
                journal.sent.get(*id).map(|c| json!(c)).as_ref(),
                Some(&message["content"]),
                "{what}: {id}"
            );
        } else {
            assert!(!message["finish_reason"].is_null(), "{what}: reply {id} is left open");
            let parent = message["parent_id"].as_str().unwrap();
            assert!(stored.contains_key(parent), "{what}: reply {id} without its message");
        }
    }
}
