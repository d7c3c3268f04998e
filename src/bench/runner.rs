//! Runs tests on a loaded model, and proves that every repetition gave the same tokens.
//!
//! As in llama-bench, a repetition starts at the test's depth, prompts are random ids, and one warm-up goes before.
//! Unlike there, the next token is the likeliest one, chosen inside the measured time, so that tokens can be compared.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::description::Description;
use super::plan::{Invalid, Test};
use super::row::{Limits, ModelFacts, Row};
use super::stop::Stop;
use super::system;
use crate::kernels::attention::PAGE_LEN;
use crate::model::{
    self, Chunk, Device, Gguf, LoadOptions, LogitsFor, Model, ModelConfig, ModelError, SeqId, TokenId,
};

/// Tokens of a warm-up's generation: enough to touch all weights and wake the threads.
const WARM_UP_GEN: usize = 4;
/// Hex digits of a hash that are shown: equal by chance once in 2^64.
const HASH_DIGITS: usize = 16;

/// How tests are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Measured repetitions of each test, at least 1.
    pub repetitions: usize,
    /// One repetition before, of which nothing is kept.
    pub warm_up: bool,
    /// Pause before each test, for a machine that must cool down.
    pub delay: Duration,
    /// Ends them early.
    pub stop: Stop,
}

/// Why a test has no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The end was asked for before anything of it was measured.
    #[error("interrupted")]
    Interrupted,
}

/// A model ready to be measured.
pub struct Subject {
    model: Box<dyn Model>,
    facts: ModelFacts,
}

/// Where a measurement stands.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The test that runs.
    pub test: &'a Test,
    /// Repetition, from 0; the warm-up is 0 of 0.
    pub repetition: usize,
    /// How many there are.
    pub n_repetitions: usize,
    /// Tokens of one repetition and the seconds that the one before took, to foretell the end.
    pub last_seconds: Option<f64>,
}

/// What a set of tests asks of the model, checked before anything runs.
///
/// # Errors
/// [`Invalid`] for a depth, prompt or generation that does not fit into the context the model was trained on.
pub fn check_context(name: &str, config: &ModelConfig, tests: &[Test]) -> Result<(), Invalid> {
    match tests.iter().find(|test| test.n_ctx() > config.n_ctx_train) {
        None => Ok(()),
        Some(test) => Err(Invalid(format!(
            "{test}: depth {}, prompt {} and {} generated need {} positions, and {name} was trained on {}; take smaller \
             -p, -n or -d",
            test.n_depth,
            test.n_prompt,
            test.n_gen,
            test.n_ctx(),
            config.n_ctx_train
        ))),
    }
}

impl Subject {
    /// Loads `gguf` as `options` say, with room for all of `tests`, which have one number of threads.
    ///
    /// # Errors
    /// Of [`model::load`].
    pub fn load(
        gguf: &Gguf,
        filename: &str,
        tests: &[Test],
        options: &LoadOptions,
        n_gpu_layers: i64,
    ) -> Result<Self, ModelError> {
        system::reset_peak_rss();
        let sha256 = sha256_of(gguf)?;
        let n_ctx = tests.iter().map(Test::n_ctx).max().unwrap_or(1);
        let options = LoadOptions {
            n_ctx: Some(n_ctx),
            n_threads: tests.first().map_or(1, |test| test.n_threads),
            max_sequences: tests.iter().map(|test| test.n_seqs).max().unwrap_or(1),
            ..options.clone()
        };
        let start = Instant::now();
        let model = model::load(gguf, &options)?;
        let load_ms = start.elapsed().as_secs_f64() * 1e3;
        let description = Description::of(gguf, model.config());
        let facts = ModelFacts {
            filename: filename.to_owned(),
            description,
            sha256,
            kernel_class: model.backend(),
            backends: match options.device {
                Device::Cpu => "CPU",
                Device::Cuda => "CUDA",
                Device::Metal => "Metal",
            }
            .to_owned(),
            kv_type: kv_type(model.as_ref()),
            n_gpu_layers,
            load_ms,
        };
        Ok(Self { model, facts })
    }

    /// Runs one test. `progress` hears of every repetition before it starts. Where the end is asked for in between, the
    /// row has the repetitions so far and is marked.
    ///
    /// # Errors
    /// [`RunError`]; nothing of the test is kept then.
    pub fn measure(
        &mut self,
        test: &Test,
        options: &Options,
        limits: Limits,
        progress: &mut dyn FnMut(&Step<'_>),
    ) -> Result<Row, RunError> {
        options.stop.rest(options.delay);
        let test_time = now();
        let mut run = Run::start(self.model.as_mut(), test, &options.stop)?;
        let mut step = Step { test, repetition: 0, n_repetitions: 0, last_seconds: None };
        if options.warm_up {
            progress(&step);
            run.repetition(test.n_gen.min(WARM_UP_GEN))?;
        }
        let mut row = Row {
            test: *test,
            model: self.facts.clone(),
            test_time,
            samples_ns: Vec::new(),
            ttft_ns: Vec::new(),
            gaps_ns: Vec::new(),
            tokens_hash: String::new(),
            invalid: None,
            timer_ns: system::timer_ns(),
            peak_rss: 0,
            huge_pages: false,
            bytes_read: 0,
            n_operations: 0.0,
            limits,
        };
        for repetition in 0..options.repetitions {
            step = Step { repetition, n_repetitions: options.repetitions, ..step };
            progress(&step);
            let timed = match run.repetition(test.n_gen) {
                Err(RunError::Interrupted) if repetition > 0 => {
                    let n = options.repetitions;
                    row.invalid.get_or_insert(format!("interrupted after {repetition} of {n} repetitions"));
                    break;
                }
                timed => timed?,
            };
            step.last_seconds = Some(timed.total.as_secs_f64());
            row.samples_ns.push(timed.total.as_nanos() as u64);
            row.ttft_ns.push(timed.first.as_nanos() as u64);
            row.gaps_ns.extend(&timed.gaps);
            let hash = hash(&timed.tokens);
            if repetition == 0 {
                row.tokens_hash = hash;
            } else if hash != row.tokens_hash && row.invalid.is_none() {
                row.invalid = Some(format!(
                    "repetition {} gave other tokens ({hash}) than the first ({})",
                    repetition + 1,
                    row.tokens_hash
                ));
            }
        }
        drop(run);
        let work = Work::of(self.model.as_ref(), &self.facts.description, test);
        row.bytes_read = work.bytes;
        row.n_operations = work.n_operations;
        row.peak_rss = system::peak_rss();
        row.huge_pages = system::huge_page_bytes() * 2 > self.facts.description.size;
        Ok(row)
    }
}

/// One test on one model, its sequences filled to the test's depth.
struct Run<'a> {
    model: &'a mut dyn Model,
    test: &'a Test,
    stop: &'a Stop,
    seqs: Vec<SeqId>,
    /// Ids of all positions before generation, the same for every sequence.
    prompt: Vec<TokenId>,
}

/// What one repetition took.
struct Timed {
    total: Duration,
    first: Duration,
    gaps: Vec<u64>,
    /// Generated tokens of all sequences, step by step.
    tokens: Vec<TokenId>,
}

impl<'a> Run<'a> {
    fn start(model: &'a mut dyn Model, test: &'a Test, stop: &'a Stop) -> Result<Self, RunError> {
        let prompt = prompt(model.config().n_vocab, test.n_depth + test.n_prompt.max(1));
        let mut run = Self { model, test, stop, seqs: Vec::new(), prompt };
        for _ in 0..test.n_seqs {
            let seq = run.model.new_sequence()?;
            run.seqs.push(seq);
        }
        run.prefill(0, test.n_depth, LogitsFor::None)?;
        Ok(run)
    }

    fn repetition(&mut self, n_gen: usize) -> Result<Timed, RunError> {
        let test = self.test;
        for &seq in &self.seqs {
            self.model.truncate(seq, test.n_depth);
        }
        let mut timed = Timed {
            total: Duration::ZERO,
            first: Duration::ZERO,
            gaps: Vec::with_capacity(n_gen),
            tokens: Vec::with_capacity((n_gen + 1) * self.seqs.len()),
        };
        let start = Instant::now();
        let mut last = vec![self.prompt[test.n_depth]; self.seqs.len()];
        if test.n_prompt > 0 {
            last = self.prefill(test.n_depth, test.n_depth + test.n_prompt, LogitsFor::Last)?;
            timed.tokens.extend(&last);
            timed.first = start.elapsed();
        }
        let mut before = start.elapsed();
        for i in 0..n_gen {
            last = self.decode(&last)?;
            timed.tokens.extend(&last);
            let after = start.elapsed();
            if i == 0 && test.n_prompt == 0 {
                timed.first = after;
            } else {
                timed.gaps.push(after.saturating_sub(before).as_nanos() as u64);
            }
            before = after;
        }
        timed.total = start.elapsed();
        Ok(timed)
    }

    /// Evaluates positions `from..to` of every sequence in steps of the test's size, rows of several sequences together;
    /// returns the likeliest next token of each sequence where `logits` asks for one.
    fn prefill(&mut self, from: usize, to: usize, logits: LogitsFor) -> Result<Vec<TokenId>, RunError> {
        let mut next = Vec::new();
        let mut batch: Vec<Chunk<'_>> = Vec::new();
        let mut n_rows = 0;
        for &seq in &self.seqs {
            let mut at = from;
            while at < to {
                let n = (to - at).min(self.test.n_step() - n_rows);
                let is_last = at + n == to;
                let wanted = if is_last { logits } else { LogitsFor::None };
                batch.push(Chunk { seq, tokens: &self.prompt[at..at + n], logits: wanted });
                (at, n_rows) = (at + n, n_rows + n);
                if n_rows == self.test.n_step() {
                    next.extend(step(self.model, &batch, self.stop)?);
                    batch.clear();
                    n_rows = 0;
                }
            }
        }
        if !batch.is_empty() {
            next.extend(step(self.model, &batch, self.stop)?);
        }
        Ok(next)
    }

    fn decode(&mut self, last: &[TokenId]) -> Result<Vec<TokenId>, RunError> {
        let chunks = self.seqs.iter().zip(last).map(|(&seq, token)| Chunk {
            seq,
            tokens: std::slice::from_ref(token),
            logits: LogitsFor::Last,
        });
        let batch: Vec<Chunk<'_>> = chunks.collect();
        step(self.model, &batch, self.stop)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        for &seq in &self.seqs {
            self.model.free_sequence(seq);
        }
    }
}

/// The likeliest token of each row that wants one, unless the end was asked for.
fn step(model: &mut dyn Model, batch: &[Chunk<'_>], stop: &Stop) -> Result<Vec<TokenId>, RunError> {
    if stop.is_asked() {
        return Err(RunError::Interrupted);
    }
    Ok(model.step(batch)?.rows().map(likeliest).collect())
}

/// SHA-256 of a model's files, in hex.
///
/// # Errors
/// Of reading them.
pub fn sha256_of(gguf: &Gguf) -> Result<String, ModelError> {
    let mut sha256 = Sha256::new();
    gguf.read_through(|bytes| sha256.update(bytes))?;
    Ok(hex(&sha256.finalize()))
}

/// Random ids, the same on every machine: speed does not depend on them, and the tokens generated behind them can be
/// compared.
fn prompt(n_vocab: usize, len: usize) -> Vec<TokenId> {
    let mut state = 0x6D6F_6D6D_795F_u64;
    let mut next = || {
        // Knuth's MMIX generator; the upper half is good enough for ids.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n_vocab.max(1)
    };
    (0..len).map(|_| next() as TokenId).collect()
}

/// Index of the largest logit, the first of equal ones. Two passes, because the first one is vectorised.
fn likeliest(logits: &[f32]) -> TokenId {
    const LANES: usize = 16;
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    logits.iter().position(|&x| x >= max).unwrap_or(0) as TokenId
}

fn hash(tokens: &[TokenId]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let mut text = hex(&Sha256::digest(&bytes));
    text.truncate(HASH_DIGITS);
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Bytes of keys and values that one position takes, as the runner keeps them.
fn kv_bytes_per_token(model: &dyn Model) -> u64 {
    match model.kv_usage().bytes_per_page {
        // A runner that does not say keeps 16-bit floats.
        0 => model.config().kv_bytes_per_token() as u64,
        bytes => (bytes / PAGE_LEN) as u64,
    }
}

/// What the runner keeps keys and values in, told by their size.
fn kv_type(model: &dyn Model) -> &'static str {
    let as_f16 = model.config().kv_bytes_per_token() as u64;
    match kv_bytes_per_token(model) {
        bytes if bytes >= 2 * as_f16 => "f32",
        bytes if bytes > as_f16 => "i16",
        bytes if bytes < as_f16 => "q8_0",
        _ => "f16",
    }
}

/// RFC 3339, UTC, whole seconds, as llama-bench writes it.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What one repetition must read and compute, whatever the engine.
struct Work<'a> {
    config: &'a ModelConfig,
    description: &'a Description,
    kv_bytes_per_token: u64,
    n_seqs: u64,
    bytes: u64,
    n_operations: f64,
}

impl<'a> Work<'a> {
    fn of(model: &'a dyn Model, description: &'a Description, test: &Test) -> Self {
        let mut work = Self {
            config: model.config(),
            description,
            kv_bytes_per_token: kv_bytes_per_token(model),
            n_seqs: test.n_seqs as u64,
            bytes: 0,
            n_operations: 0.0,
        };
        let (mut at, end) = (test.n_depth, test.n_depth + test.n_prompt);
        let n_step = (test.n_step() / test.n_seqs).max(1);
        while at < end {
            let n = (end - at).min(n_step);
            work.step(at, n, u64::from(at + n == end));
            at += n;
        }
        for i in 0..test.n_gen {
            work.step(end + i, 1, 1);
        }
        work
    }

    /// One step of `n` rows at position `at` of each sequence, `n_logits` of which need logits.
    fn step(&mut self, at: usize, n: usize, n_logits: u64) {
        let c = self.config;
        let attending = (0..c.n_layer).filter(|&layer| !c.is_short_conv(layer));
        let n_attending = attending.clone().count().max(1) as u64;
        let (mut kv_bytes, mut attention) = (0, 0.0);
        for layer in attending {
            let visible = c.window(layer).map_or(at + n, |window| window.min(at + n));
            kv_bytes += visible as u64 * self.kv_bytes_per_token / n_attending;
            // Of the new rows themselves, each sees half on average.
            let seen = (visible as f64 - n as f64 / 2.0 + 0.5).max(1.0);
            attention += 4.0 * (c.n_head * c.head_dim * n) as f64 * seen;
        }
        self.bytes += self.description.bytes_per_step + self.n_seqs * kv_bytes;
        let products = self.description.n_block_weights as f64 * n as f64
            + self.description.n_output_weights as f64 * n_logits as f64;
        self.n_operations += (2.0 * products + attention) * self.n_seqs as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_is_the_first_of_the_largest() {
        let mut logits = vec![0.0; 100];
        logits[37] = 2.0;
        logits[99] = 2.0;
        assert_eq!(likeliest(&logits), 37);
        logits[99] = 2.5;
        assert_eq!(likeliest(&logits), 99);
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 3]), 0);
    }

    #[test]
    fn who_wants_the_end_gets_what_was_measured_so_far() {
        let name = "shape:tiny-llama:Q8_0";
        let gguf = crate::bench::shape::generate(name).unwrap();
        let test =
            Test { n_prompt: 4, n_gen: 2, n_depth: 0, n_batch: 8, n_ubatch: 8, n_threads: 1, n_seqs: 1 };
        let mut subject = Subject::load(&gguf, name, &[test], &LoadOptions::default(), 0).unwrap();
        let stop = Stop::default();
        let delay = Duration::ZERO;
        let options = Options { repetitions: 5, warm_up: false, delay, stop: stop.clone() };
        let mut ask_at = |at: usize| {
            let mut progress = |step: &Step<'_>| {
                if step.repetition == at {
                    stop.ask();
                }
            };
            subject.measure(&test, &options, Limits::default(), &mut progress)
        };
        let row = ask_at(2).unwrap();
        assert_eq!(row.samples_ns.len(), 2);
        assert_eq!(row.invalid.as_deref(), Some("interrupted after 2 of 5 repetitions"));
        // It stays asked for, and whoever rests is woken.
        assert!(matches!(ask_at(0), Err(RunError::Interrupted)));
        let options = Options { delay: Duration::from_hours(1), ..options };
        let ended = subject.measure(&test, &options, Limits::default(), &mut |_| {});
        assert!(matches!(ended, Err(RunError::Interrupted)));
    }

    #[test]
    fn prompts_do_not_depend_on_the_machine_and_stay_in_the_vocabulary() {
        let ids = prompt(1000, 50);
        assert_eq!(ids[..10], prompt(1000, 10));
        assert!(ids.iter().all(|&id| id < 1000));
        assert!(ids.iter().any(|id| *id != ids[0]));
    }
}
