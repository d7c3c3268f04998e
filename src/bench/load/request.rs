//! One request over one connection, with the times at which its answer came.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::stream::{Said, Stream, error_of, shortened};
use super::{Exchange, LoadError, Plan};

/// An answer that is no stream is read so far: for its error message.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// How long a server may take to accept a connection and to list its models.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// One turn of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What was said.
    pub text: String,
}

/// A server, and how it is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// As it was named, for messages.
    pub url: String,
    /// `host:port`.
    authority: String,
    /// Before `/v1`.
    base_path: String,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
    /// The model's id in requests.
    pub model: Option<String>,
}

impl Target {
    /// Reads `http://host:port`, with or without `/v1` behind it.
    ///
    /// # Errors
    /// [`LoadError::BadUrl`].
    pub fn parse(url: &str) -> Result<Self, LoadError> {
        let bad = |problem: &str| LoadError::BadUrl { url: url.to_owned(), problem: problem.to_owned() };
        let Some(rest) = url.strip_prefix("http://") else {
            return Err(bad(if url.starts_with("https://") {
                "only http:// is spoken here; measure behind the proxy, on the server's own port"
            } else {
                "give an address such as http://127.0.0.1:4467"
            }));
        };
        let (authority, path) =
            rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let parsed: Option<hyper::http::uri::Authority> = authority.parse().ok();
        // A port that is none is read as a part of the name.
        let is_named = parsed.as_ref().is_some_and(|a| {
            let name = a.host().trim_start_matches('[').trim_end_matches(']');
            !name.is_empty() && (a.port().is_some() || a.as_str() == a.host()) && !authority.contains('@')
        });
        let Some(parsed) = parsed.filter(|_| is_named) else {
            return Err(bad("give an address such as http://127.0.0.1:4467"));
        };
        let authority =
            if parsed.port_u16().is_some() { authority.to_owned() } else { format!("{}:80", parsed.host()) };
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix("v1").unwrap_or(path).trim_end_matches('/');
        let base_path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self { url: url.to_owned(), authority, base_path, api_key: None, model: None })
    }

    async fn connect(&self) -> Result<http1::SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|e| e.to_string())?;
        // Small requests must not wait for each other's acknowledgement.
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        // It ends with its sender; its errors come through the response.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_path))
            .header("host", &self.authority)
            .header("content-type", "application/json");
        if let Some(key) = &self.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request.body(Full::new(Bytes::from(body))).map_err(|e| e.to_string())
    }

    /// Asks which models answer there; also shows that somebody does.
    ///
    /// # Errors
    /// [`LoadError::Unreachable`], [`LoadError::Refused`].
    pub async fn models(&self) -> Result<Vec<String>, LoadError> {
        let unreachable = |problem| LoadError::Unreachable { url: self.url.clone(), problem };
        let asked = async {
            let mut sender = self.connect().await.map_err(unreachable)?;
            let request = self.request("GET", "/v1/models", Vec::new()).map_err(unreachable)?;
            sender.send_request(request).await.map_err(|e| unreachable(e.to_string()))
        };
        let Ok(response) = tokio::time::timeout(GREETING_LIMIT, asked).await else {
            return Err(unreachable(format!("no answer within {} s", GREETING_LIMIT.as_secs())));
        };
        let response = response?;
        let refused = |problem| LoadError::Refused { url: self.url.clone(), problem };
        if response.status() != StatusCode::OK {
            return Err(refused(format!("/v1/models: {}", refusal(response).await)));
        }
        let body = response.into_body().collect().await.map_err(|e| refused(e.to_string()))?.to_bytes();
        let list: Value = serde_json::from_slice(&body).map_err(|_| {
            refused("/v1/models: the answer is no JSON; this server does not speak OpenAI's API".into())
        })?;
        let ids = list["data"].as_array().into_iter().flatten().filter_map(|m| m["id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }
}

/// Status and message of an answer that is none.
async fn refusal(response: Response<Incoming>) -> String {
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > MAX_ERROR_BYTES {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let message =
        serde_json::from_str(&text).ok().and_then(|v| error_of(&v)).unwrap_or_else(|| shortened(&text));
    format!("{status}: {message}")
}

/// Sends one request and reads its answer to the end.
pub(super) async fn exchange(target: &Target, turns: &[Turn], plan: &Plan, start: Instant) -> Exchange {
    let mut exchange = Exchange::default();
    let asked = ask(target, turns, plan, start, &mut exchange);
    let outcome = tokio::time::timeout(plan.timeout, asked).await;
    exchange.error = match outcome {
        Ok(Ok(())) if exchange.ttft_ms.is_none() => Some("the answer has no text".into()),
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some(format!("not answered within {} s", plan.timeout.as_secs())),
    };
    if exchange.sent_s == 0.0 {
        exchange.sent_s = start.elapsed().as_secs_f64();
    }
    exchange
}

async fn ask(
    target: &Target,
    turns: &[Turn],
    plan: &Plan,
    start: Instant,
    exchange: &mut Exchange,
) -> Result<(), String> {
    let messages: Vec<Value> = turns.iter().map(|t| json!({"role": t.role, "content": t.text})).collect();
    let mut body = json!({
        "messages": messages,
        "max_tokens": plan.max_tokens,
        "temperature": 0,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if let Some(model) = &target.model {
        body["model"] = json!(model);
    }
    if plan.ignore_eos {
        body["ignore_eos"] = json!(true);
    }
    let mut sender = target.connect().await?;
    let request = target.request("POST", "/v1/chat/completions", body.to_string().into_bytes())?;
    let sent = Instant::now();
    exchange.sent_s = sent.duration_since(start).as_secs_f64();
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let mut answer = Answer { sent, chunks: Vec::new(), usage: None, ended: false };
    let read = answer.read(response.into_body(), exchange).await;
    answer.finish(exchange);
    read
}

/// An answer while it comes.
struct Answer {
    sent: Instant,
    /// When each chunk of text came, and its length.
    chunks: Vec<(Instant, usize)>,
    usage: Option<(usize, usize)>,
    ended: bool,
}

impl Answer {
    async fn read(&mut self, mut body: Incoming, exchange: &mut Exchange) -> Result<(), String> {
        let mut stream = Stream::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| format!("the stream broke: {e}"))?;
            let Some(data) = frame.data_ref() else { continue };
            let now = Instant::now();
            for said in stream.push(data) {
                match said {
                    Said::Text(text) => {
                        self.chunks.push((now, text.chars().count()));
                        exchange.text.push_str(&text);
                    }
                    Said::Usage { n_input, n_output } => self.usage = Some((n_input, n_output)),
                    Said::Timings(timings) => exchange.server = Some(timings),
                    Said::End => self.ended = true,
                    Said::Error(message) => return Err(format!("in the stream: {message}")),
                }
            }
        }
        if self.ended { Ok(()) } else { Err("the stream ended without [DONE]".into()) }
    }

    /// Turns chunks into times of tokens.
    fn finish(&self, exchange: &mut Exchange) {
        let ms = |at: Instant| at.duration_since(self.sent).as_secs_f64() * 1e3;
        let (n_input, n_output) = self.usage.unwrap_or((0, self.chunks.len()));
        exchange.n_input = n_input;
        exchange.n_output = n_output;
        exchange.ttft_ms = self.chunks.first().map(|c| ms(c.0));
        exchange.e2e_ms = self.chunks.last().map_or(0.0, |c| ms(c.0));
        let times: Vec<(f64, usize)> = self.chunks.iter().map(|c| (ms(c.0), c.1)).collect();
        exchange.gaps_ms = gaps(&times, n_output);
    }
}

/// Milliseconds between tokens, from the times of chunks and their lengths in characters. Where the server says that
/// there were more tokens than chunks, a chunk has as many of them as its length says, and they share its gap.
fn gaps(chunks: &[(f64, usize)], n_tokens: usize) -> Vec<f64> {
    let n_chars: usize = chunks.iter().map(|c| c.1).sum();
    let tokens_of = |chars: usize| {
        if n_tokens <= chunks.len() || n_chars == 0 {
            return 1;
        }
        ((n_tokens as f64 * chars as f64 / n_chars as f64).round() as usize).max(1)
    };
    let mut gaps = Vec::with_capacity(n_tokens);
    for pair in chunks.windows(2) {
        let n = tokens_of(pair[1].1);
        gaps.extend(std::iter::repeat_n((pair[1].0 - pair[0].0) / n as f64, n));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_of_several_tokens_shares_its_gap() {
        assert_eq!(gaps(&[(10.0, 4), (20.0, 4), (40.0, 8)], 4), [10.0, 10.0, 10.0]);
        assert_eq!(gaps(&[(10.0, 4), (20.0, 4)], 2), [10.0]);
        assert_eq!(gaps(&[(10.0, 4)], 1), [0.0; 0]);
        assert_eq!(gaps(&[], 0), [0.0; 0]);
    }

    #[test]
    fn addresses_are_read_with_and_without_their_parts() {
        for (url, authority, base) in [
            ("http://127.0.0.1:4467", "127.0.0.1:4467", ""),
            ("http://127.0.0.1:4467/", "127.0.0.1:4467", ""),
            ("http://localhost:8000/v1", "localhost:8000", ""),
            ("http://[::1]:8000/v1/", "[::1]:8000", ""),
            ("http://box/llm/v1", "box:80", "/llm"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.authority.as_str(), target.base_path.as_str()), (authority, base), "{url}");
        }
        for bad in
            ["", "127.0.0.1:80", "ftp://x", "https://x", "http://", "http://a b", "http://u@h", "http://h:x"]
        {
            let error = Target::parse(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--url {bad}: ")), "{error}");
        }
    }
}
