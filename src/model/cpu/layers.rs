//! The forward pass: rows of several sequences through all layers, a handful of parallel steps each.

use super::super::config::{Rope, RopeStyle};
use super::super::{ModelConfig, TokenId};
use super::{CpuModel, Embedding, Layer};
use crate::kernels::activations::Activations;
use crate::kernels::attend::{Queries, Scope, TILE_ROWS, Tile, attend};
use crate::kernels::attention::PAGE_LEN;
use crate::kernels::blocks::dequantize;
use crate::kernels::kv::{Heads, Pages};
use crate::kernels::linear::{Gate, Input, Linear, Store, linear};
use crate::kernels::place::{HeadSteps, Place, Rotation, place_rows};
use crate::kernels::rows::{Norm, add_normed_rows, fill_rows, norm_rows, quantize_rows};
use crate::kernels::team::Team;
use crate::model::config::Activation;

/// What a pass works in. Sized once for the most rows of a pass; nothing grows in a step but the list of page tables.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// What stands in the rows.
    ids: Vec<TokenId>,
    positions: Vec<usize>,
    places: Vec<Place>,
    tiles: Vec<Tile>,
    /// Pages of the sequences, one list after the other.
    tables: Vec<u32>,
    /// Rows that need logits, ascending.
    wanted: Vec<usize>,
    /// Their tiles, for the last layer.
    wanted_tiles: Vec<Tile>,
    /// The residual stream, `(n_rows, n_embd)`.
    x: Vec<f32>,
    /// What a linear layer reads.
    normed: Vec<f32>,
    codes: Activations,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    gated: Vec<f32>,
    /// What a part of a block found, where it is normed before it is added.
    found: Vec<f32>,
    /// Cosines and sines of the rows, for layers that see everything and for windowed ones.
    tables_of_rope: [(Vec<f32>, Vec<f32>); 2],
}

/// Widths of the buffers' rows.
struct Widths {
    embd: usize,
    qkv: usize,
    attended: usize,
    ff: usize,
    pairs: usize,
}

impl Widths {
    fn of(c: &ModelConfig) -> Self {
        let pairs = |rope: &Rope| rope.inv_freq.len();
        Self {
            embd: c.n_embd,
            qkv: (c.n_head + 2 * c.n_head_kv) * c.head_dim,
            attended: c.n_head * c.head_dim,
            ff: c.n_ff,
            pairs: pairs(&c.rope).max(c.sliding_window.as_ref().map_or(0, |sliding| pairs(&sliding.rope))),
        }
    }

    /// The widest row that is quantized.
    fn codes(&self) -> usize {
        self.embd.max(self.attended).max(self.ff)
    }
}

impl Buffers {
    /// Bytes that buffers for this shape take.
    pub(super) fn bytes(c: &ModelConfig, max_rows: usize) -> usize {
        let w = Widths::of(c);
        let floats = 3 * w.embd + w.qkv + w.attended + w.ff + 4 * w.pairs;
        // Beside each code a scale per 32 and a sum per 16, both f32.
        max_rows * (4 * floats + w.codes() + w.codes() / 8 + w.codes() / 4)
    }

    pub(super) fn new(c: &ModelConfig, max_rows: usize, reads_codes: bool, bf16: bool) -> Self {
        let w = Widths::of(c);
        let floats = |width: usize| vec![0.0; max_rows * width];
        let mut codes = Activations::default();
        if reads_codes {
            codes.resize(max_rows, w.codes().next_multiple_of(32));
            if bf16 {
                codes.bf16.resize(max_rows, w.codes().next_multiple_of(32));
            }
        }
        let has_post_norm = matches!(c.architecture.as_str(), "gemma2" | "gemma3");
        let windowed = if c.sliding_window.is_some() { w.pairs } else { 0 };
        Self {
            ids: Vec::with_capacity(max_rows),
            positions: Vec::with_capacity(max_rows),
            places: Vec::with_capacity(max_rows),
            tiles: Vec::with_capacity(max_rows),
            tables: Vec::new(),
            wanted: Vec::with_capacity(max_rows),
            wanted_tiles: Vec::with_capacity(max_rows),
            x: floats(w.embd),
            normed: floats(w.embd),
            codes,
            qkv: floats(w.qkv),
            attended: floats(w.attended),
            gated: floats(w.ff),
            found: floats(if has_post_norm { w.embd } else { 0 }),
            tables_of_rope: [(floats(w.pairs), floats(w.pairs)), (floats(windowed), floats(windowed))],
        }
    }

    /// Forgets the rows of the last pass.
    pub(super) fn begin(&mut self) {
        self.ids.clear();
        self.positions.clear();
        self.places.clear();
        self.tiles.clear();
        self.tables.clear();
        self.wanted.clear();
        self.wanted_tiles.clear();
    }

    /// Adds consecutive tokens of one sequence, of which the first gets `position`; its pages reach past the last.
    pub(super) fn add_rows(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        pages: &[u32],
        is_wanted: impl Fn(usize) -> bool,
    ) {
        let (table, first) = (self.tables.len(), self.ids.len());
        self.tables.extend_from_slice(pages);
        for (i, &id) in tokens.iter().enumerate() {
            let (row, position) = (first + i, position + i);
            self.ids.push(id);
            self.positions.push(position);
            self.places.push(Place { page: pages[position / PAGE_LEN], slot: (position % PAGE_LEN) as u32 });
            add_to_tiles(&mut self.tiles, row, position, table);
            if is_wanted(i) {
                self.wanted.push(row);
                add_to_tiles(&mut self.wanted_tiles, row, position, table);
            }
        }
    }

    /// Cosines and sines of all rows, for every rotation that the model has.
    fn fill_rope_tables(&mut self, c: &ModelConfig) {
        let [(cos, sin), (windowed_cos, windowed_sin)] = &mut self.tables_of_rope;
        c.rope.fill_tables(&self.positions, cos, sin);
        if let Some(sliding) = &c.sliding_window {
            sliding.rope.fill_tables(&self.positions, windowed_cos, windowed_sin);
        }
    }

    fn rotation(&self, c: &ModelConfig, layer: usize) -> Option<Rotation<'_>> {
        let rope = c.layer_rope(layer)?;
        let (cos, sin) = &self.tables_of_rope[usize::from(c.window(layer).is_some())];
        Some(Rotation { cos, sin, n_pairs: rope.inv_freq.len(), neox: rope.style == RopeStyle::Halves })
    }

    /// Moves the rows that need logits to the front and drops the others, of the residual stream and of what attention
    /// found.
    fn keep_wanted(&mut self, c: &ModelConfig) -> usize {
        for (to, &from) in self.wanted.iter().enumerate() {
            for (rows, width) in [(&mut self.x, c.n_embd), (&mut self.attended, c.n_head * c.head_dim)] {
                rows.copy_within(from * width..(from + 1) * width, to * width);
            }
        }
        self.wanted.len()
    }
}

/// Adds a row to the last tile where it continues it, else begins a tile.
fn add_to_tiles(tiles: &mut Vec<Tile>, row: usize, position: usize, table: usize) {
    match tiles.last_mut() {
        Some(tile) if tile.table == table && tile.row + tile.n_rows == row && tile.n_rows < TILE_ROWS => {
            tile.n_rows += 1;
        }
        _ => tiles.push(Tile { row, n_rows: 1, position, table }),
    }
}

impl CpuModel {
    /// Runs the rows that the buffers hold through the model and appends the logits of the wanted ones.
    pub(super) fn forward(&mut self, logits: &mut Vec<f32>) {
        let Self { config: c, team, buffers, .. } = self;
        let mut n_rows = buffers.ids.len();
        buffers.fill_rope_tables(c);
        let arena = self.weights.bytes();
        let (ids, output) = (&buffers.ids, &self.output.parts[0]);
        fill_rows(team, &mut buffers.x, n_rows, c.n_embd, &|row, out| {
            let id = ids[row] as usize;
            match self.embedding {
                Embedding::Tied => output.unpack_row(arena, id, out),
                Embedding::Rows { offset, ty, row_bytes } => {
                    dequantize(ty, &arena[offset + id * row_bytes..][..row_bytes], out);
                }
            }
            if let Some(scale) = c.embedding_scale {
                for x in out.iter_mut() {
                    *x *= scale;
                }
            }
        });
        for (i, layer) in self.layers.iter().enumerate() {
            let mut pass = Pass { c, team, arena, buffers, n_rows };
            pass.qkv(i, layer, &mut self.pages);
            let is_last = i + 1 == c.n_layer;
            if is_last && pass.buffers.wanted.is_empty() {
                return;
            }
            n_rows = pass.attend(i, layer, &self.pages, is_last);
            pass.feed_forward(layer);
        }
        let (norm, start) = (Norm { weight: &self.output_norm, eps: c.norm_eps }, logits.len());
        if let Some(sum) = &mut self.hidden_sum {
            let Buffers { x, normed, .. } = buffers;
            norm_rows(team, x, n_rows, norm, normed, None);
            for row in normed.chunks_exact(c.n_embd).take(n_rows) {
                std::iter::zip(&mut *sum, row).for_each(|(sum, x)| *sum += x);
            }
            return;
        }
        logits.resize(start + n_rows * c.n_vocab, 0.0);
        let out = &mut logits[start..];
        let Buffers { x, normed, codes, .. } = buffers;
        norm_rows(team, x, n_rows, norm, normed, self.output.reads_codes().then_some(codes));
        let input = Input { floats: normed, codes, n_rows };
        linear(team, &self.output, arena, &input, out, c.n_vocab, Store::Set);
        finish_logits(team, c, out);
    }
}

/// Scale and soft cap of logits, where the model has them.
fn finish_logits(team: &Team, c: &ModelConfig, logits: &mut [f32]) {
    if c.logit_scale.is_none() && c.logit_softcap.is_none() {
        return;
    }
    let kernels = team.kernels();
    // Rows of logits are few and long: cut across.
    let width = logits.len().div_ceil(team.n_threads() * 4).max(1);
    let (whole, rest) = (logits.len() / width, logits.len() % width);
    let finish = |part: &mut [f32]| {
        if let Some(scale) = c.logit_scale {
            for x in part.iter_mut() {
                *x *= scale;
            }
        }
        if let Some(cap) = c.logit_softcap {
            kernels.soft_cap(part, cap);
        }
    };
    let (parts, tail) = logits.split_at_mut(whole * width);
    fill_rows(team, parts, whole, width, &|_, part| finish(part));
    if rest > 0 {
        finish(tail);
    }
}

/// One layer's view of a pass.
struct Pass<'a> {
    c: &'a ModelConfig,
    team: &'a mut Team,
    arena: &'a [u8],
    buffers: &'a mut Buffers,
    n_rows: usize,
}

impl Pass<'_> {
    /// Queries, keys and values of all rows; keys and values go to their pages.
    fn qkv(&mut self, i: usize, layer: &Layer, pages: &mut Pages) {
        let (c, n_rows) = (self.c, self.n_rows);
        let norm = |weight| Norm { weight, eps: c.norm_eps };
        let b = &mut *self.buffers;
        let codes = layer.qkv.reads_codes().then_some(&mut b.codes);
        norm_rows(self.team, &b.x, n_rows, norm(&layer.attention_norm), &mut b.normed, codes);
        let input = Input { floats: &b.normed, codes: &b.codes, n_rows };
        let width = pages.layout().heads.qkv_width();
        linear(self.team, &layer.qkv, self.arena, &input, &mut b.qkv, width, Store::Set);
        let mut qkv = std::mem::take(&mut b.qkv);
        let steps = HeadSteps {
            query_norm: layer.query_norm.as_deref().map(norm),
            key_norm: layer.key_norm.as_deref().map(norm),
            rotation: b.rotation(c, i),
            query_scale: c.attention_scale,
        };
        place_rows(self.team, pages, i, &mut qkv, &b.places, &steps);
        b.qkv = qkv;
    }

    /// Attention and its output; in the last layer only for rows that need logits. Returns how many rows go on.
    fn attend(&mut self, i: usize, layer: &Layer, pages: &Pages, is_last: bool) -> usize {
        let c = self.c;
        let b = &mut *self.buffers;
        let scope =
            Scope { window: c.window(i).unwrap_or(usize::MAX), cap: c.attention_softcap.unwrap_or(0.0) };
        let tiles = if is_last { &b.wanted_tiles } else { &b.tiles };
        let queries = Queries { qkv: &b.qkv, tiles, tables: &b.tables };
        attend(self.team, pages, i, queries, scope, &mut b.attended);
        if is_last {
            self.n_rows = b.keep_wanted(c);
        }
        let post_norm = layer.attention_post_norm.as_deref();
        self.add(&layer.attention_output, post_norm, Source::Attended);
        self.n_rows
    }

    fn feed_forward(&mut self, layer: &Layer) {
        let (c, n_rows) = (self.c, self.n_rows);
        let b = &mut *self.buffers;
        let norm = Norm { weight: &layer.ffn_norm, eps: c.norm_eps };
        let codes = layer.gate_up.reads_codes().then_some(&mut b.codes);
        norm_rows(self.team, &b.x, n_rows, norm, &mut b.normed, codes);
        let gate = match c.activation {
            Activation::Silu => Gate::Silu,
            Activation::Gelu => Gate::Gelu,
        };
        let input = Input { floats: &b.normed, codes: &b.codes, n_rows };
        linear(self.team, &layer.gate_up, self.arena, &input, &mut b.gated, c.n_ff, Store::Gated(gate));
        self.add(&layer.down, layer.ffn_post_norm.as_deref(), Source::Gated);
    }

    /// Adds what `layer` makes of `source` to the residual stream.
    fn add(&mut self, layer: &Linear, post_norm: Option<&[f32]>, source: Source) {
        let (c, n_rows) = (self.c, self.n_rows);
        let b = &mut *self.buffers;
        let floats = match source {
            Source::Attended => &b.attended,
            Source::Gated => &b.gated,
        };
        if layer.reads_codes() {
            quantize_rows(self.team, floats, n_rows, layer.k, &mut b.codes);
        }
        let input = Input { floats, codes: &b.codes, n_rows };
        let scale = c.residual_scale.unwrap_or(1.0);
        match post_norm {
            None => linear(self.team, layer, self.arena, &input, &mut b.x, c.n_embd, Store::Add { scale }),
            Some(weight) => {
                linear(self.team, layer, self.arena, &input, &mut b.found, c.n_embd, Store::Set);
                let norm = Norm { weight, eps: c.norm_eps };
                add_normed_rows(self.team, &mut b.x, n_rows, norm, &mut b.found, scale);
            }
        }
    }
}

/// Which buffer a layer reads.
#[derive(Clone, Copy)]
enum Source {
    Attended,
    Gated,
}

/// Heads of a model's attention layers.
pub(super) fn heads(c: &ModelConfig) -> Heads {
    Heads { n_head: c.n_head, n_head_kv: c.n_head_kv, head_dim: c.head_dim }
}
