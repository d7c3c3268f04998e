//! From the tensors of a file to packed weights in one arena.
//!
//! First every tensor gets its place, so that all sizes are known and held against the machine's memory before a byte is
//! spent. Then panels are read and packed on all threads, a few at a time, so that hardly more than the arena is in memory
//! at once. Where the token embedding is the output layer too, its rows are looked up in the packed matrix: no weight is
//! there twice.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::super::gguf::TensorInfo;
use super::super::memory::{self, Need};
use super::super::tensor_list::{self, TensorList};
use super::super::{Gguf, LoadOptions, ModelConfig, ModelError};
use super::layers::{Buffers, heads};
use super::sequences::Sequences;
use super::{CpuModel, Embedding, Layer, MAX_ROWS};
use crate::kernels::arena::Arena;
use crate::kernels::attention::PAGE_LEN;
use crate::kernels::blocks::{BlockType, dequantize};
use crate::kernels::dispatch::{Isa, Kernels};
use crate::kernels::kv::{KvType, PageLayout, Pages, WORDS_HEAD_DIM_MAX};
use crate::kernels::linear::{Linear, Packing, Part};
use crate::kernels::pack::PANEL_ROWS;
use crate::kernels::team::Team;

/// Matrices start at a multiple of a cache line.
const ALIGNMENT: usize = 64;

/// Rows of a tensor that become panels.
#[derive(Clone, Copy)]
struct Rows<'a> {
    info: &'a TensorInfo,
    first: usize,
    n: usize,
    packing: Packing,
}

/// Bytes of the file that a thread reads at a time: calls of the system cost little beside them, and they stay in the
/// second-level cache until they are packed.
const READ_BYTES: usize = 256 << 10;

/// Panels to be packed, one after the other, or of two matrices in turn.
struct Job<'a> {
    offset: usize,
    k: usize,
    /// One or two.
    rows: Vec<Rows<'a>>,
}

impl Job<'_> {
    /// Bytes of one panel of each matrix.
    fn stride(&self) -> usize {
        self.rows.iter().map(|rows| rows.packing.panel_bytes(self.k)).sum()
    }

    fn n_panels(&self) -> usize {
        self.rows.first().map_or(0, |rows| rows.n.div_ceil(PANEL_ROWS))
    }
}

/// Places of the weights in the arena to be.
struct Plan<'a> {
    list: TensorList<'a>,
    jobs: Vec<Job<'a>>,
    /// Where rows are kept as they are in the file.
    copied: Option<(usize, &'a TensorInfo)>,
    bytes: usize,
}

fn block_type(info: &TensorInfo) -> Result<BlockType, ModelError> {
    BlockType::from_ggml(info.tensor_type.number())
        .ok_or_else(|| ModelError::Unsupported(format!("tensor {} has type {}", info.name, info.tensor_type)))
}

impl<'a> Plan<'a> {
    /// A vector as f32.
    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, ModelError> {
        let info = self.list.take(name, &[n])?;
        let mut out = vec![0.0; n];
        dequantize(block_type(info)?, &self.list.gguf().tensor_data(info)?, &mut out);
        Ok(out)
    }

    fn optional_vector(&self, name: &str, n: usize) -> Result<Option<Vec<f32>>, ModelError> {
        if self.list.has(name) { self.vector(name, n).map(Some) } else { Ok(None) }
    }

    /// A matrix from `n_in` to `n_out`, and its bias or none. `name` goes without `.weight`.
    fn matrix(&self, name: &str, n_in: usize, n_out: usize) -> Result<(Rows<'a>, Vec<f32>), ModelError> {
        let info = self.list.take(&format!("{name}.weight"), &[n_in, n_out])?;
        let rows = Rows { info, first: 0, n: n_out, packing: Packing::of(block_type(info)?) };
        let bias = self.optional_vector(&format!("{name}.bias"), n_out)?.unwrap_or_default();
        Ok((rows, bias))
    }

    fn place(&mut self, k: usize, rows: Vec<Rows<'a>>) -> usize {
        let offset = self.bytes.next_multiple_of(ALIGNMENT);
        let job = Job { offset, k, rows };
        self.bytes = offset + job.n_panels() * job.stride();
        self.jobs.push(job);
        offset
    }

    /// Matrices that read the same input, their outputs side by side.
    fn linear(&mut self, k: usize, matrices: Vec<(Rows<'a>, Vec<f32>)>) -> Linear {
        let mut column = 0;
        let mut parts = Vec::with_capacity(matrices.len());
        for (rows, bias) in matrices {
            let (packing, offset) = (rows.packing, self.place(k, vec![rows]));
            let stride = packing.panel_bytes(k);
            parts.push(Part { packing, offset, stride, n_rows: rows.n, column, bias });
            column += rows.n;
        }
        Linear { k, parts }
    }

    /// Gate and up, their panels in turn, so that a thread streams one range.
    fn gate_up(&mut self, c: &ModelConfig, layer: usize) -> Result<Linear, ModelError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (k, n) = (c.n_embd, c.n_ff);
        let [(gate, gate_bias), (up, up_bias)] = if self.list.has(&name("ffn_gate.weight")) {
            [self.matrix(&name("ffn_gate"), k, n)?, self.matrix(&name("ffn_up"), k, n)?]
        } else {
            let (both, mut bias) = self.matrix(&name("ffn_up"), k, 2 * n)?;
            let up_bias = bias.split_off(n.min(bias.len()));
            [(Rows { n, ..both }, bias), (Rows { first: n, n, ..both }, up_bias)]
        };
        let (gate_bytes, up_bytes) = (gate.packing.panel_bytes(k), up.packing.panel_bytes(k));
        let offset = self.place(k, vec![gate, up]);
        let part = |rows: Rows<'_>, offset, bias| Part {
            packing: rows.packing,
            offset,
            stride: gate_bytes + up_bytes,
            n_rows: n,
            column: 0,
            bias,
        };
        Ok(Linear { k, parts: vec![part(gate, offset, gate_bias), part(up, offset + gate_bytes, up_bias)] })
    }

    fn layer(&mut self, c: &ModelConfig, layer: usize) -> Result<Layer, ModelError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let norm = |part: &str| format!("blk.{layer}.{part}.weight");
        let (n_q, n_kv) = (c.n_head * c.head_dim, c.n_head_kv * c.head_dim);
        let qkv = if self.list.has(&norm("attn_qkv")) {
            vec![self.matrix(&name("attn_qkv"), c.n_embd, n_q + 2 * n_kv)?]
        } else {
            let wanted = [("attn_q", n_q), ("attn_k", n_kv), ("attn_v", n_kv)];
            wanted.iter().map(|(part, n)| self.matrix(&name(part), c.n_embd, *n)).collect::<Result<_, _>>()?
        };
        let qkv = self.linear(c.n_embd, qkv);
        let attention_output = self.matrix(&name("attn_output"), n_q, c.n_embd)?;
        let attention_output = self.linear(n_q, vec![attention_output]);
        let gate_up = self.gate_up(c, layer)?;
        let down = self.matrix(&name("ffn_down"), c.n_ff, c.n_embd)?;
        Ok(Layer {
            attention_norm: self.vector(&norm("attn_norm"), c.n_embd)?,
            qkv,
            query_norm: self.optional_vector(&norm("attn_q_norm"), c.head_dim)?,
            key_norm: self.optional_vector(&norm("attn_k_norm"), c.head_dim)?,
            attention_output,
            attention_post_norm: self.optional_vector(&norm("post_attention_norm"), c.n_embd)?,
            ffn_norm: self.vector(&norm("ffn_norm"), c.n_embd)?,
            gate_up,
            down: self.linear(c.n_ff, vec![down]),
            ffn_post_norm: self.optional_vector(&norm("post_ffw_norm"), c.n_embd)?,
        })
    }

    /// The output layer, its own matrix or the token embedding once more, and where embeddings are looked up.
    fn ends(&mut self, c: &ModelConfig) -> Result<(Embedding, Linear), ModelError> {
        if !self.list.has("output.weight") {
            let matrix = self.matrix("token_embd", c.n_embd, c.n_vocab)?;
            return Ok((Embedding::Tied, self.linear(c.n_embd, vec![matrix])));
        }
        let info = self.list.take("token_embd.weight", &[c.n_embd, c.n_vocab])?;
        let offset = self.bytes.next_multiple_of(ALIGNMENT);
        self.bytes = offset + info.size_bytes();
        self.copied = Some((offset, info));
        let embedding =
            Embedding::Rows { offset, ty: block_type(info)?, row_bytes: info.size_bytes() / c.n_vocab };
        let matrix = self.matrix("output", c.n_embd, c.n_vocab)?;
        Ok((embedding, self.linear(c.n_embd, vec![matrix])))
    }

    /// Reads and packs everything into `arena`.
    fn pack(&self, team: &Team, arena: &mut [u8]) -> Result<(), ModelError> {
        let gguf = self.list.gguf();
        for job in &self.jobs {
            let stride = job.stride();
            let most = job.rows.iter().map(|rows| rows.info.size_bytes() / rows.info.n_rows()).max();
            let at_once = (READ_BYTES / (PANEL_ROWS * most.unwrap_or(1))).max(1);
            let out = &mut arena[job.offset..job.offset + job.n_panels() * stride];
            in_parallel(team, out.chunks_mut(at_once * stride), |i, out, buffer| {
                pack_panels(gguf, job, i * at_once, out, buffer)
            })?;
        }
        if let Some((offset, info)) = self.copied {
            let row_bytes = info.size_bytes() / info.n_rows();
            let at_once = (READ_BYTES / row_bytes).max(1);
            let out = &mut arena[offset..offset + info.size_bytes()];
            in_parallel(team, out.chunks_mut(at_once * row_bytes), |i, out, buffer| {
                let first = i * at_once;
                let rows = first..first + out.len() / row_bytes;
                out.copy_from_slice(gguf.tensor_rows(info, rows, buffer)?);
                Ok(())
            })?;
        }
        gguf.check_unchanged()
    }
}

/// Calls `work(number, part, buffer)` for every part on the threads of `team`, until one of them fails.
fn in_parallel<'a>(
    team: &Team,
    parts: impl Iterator<Item = &'a mut [u8]> + Send,
    work: impl Fn(usize, &mut [u8], &mut Vec<u8>) -> Result<(), ModelError> + Sync,
) -> Result<(), ModelError> {
    let parts = Mutex::new(parts.enumerate());
    let failed = Mutex::new(None);
    team.run(&|_| {
        let mut buffer = Vec::new();
        loop {
            let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((i, part)) = next else { return };
            if let Err(error) = work(i, part, &mut buffer) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                return;
            }
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Reads and packs the panels from number `first` on that `out` holds, of each of the job's matrices.
fn pack_panels(
    gguf: &Gguf,
    job: &Job<'_>,
    first: usize,
    out: &mut [u8],
    buffer: &mut Vec<u8>,
) -> Result<(), ModelError> {
    let stride = job.stride();
    let mut before = 0;
    for rows in &job.rows {
        let panel_bytes = rows.packing.panel_bytes(job.k);
        let row_bytes = rows.info.size_bytes() / rows.info.n_rows();
        let start = first * PANEL_ROWS;
        let end = rows.n.min(start + out.len() / stride * PANEL_ROWS);
        let data = gguf.tensor_rows(rows.info, rows.first + start..rows.first + end, buffer)?;
        for (encoded, out) in data.chunks(PANEL_ROWS * row_bytes).zip(out.chunks_exact_mut(stride)) {
            let mut views: [&[u8]; PANEL_ROWS] = [&[]; PANEL_ROWS];
            let n = encoded.len() / row_bytes;
            for (view, row) in views.iter_mut().zip(encoded.chunks_exact(row_bytes)) {
                *view = row;
            }
            rows.packing.pack_panel(job.k, &views[..n], &mut out[before..before + panel_bytes]);
        }
        before += panel_bytes;
    }
    Ok(())
}

/// Bytes that the weights of a model take once they are packed.
pub(in crate::model) fn resident_bytes(gguf: &Gguf) -> u64 {
    let packed = |info: &TensorInfo| match block_type(info) {
        Ok(ty) if info.dims.len() > 1 => {
            info.n_rows().div_ceil(PANEL_ROWS) * Packing::of(ty).panel_bytes(info.n_cols())
        }
        _ => info.size_bytes(),
    };
    gguf.tensors().map(|info| packed(info) as u64).sum()
}

/// The kernels asked for, or the best there are.
fn kernels(asked: Option<Isa>) -> Result<Kernels, ModelError> {
    match asked {
        None => Ok(Kernels::best()),
        Some(isa) => Kernels::of(isa).ok_or_else(|| {
            ModelError::Unsupported(format!("kernels {}: this machine does not have them", isa.as_str()))
        }),
    }
}

pub(super) fn load(gguf: &Gguf, options: &LoadOptions) -> Result<CpuModel, ModelError> {
    let started = Instant::now();
    let config = ModelConfig::from_gguf(gguf, options.n_ctx)?;
    tensor_list::check_types(gguf, |ty| BlockType::from_ggml(ty.number()).is_some())?;
    tensor_list::check_layers(gguf, &config)?;
    let c = &config;
    let mut plan = Plan { list: TensorList::new(gguf), jobs: Vec::new(), copied: None, bytes: 0 };
    // First, because its shape is what the metadata are most easily held against.
    plan.list.take("token_embd.weight", &[c.n_embd, c.n_vocab])?;
    let layers = (0..c.n_layer).map(|layer| plan.layer(c, layer)).collect::<Result<Vec<_>, _>>()?;
    let output_norm = plan.vector("output_norm.weight", c.n_embd)?;
    let (embedding, output) = plan.ends(c)?;
    plan.list.finish()?;
    if options.kv == KvType::I16 && c.head_dim > WORDS_HEAD_DIM_MAX {
        let head_dim = c.head_dim;
        let how = format!(
            "heads of width {head_dim}: --kv i16 holds up to {WORDS_HEAD_DIM_MAX}; run it with --kv f16"
        );
        return Err(ModelError::Unsupported(how));
    }
    let layout = PageLayout { n_layer: c.n_layer, heads: heads(c), kv: options.kv };
    let n_pages = c.n_ctx.div_ceil(PAGE_LEN).saturating_mul(options.max_sequences);
    let max_rows = c.n_ctx.saturating_mul(options.max_sequences).clamp(1, MAX_ROWS);
    memory::check(&Need {
        weight_bytes: plan.bytes as u64,
        work_bytes: Buffers::bytes(c, max_rows) as u64,
        kv_bytes_per_token: (layout.page_bytes() / PAGE_LEN) as u64,
        n_ctx: c.n_ctx as u64,
        n_sequences: options.max_sequences as u64,
    })?;
    let refused = |error: std::io::Error| ModelError::TooLarge(error.to_string());
    let mut team = Team::new(options.n_threads, kernels(options.isa)?).map_err(refused)?;
    team.reserve(max_rows, &layout.heads);
    let pages = Pages::new(layout, n_pages).map_err(refused)?;
    let mut weights = Arena::new(plan.bytes).map_err(refused)?;
    let packing = Instant::now();
    plan.pack(&team, weights.bytes_mut())?;
    let reads_codes =
        plan.jobs.iter().flat_map(|job| &job.rows).any(|rows| matches!(rows.packing, Packing::Codes(_)));
    let buffers = Buffers::new(c, max_rows, reads_codes, team.kernels().bf16_rows_from().is_some());
    tracing::info!(
        kernels = team.kernels().isa().as_str(),
        threads = team.n_threads(),
        weight_mib = plan.bytes >> 20,
        file_mib = gguf.size_bytes() >> 20,
        huge_page_mib = weights.huge_bytes().map(|bytes| bytes >> 20),
        pack_ms = packing.elapsed().as_millis(),
        load_ms = started.elapsed().as_millis(),
        "weights are packed"
    );
    let sequences = Sequences::new(options.max_sequences, n_pages);
    Ok(CpuModel {
        config,
        embedding,
        weights,
        layers,
        output_norm,
        output,
        team,
        pages,
        sequences,
        max_rows,
        buffers,
        hidden_sum: None,
        fingerprint: [0; 32],
    })
}
