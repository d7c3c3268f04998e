//! `perplexity`: how well a model foretells a text, computed over windows as llama-perplexity does, and its logits.
//!
//! The text's tokens are cut into windows that do not overlap; each begins with BOS where the model wants one, and only
//! the second half of each counts, where there is something to go by.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use mommygpt::cli::{PerplexityArgs, ServeArgs};
use mommygpt::config::Config;
use mommygpt::hub::Models;
use mommygpt::model::{self, Chunk, LoadOptions, LogitsFor, Model, TokenId};
use mommygpt::text::Tokenizer;

use super::{Failure, Out};

/// Rows of logits in memory at once: with 150,000 words they take 40 MiB.
const CHUNK_TOKENS: usize = 64;
/// Windows must have a second half that foretells something.
const MIN_WINDOW: usize = 4;
/// Most text and most ids read: far beyond any test text.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// What was foretold so far.
#[derive(Default)]
struct Score {
    n: u64,
    nll: f64,
    nll_squared: f64,
}

impl Score {
    fn add(&mut self, nll: f64) {
        self.n += 1;
        self.nll += nll;
        self.nll_squared += nll * nll;
    }

    /// Perplexity and its standard error; `None` before two tokens were foretold.
    fn estimate(&self) -> Option<(f64, f64)> {
        if self.n < 2 {
            return None;
        }
        let n = self.n as f64;
        let mean = self.nll / n;
        let variance = (self.nll_squared / n - mean * mean).max(0.0);
        let perplexity = mean.exp();
        Some((perplexity, (variance / (n - 1.0)).sqrt() * perplexity))
    }
}

/// `perplexity`.
pub(super) fn perplexity(dir: Option<PathBuf>, args: &PerplexityArgs, out: &mut Out) -> Result<(), Failure> {
    let mut typed = ServeArgs { parallel: Some(1), ..ServeArgs::default() };
    typed.engine.ctx_size = Some(args.ctx_size);
    typed.engine.threads = args.threads;
    let config = Config::resolve(dir, typed)?;
    let file = Models::of(&config.dir).resolve(Some(&args.model))?;
    let gguf = file.open_runnable()?;
    let (ids, bos) = match &args.file {
        Some(path) => {
            let tokenizer = Tokenizer::from_gguf(&gguf).map_err(|e| Failure::from(e).of(&file))?;
            (tokenizer.encode_plain(&read_text(path)?, true)?, added_bos(&tokenizer)?)
        }
        None => (read_ids()?, None),
    };
    let window = if args.file.is_some() { args.ctx_size } else { args.ctx_size.min(ids.len()) };
    let n_windows = if window < MIN_WINDOW { 0 } else { ids.len() / window };
    // As there: a single window of a text says too little.
    if n_windows < if args.file.is_some() { 2 } else { 1 } {
        return Err(Failure::failed(format!(
            "{} tokens are too few for windows of {}; give more text or a smaller -c",
            ids.len(),
            args.ctx_size
        )));
    }
    let options = LoadOptions {
        n_ctx: Some(window),
        n_threads: config.n_threads,
        device: config.device,
        kv: config.kv,
        isa: config.isa,
        max_sequences: 1,
    };
    let mut model = model::load(&gguf, &options).map_err(|e| Failure::from(e).of(&file))?;
    let mut logits = match &args.logits {
        Some(path) => Some(Npy::create(path, n_windows * window)?),
        None => None,
    };
    let mut score = Score::default();
    for (i, ids) in ids.chunks_exact(window).enumerate() {
        let mut ids = ids.to_vec();
        if let Some(bos) = bos {
            ids[0] = bos;
        }
        one_window(model.as_mut(), &ids, &mut score, logits.as_mut())?;
        if let Some((perplexity, _)) = score.estimate() {
            write!(out, "{}[{}]{perplexity:.4}", if i == 0 { "" } else { "," }, i + 1)?;
            out.flush()?;
        }
    }
    if let Some(npy) = logits {
        npy.finish()?;
    }
    let (perplexity, error) =
        score.estimate().ok_or_else(|| Failure::failed("too few tokens were foretold"))?;
    writeln!(out, "\nFinal estimate: PPL = {perplexity:.4} +/- {error:.5}")?;
    Ok(())
}

/// Evaluates one window from nothing and scores its second half.
fn one_window(
    model: &mut dyn Model,
    ids: &[TokenId],
    score: &mut Score,
    mut npy: Option<&mut Npy>,
) -> Result<(), Failure> {
    let seq = model.new_sequence()?;
    let first = ids.len() / 2;
    for (i, tokens) in ids.chunks(CHUNK_TOKENS).enumerate() {
        let wanted = npy.is_some() || (i + 1) * CHUNK_TOKENS > first;
        let rows = if wanted { LogitsFor::All } else { LogitsFor::None };
        let logits = model.step(&[Chunk { seq, tokens, logits: rows }])?;
        for (row, pos) in logits.rows().zip(i * CHUNK_TOKENS..) {
            if let Some(npy) = npy.as_deref_mut() {
                npy.row(row)?;
            }
            if pos >= first && pos + 1 < ids.len() {
                score.add(negative_log_likelihood(row, ids[pos + 1])?);
            }
        }
    }
    model.free_sequence(seq);
    Ok(())
}

fn negative_log_likelihood(logits: &[f32], id: TokenId) -> Result<f64, Failure> {
    let Some(&of_id) = logits.get(id as usize) else {
        return Err(Failure::failed(format!("token {id} is outside the vocabulary of {}", logits.len())));
    };
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    Ok(sum.ln() - f64::from(of_id - max))
}

/// BOS, where the model wants texts to begin with it.
fn added_bos(tokenizer: &Tokenizer) -> Result<Option<TokenId>, Failure> {
    let first = |special| tokenizer.encode_plain("a", special).map(|ids| ids.first().copied());
    let (with, without) = (first(true)?, first(false)?);
    Ok(tokenizer.bos().filter(|bos| with == Some(*bos) && with != without))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    let named = |e: io::Error| Failure::failed(format!("{}: {e}", path.display()));
    let mut text = String::new();
    File::open(path).map_err(named)?.take(MAX_TEXT_BYTES).read_to_string(&mut text).map_err(named)?;
    Ok(text)
}

fn read_ids() -> Result<Vec<TokenId>, Failure> {
    let mut text = String::new();
    io::stdin().lock().take(MAX_TEXT_BYTES).read_to_string(&mut text)?;
    let ids = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    ids.map(|word| word.parse().map_err(|_| Failure::failed(format!("stdin: {word:?} is no token id"))))
        .collect()
}

/// A `.npy` file of f32 rows, written as they come.
struct Npy {
    path: PathBuf,
    file: BufWriter<File>,
    n_rows: usize,
    has_header: bool,
}

impl Npy {
    fn create(path: &Path, n_rows: usize) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), n_rows, has_header: false })
    }

    fn row(&mut self, row: &[f32]) -> Result<(), Failure> {
        let header = (!self.has_header).then(|| npy_header(self.n_rows, row.len()));
        self.has_header = true;
        let written = (|| {
            self.file.write_all(header.as_deref().unwrap_or_default())?;
            row.iter().try_for_each(|x| self.file.write_all(&x.to_le_bytes()))
        })();
        written.map_err(|e: io::Error| Failure::failed(format!("{}: {e}", self.path.display())))
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.file.flush().map_err(|e| Failure::failed(format!("{}: {e}", self.path.display())))
    }
}

/// The header of `NumPy`'s format 1.0: magic, version, length, a Python dictionary padded to a multiple of 64.
fn npy_header(n_rows: usize, n_columns: usize) -> Vec<u8> {
    let fields = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {n_columns}), }}");
    let before = 10 + fields.len() + 1;
    let padding = before.next_multiple_of(64) - before;
    let length = u16::try_from(fields.len() + padding + 1).unwrap_or(u16::MAX);
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(length.to_le_bytes());
    header.extend(fields.bytes().chain(std::iter::repeat_n(b' ', padding)).chain([b'\n']));
    header
}
