//! A linear layer over packed weights, all threads together, with what follows it done while the sums are at hand.

use super::activations::{Activations, BF16_TILE_ROWS, Bf16Activations};
use super::blocks::BlockType;
use super::dispatch::Kernels;
use super::pack::{PANEL_ROWS, PanelLayout};
use super::reached::{self, Path};
use super::team::{Parts, Scratch, Shares, Team};

/// Weights of a row that are widened at once: 16 rows of them as f32 fill half of a first-level cache.
pub(super) const FLOAT_RUN: usize = 256;
/// Panels that go to a free thread at a time when few rows make a panel short.
const FEW_ROWS_GRAIN: usize = 2;
/// Rows up to which a panel is short.
const FEW_ROWS: usize = 8;

/// Bytes of bf16 rows that a core keeps at hand: three quarters of the 2 MiB second-level cache of CPUs with tiles.
const WIDE_BLOCK_BYTES: usize = 3 << 19;

/// How the rows of a matrix lie in memory: panels of 16 rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    /// Quantized, in the tiles of [`super::pack`].
    Codes(PanelLayout),
    /// Floats in the file's own width, `(k, 16)`.
    Floats(BlockType),
}

impl Packing {
    /// The packing of a format.
    pub fn of(ty: BlockType) -> Self {
        PanelLayout::of(ty).map_or(Self::Floats(ty), Self::Codes)
    }

    /// Bytes of a panel over `k` weights.
    pub fn panel_bytes(&self, k: usize) -> usize {
        match self {
            Self::Codes(layout) => layout.panel_bytes(k),
            Self::Floats(ty) => k * PANEL_ROWS * ty.block_bytes(),
        }
    }

    /// Packs up to 16 rows of `k` weights, each in the file's encoding; missing rows become zeros.
    ///
    /// # Panics
    /// As [`super::pack::pack_panel`].
    pub fn pack_panel(&self, k: usize, rows: &[&[u8]], out: &mut [u8]) {
        match self {
            Self::Codes(layout) => super::pack::pack_panel(layout, k, rows, out),
            Self::Floats(ty) => {
                let width = ty.block_bytes();
                assert!(rows.len() <= PANEL_ROWS && out.len() == self.panel_bytes(k));
                assert!(rows.iter().all(|r| r.len() == k * width), "rows of {k} weights in {ty:?}");
                out.fill(0);
                for (r, row) in rows.iter().enumerate() {
                    for (w, line) in row.chunks_exact(width).zip(out.chunks_exact_mut(PANEL_ROWS * width)) {
                        line[r * width..(r + 1) * width].copy_from_slice(w);
                    }
                }
            }
        }
    }
}

/// Rows of one format inside a [`Linear`].
#[derive(Clone, Debug)]
pub struct Part {
    /// How they are packed.
    pub packing: Packing,
    /// Where the first panel starts in the arena, in bytes.
    pub offset: usize,
    /// From one panel to the next; more than a panel where those of two parts alternate.
    pub stride: usize,
    /// Rows: outputs of this part.
    pub n_rows: usize,
    /// Column of the output that the first row writes.
    pub column: usize,
    /// One per row, or none at all.
    pub bias: Vec<f32>,
}

impl Part {
    /// Row `row` of the matrix, dequantized: a token's embedding, where it is the output layer too.
    ///
    /// # Panics
    /// If there is no such row, or the part lies outside `arena`.
    pub fn unpack_row(&self, arena: &[u8], row: usize, out: &mut [f32]) {
        assert!(row < self.n_rows, "row {row} of {}", self.n_rows);
        let (panel, r) = (row / PANEL_ROWS, row % PANEL_ROWS);
        let bytes = &arena[self.offset + panel * self.stride..][..self.packing.panel_bytes(out.len())];
        match &self.packing {
            Packing::Codes(layout) => super::scalar::unpack_row(layout, bytes, r, out),
            Packing::Floats(ty) => {
                let width = ty.block_bytes();
                for (out, line) in out.iter_mut().zip(bytes.chunks_exact(PANEL_ROWS * width)) {
                    let w = &line[r * width..(r + 1) * width];
                    super::blocks::dequantize(*ty, w, std::slice::from_mut(out));
                }
            }
        }
    }

    fn n_panels(&self) -> usize {
        self.n_rows.div_ceil(PANEL_ROWS)
    }

    fn is_packed(&self) -> bool {
        matches!(self.packing, Packing::Codes(_))
    }
}

/// A matrix made of one or more parts that read the same input.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Inputs.
    pub k: usize,
    /// Side by side in the output; two of equal length, gate and up, for [`Store::Gated`].
    pub parts: Vec<Part>,
}

impl Linear {
    /// Whether any part reads quantized activations.
    pub fn reads_codes(&self) -> bool {
        self.parts.iter().any(Part::is_packed)
    }
}

/// What happens to a sum.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Store {
    /// `out = sum`.
    Set,
    /// `out += scale * sum`.
    Add {
        /// The factor.
        scale: f32,
    },
    /// `out = gate(first part) * second part`.
    Gated(Gate),
}

/// The nonlinearity of a gated feed-forward layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// `x * sigmoid(x)`.
    Silu,
    /// The tanh approximation of GELU.
    Gelu,
}

/// The rows that a layer reads.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// As f32, `(n_rows, k)`; read by parts of plain floats.
    pub floats: &'a [f32],
    /// Quantized; read by the others.
    pub codes: &'a Activations,
    /// How many.
    pub n_rows: usize,
}

/// Runs one layer: `out[m][part.column + r]` for every row `m` of the input and every row `r` of every part.
///
/// # Panics
/// If a part lies outside `arena` or of a row of `out`, or a gated layer has not two parts of equal length.
pub fn linear(
    team: &mut Team,
    layer: &Linear,
    arena: &[u8],
    input: &Input<'_>,
    out: &mut [f32],
    width: usize,
    store: Store,
) {
    let n_rows = input.n_rows;
    let gated = matches!(store, Store::Gated(_));
    assert!(!gated || layer.parts.len() == 2 && layer.parts[0].n_rows == layer.parts[1].n_rows);
    // Columns of their own for every part: the threads rely on it.
    let apart = layer.parts.windows(2).all(|pair| pair[0].column + pair[0].n_rows <= pair[1].column);
    assert!(gated || apart, "two parts write the same column");
    for part in &layer.parts {
        assert!(part.column + part.n_rows <= width && n_rows * width <= out.len());
        assert!(part.bias.is_empty() || part.bias.len() == part.n_rows);
    }
    let wide = input.codes.wide().filter(|wide| wide.k == layer.k && wide.n_rows == n_rows);
    let kernels = &team.kernels;
    let in_pairs = wide.is_none() && kernels.pair_rows_from().is_some_and(|from| n_rows >= from);
    let step = Step { kernels, layer, arena, input, wide, gated, in_pairs };
    let n_units = step.n_units();
    // Rows of bf16 pass by in blocks that stay in a core's cache; all others at once, so that weights are read once.
    let block = wide.map_or(n_rows, |_| wide_block_rows(layer.k).min(n_rows)).max(1);
    let grain = if n_rows <= FEW_ROWS { FEW_ROWS_GRAIN } else { 1 };
    let shares = Shares::new(&team.cursors, n_units * n_rows.div_ceil(block), grain);
    let (scratch, out) = (Parts::new(&mut team.scratch), Parts::new(out));
    team.pool.run(&|thread_idx| {
        // SAFETY: every thread takes its own element, once.
        let scratch = &mut unsafe { scratch.part(thread_idx..thread_idx + 1) }[0];
        let Scratch { sums, floats, .. } = scratch;
        let (first, second) = sums[..2 * block].split_at_mut(block);
        shares.each(thread_idx, |units| {
            for unit in units {
                let (first_row, unit) = (unit / n_units * block, unit % n_units);
                let n_block = block.min(n_rows - first_row);
                let mut sums = [&mut first[..n_block], &mut second[..n_block]];
                let panels = step.panels(unit);
                step.sums(panels, first_row, &mut sums, floats);
                let [first, second] = sums;
                match store {
                    Store::Gated(Gate::Silu) => {
                        kernels.silu_mul(first.as_flattened_mut(), second.as_flattened());
                    }
                    Store::Gated(Gate::Gelu) => {
                        kernels.gelu_mul(first.as_flattened_mut(), second.as_flattened());
                    }
                    Store::Set | Store::Add { .. } => {}
                }
                let n_stored = if gated { 1 } else { 2 };
                for ((part, panel), sums) in
                    panels.into_iter().flatten().take(n_stored).zip([&*first, &*second])
                {
                    let n = PANEL_ROWS.min(part.n_rows - panel * PANEL_ROWS);
                    let column = part.column + panel * PANEL_ROWS;
                    for (m, sums) in sums.iter().enumerate() {
                        let at = (first_row + m) * width + column;
                        // SAFETY: columns of a panel and rows of a block belong to their unit, and a unit is handed out
                        // once; parts have columns of their own.
                        store_sums(store, sums, unsafe { out.part(at..at + n) });
                    }
                }
            }
        });
    });
}

/// One or two panels, each a part and a number, that make a unit of work.
type UnitPanels<'a> = [Option<(&'a Part, usize)>; 2];

/// What the threads of one layer share.
struct Step<'a> {
    kernels: &'a Kernels,
    layer: &'a Linear,
    arena: &'a [u8],
    input: &'a Input<'a>,
    wide: Option<&'a Bf16Activations>,
    gated: bool,
    in_pairs: bool,
}

impl<'a> Step<'a> {
    /// Panels of one part that go together; a gated unit is one of either part.
    fn together(&self) -> usize {
        if self.in_pairs && !self.gated { 2 } else { 1 }
    }

    fn n_units(&self) -> usize {
        let n = |part: &Part| part.n_panels().div_ceil(self.together());
        if self.gated { n(&self.layer.parts[0]) } else { self.layer.parts.iter().map(n).sum() }
    }

    /// The panels that unit `unit` stands for.
    fn panels(&self, unit: usize) -> UnitPanels<'a> {
        if self.gated {
            return [Some((&self.layer.parts[0], unit)), Some((&self.layer.parts[1], unit))];
        }
        let together = self.together();
        let mut unit = unit;
        for part in &self.layer.parts {
            let n_units = part.n_panels().div_ceil(together);
            if unit < n_units {
                let panel = unit * together;
                let has_second = together == 2 && panel + 1 < part.n_panels();
                return [Some((part, panel)), has_second.then_some((part, panel + 1))];
            }
            unit -= n_units;
        }
        unreachable!("unit {unit} is past the last panel")
    }

    /// Sums of each panel of a unit, for the rows from `first_row` on, biases added.
    fn sums(
        &self,
        panels: UnitPanels<'_>,
        first_row: usize,
        sums: &mut [&mut [[f32; PANEL_ROWS]]; 2],
        floats: &mut [f32],
    ) {
        let bytes = |(part, panel): (&Part, usize)| {
            let at = part.offset + panel * part.stride;
            &self.arena[at..at + part.packing.panel_bytes(self.layer.k)]
        };
        match panels {
            [Some(a), Some(b)] if self.in_pairs && a.0.packing == b.0.packing && a.0.is_packed() => {
                if let Packing::Codes(layout) = &a.0.packing {
                    let [first, second] = sums;
                    let pair = [bytes(a), bytes(b)];
                    self.kernels.panel_pair(layout, pair, self.input.codes, [first, second]);
                }
            }
            _ => {
                for (panel, sums) in panels.into_iter().flatten().zip(&mut *sums) {
                    match (&panel.0.packing, self.wide) {
                        (Packing::Codes(layout), Some(wide)) => {
                            self.kernels.panel_bf16(layout, bytes(panel), wide, first_row, sums);
                        }
                        (Packing::Codes(layout), None) => {
                            self.kernels.panel(layout, bytes(panel), self.input.codes, sums);
                        }
                        (Packing::Floats(ty), _) => {
                            let rows = &self.input.floats[first_row * self.layer.k..];
                            float_panel(self.kernels, *ty, bytes(panel), rows, self.layer.k, floats, sums);
                        }
                    }
                }
            }
        }
        for ((part, panel), sums) in panels.into_iter().flatten().zip(sums) {
            add_bias(part, panel, sums);
        }
    }
}

/// One row's sums of a panel to where they belong.
#[inline]
fn store_sums(store: Store, sums: &[f32; PANEL_ROWS], out: &mut [f32]) {
    match (store, out.as_mut_array::<PANEL_ROWS>()) {
        (Store::Add { scale }, Some(out)) => {
            for r in 0..PANEL_ROWS {
                out[r] += scale * sums[r];
            }
        }
        (Store::Add { scale }, None) => {
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += scale * sum);
        }
        (Store::Set | Store::Gated(_), Some(out)) => *out = *sums,
        (Store::Set | Store::Gated(_), None) => out.copy_from_slice(&sums[..out.len()]),
    }
}

/// Rows of `k` bf16 numbers that a core keeps at hand while all panels pass by: whole groups of four row tiles.
fn wide_block_rows(k: usize) -> usize {
    const GROUP: usize = 4 * BF16_TILE_ROWS;
    (WIDE_BLOCK_BYTES / (2 * k) / GROUP * GROUP).max(GROUP)
}

fn add_bias(part: &Part, panel: usize, sums: &mut [[f32; PANEL_ROWS]]) {
    if part.bias.is_empty() {
        return;
    }
    let bias = &part.bias[panel * PANEL_ROWS..];
    for sums in sums {
        sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
    }
}

/// One panel of plain floats times all rows: `sums[m][r]`.
fn float_panel(
    kernels: &Kernels,
    ty: BlockType,
    panel: &[u8],
    rows: &[f32],
    k: usize,
    floats: &mut [f32],
    sums: &mut [[f32; PANEL_ROWS]],
) {
    let path = if sums.len() <= FEW_ROWS { Path::FewRows } else { Path::ManyRows };
    reached::mark(kernels.isa(), ty, path);
    sums.fill([0.0; PANEL_ROWS]);
    let width = ty.block_bytes();
    for (run, bytes) in panel.chunks(FLOAT_RUN * PANEL_ROWS * width).enumerate() {
        let floats = &mut floats[..bytes.len() / width];
        match ty {
            BlockType::F16 => kernels.widen(bytes, floats),
            BlockType::BF16 => kernels.widen_bf16(bytes, floats),
            _ => {
                for (w, b) in floats.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *w = f32::from_le_bytes(*b);
                }
            }
        }
        kernels.float_panel(floats, &rows[run * FLOAT_RUN..], k, sums);
    }
}

#[cfg(test)]
mod tests;
