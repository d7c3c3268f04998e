//! The forward pass of dense transformers on candle tensors: the reference path, on any device that candle has.
//!
//! One pass serves all architectures; what differs between them stands in [`ModelConfig`] and in which tensors the
//! file has. Rows of all sequences go through the linear layers together, and part only for attention.

mod attention;
mod block;
mod experts;
mod short_conv;
mod tensors;

use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{Device, Module, Tensor};
use candle_transformers::quantized_nn::{Linear, RmsNorm};

use super::config::Rope;
use super::kv::{KvCache, Sequences};
use super::memory::{self, Need};
use super::{
    Batch, Gguf, KvUsage, LoadOptions, Logits, LogitsFor, Model, ModelConfig, ModelError, SeqId, TokenId,
    batch, tensor_list,
};
use attention::{Masks, soft_cap};
use block::Block;
use tensors::Tensors;
use tensors::resident_bytes;

/// Keys and values are 32-bit floats here, twice what is counted per token.
const KV_WIDENING: u64 = 2;

/// A model on candle tensors.
pub(super) struct CandleModel {
    config: ModelConfig,
    device: Device,
    token_embedding: Arc<QTensor>,
    blocks: Vec<Block>,
    output_norm: RmsNorm,
    output: Linear,
    sequences: Sequences,
}

/// What one call of [`Model::step`] carries through the layers.
struct Step<'a> {
    device: &'a Device,
    /// Position of every row in its own sequence.
    positions: Vec<usize>,
    spans: Vec<Span<'a>>,
    masks: Masks,
    /// Angles of all rows, for the rotary embeddings met so far: two at most.
    tables: Vec<(&'a Rope, Tensor, Tensor)>,
}

/// The rows of one sequence.
struct Span<'a> {
    start: usize,
    len: usize,
    cache: &'a KvCache,
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn backend(error: candle_core::Error) -> ModelError {
    ModelError::Backend(error.to_string())
}

fn scaled(x: Tensor, scale: Option<f32>) -> candle_core::Result<Tensor> {
    match scale {
        None => Ok(x),
        Some(scale) => x * f64::from(scale),
    }
}

fn open_device(device: super::Device) -> Result<Device, ModelError> {
    let opened = match device {
        super::Device::Cpu => return Ok(Device::Cpu),
        super::Device::Cuda => Device::new_cuda(0),
        super::Device::Metal => Device::new_metal(0),
    };
    opened.map_err(|error| ModelError::Unsupported(format!("device {device}: {error}")))
}

impl CandleModel {
    pub(super) fn load(gguf: &Gguf, options: &LoadOptions) -> Result<Self, ModelError> {
        let config = ModelConfig::from_gguf(gguf, options.n_ctx)?;
        tensor_list::check_types(gguf, tensors::computes)?;
        tensor_list::check_layers(gguf, &config)?;
        let device = open_device(options.device)?;
        if device.is_cpu() {
            memory::check(&Need {
                weight_bytes: resident_bytes(gguf),
                work_bytes: 0,
                kv_bytes_per_token: KV_WIDENING * config.kv_bytes_per_token() as u64,
                n_ctx: config.n_ctx as u64,
                n_sequences: options.max_sequences as u64,
            })?;
        }
        let tensors = Tensors::new(gguf, &device);
        let c = &config;
        let token_embedding = Arc::new(tensors.get("token_embd.weight", &[c.n_embd, c.n_vocab])?);
        let output = if tensors.has("output.weight") {
            tensors.linear("output", c.n_embd, c.n_vocab)?
        } else {
            Linear::from_arc(Arc::clone(&token_embedding), None).map_err(backend)?
        };
        let blocks =
            (0..c.n_layer).map(|layer| Block::load(&tensors, c, layer)).collect::<Result<Vec<_>, _>>()?;
        // LFM2 calls its last norm by the name of the first tensor that it ever stood beside.
        let last_norm = if c.short_conv.is_some() { "token_embd_norm" } else { "output_norm" };
        let output_norm = tensors.norm(last_norm, c.n_embd, c.norm_eps)?;
        tensors.finish()?;
        let sequences = Sequences::new(options.max_sequences);
        Ok(Self { config, device, token_embedding, blocks, output_norm, output, sequences })
    }

    fn forward(&self, batch: &Batch<'_>) -> candle_core::Result<Logits> {
        let c = &self.config;
        let mut step = Step {
            device: &self.device,
            positions: Vec::new(),
            spans: Vec::with_capacity(batch.len()),
            masks: Masks::default(),
            tables: Vec::new(),
        };
        let mut ids: Vec<TokenId> = Vec::new();
        let mut wanted: Vec<u32> = Vec::new();
        for chunk in batch {
            let Some(cache) = self.sequences.get(chunk.seq) else { continue };
            let (start, len) = (ids.len(), chunk.tokens.len());
            step.positions.extend(cache.len()..cache.len() + len);
            step.spans.push(Span { start, len, cache });
            ids.extend_from_slice(chunk.tokens);
            match chunk.logits {
                LogitsFor::None => {}
                LogitsFor::Last => wanted.push((start + len - 1) as u32),
                LogitsFor::All => wanted.extend(start as u32..(start + len) as u32),
            }
        }
        let n_rows = ids.len();
        let ids = Tensor::from_vec(ids, n_rows, &self.device)?;
        let mut x = self.token_embedding.embedding(&ids)?; // (n_rows, n_embd)
        x = scaled(x, c.embedding_scale)?;
        for block in &self.blocks {
            x = block.forward(&x, c, &mut step)?;
        }
        if wanted.is_empty() {
            return Ok(Logits { data: Vec::new(), n_vocab: c.n_vocab });
        }
        if wanted.len() < n_rows {
            let n_wanted = wanted.len();
            x = x.index_select(&Tensor::from_vec(wanted, n_wanted, &self.device)?, 0)?;
        }
        let logits = self.output.forward(&self.output_norm.forward(&x)?)?; // (n_wanted, n_vocab)
        let mut logits = scaled(logits, c.logit_scale)?;
        if let Some(cap) = c.logit_softcap {
            logits = soft_cap(&logits, cap)?;
        }
        Ok(Logits { data: logits.flatten_all()?.to_vec1()?, n_vocab: c.n_vocab })
    }
}

impl<'a> Step<'a> {
    /// Cosines and sines of every row, each `(n_rows, n_dims / 2)`.
    fn rope_tables(&mut self, rope: &'a Rope) -> candle_core::Result<(Tensor, Tensor)> {
        if let Some((_, cos, sin)) = self.tables.iter().find(|(known, ..)| std::ptr::eq(*known, rope)) {
            return Ok((cos.clone(), sin.clone()));
        }
        let shape = (self.positions.len(), rope.inv_freq.len());
        let (cos, sin) = rope.tables(&self.positions);
        let cos = Tensor::from_vec(cos, shape, self.device)?;
        let sin = Tensor::from_vec(sin, shape, self.device)?;
        self.tables.push((rope, cos.clone(), sin.clone()));
        Ok((cos, sin))
    }
}

impl Model for CandleModel {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn backend(&self) -> String {
        let device = match self.device {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        };
        format!("candle {device}")
    }

    fn new_sequence(&mut self) -> Result<SeqId, ModelError> {
        self.sequences.create()
    }

    fn free_sequence(&mut self, seq: SeqId) {
        self.sequences.free(seq);
    }

    fn seq_len(&self, seq: SeqId) -> usize {
        self.sequences.get(seq).map_or(0, KvCache::len)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        if let Some(cache) = self.sequences.get_mut(seq) {
            cache.truncate(len);
        }
    }

    fn fork(&mut self, seq: SeqId, len: usize) -> Result<SeqId, ModelError> {
        self.sequences.fork(seq, len)
    }

    fn kv_usage(&self) -> KvUsage {
        self.sequences.usage(&self.config)
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Logits, ModelError> {
        batch::check(batch, &self.config, |seq| self.sequences.get(seq).map(KvCache::len))?;
        if batch.is_empty() {
            return Ok(Logits { data: Vec::new(), n_vocab: self.config.n_vocab });
        }
        for chunk in batch {
            if let Some(cache) = self.sequences.get_mut(chunk.seq) {
                cache.reserve(chunk.tokens.len(), &self.config, &self.device).map_err(backend)?;
            }
        }
        // Rows written by a step that then fails are not counted, so the next one writes over them.
        let logits = self.forward(batch).map_err(backend)?;
        for chunk in batch {
            if let Some(cache) = self.sequences.get_mut(chunk.seq) {
                cache.advance(chunk.tokens.len());
            }
        }
        Ok(logits)
    }
}
