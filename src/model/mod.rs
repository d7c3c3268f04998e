//! Token ids in, logits out.
//!
//! `gguf` reads a model file, `weights` holds its bytes, `config` turns its metadata into
//! hyperparameters. `cpu` runs the forward pass on this machine's cores; `candle` runs it on candle tensors, on graphics
//! processors and as the reference, with `kv` for what it remembers per sequence.
//! Nothing here knows text, sampling, users or HTTP; a token is a number.

mod batch;
mod candle;
pub mod config;
mod cpu;
pub mod gguf;
mod kv;
mod memory;
mod tensor_list;
mod weights;

use std::fmt;
use std::path::PathBuf;

pub use crate::kernels::arena::are_huge_pages_given;
pub use crate::kernels::dispatch::Isa;
pub use crate::kernels::kv::KvType;
pub use config::ModelConfig;
pub use gguf::Gguf;
pub use memory::available as available_memory;

/// Values of `general.architecture` that a runner here computes.
pub const SUPPORTED_ARCHITECTURES: &[&str] = &[
    "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "smollm3", "granite", "glm4", "lfm2",
    "qwen3moe",
];

/// Those of them that only the runner on candle tensors computes, also on this machine's cores.
pub const CANDLE_ONLY: &[&str] = &["glm4", "lfm2", "qwen3moe"];

/// Where the forward pass runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Device {
    /// This machine's cores.
    #[default]
    Cpu,
    /// The first NVIDIA GPU; needs a build with the `cuda` feature.
    Cuda,
    /// Apple's GPU; needs a build with the `metal` feature.
    Metal,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        })
    }
}

/// What a model is loaded for.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Positions per sequence; `None` takes what the model was trained on, at most 4,096.
    pub n_ctx: Option<usize>,
    /// Threads of the forward pass, at least 1.
    pub n_threads: usize,
    /// Where it runs.
    pub device: Device,
    /// Sequences that may be alive at once, forks not counted; memory for all of them is asked for before loading.
    pub max_sequences: usize,
    /// How keys and values are kept, where the runner has a choice.
    pub kv: KvType,
    /// The kernels to run; `None` takes the best that this CPU has.
    pub isa: Option<Isa>,
}

impl Default for LoadOptions {
    /// One sequence on one thread of this machine.
    fn default() -> Self {
        Self {
            n_ctx: None,
            n_threads: 1,
            device: Device::Cpu,
            max_sequences: 1,
            kv: KvType::default(),
            isa: None,
        }
    }
}

/// Loads a model for inference.
///
/// # Errors
/// [`ModelError::Unsupported`] for an architecture, tensor type or device that this build does not run;
/// [`ModelError::Malformed`] when the metadata contradict each other or the tensors; [`ModelError::TooLarge`] when
/// weights and KV cache would not fit into memory.
pub fn load(gguf: &Gguf, options: &LoadOptions) -> Result<Box<dyn Model>, ModelError> {
    match options.device {
        Device::Cpu if CANDLE_ONLY.contains(&gguf.architecture()) => {
            tracing::info!(
                architecture = gguf.architecture(),
                "the kernels of this machine's cores do not know this architecture: candle runs it, slower"
            );
            load_reference(gguf, options)
        }
        Device::Cpu => Ok(Box::new(cpu::CpuModel::load(gguf, options)?)),
        Device::Cuda | Device::Metal => load_reference(gguf, options),
    }
}

/// Loads a model on candle tensors, on any device: the runner for graphics processors, and what the other is tested
/// against.
///
/// # Errors
/// As [`load`].
pub fn load_reference(gguf: &Gguf, options: &LoadOptions) -> Result<Box<dyn Model>, ModelError> {
    size_thread_pool(options.n_threads);
    Ok(Box::new(candle::CandleModel::load(gguf, options)?))
}

/// Bytes of memory that a model's weights take on this machine's cores, without KV cache and buffers.
pub fn resident_bytes(gguf: &Gguf) -> u64 {
    cpu::resident_bytes(gguf)
}

/// Gives candle's elementwise kernels `n_threads` threads. Its pool lives as long as the process, so the first model
/// decides; its quantized matrix products have a pool of their own, sized by the machine's cores.
fn size_thread_pool(n_threads: usize) {
    let n_threads = n_threads.max(1);
    let built = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build_global();
    if built.is_err() && rayon::current_num_threads() != n_threads {
        tracing::warn!(
            asked = n_threads,
            kept = rayon::current_num_threads(),
            "the thread pool exists already and keeps its size"
        );
    }
}

/// A vocabulary entry.
pub type TokenId = u32;

/// A model file that cannot be used. The text names the file's field, its value and the limit.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The bytes are not a well-formed GGUF, or break a limit.
    #[error("not a usable GGUF file: {0}")]
    Malformed(String),
    /// Well-formed, but of an architecture or tensor type that no runner here has.
    #[error("unsupported model: {0}")]
    Unsupported(String),
    /// Weights and KV cache would not fit; the text holds the arithmetic.
    #[error("not enough memory: {0}")]
    TooLarge(String),
    /// Reading failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A step failed inside the backend.
    #[error("inference failed: {0}")]
    Backend(String),
}

/// Handle of one sequence inside a [`Model`]: its KV cache and position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct SeqId(pub u32);

/// For which rows of a chunk logits are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogitsFor {
    /// None: a prefill chunk that is not the last.
    None,
    /// The last row: decode, or the end of a prefill.
    Last,
    /// Every row: perplexity, speculative verification.
    All,
}

/// Consecutive tokens of one sequence; they take the positions from the sequence's length on.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Which sequence.
    pub seq: SeqId,
    /// One or more tokens.
    pub tokens: &'a [TokenId],
    /// Which rows need logits.
    pub logits: LogitsFor,
}

/// One step's rows, of several sequences; a sequence stands in it at most once.
pub type Batch<'a> = [Chunk<'a>];

/// Logits of the wanted rows, in the order of the batch.
#[derive(Clone, Debug, Default)]
pub struct Logits {
    /// `(n_rows, n_vocab)`, row-major.
    pub data: Vec<f32>,
    /// Row length.
    pub n_vocab: usize,
}

impl Logits {
    /// The rows in order.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.n_vocab.max(1))
    }
    /// The `i`-th wanted row.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.n_vocab..(i + 1) * self.n_vocab]
    }
}

/// How much of the memory for keys and values is taken. A page belongs to every sequence that shares it, and counts once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KvUsage {
    /// Pages that hold positions of a live sequence.
    pub pages_used: usize,
    /// Pages that there are; 0 where a runner does not say.
    pub pages_total: usize,
    /// Bytes of one page, all layers together.
    pub bytes_per_page: usize,
}

/// What a page of keys and values is and what it is good for, where a runner hands pages out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvForm {
    /// Positions of a page.
    pub page_len: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Of weights, hyperparameters, kernels and layout: only pages under an equal one mean the same.
    pub fingerprint: [u8; 32],
}

/// A loaded model: immutable weights and the KV caches of its live sequences.
///
/// Used from one thread at a time (the inference thread); `step` blocks until the batch is done.
pub trait Model: Send {
    /// Its shape.
    fn config(&self) -> &ModelConfig;
    /// Which runner and device this is, for the log and `doctor`: `candle cpu`.
    fn backend(&self) -> String;
    /// A new, empty sequence.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`] when no KV memory is left.
    fn new_sequence(&mut self) -> Result<SeqId, ModelError>;
    /// Frees a sequence's memory. Unknown ids are ignored.
    fn free_sequence(&mut self, seq: SeqId);
    /// How many positions the sequence holds.
    fn seq_len(&self, seq: SeqId) -> usize;
    /// Forgets positions from `len` on; a longer `len` changes nothing.
    fn truncate(&mut self, seq: SeqId, len: usize);
    /// A new sequence that holds the first `len` positions of `seq`, as if it had been given the same tokens. Where keys
    /// and values stand in pages, whole pages are shared and cost nothing until the last of their sequences is freed.
    ///
    /// # Errors
    /// [`ModelError::Backend`] for an unknown sequence or a `len` past its length; [`ModelError::TooLarge`] when no KV
    /// memory is left; [`ModelError::Unsupported`] where a runner cannot.
    fn fork(&mut self, seq: SeqId, len: usize) -> Result<SeqId, ModelError> {
        let _ = (seq, len);
        Err(ModelError::Unsupported("this runner cannot fork a sequence".into()))
    }
    /// The mean over `tokens` of the last hidden state behind the output norm, `(n_embd)`, evaluated as a sequence of its
    /// own that leaves nothing behind.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] where a runner gives no hidden states, and what [`Model::step`] refuses.
    fn embed(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>, ModelError> {
        let _ = tokens;
        Err(ModelError::Unsupported("this runner gives no embeddings".into()))
    }
    /// How much KV memory is taken now.
    fn kv_usage(&self) -> KvUsage {
        KvUsage::default()
    }
    /// What pages of keys and values are; `None` where a runner has none to hand out.
    fn kv_form(&self) -> Option<KvForm> {
        None
    }
    /// A copy of the `i`-th page of a sequence, if it holds all positions of it.
    fn kv_page(&self, seq: SeqId, i: usize) -> Option<Vec<u8>> {
        let _ = (seq, i);
        None
    }
    /// Appends a page as [`Model::kv_page`] gave it under an equal [`KvForm`], to a sequence that ends with a whole page,
    /// as if it had been given the same tokens.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`] when no page is free; [`ModelError::Backend`] for an unknown sequence, one that ends
    /// within a page, or bytes of another length; [`ModelError::Unsupported`] where a runner cannot.
    fn append_kv_page(&mut self, seq: SeqId, bytes: &[u8]) -> Result<(), ModelError> {
        let _ = (seq, bytes);
        Err(ModelError::Unsupported("this runner takes no pages of keys and values".into()))
    }
    /// Evaluates all chunks and appends them to their sequences.
    ///
    /// # Errors
    /// A chunk past `n_ctx`, an id outside the vocabulary or an unknown sequence is refused before anything changes.
    fn step(&mut self, batch: &Batch<'_>) -> Result<Logits, ModelError>;
}
