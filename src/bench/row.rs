//! One line of results: llama-bench's fields under its names and in its order, then ours.
//!
//! Source of names and order: `get_fields` of `llama-bench.cpp`, and for what it does not have the list in the README.

use super::description::Description;
use super::plan::Test;
use super::stats::{mean, percentile, sample_sd};

/// What one test gave.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was asked for.
    pub test: Test,
    /// Of which model.
    pub model: ModelFacts,
    /// When it began: RFC 3339, UTC, whole seconds.
    pub test_time: String,
    /// Time of every repetition.
    pub samples_ns: Vec<u64>,
    /// Time from the start of a repetition to its first token.
    pub ttft_ns: Vec<u64>,
    /// Times between tokens, all repetitions together.
    pub gaps_ns: Vec<u64>,
    /// Hash of the greedy tokens of the first repetition.
    pub tokens_hash: String,
    /// Why the row must not be believed.
    pub invalid: Option<String>,
    /// What one reading of the clock takes.
    pub timer_ns: f64,
    /// Largest resident memory so far with this model, in bytes.
    pub peak_rss: u64,
    /// Whether most of the model lies on huge pages.
    pub huge_pages: bool,
    /// Bytes of weights and of keys and values that one repetition reads.
    pub bytes_read: u64,
    /// Additions and multiplications of one repetition.
    pub n_operations: f64,
    /// What this machine can do with as many threads.
    pub limits: Limits,
}

/// What this machine was measured to do, with as many threads as the test.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Limits {
    /// Bytes a second read from memory; 0 where it was not measured.
    pub read_bandwidth: f64,
    /// Operations a second in the arithmetic that the weights ask for: int8 for quantized ones, else f32.
    pub arithmetic: f64,
}

/// What is the same in all rows of one model.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    /// As it was named on the command line.
    pub filename: String,
    /// Its description.
    pub description: Description,
    /// Of the whole file, in hex.
    pub sha256: String,
    /// Which runner and kernels ran, as the model says.
    pub kernel_class: String,
    /// Where it ran, in llama-bench's words: `CPU`.
    pub backends: String,
    /// Element type of keys and values: `f32`, `i16`, `f16`, `q8_0`.
    pub kv_type: &'static str,
    /// `-ngl` as typed.
    pub n_gpu_layers: i64,
    /// Milliseconds from the file to a model that can step.
    pub load_ms: f64,
}

/// A field's value; the kind decides how each format writes it.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Text.
    Text(String),
    /// A flag: `true` in JSON, `1` in CSV.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Six digits behind the point, as C prints them.
    Float(f64),
}

impl Row {
    /// Tokens a second of every repetition.
    pub fn samples_ts(&self) -> Vec<f64> {
        let n = self.test.n_tokens() as f64;
        self.samples_ns.iter().map(|&ns| 1e9 * n / ns.max(1) as f64).collect()
    }

    /// Mean seconds of a repetition.
    pub fn seconds(&self) -> f64 {
        mean(&floats(&self.samples_ns)) / 1e9
    }

    /// GB/s of weights, keys and values read.
    pub fn bandwidth_gbps(&self) -> f64 {
        if self.samples_ns.is_empty() { 0.0 } else { self.bytes_read as f64 / self.seconds() / 1e9 }
    }

    /// Billions of operations a second.
    pub fn gops(&self) -> f64 {
        if self.samples_ns.is_empty() { 0.0 } else { self.n_operations / self.seconds() / 1e9 }
    }

    /// Percent of the limit that such a test meets: the memory's where tokens are generated, the arithmetic's else. Above
    /// 100 where the caches hold the model. `None` where the limit was not measured.
    pub fn roofline_pct(&self) -> Option<f64> {
        let (done, limit) = if self.test.n_gen > 0 {
            (self.bandwidth_gbps() * 1e9, self.limits.read_bandwidth)
        } else {
            (self.gops() * 1e9, self.limits.arithmetic)
        };
        (limit > 0.0 && !self.samples_ns.is_empty()).then(|| 100.0 * done / limit)
    }

    /// Milliseconds to the first token, mean.
    pub fn ttft_ms(&self) -> f64 {
        mean(&floats(&self.ttft_ns)) / 1e6
    }

    /// A percentile of the milliseconds between tokens; 0 where none were generated.
    pub fn gap_ms(&self, p: f64) -> f64 {
        percentile(&floats(&self.gaps_ns), p).unwrap_or(0.0) / 1e6
    }

    /// Percent of a repetition that reading the clock takes: at its start and end, behind the prompt and behind each token.
    pub fn timer_pct(&self) -> f64 {
        let n_readings = (self.test.n_gen + 4) as f64;
        if self.samples_ns.is_empty() { 0.0 } else { 1e-7 * n_readings * self.timer_ns / self.seconds() }
    }

    /// llama-bench's fields in its order, then ours.
    pub fn fields(&self) -> Vec<(&'static str, Value)> {
        let mut fields = self.llama_bench_fields();
        fields.extend(self.own_fields());
        fields
    }

    fn llama_bench_fields(&self) -> Vec<(&'static str, Value)> {
        let (model, test) = (&self.model, &self.test);
        let (ns, ts) = (floats(&self.samples_ns), self.samples_ts());
        let text = |text: &str| Value::Text(text.to_owned());
        let count = |n: usize| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let long = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let gpu = if model.backends == "CPU" { "" } else { &model.kernel_class };
        vec![
            ("build_commit", text(BUILD_COMMIT)),
            ("build_number", Value::Int(BUILD_NUMBER)),
            ("cpu_info", Value::Text(super::system::cpu_name())),
            ("gpu_info", text(gpu)),
            ("backends", text(&model.backends)),
            ("model_filename", text(&model.filename)),
            ("model_type", text(&model.description.model_type)),
            ("model_size", long(model.description.size)),
            ("model_n_params", long(model.description.n_params)),
            ("n_batch", count(test.n_batch)),
            ("n_ubatch", count(test.n_ubatch)),
            ("n_threads", count(test.n_threads)),
            ("cpu_mask", text("0x0")),
            ("cpu_strict", Value::Bool(false)),
            ("poll", Value::Int(50)),
            ("type_k", text(model.kv_type)),
            ("type_v", text(model.kv_type)),
            ("n_gpu_layers", Value::Int(model.n_gpu_layers)),
            ("split_mode", text("none")),
            ("main_gpu", Value::Int(0)),
            ("no_kv_offload", Value::Bool(false)),
            ("flash_attn", Value::Bool(false)),
            ("tensor_split", text("0.00")),
            ("use_mmap", Value::Bool(!model.filename.starts_with(super::shape::PREFIX))),
            ("embeddings", Value::Bool(false)),
            ("n_prompt", count(test.n_prompt)),
            ("n_gen", count(test.n_gen)),
            ("n_depth", count(test.n_depth)),
            ("test_time", text(&self.test_time)),
            ("avg_ns", Value::Int(mean(&ns) as i64)),
            ("stddev_ns", Value::Int(sample_sd(&ns) as i64)),
            ("avg_ts", Value::Float(mean(&ts))),
            ("stddev_ts", Value::Float(sample_sd(&ts))),
        ]
    }

    fn own_fields(&self) -> Vec<(&'static str, Value)> {
        let model = &self.model;
        let long = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        vec![
            ("ttft_ms", Value::Float(self.ttft_ms())),
            ("peak_rss", long(self.peak_rss)),
            ("bw_gbps", Value::Float(self.bandwidth_gbps())),
            ("roofline_pct", Value::Float(self.roofline_pct().unwrap_or(0.0))),
            ("tokens_hash", Value::Text(self.tokens_hash.clone())),
            ("model_sha256", Value::Text(model.sha256.clone())),
            ("rustc", Value::Text(env!("CARGO_PKG_RUST_VERSION").to_owned())),
            ("target_features", Value::Text(super::system::target_features())),
            ("n_seqs", Value::Int(i64::try_from(self.test.n_seqs).unwrap_or(i64::MAX))),
            ("kernel_class", Value::Text(model.kernel_class.clone())),
            ("huge_pages", Value::Bool(self.huge_pages)),
            ("gops", Value::Float(self.gops())),
            ("limit_gbps", Value::Float(self.limits.read_bandwidth / 1e9)),
            ("limit_gops", Value::Float(self.limits.arithmetic / 1e9)),
            ("itl_ms_p50", Value::Float(self.gap_ms(50.0))),
            ("itl_ms_p99", Value::Float(self.gap_ms(99.0))),
            ("load_ms", Value::Float(model.load_ms)),
            ("timer_pct", Value::Float(self.timer_pct())),
            ("valid", Value::Bool(self.invalid.is_none())),
            ("invalid_reason", Value::Text(self.invalid.clone().unwrap_or_default())),
        ]
    }
}

/// Stands where llama-bench has its commit.
pub const BUILD_COMMIT: &str = concat!("mommygpt-", env!("CARGO_PKG_VERSION"));
/// Stands where llama-bench has its build's number; there is none here.
pub const BUILD_NUMBER: i64 = 0;

pub(super) fn floats(values: &[u64]) -> Vec<f64> {
    values.iter().map(|&v| v as f64).collect()
}
