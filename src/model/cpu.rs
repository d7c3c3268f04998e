//! The forward pass of dense transformers on this machine's cores, over weights packed for them.
//!
//! `load` packs the file's tensors into one arena, `layers` is the pass itself, `sequences` knows which page of keys and
//! values belongs to whom, `pages` hands them out and takes them back. One pass serves all architectures, as on the reference path in `candle`.

mod layers;
mod load;
mod pages;
mod sequences;

use std::ops::Range;

use super::{
    Batch, Chunk, Gguf, KvForm, KvUsage, LoadOptions, Logits, LogitsFor, Model, ModelConfig, ModelError,
    SeqId, TokenId, batch,
};
use crate::kernels::arena::Arena;
use crate::kernels::blocks::BlockType;
use crate::kernels::kv::Pages;
use crate::kernels::linear::Linear;
use crate::kernels::team::Team;
use layers::Buffers;
pub(super) use load::resident_bytes;
use sequences::Sequences;

/// Most rows of one pass: with so many the time to read the weights is nothing beside that to multiply with them, and the
/// buffers stay small.
const MAX_ROWS: usize = 512;

/// A model on packed weights.
pub(super) struct CpuModel {
    config: ModelConfig,
    embedding: Embedding,
    weights: Arena,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    output: Linear,
    team: Team,
    pages: Pages,
    sequences: Sequences,
    /// Rows of one pass; larger batches take several.
    max_rows: usize,
    buffers: Buffers,
    /// Where hidden states are added up instead of becoming logits, `(n_embd)`.
    hidden_sum: Option<Vec<f32>>,
    /// See [`KvForm::fingerprint`].
    fingerprint: [u8; 32],
}

/// Where the rows of the token embedding stand.
enum Embedding {
    /// In the output layer, which is the same matrix: rows are taken out of its panels.
    Tied,
    /// As in the file, one after the other from `offset` on.
    Rows { offset: usize, ty: BlockType, row_bytes: usize },
}

/// The weights of one block.
struct Layer {
    attention_norm: Vec<f32>,
    /// Queries, keys and values side by side.
    qkv: Linear,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    attention_output: Linear,
    attention_post_norm: Option<Vec<f32>>,
    ffn_norm: Vec<f32>,
    /// Gate and up, panel by panel.
    gate_up: Linear,
    down: Linear,
    ffn_post_norm: Option<Vec<f32>>,
}

impl CpuModel {
    /// Loads, packs and says how long it took.
    pub(super) fn load(gguf: &Gguf, options: &LoadOptions) -> Result<Self, ModelError> {
        let mut model = load::load(gguf, options)?;
        model.fingerprint = pages::fingerprint(gguf, &model)?;
        Ok(model)
    }

    /// One pass over those rows of the batch that fall into `window` when the rows of all chunks are counted through.
    fn pass(&mut self, batch: &Batch<'_>, window: Range<usize>, logits: &mut Vec<f32>) {
        let parts = || {
            let mut before = 0;
            batch.iter().filter_map(move |chunk| {
                let n = chunk.tokens.len();
                let at = |row: usize| row.clamp(before, before + n) - before;
                let part = at(window.start)..at(window.end);
                before += n;
                (!part.is_empty()).then_some((chunk, part))
            })
        };
        self.buffers.begin();
        for (chunk, part) in parts() {
            let position = self.sequences.len_of(chunk.seq).unwrap_or(0);
            let pages = self.sequences.pages_of(chunk.seq);
            let last = chunk.tokens.len() - 1;
            self.buffers.add_rows(&chunk.tokens[part.clone()], position, pages, |row| match chunk.logits {
                LogitsFor::None => false,
                LogitsFor::Last => part.start + row == last,
                LogitsFor::All => true,
            });
        }
        self.forward(logits);
        for (chunk, part) in parts() {
            self.sequences.advance(chunk.seq, part.len());
        }
    }
}

impl Model for CpuModel {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn backend(&self) -> String {
        format!("cpu {}", self.team.kernels().isa().as_str())
    }

    fn new_sequence(&mut self) -> Result<SeqId, ModelError> {
        self.sequences.create()
    }

    fn free_sequence(&mut self, seq: SeqId) {
        self.sequences.free(seq);
    }

    fn seq_len(&self, seq: SeqId) -> usize {
        self.sequences.len_of(seq).unwrap_or(0)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        self.sequences.truncate(seq, len);
    }

    fn fork(&mut self, seq: SeqId, len: usize) -> Result<SeqId, ModelError> {
        self.sequences.fork(seq, len)
    }

    fn embed(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>, ModelError> {
        let seq = self.sequences.create_beside();
        self.hidden_sum = Some(vec![0.0; self.config.n_embd]);
        let done = self.step(&[Chunk { seq, tokens, logits: LogitsFor::All }]);
        let sum = self.hidden_sum.take().unwrap_or_default();
        self.sequences.free(seq);
        done?;
        let n = tokens.len() as f32;
        Ok(sum.into_iter().map(|x| x / n).collect())
    }

    fn kv_usage(&self) -> KvUsage {
        KvUsage {
            pages_used: self.sequences.n_used(),
            pages_total: self.pages.n_pages(),
            bytes_per_page: self.pages.layout().page_bytes(),
        }
    }

    fn kv_form(&self) -> Option<KvForm> {
        Some(self.form())
    }

    fn kv_page(&self, seq: SeqId, i: usize) -> Option<Vec<u8>> {
        self.page_of(seq, i)
    }

    fn append_kv_page(&mut self, seq: SeqId, bytes: &[u8]) -> Result<(), ModelError> {
        self.append_page(seq, bytes)
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Logits, ModelError> {
        batch::check(batch, &self.config, |seq| self.sequences.len_of(seq))?;
        self.sequences.reserve(batch, &mut self.pages)?;
        let n_rows: usize = batch.iter().map(|chunk| chunk.tokens.len()).sum();
        let n_vocab = self.config.n_vocab;
        let n_wanted: usize = batch
            .iter()
            .map(|chunk| match chunk.logits {
                LogitsFor::None => 0,
                LogitsFor::Last => 1,
                LogitsFor::All => chunk.tokens.len(),
            })
            .sum();
        let mut data = Vec::with_capacity(n_wanted * n_vocab);
        for start in (0..n_rows).step_by(self.max_rows) {
            self.pass(batch, start..(start + self.max_rows).min(n_rows), &mut data);
        }
        Ok(Logits { data, n_vocab })
    }
}
