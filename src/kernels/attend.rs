//! Attention of new rows over paged keys and values, all threads together.
//!
//! [`super::place`] wrote the new rows' own keys and values first. A unit of work is a tile of rows of one sequence and one KV
//! head: every page is looked at once for all rows and all query heads that share it.

use std::ops::Range;

use super::attention::{PAGE_LEN, RowState, Slabs, Visible};
use super::dispatch::Kernels;
use super::kv::{Heads, KvType, PageLayout, Pages, widen_slabs};
use super::team::{Parts, Shares, Team};
use super::words::LENGTH;

/// Rows of a sequence in one tile.
pub const TILE_ROWS: usize = 64;

/// Units of work wanted for every thread, so that none waits long for the last.
const UNITS_PER_THREAD: usize = 4;

/// Pages that are worth a unit of their own.
const PART_PAGES: usize = 8;

/// Query rows up to which a page is widened anew for every few of them, in registers: for more, widening it once to
/// memory is less work.
const HALVES_UP_TO: usize = 8;

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
    /// Rows as [`super::place::place_rows`] left them.
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
    codes: Vec<i16>,
    scales: Vec<f32>,
}

impl AttentionScratch {
    pub(super) fn reserve(&mut self, heads: &Heads) {
        let rows = TILE_ROWS * heads.group();
        self.keys.resize(PAGE_LEN * heads.head_dim, 0.0);
        self.values.resize(PAGE_LEN * heads.head_dim, 0.0);
        self.queries.resize(rows * heads.head_dim, 0.0);
        self.sums.resize(rows * heads.head_dim, 0.0);
        self.codes.resize(rows * heads.head_dim, 0);
        self.scales.resize(rows, 0.0);
        self.states.resize(rows, RowState::default());
        self.visible.resize(rows, Visible { from: 0, to: 0 });
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
    // Rows of their own for every tile: the threads rely on it.
    let tiles = queries.tiles;
    assert!(tiles.windows(2).all(|pair| pair[0].row + pair[0].n_rows <= pair[1].row), "tiles share a row");
    let kernels = team.kernels;
    let (n_units, n_threads) = (tiles.len() * pages.layout.heads.n_head_kv, team.cursors.len());
    let job = Job { kernels: &kernels, pages, layer, queries, scope, n_units, n_threads };
    let n_parts = job.n_parts();
    let out = Parts::new(out);
    if n_parts > 1 {
        attend_in_parts(team, &job, n_parts, &out);
        return;
    }
    let shares = Shares::one_by_one(&team.cursors, n_units);
    let scratch = Parts::new(&mut team.scratch);
    team.pool.run(&|thread_idx| {
        // SAFETY: every thread takes its own element, once.
        let scratch = &mut unsafe { scratch.part(thread_idx..thread_idx + 1) }[0].attention;
        shares.each(thread_idx, |units| {
            for unit in units {
                job.look(scratch, unit, 0, 1);
                for (r, sums) in scratch.sums.chunks_exact(job.head_dim()).enumerate().take(job.n_rows(unit))
                {
                    let factor = 1.0 / scratch.states[r].sum;
                    // SAFETY: nobody else has this unit.
                    let out = unsafe { job.row_of(&out, unit, r) };
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * factor);
                }
            }
        });
    });
}

/// [`attend`] with the pages of every unit in `n_parts` parts, whose sums are joined at the end.
fn attend_in_parts(team: &mut Team, job: &Job<'_>, n_parts: usize, out: &Parts<'_, f32>) {
    let n_units = job.n_units;
    let most = (0..n_units).map(|unit| job.n_rows(unit)).max().unwrap_or(0);
    let (n_sums, head_dim) = (most * job.head_dim(), job.head_dim());
    team.part_sums.resize(team.part_sums.len().max(n_units * n_parts * n_sums), 0.0);
    team.part_states.resize(team.part_states.len().max(n_units * n_parts * most), RowState::default());
    {
        let shares = Shares::one_by_one(&team.cursors, n_units * n_parts);
        let scratch = Parts::new(&mut team.scratch);
        let (all_sums, all_states) = (Parts::new(&mut team.part_sums), Parts::new(&mut team.part_states));
        team.pool.run(&|thread_idx| {
            // SAFETY: every thread takes its own element, once.
            let scratch = &mut unsafe { scratch.part(thread_idx..thread_idx + 1) }[0].attention;
            shares.each(thread_idx, |parts| {
                for i in parts {
                    job.look(scratch, i / n_parts, i % n_parts, n_parts);
                    let n_rows = job.n_rows(i / n_parts);
                    // SAFETY: every part has its own stretch of both.
                    let (sums, states) = unsafe {
                        (
                            all_sums.part(i * n_sums..i * n_sums + n_rows * head_dim),
                            all_states.part(i * most..i * most + n_rows),
                        )
                    };
                    sums.copy_from_slice(&scratch.sums[..sums.len()]);
                    states.copy_from_slice(&scratch.states[..n_rows]);
                }
            });
        });
    }
    let (sums, states) = (&team.part_sums, &team.part_states);
    let shares = Shares::one_by_one(&team.cursors, n_units);
    team.pool.run(&|thread_idx| {
        shares.each(thread_idx, |units| {
            for (unit, r) in units.flat_map(|unit| (0..job.n_rows(unit)).map(move |r| (unit, r))) {
                let parts = unit * n_parts..(unit + 1) * n_parts;
                let state = |part: usize| states[part * most + r];
                let max = parts.clone().fold(f32::NEG_INFINITY, |max, part| max.max(state(part).max));
                let factor = |part: usize| (state(part).max - max).exp();
                let total: f32 = parts.clone().map(|part| state(part).sum * factor(part)).sum();
                // SAFETY: nobody else has this unit.
                let out = unsafe { job.row_of(out, unit, r) };
                out.fill(0.0);
                for part in parts {
                    let factor = factor(part) / total;
                    let sums = &sums[part * n_sums + r * head_dim..][..head_dim];
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum * factor);
                }
            }
        });
    });
}

/// What all threads know of an attention step. A unit is a tile and a KV head.
struct Job<'a> {
    kernels: &'a Kernels,
    pages: &'a Pages,
    layer: usize,
    queries: Queries<'a>,
    scope: Scope,
    n_units: usize,
    n_threads: usize,
}

impl Job<'_> {
    fn head_dim(&self) -> usize {
        self.pages.layout.heads.head_dim
    }

    /// The tile and the KV head of a unit. The last tiles of a long prefill see most, so they go first.
    fn unit(&self, unit: usize) -> (&Tile, usize) {
        let (tiles, n_head_kv) = (self.queries.tiles, self.pages.layout.heads.n_head_kv);
        (&tiles[tiles.len() - 1 - unit / n_head_kv], unit % n_head_kv)
    }

    /// Query rows of a unit.
    fn n_rows(&self, unit: usize) -> usize {
        self.unit(unit).0.n_rows * self.pages.layout.heads.group()
    }

    /// Pages that a tile sees.
    fn seen(&self, tile: &Tile) -> Range<usize> {
        let first = (tile.position + 1).saturating_sub(self.scope.window) / PAGE_LEN;
        first..(tile.position + tile.n_rows - 1) / PAGE_LEN + 1
    }

    /// Into how many parts the pages of each unit are cut: few long sequences and few heads would leave threads idle.
    fn n_parts(&self) -> usize {
        let wanted = UNITS_PER_THREAD * self.n_threads;
        if self.n_threads == 1 || self.n_units == 0 || self.n_units >= wanted {
            return 1;
        }
        let deepest = self.queries.tiles.iter().map(|tile| self.seen(tile).len()).max().unwrap_or(0);
        wanted.div_ceil(self.n_units).min(deepest / PART_PAGES).max(1)
    }

    /// Where what query row `r` of a unit found goes.
    ///
    /// # Safety
    /// Nobody else may hold a row of this unit.
    #[expect(clippy::mut_from_ref, reason = "as of `Parts::part`")]
    unsafe fn row_of<'o>(&self, out: &'o Parts<'_, f32>, unit: usize, r: usize) -> &'o mut [f32] {
        let Heads { n_head, head_dim, .. } = self.pages.layout.heads;
        let group = self.pages.layout.heads.group();
        let (tile, head) = self.unit(unit);
        let column = (head * group + r % group) * head_dim;
        let start = (tile.row + r / group) * n_head * head_dim + column;
        // SAFETY: these columns of the tile's rows belong to the unit of tile and head.
        unsafe { out.part(start..start + head_dim) }
    }

    /// The keys and the values of a head in one of a tile's pages.
    fn slabs(&self, tile: &Tile, head: usize, page: usize) -> &[u8] {
        let layout = self.pages.layout;
        let at = layout.slab_at(self.queries.tables[tile.table + page], self.layer, head);
        &self.pages.arena.bytes()[at..at + 2 * layout.slab_bytes()]
    }

    /// Lets the query rows of a unit look at one of `n_parts` equal parts of the pages that they see.
    fn look(&self, scratch: &mut AttentionScratch, unit: usize, part: usize, n_parts: usize) {
        let layout = self.pages.layout;
        let (group, head_dim) = (layout.heads.group(), layout.heads.head_dim);
        let ((tile, head), n_rows) = (self.unit(unit), self.n_rows(unit));
        scratch.load(tile, self.queries.qkv, layout.heads.qkv_width(), head * group * head_dim, layout.heads);
        let way = Way::of(self.kernels, layout.kv, n_rows);
        if way == Way::Words {
            let queries = &scratch.queries[..n_rows * head_dim];
            self.kernels.words(queries, head_dim, LENGTH, &mut scratch.codes, &mut scratch.scales[..n_rows]);
        }
        let seen = self.seen(tile);
        let cut = |part: usize| seen.start + seen.len() * part / n_parts;
        let pages = cut(part)..cut(part + 1);
        for page in pages.clone() {
            let next = if page + 1 < pages.end {
                self.slabs(tile, head, page + 1)
            } else if n_parts == 1 && unit + self.n_threads < self.n_units {
                // Threads take turns, so this is likely what comes next here.
                let (tile, head) = self.unit(unit + self.n_threads);
                self.slabs(tile, head, self.seen(tile).start)
            } else {
                &[]
            };
            let slabs = [self.slabs(tile, head, page), next];
            scratch.attend_page(self.kernels, tile, page, &layout, self.scope, way, slabs);
        }
    }
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

    /// Lets the rows of a tile that may see it look at one page: its slabs and those of the next.
    #[allow(clippy::too_many_arguments, reason = "what a tile sees of a page, one by one")]
    fn attend_page(
        &mut self,
        kernels: &Kernels,
        tile: &Tile,
        page: usize,
        layout: &PageLayout,
        scope: Scope,
        way: Way,
        [slabs, next]: [&[u8]; 2],
    ) {
        let (group, head_dim) = (layout.heads.group(), layout.heads.head_dim);
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
        let (visible, states) = (&self.visible[rows.clone()], &mut self.states[rows.clone()]);
        let (queries, sums) = (&self.queries[floats.clone()], &mut self.sums[floats.clone()]);
        let (keys, values) = slabs.split_at(layout.slab_bytes());
        let both = Slabs { keys, values, next };
        match way {
            Way::Words => {
                let (codes, scales) = (&self.codes[floats], &self.scales[rows]);
                kernels.attention_words(codes, scales, both, visible, scope.cap, states, sums);
            }
            Way::Halves => kernels.attention_halves(queries, both, visible, scope.cap, states, sums),
            Way::Floats => {
                widen_slabs(layout.kv, kernels, slabs, &mut self.keys, &mut self.values);
                kernels.attention_page(queries, &self.keys, &self.values, visible, scope.cap, states, sums);
            }
        }
    }
}

/// How a tile looks at its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Codes of queries meet codes of keys.
    Words,
    /// Each page is widened anew for every few rows, in registers.
    Halves,
    /// Each page is widened to memory once for all rows.
    Floats,
}

impl Way {
    fn of(kernels: &Kernels, kv: KvType, n_rows: usize) -> Self {
        match kv {
            KvType::I16 => Self::Words,
            KvType::F16 if kernels.reads_halves() && n_rows <= HALVES_UP_TO => Self::Halves,
            KvType::F16 | KvType::Q8 => Self::Floats,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::{HeadSteps, Place, place_rows};
    use super::super::tests::Lcg;
    use super::*;

    /// What rows of two sequences find with so many threads, at 640 and 700 positions.
    fn found(n_threads: usize, kv: KvType, window: usize) -> Vec<f32> {
        let heads = Heads { n_head: 4, n_head_kv: 1, head_dim: 32 };
        let (width, depths, n_new) = (heads.qkv_width(), [640, 700], 5);
        let mut team = Team::new(n_threads, Kernels::best()).unwrap();
        team.reserve(64, &heads);
        let mut pages = Pages::new(PageLayout { n_layer: 2, heads, kv }, 50).unwrap();
        let steps = HeadSteps { query_norm: None, key_norm: None, rotation: None, query_scale: 0.5 };
        let tables: Vec<u32> = (0..50).rev().collect();
        let mut rng = Lcg(3);
        let mut last = Vec::new();
        for (s, depth) in depths.into_iter().enumerate() {
            let mut qkv: Vec<f32> = (0..depth * width).map(|_| rng.unit()).collect();
            let place = |i: usize| Place { page: tables[s * 25 + i / PAGE_LEN], slot: (i % PAGE_LEN) as u32 };
            let places: Vec<Place> = (0..depth).map(place).collect();
            place_rows(&team, &mut pages, 1, &mut qkv, &places, &steps);
            last.extend_from_slice(&qkv[(depth - n_new) * width..]);
        }
        let tile =
            |s: usize| Tile { row: s * n_new, n_rows: n_new, position: depths[s] - n_new, table: s * 25 };
        let mut out = vec![0.0; 2 * n_new * heads.n_head * heads.head_dim];
        let queries = Queries { qkv: &last, tiles: &[tile(0), tile(1)], tables: &tables };
        attend(&mut team, &pages, 1, queries, Scope { window, cap: 0.0 }, &mut out);
        out
    }

    /// One KV head and two tiles are too few units for three threads: pages are cut, and joined to the same.
    #[test]
    fn pages_in_parts_are_the_same_as_whole() {
        for (kv, window) in
            [(KvType::I16, usize::MAX), (KvType::F16, usize::MAX), (KvType::Q8, 600), (KvType::I16, 90)]
        {
            let (whole, parts) = (found(1, kv, window), found(3, kv, window));
            assert!(whole.iter().any(|x| x.abs() > 0.01));
            for (i, (a, b)) in whole.iter().zip(&parts).enumerate() {
                assert!((a - b).abs() < 1e-5, "{kv} within {window}, number {i}: {a} and {b}");
            }
        }
    }
}
