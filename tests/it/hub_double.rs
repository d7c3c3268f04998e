//! A server on this machine that plays the hub: listings, redirects to a store, ranges, and whatever goes wrong.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What happens to one request for a file's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// A status with headers, such as `retry-after: 1`.
    Status(u16, &'static str),
    /// One byte is another.
    Flip,
    /// The whole file, whatever was asked for.
    IgnoreRange,
    /// More than was announced.
    TooLong,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

#[derive(Default)]
struct State {
    files: Vec<(String, Vec<u8>)>,
    faults: VecDeque<Fault>,
    listing_faults: VecDeque<Fault>,
    seen: Vec<Seen>,
    token: Option<String>,
}

/// The double; it ends with the test.
pub(crate) struct Hub {
    state: Arc<Mutex<State>>,
    port: u16,
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

impl Hub {
    /// Has one repository, `ada/tiny-GGUF`, with these files.
    pub(crate) fn with(files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &state, port));
            }
        });
        Self { state, port }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Answers 401 to whoever does not bring this token.
    pub(crate) fn wants(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    pub(crate) fn faults(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults.extend(faults.iter().cloned());
    }

    pub(crate) fn listing_faults(&self, faults: &[Fault]) {
        self.state.lock().unwrap().listing_faults.extend(faults.iter().cloned());
    }

    /// Everything that was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The ranges that were asked of the store.
    pub(crate) fn ranges(&self) -> Vec<Option<String>> {
        self.seen().into_iter().filter(|s| s.path.starts_with("/store/")).map(|s| s.range).collect()
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>, port: u16) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let path = head[0].split(' ').nth(1).unwrap().to_owned();
    let header = |name: &str| {
        head[1..].iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let seen = Seen { path: path.clone(), range: header("range"), authorization: header("authorization") };
    let mut state = state.lock().unwrap();
    state.seen.push(seen.clone());
    let authorized = state.token.as_ref().is_none_or(|t| seen.authorization == Some(format!("Bearer {t}")));
    let reply = if let Some(name) = path.strip_prefix("/store/") {
        let fault = state.faults.pop_front();
        let file = state.files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.clone());
        file.map_or_else(
            || plain(404, "", b"no"),
            |bytes| stored(bytes, seen.range.as_deref(), fault.as_ref()),
        )
    } else if !authorized {
        plain(401, "", b"{}")
    } else if path == "/api/models/ada/tiny-GGUF/revision/main?blobs=true" {
        match state.listing_faults.pop_front() {
            Some(Fault::Status(status, headers)) => plain(status, headers, b"slow down"),
            _ => {
                plain(200, "content-type: application/json\r\n", listing(&state.files).to_string().as_bytes())
            }
        }
    } else if let Some(name) = path.strip_prefix(&format!("/ada/tiny-GGUF/resolve/{COMMIT}/")) {
        // To another name of this machine, as the hub redirects to its store.
        plain(302, &format!("location: http://localhost:{port}/store/{name}\r\n"), b"")
    } else {
        plain(404, "", b"{}")
    };
    drop(state);
    let mut stream = stream;
    let _ = stream.write_all(&reply);
}

fn listing(files: &[(String, Vec<u8>)]) -> Value {
    let siblings: Vec<Value> = files
        .iter()
        .map(|(name, bytes)| {
            json!({"rfilename": name, "size": bytes.len(), "blobId": "x",
                "lfs": {"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134}})
        })
        .collect();
    json!({"_id": "x", "id": "ada/tiny-GGUF", "sha": COMMIT, "siblings": siblings,
        "cardData": {"license": "apache-2.0"}})
}

fn plain(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    out.extend(body);
    out
}

fn stored(mut bytes: Vec<u8>, range: Option<&str>, fault: Option<&Fault>) -> Vec<u8> {
    let total = bytes.len();
    let from: usize = range
        .filter(|_| !matches!(fault, Some(Fault::IgnoreRange)))
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    let (status, headers) = if from > 0 {
        (206, format!("content-range: bytes {from}-{}/{total}\r\n", total - 1))
    } else {
        (200, String::new())
    };
    match fault {
        Some(Fault::Status(status, headers)) => plain(*status, headers, b"no"),
        Some(Fault::CutAfter(n)) => {
            let whole = plain(status, &headers, &bytes[from..]);
            let n_head = whole.len() - (total - from);
            whole[..(n_head + n).min(whole.len())].to_vec()
        }
        Some(Fault::Flip) => {
            bytes[total / 2] ^= 1;
            plain(status, &headers, &bytes[from..])
        }
        Some(Fault::TooLong) => {
            bytes.extend([0; 1000]);
            plain(status, &headers, &bytes[from..])
        }
        None | Some(Fault::IgnoreRange) => plain(status, &headers, &bytes[from..]),
    }
}
