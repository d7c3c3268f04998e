//! Numbers of this server: counted here, and written as Prometheus text together with the engine's and the store's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Extension, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::App;
use super::error::ApiError;
use super::hosts::Client;
use super::who::Admin;
use crate::engine::{EngineMetrics, Histogram};
use crate::store::{COMMIT_BOUNDS_US, StoreMetrics};

/// Upper bounds in seconds of the request histogram: from a row out of the cache to a long wait for a reply.
const REQUEST_BOUNDS_S: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// What the HTTP side counts.
pub(crate) struct HttpMetrics {
    started: Instant,
    answered: Mutex<BTreeMap<(String, String), Answered>>,
    refused_connections: AtomicU64,
    open_streams: AtomicI64,
}

#[derive(Default)]
struct Answered {
    by_status: BTreeMap<u16, u64>,
    buckets: [u64; REQUEST_BOUNDS_S.len()],
    count: u64,
    sum_s: f64,
}

impl HttpMetrics {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            answered: Mutex::default(),
            refused_connections: AtomicU64::new(0),
            open_streams: AtomicI64::new(0),
        }
    }

    /// How long this server has been up.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// A request got the head of its answer. `route` comes from the route table, so the map stays small.
    pub(crate) fn answered(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        // Anybody can invent methods; they share one line.
        let method = match *method {
            Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::HEAD => {
                method.as_str()
            }
            _ => "other",
        };
        let seconds = elapsed.as_secs_f64();
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = answered.entry((route.to_owned(), method.to_owned())).or_default();
        *entry.by_status.entry(status.as_u16()).or_default() += 1;
        entry.count += 1;
        entry.sum_s += seconds;
        for (bound, n) in REQUEST_BOUNDS_S.iter().zip(&mut entry.buckets) {
            *n += u64::from(seconds <= *bound);
        }
    }

    /// A connection above the limits was turned away.
    pub(crate) fn refused_connection(&self) {
        self.refused_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a stream as open until the value is dropped.
    pub(crate) fn stream_opened(self: &Arc<Self>) -> OpenStream {
        self.open_streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.clone())
    }

    /// How many streams are open.
    pub(crate) fn n_open_streams(&self) -> i64 {
        self.open_streams.load(Ordering::Relaxed)
    }

    fn write(&self, out: &mut Text) {
        out.gauge("uptime_seconds", "Time since the server started.", self.uptime().as_secs_f64());
        out.gauge("sse_open", "Event streams open now.", self.n_open_streams() as f64);
        let refused = self.refused_connections.load(Ordering::Relaxed);
        out.counter("http_connections_refused_total", "Connections above the limits.", refused as f64);
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        out.head("http_requests_total", "counter", "Requests answered.");
        for ((route, method), entry) in answered.iter() {
            for (status, n) in &entry.by_status {
                let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
                out.line("http_requests_total", &labels, *n as f64);
            }
        }
        out.head("http_request_seconds", "histogram", "From a request's head to its answer's head.");
        for ((route, method), entry) in answered.iter() {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            for (bound, n) in REQUEST_BOUNDS_S.iter().zip(entry.buckets) {
                out.line("http_request_seconds_bucket", &format!("{labels},le=\"{bound}\""), n as f64);
            }
            out.line("http_request_seconds_bucket", &format!("{labels},le=\"+Inf\""), entry.count as f64);
            out.line("http_request_seconds_sum", &labels, entry.sum_s);
            out.line("http_request_seconds_count", &labels, entry.count as f64);
        }
    }
}

/// An open event stream, for counting.
pub(crate) struct OpenStream(Arc<HttpMetrics>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open_streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters of everything, for a program on this machine or an admin.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    admin: Result<Admin, ApiError>,
) -> Result<Response, ApiError> {
    if !client.local {
        admin?;
    }
    let mut out = Text(String::new());
    app.http_metrics().write(&mut out);
    write_engine(&mut out, &app.engine().metrics());
    let store = app.store().clone();
    write_store(&mut out, &tokio::task::spawn_blocking(move || store.metrics()).await?);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out.0).into_response())
}

/// Prometheus' text form, every name with our prefix.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP mommygpt_{name} {help}\n# TYPE mommygpt_{name} {kind}");
    }
    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "mommygpt_{name}{labels} {value}");
    }
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.line(name, "", value);
    }
    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "counter", help);
        self.line(name, "", value);
    }
    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, n) in histogram.bounds.iter().zip(&histogram.counts) {
            below += n;
            self.line(&bucket, &format!("le=\"{bound}\""), below as f64);
        }
        self.line(&bucket, "le=\"+Inf\"", histogram.count() as f64);
        self.line(&format!("{name}_sum"), "", histogram.sum);
        self.line(&format!("{name}_count"), "", histogram.count() as f64);
    }
}

fn write_engine(out: &mut Text, engine: &EngineMetrics) {
    let loaded = f64::from(u8::from(engine.loaded));
    out.gauge("model_loaded", "1 once the model answers.", loaded);
    out.gauge("model_load_seconds", "How long the model took to load.", engine.load_seconds);
    out.gauge("requests_processing", "Generations running now.", engine.running as f64);
    out.gauge("requests_deferred", "Generations waiting now.", engine.queued as f64);
    let refused = engine.refused_total as f64;
    out.counter("requests_refused_total", "Generations refused because the queue was full.", refused);
    let prompt = engine.prompt_tokens_total as f64;
    out.counter("prompt_tokens_total", "Prompt tokens evaluated.", prompt);
    let cached = engine.cached_tokens_total as f64;
    out.counter("cached_tokens_total", "Prompt tokens that the prefix cache had.", cached);
    let predicted = engine.predicted_tokens_total as f64;
    out.counter("tokens_predicted_total", "Tokens generated.", predicted);
    let hits = engine.prefix_hits_total as f64;
    out.counter("prefix_cache_hits_total", "Prompts of which the prefix cache had a beginning.", hits);
    out.counter("prompts_total", "Prompts begun.", engine.prompts_total as f64);
    let drafted = engine.drafted_tokens_total as f64;
    out.counter("speculative_drafted_tokens_total", "Tokens guessed and evaluated ahead.", drafted);
    let accepted = engine.accepted_tokens_total as f64;
    out.counter("speculative_accepted_tokens_total", "Guessed tokens that came out.", accepted);
    out.counter("steps_total", "Forward passes.", engine.steps_total as f64);
    out.counter("step_rows_total", "Tokens evaluated by all forward passes.", engine.step_rows_total as f64);
    out.gauge("kv_pages_used", "Pages of keys and values that a sequence holds.", engine.kv.used as f64);
    out.gauge("kv_pages", "Pages of keys and values that there are.", engine.kv.total as f64);
    out.gauge("kv_used_bytes", "Bytes of the pages used.", engine.kv.used_bytes as f64);
    let warm = engine.kv.warm_sequences as f64;
    out.gauge("prefix_cache_sequences", "Sequences kept for their owners' next messages.", warm);
    out.histogram("batch_size", "Generations that shared a forward pass.", &engine.batch_size);
    out.head("generations_total", "counter", "Generations that ended, by reason.");
    let ends = engine.finished;
    for (reason, n) in
        [("stop", ends.stop), ("length", ends.length), ("cancelled", ends.cancelled), ("error", ends.error)]
    {
        out.line("generations_total", &format!("finish_reason=\"{reason}\""), n as f64);
    }
    let ttft = &engine.time_to_first_token;
    out.histogram("time_to_first_token_seconds", "From a request to its first token.", ttft);
    out.histogram("inter_token_seconds", "Between two tokens of a generation.", &engine.inter_token);
}

fn write_store(out: &mut Text, store: &StoreMetrics) {
    out.gauge("users", "Accounts.", store.n_users as f64);
    out.gauge("store_file_bytes", "Size of the database file.", store.file_bytes as f64);
    out.gauge("kv_disk_bytes", "Bytes on disk of what models made of chats.", store.kv_bytes as f64);
    out.gauge(
        "kv_disk_max_bytes",
        "How many those may be (--kv-disk); 0 keeps none.",
        store.kv_max_bytes as f64,
    );
    out.counter("store_writes_total", "Writes acknowledged.", store.n_writes as f64);
    out.counter("store_commits_total", "Commits; writers share them.", store.n_commits as f64);
    let errors = store.n_write_errors as f64;
    out.counter("store_write_errors_total", "Writes refused by a full or failing disk.", errors);
    out.head("store_commit_seconds", "histogram", "A commit with its fsync.");
    let mut below = 0;
    for (bound_us, n) in std::iter::zip(COMMIT_BOUNDS_US, store.commits_within) {
        below += n;
        let le = format!("le=\"{}\"", bound_us as f64 / 1e6);
        out.line("store_commit_seconds_bucket", &le, below as f64);
    }
    out.line("store_commit_seconds_bucket", "le=\"+Inf\"", store.n_commits as f64);
    out.line("store_commit_seconds_sum", "", store.commit_us as f64 / 1e6);
    out.line("store_commit_seconds_count", "", store.n_commits as f64);
    let seconds = store.commit_us as f64 / 1e6;
    out.counter("store_commit_seconds_total", "Time spent in commits, fsync included.", seconds);
}
