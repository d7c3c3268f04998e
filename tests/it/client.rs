//! A small HTTP/1.1 client over a plain socket: sends exactly the bytes a test asks for and reads whole answers or
//! single events, with a deadline on every read.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for any byte; far above what a loaded machine needs.
const DEADLINE: Duration = Duration::from_mins(1);

/// A request being put together. `host` and `accept: application/json` are set unless the test says otherwise.
#[derive(Clone)]
pub(crate) struct Ask {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SseEvent {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

/// An open event stream.
pub(crate) struct EventStream {
    head: Answer,
    body: Body,
    text: Vec<u8>,
}

pub(crate) fn ask(method: &str, path: &str) -> Ask {
    Ask { method: method.into(), path: path.into(), headers: Vec::new(), body: None }
}

impl Ask {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }
    pub(crate) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string().into_bytes())
    }
    pub(crate) fn body(mut self, content_type: &str, body: Vec<u8>) -> Self {
        if !content_type.is_empty() {
            self = self.header("content-type", content_type);
        }
        self.body = Some(body);
        self
    }

    /// The bytes of the request.
    pub(crate) fn bytes(&self, addr: SocketAddr) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut lines = vec![format!("{} {} HTTP/1.1", self.method, self.path)];
        if !has("host") {
            lines.push(format!("host: {addr}"));
        }
        if !has("accept") {
            lines.push("accept: application/json".to_owned());
        }
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        if let Some(body) = &self.body
            && !has("transfer-encoding")
            && !has("content-length")
        {
            lines.push(format!("content-length: {}", body.len()));
        }
        let mut bytes = (lines.join("\r\n") + "\r\n\r\n").into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Sends it on a connection of its own and reads the whole answer.
    pub(crate) fn send(&self, addr: SocketAddr) -> Answer {
        raw(addr, &self.bytes(addr)).unwrap_or_else(|e| panic!("{} {}: {e}", self.method, self.path))
    }

    /// The same for a server that may be gone.
    pub(crate) fn try_send(&self, addr: SocketAddr) -> io::Result<Answer> {
        raw(addr, &self.bytes(addr))
    }

    /// Sends it and keeps the answer open as a stream of events.
    pub(crate) fn stream(&self, addr: SocketAddr) -> EventStream {
        try_stream(self, addr).unwrap()
    }
}

/// Opens a stream from a server that may be gone.
pub(crate) fn try_stream(request: &Ask, addr: SocketAddr) -> io::Result<EventStream> {
    let streaming = request.clone().header("accept", "text/event-stream");
    let (head, body) = open(addr, &streaming.bytes(addr))?;
    Ok(EventStream { head, body, text: Vec::new() })
}

/// Sends bytes as they are and reads one answer.
pub(crate) fn raw(addr: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
    let (mut answer, mut body) = open(addr, bytes)?;
    while let Some(piece) = body.piece()? {
        answer.body.extend(piece);
    }
    Ok(answer)
}

/// Connects with the deadline set.
pub(crate) fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn open(addr: SocketAddr, bytes: &[u8]) -> io::Result<(Answer, Body)> {
    let mut socket = connect(addr)?;
    // A server that refuses early may close before it has read everything; its answer counts.
    let _ = socket.write_all(bytes);
    read_head(BufReader::new(socket), bytes.starts_with(b"HEAD "))
}

/// Reads an answer's head; what follows is left in the body.
pub(crate) fn read_head(mut reader: BufReader<TcpStream>, head_only: bool) -> io::Result<(Answer, Body)> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| bad(&line))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let answer = Answer { status, headers, body: Vec::new() };
    let length = answer.header("content-length").and_then(|n| n.parse().ok());
    let kind = if head_only || matches!(status, 204 | 304) {
        Kind::Counted(0)
    } else if answer.header("transfer-encoding") == Some("chunked") {
        Kind::Chunked
    } else {
        length.map_or(Kind::ToEnd, Kind::Counted)
    };
    Ok((answer, Body { reader, kind }))
}

enum Kind {
    Counted(usize),
    Chunked,
    ToEnd,
}

/// The rest of an answer.
pub(crate) struct Body {
    reader: BufReader<TcpStream>,
    kind: Kind,
}

impl Body {
    /// The next bytes; `None` at the end. A body that breaks off is an error.
    pub(crate) fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.kind {
            Kind::Counted(0) => Ok(None),
            Kind::Counted(n) => {
                let mut piece = vec![0; n];
                self.reader.read_exact(&mut piece)?;
                self.kind = Kind::Counted(0);
                Ok(Some(piece))
            }
            Kind::ToEnd => {
                let mut piece = Vec::new();
                self.reader.read_to_end(&mut piece)?;
                self.kind = Kind::Counted(0);
                Ok(Some(piece))
            }
            Kind::Chunked => {
                let mut line = String::new();
                if self.reader.read_line(&mut line)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let n = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
                let mut piece = vec![0; n + 2];
                self.reader.read_exact(&mut piece)?;
                piece.truncate(n);
                if n == 0 {
                    self.kind = Kind::Counted(0);
                }
                Ok((n > 0).then_some(piece))
            }
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
    /// The refusal's stable word.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
    /// The answer, if it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

impl EventStream {
    pub(crate) fn head(&self) -> &Answer {
        &self.head
    }

    /// The next event; `None` when the stream ended in good order.
    pub(crate) fn next(&mut self) -> Option<SseEvent> {
        self.try_next().unwrap()
    }

    /// The same for a server that may be gone.
    pub(crate) fn try_next(&mut self) -> io::Result<Option<SseEvent>> {
        loop {
            if let Some(end) = find(&self.text, b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                if let Some(event) = parse(&block) {
                    return Ok(Some(event));
                }
                continue;
            }
            match self.body.piece()? {
                Some(piece) => self.text.extend(piece),
                None => return Ok(None),
            }
        }
    }

    /// The events up to and including the first of this kind.
    pub(crate) fn until(&mut self, kind: &str) -> Vec<SseEvent> {
        let mut events = Vec::new();
        loop {
            let event = self.next().unwrap_or_else(|| panic!("no {kind} in {events:?}"));
            events.push(event);
            if events.last().unwrap().event == kind {
                return events;
            }
        }
    }

    /// Everything to the end.
    pub(crate) fn rest(mut self) -> Vec<SseEvent> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}

fn parse(block: &str) -> Option<SseEvent> {
    let field = |name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    let data = field("data")?;
    Some(SseEvent {
        event: field("event").unwrap_or_default(),
        id: field("id").unwrap_or_default(),
        data: serde_json::from_str(&data).unwrap_or(Value::String(data)),
    })
}
