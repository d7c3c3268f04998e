//! Attention of new rows over paged keys and values, all threads together.
//!
//! A row of the input holds queries, keys and values of one position side by side. First keys are rotated and written to
//! their pages, a KV head per unit, so that no two threads write one slab. Then a unit is a tile of rows of one sequence
//! and one KV head: every page is widened once for all rows and all query heads that share it.

use super::attention::{Halves, PAGE_LEN, RowState, Visible};
use super::kv::{Heads, KvType, Pages, widen_slabs, write_position};
use super::rows::Norm;
use super::team::{Parts, Shares, Team};

/// Rows of a sequence in one tile.
pub const TILE_ROWS: usize = 32;

/// Query rows up to which a page is widened anew for every few of them, in registers: for more, widening it once to
/// memory is less work.
const HALVES_UP_TO: usize = 8;

/// Where the keys and values of a row go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which page.
    pub page: u32,
    /// Which of its positions.
    pub slot: u32,
}

/// Consecutive rows of one sequence, at most [`TILE_ROWS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// First row of the input.
    pub row: usize,
    /// How many.
    pub n_rows: usize,
    /// Position of the first in its sequence.
    pub position: usize,
    /// Where the sequence's pages start in the list of all tables.
    pub table: usize,
}

/// How queries and keys are turned.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// `(n_rows, n_pairs)`.
    pub cos: &'a [f32],
    /// The same.
    pub sin: &'a [f32],
    /// Pairs per head.
    pub n_pairs: usize,
    /// Element `i` belongs with `i + n_pairs` instead of with its neighbour.
    pub neox: bool,
}

/// What a layer does to queries and keys before they meet.
#[derive(Clone, Copy, Debug)]
pub struct HeadSteps<'a> {
    /// Norm of every query head.
    pub query_norm: Option<Norm<'a>>,
    /// Norm of every key head.
    pub key_norm: Option<Norm<'a>>,
    /// Rotation by position.
    pub rotation: Option<Rotation<'a>>,
    /// Factor on queries.
    pub query_scale: f32,
}

/// What a query may see.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// A query at `i` sees keys `j` with `i - j < window`.
    pub window: usize,
    /// Scores pass through `cap * tanh(x / cap)`; 0 for none.
    pub cap: f32,
}

/// Who attends.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// Rows as [`place_rows`] left them.
    pub qkv: &'a [f32],
    /// Which of them, ascending.
    pub tiles: &'a [Tile],
    /// The pages of all sequences; a tile says where its own start.
    pub tables: &'a [u32],
}

/// What a thread works in.
#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    sums: Vec<f32>,
    states: Vec<RowState>,
    visible: Vec<Visible>,
}

impl AttentionScratch {
    pub(super) fn reserve(&mut self, heads: &Heads) {
        let rows = TILE_ROWS * heads.group();
        self.keys.resize(PAGE_LEN * heads.head_dim, 0.0);
        self.values.resize(PAGE_LEN * heads.head_dim, 0.0);
        self.queries.resize(rows * heads.head_dim, 0.0);
        self.sums.resize(rows * heads.head_dim, 0.0);
        self.states.resize(rows, RowState::default());
        self.visible.resize(rows, Visible { from: 0, to: 0 });
    }
}

/// Prepares the queries of `qkv` in place and writes its keys and values to their places.
///
/// # Panics
/// If `qkv` is shorter than the rows, or a place lies outside the pages.
pub fn place_rows(
    team: &Team,
    pages: &mut Pages,
    layer: usize,
    qkv: &mut [f32],
    places: &[Place],
    steps: &HeadSteps<'_>,
) {
    let layout = pages.layout;
    let Heads { n_head, n_head_kv, head_dim } = layout.heads;
    let (group, width) = (layout.heads.group(), layout.heads.qkv_width());
    assert!(places.iter().all(|p| (p.page as usize) < pages.n_pages() && (p.slot as usize) < PAGE_LEN));
    let (qkv, arena) = (Parts::new(&mut qkv[..places.len() * width]), Parts::new(pages.arena.bytes_mut()));
    let kernels = &team.kernels;
    let turn = |head: &mut [f32], norm: Option<Norm<'_>>, m: usize| {
        if let Some(norm) = norm {
            kernels.rms_norm_in_place(head, norm.weight, norm.eps);
        }
        if let Some(Rotation { cos, sin, n_pairs, neox }) = steps.rotation {
            let row = m * n_pairs..(m + 1) * n_pairs;
            kernels.rope(head, &cos[row.clone()], &sin[row], neox);
        }
    };
    let shares = Shares::one_by_one(&team.cursors, n_head_kv);
    let work = |head: usize| {
        for (m, place) in places.iter().enumerate() {
            let at = |column: usize| m * width + column * head_dim..m * width + (column + 1) * head_dim;
            // SAFETY: the columns of a KV head and of its group of query heads belong to the head's unit, and so do its
            // slabs in every page.
            let (queries, key, value, slabs) = unsafe {
                let start = m * width + head * group * head_dim;
                let slab = layout.slab_at(place.page, layer, head);
                (
                    qkv.part(start..start + group * head_dim),
                    qkv.part(at(n_head + head)),
                    qkv.part(at(n_head + n_head_kv + head)),
                    arena.part(slab..slab + 2 * layout.slab_bytes()),
                )
            };
            for query in queries.chunks_exact_mut(head_dim) {
                turn(query, steps.query_norm, m);
                for q in query.iter_mut() {
                    *q *= steps.query_scale;
                }
            }
            turn(key, steps.key_norm, m);
            write_position(layout.kv, kernels, key, value, place.slot as usize, slabs);
        }
    };
    if places.len() * width < super::rows::FORK_FROM {
        (0..n_head_kv).for_each(work);
    } else {
        team.pool.run(&|thread_idx| shares.each(thread_idx, |heads| heads.for_each(work)));
    }
}

/// Attends with queries already prepared; `out` is `(n_rows, n_head * head_dim)`.
///
/// # Panics
/// If a tile lies outside the rows, `out` or the tables, or tiles share a row.
pub fn attend(
    team: &mut Team,
    pages: &Pages,
    layer: usize,
    queries: Queries<'_>,
    scope: Scope,
    out: &mut [f32],
) {
    let Queries { qkv, tiles, tables } = queries;
    let layout = pages.layout;
    let Heads { n_head, n_head_kv, head_dim } = layout.heads;
    let (group, width) = (layout.heads.group(), layout.heads.qkv_width());
    // Rows of their own for every tile: the threads rely on it.
    assert!(tiles.windows(2).all(|pair| pair[0].row + pair[0].n_rows <= pair[1].row), "tiles share a row");
    let shares = Shares::one_by_one(&team.cursors, tiles.len() * n_head_kv);
    let (scratch, out) = (Parts::new(&mut team.scratch), Parts::new(out));
    let kernels = &team.kernels;
    team.pool.run(&|thread_idx| {
        // SAFETY: every thread takes its own element, once.
        let scratch = &mut unsafe { scratch.part(thread_idx..thread_idx + 1) }[0].attention;
        shares.each(thread_idx, |units| {
            for unit in units {
                // The last tiles of a long prefill see most, so they go first.
                let (tile, head) = (&tiles[tiles.len() - 1 - unit / n_head_kv], unit % n_head_kv);
                scratch.load(tile, qkv, width, head * group * head_dim, layout.heads);
                let as_halves =
                    layout.kv == KvType::F16 && kernels.reads_halves() && tile.n_rows * group <= HALVES_UP_TO;
                let last = (tile.position + tile.n_rows - 1) / PAGE_LEN;
                let first = (tile.position + 1).saturating_sub(scope.window) / PAGE_LEN;
                let slabs = |page: usize| {
                    let at = layout.slab_at(tables[tile.table + page], layer, head);
                    &pages.arena.bytes()[at..at + 2 * layout.slab_bytes()]
                };
                for page in first..=last {
                    let slabs_here = slabs(page);
                    if as_halves {
                        let (keys, values) = slabs_here.split_at(layout.slab_bytes());
                        let next = if page < last { slabs(page + 1) } else { &[] };
                        let halves = Halves { keys, values, next };
                        scratch.attend_page(kernels, tile, page, layout.heads, scope, Some(halves));
                    } else {
                        widen_slabs(layout.kv, kernels, slabs_here, &mut scratch.keys, &mut scratch.values);
                        scratch.attend_page(kernels, tile, page, layout.heads, scope, None);
                    }
                }
                for (r, sums) in scratch.sums.chunks_exact(head_dim).enumerate().take(tile.n_rows * group) {
                    let column = (head * group + r % group) * head_dim;
                    let start = (tile.row + r / group) * n_head * head_dim + column;
                    // SAFETY: these columns of the tile's rows belong to the unit of tile and head.
                    let out = unsafe { out.part(start..start + head_dim) };
                    let factor = 1.0 / scratch.states[r].sum;
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * factor);
                }
            }
        });
    });
}

impl AttentionScratch {
    /// Gathers a tile's queries of one group and forgets the last tile.
    fn load(&mut self, tile: &Tile, qkv: &[f32], width: usize, column: usize, heads: Heads) {
        let (group, head_dim) = (heads.group(), heads.head_dim);
        let n = group * head_dim;
        for (i, queries) in self.queries.chunks_exact_mut(n).enumerate().take(tile.n_rows) {
            queries.copy_from_slice(&qkv[(tile.row + i) * width + column..][..n]);
        }
        self.sums[..tile.n_rows * n].fill(0.0);
        self.states[..tile.n_rows * group].fill(RowState::default());
    }

    /// Lets the rows of a tile that may see it look at one page: `halves` are its slabs; without them keys and values were
    /// widened.
    fn attend_page(
        &mut self,
        kernels: &super::dispatch::Kernels,
        tile: &Tile,
        page: usize,
        heads: Heads,
        scope: Scope,
        halves: Option<Halves<'_>>,
    ) {
        let (group, head_dim) = (heads.group(), heads.head_dim);
        let start = page * PAGE_LEN;
        // Rows before the page's first position see nothing of it.
        let skipped = start.saturating_sub(tile.position);
        let rows = skipped * group..tile.n_rows * group;
        for (i, visible) in self.visible.chunks_exact_mut(group).enumerate().take(tile.n_rows).skip(skipped) {
            let position = tile.position + i;
            let oldest = (position + 1).saturating_sub(scope.window);
            let from = oldest.saturating_sub(start).min(PAGE_LEN);
            visible.fill(Visible { from, to: (position + 1 - start).min(PAGE_LEN) });
        }
        let floats = rows.start * head_dim..rows.end * head_dim;
        let (visible, states) = (&self.visible[rows.clone()], &mut self.states[rows]);
        let (queries, sums) = (&self.queries[floats.clone()], &mut self.sums[floats]);
        match halves {
            Some(slabs) => {
                kernels.attention_halves(queries, slabs, visible, scope.cap, states, sums);
            }
            None => {
                kernels.attention_page(queries, &self.keys, &self.values, visible, scope.cap, states, sums);
            }
        }
    }
}
