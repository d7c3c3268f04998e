//! Streams of events (or of lines of JSON): framing, heartbeats, and the three ways a stream ends from this side (its source is done, the
//! server stops, the session it belongs to is over). It does not know what the events mean.

use std::future::Future;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::metrics::OpenStream;
use super::who::Leash;

/// Proxies drop connections that are silent for a minute; also how soon a vanished reader is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often a stream asks whether its session has expired; a session that is ended says so by itself.
const EXPIRY_CHECK: Duration = Duration::from_mins(1);
/// A reader that finds many events waiting gets them in pieces of about this size.
const MAX_BATCH_BYTES: usize = 16 << 10;

/// One event, framed.
pub(crate) struct Frame(String);

impl Frame {
    /// `data` is JSON on one line, so no line of it can be mistaken for a field.
    pub(crate) fn new(event: &str, id: u64, data: &impl Serialize) -> Self {
        let json = serde_json::to_string(data).unwrap_or_else(|cause| {
            tracing::error!(%cause, event, "cannot write an event");
            "{}".to_owned()
        });
        Self(format!("event: {event}\nid: {id}\ndata: {json}\n\n"))
    }

    /// An event in the form of OpenAI's stream, which has data lines only.
    pub(crate) fn data(data: &serde_json::Value) -> Self {
        Self(format!("data: {data}\n\n"))
    }

    /// The end of OpenAI's stream.
    pub(crate) fn done() -> Self {
        Self("data: [DONE]\n\n".to_owned())
    }

    /// One line of JSON.
    pub(crate) fn line(data: &serde_json::Value) -> Self {
        Self(format!("{data}\n"))
    }

    /// This one and another right after it.
    pub(crate) fn then(mut self, Self(next): Self) -> Self {
        self.0.push_str(&next);
        self
    }
}

/// Where frames come from.
pub(crate) trait Frames: Send + 'static {
    /// The next frame, or `None` at the end. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Frame>> + Send;
    /// Another frame if there is one already.
    fn try_next(&mut self) -> Option<Frame>;
}

struct Stream<F> {
    frames: F,
    leash: Leash,
    stopping: CancellationToken,
    heartbeat: Interval,
    check: Interval,
    first: bool,
    /// Lines of JSON have no comments, so nothing is sent between them.
    is_lines: bool,
    _open: OpenStream,
}

impl<F: Frames> Stream<F> {
    async fn next(&mut self) -> Option<Bytes> {
        // The first bytes tell the client (and proxies) that the stream stands.
        if std::mem::take(&mut self.first) {
            return Some(Bytes::from_static(b": open\n\n"));
        }
        loop {
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                () = self.leash.tug() => if !self.leash.still_holds().await {
                    return None;
                },
                _ = self.check.tick() => if !self.leash.still_holds().await {
                    return None;
                },
                frame = self.frames.next() => {
                    let Frame(mut text) = frame?;
                    while text.len() < MAX_BATCH_BYTES && let Some(Frame(more)) = self.frames.try_next() {
                        text.push_str(&more);
                    }
                    self.heartbeat.reset();
                    return Some(text.into());
                }
                _ = self.heartbeat.tick(), if !self.is_lines => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }
}

/// Answers with a stream of events.
pub(crate) fn response<F: Frames>(
    frames: F,
    leash: Leash,
    stopping: CancellationToken,
    open: OpenStream,
) -> Response {
    stream(frames, leash, stopping, open, "text/event-stream", false)
}

/// Answers with lines of JSON.
pub(crate) fn lines<F: Frames>(
    frames: F,
    leash: Leash,
    stopping: CancellationToken,
    open: OpenStream,
) -> Response {
    stream(frames, leash, stopping, open, "application/x-ndjson", true)
}

fn stream<F: Frames>(
    frames: F,
    leash: Leash,
    stopping: CancellationToken,
    open: OpenStream,
    content_type: &'static str,
    is_lines: bool,
) -> Response {
    let every = |period| {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        ticks
    };
    let stream = Stream {
        frames,
        leash,
        stopping,
        heartbeat: every(HEARTBEAT),
        check: every(EXPIRY_CHECK),
        first: !is_lines,
        is_lines,
        _open: open,
    };
    let bytes = futures_util::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), stream))
    });
    let mut response = Body::from_stream(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
