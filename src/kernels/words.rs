//! Keys, values and queries in 16-bit fixed point, and attention over them.
//!
//! A vector of a head is 16-bit codes and one scale. What that loses is like what binary16 loses, but pairs of such numbers are
//! multiplied and summed by one instruction (`vpdpwssd`, `vpmaddwd`), twice the rate of f32, nothing is widened first, and sums of
//! products are exact. What a row finds hangs on nothing but what it sees: not on how many rows there are, nor on what else a page
//! holds, so that a text is the same in steps of any size.
//!
//! A slab of keys is `(head_dim / 2, 32, 2)` codes, two numbers of a key side by side, one of values `(16, head_dim, 2)`, the same
//! number of two neighbouring positions side by side: the pairs that an instruction takes. 32 scales (f32, one per position) follow.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;

use super::attention::{PAGE_LEN, RowState, Slabs, Visible};
use super::lanes::{ROUND, exp, fma, tanh};

/// Largest code.
const LARGEST: f32 = i16::MAX as f32;

/// Greatest length, as a vector of codes, of a query or a key: no sum of products of two vectors, nor of parts of them, is larger
/// than the product of their lengths, and the square of this, with what rounding may add, fits an i32.
pub(super) const LENGTH: f32 = 46_330.0;

/// Largest sum of the codes of a row's weights: with what rounding may add, 16 at most, times the largest code it fits an i32.
const WEIGHTS: f32 = 65_500.0;

/// Rows of `width` numbers as codes, a scale per row, no row of codes longer than `length`.
///
/// One number far above the others, which keys often have, is told as finely as 16 bits allow, and so are all where none is.
pub(super) fn words(x: &[f32], width: usize, length: f32, codes: &mut [i16], scales: &mut [f32]) {
    let rows = x.chunks_exact(width).zip(codes.chunks_exact_mut(width));
    for ((x, codes), scale) in rows.zip(scales) {
        let (largest, squares) = x.iter().fold((0.0f32, 0.0), |(a, sum), x| (a.max(x.abs()), sum + x * x));
        let inverse = inverse_of(largest, squares, length);
        *scale = scale_of(inverse);
        codes.iter_mut().zip(x).for_each(|(code, x)| *code = code_of(*x, inverse));
    }
}

/// What numbers are multiplied by to become codes; 0 for a vector of zeros, or of numbers that are none.
#[inline(always)]
fn inverse_of(largest: f32, squares: f32, length: f32) -> f32 {
    let inverse = (LARGEST / largest).min(length / squares.sqrt());
    if inverse.is_finite() && squares.is_finite() { inverse } else { 0.0 }
}

/// What a code is worth.
#[inline(always)]
fn scale_of(inverse: f32) -> f32 {
    if inverse > 0.0 { 1.0 / inverse } else { 0.0 }
}

/// Adding 1.5 * 2^23 rounds half to even and leaves the integer in the low bits.
#[inline(always)]
fn code_of(x: f32, inverse: f32) -> i16 {
    (x * inverse + ROUND).to_bits() as i16
}

/// Writes a key and a value, as codes, to slot `slot` of their slabs.
pub(super) fn write_words(
    [key, value]: [&[i16]; 2],
    [key_scale, value_scale]: [f32; 2],
    slot: usize,
    [keys, values]: [&mut [u8]; 2],
) {
    let head_dim = key.len();
    let (codes, scales) = keys.split_at_mut(2 * PAGE_LEN * head_dim);
    for (line, pair) in codes.as_chunks_mut::<{ 4 * PAGE_LEN }>().0.iter_mut().zip(key.as_chunks::<2>().0) {
        line[4 * slot..4 * slot + 2].copy_from_slice(&pair[0].to_le_bytes());
        line[4 * slot + 2..4 * slot + 4].copy_from_slice(&pair[1].to_le_bytes());
    }
    scales[4 * slot..4 * slot + 4].copy_from_slice(&key_scale.to_le_bytes());
    let (codes, scales) = values.split_at_mut(2 * PAGE_LEN * head_dim);
    let line = &mut codes[slot / 2 * 4 * head_dim..][..4 * head_dim];
    for (pair, code) in line.as_chunks_mut::<4>().0.iter_mut().zip(value) {
        pair[slot % 2 * 2..][..2].copy_from_slice(&code.to_le_bytes());
    }
    scales[4 * slot..4 * slot + 4].copy_from_slice(&value_scale.to_le_bytes());
}

/// The scales that follow a slab's codes.
#[inline(always)]
fn scales_of(slab: &[u8], head_dim: usize) -> [f32; PAGE_LEN] {
    let mut scales = [0.0; PAGE_LEN];
    let bytes = slab[2 * PAGE_LEN * head_dim..].as_chunks::<4>().0;
    scales.iter_mut().zip(bytes).for_each(|(scale, bytes)| *scale = f32::from_le_bytes(*bytes));
    scales
}

/// Codes of a row's weights for a page, and what its earlier sums, and those of the page, are multiplied with.
struct Weights {
    codes: [i16; PAGE_LEN],
    before: f32,
    here: f32,
}

/// The running softmax of one row takes in the products of its codes with those of a page's keys.
#[inline(always)]
fn soften<const FMA: bool>(
    products: &[i32; PAGE_LEN],
    query_scale: f32,
    [key_scales, value_scales]: &[[f32; PAGE_LEN]; 2],
    visible: Visible,
    cap: f32,
    state: &mut RowState,
) -> Weights {
    let Visible { from, to } = visible;
    let mut weights = [0.0f32; PAGE_LEN];
    for j in 0..PAGE_LEN {
        weights[j] = products[j] as f32 * (query_scale * key_scales[j]);
    }
    if cap > 0.0 {
        for s in &mut weights {
            *s = cap * tanh::<FMA>(*s / cap);
        }
    }
    let here = weights[from..to].iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    if here == f32::NEG_INFINITY {
        return Weights { codes: [0; PAGE_LEN], before: 1.0, here: 0.0 };
    }
    for j in 0..PAGE_LEN {
        weights[j] = if j >= from && j < to { exp::<FMA>(weights[j] - here) } else { 0.0 };
    }
    let max = if here > state.max { here } else { state.max };
    let (before, factor) = (exp::<FMA>(state.max - max), exp::<FMA>(here - max));
    *state = RowState { max, sum: state.sum * before + weights.iter().sum::<f32>() * factor };
    let (mut total, mut largest) = (0.0f32, 0.0f32);
    for j in 0..PAGE_LEN {
        weights[j] *= value_scales[j];
        total += weights[j];
        largest = if weights[j] > largest { weights[j] } else { largest };
    }
    let level = level_of(total, largest);
    Weights { codes: weights.map(|weight| code_of(weight, level)), before, here: factor / level }
}

/// What weights of this sum and this maximum are multiplied by to become codes.
#[inline(always)]
fn level_of(total: f32, largest: f32) -> f32 {
    (WEIGHTS / total).min(LARGEST / largest).min(f32::MAX)
}

/// Query rows, codes and scales, against one page: as [`super::attention::page_rows`].
#[inline(always)]
pub(super) fn attention_words<const FMA: bool>(
    q: &[i16],
    scales: &[f32],
    slabs: Slabs<'_>,
    visible: &[Visible],
    cap: f32,
    states: &mut [RowState],
    out: &mut [f32],
) {
    let head_dim = q.len() / states.len().max(1);
    let page_scales = [scales_of(slabs.keys, head_dim), scales_of(slabs.values, head_dim)];
    let code = |pair: &[u8; 4], i: usize| i32::from(i16::from_le_bytes([pair[2 * i], pair[2 * i + 1]]));
    let rows = q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim));
    for (r, (q, out)) in rows.enumerate() {
        let mut products = [0i32; PAGE_LEN];
        for (q, keys) in q.as_chunks::<2>().0.iter().zip(slabs.keys.as_chunks::<{ 4 * PAGE_LEN }>().0) {
            for (product, key) in products.iter_mut().zip(keys.as_chunks::<4>().0) {
                // Damaged numbers may pass every bound; then sums wrap, as they do in vectors.
                let pair = (i32::from(q[0]) * code(key, 0)).wrapping_add(i32::from(q[1]) * code(key, 1));
                *product = product.wrapping_add(pair);
            }
        }
        let state = &mut states[r];
        let weights = soften::<FMA>(&products, scales[r], &page_scales, visible[r], cap, state);
        for (d, out) in out.iter_mut().enumerate() {
            let mut sum = 0i32;
            for (j, w) in weights.codes.as_chunks::<2>().0.iter().enumerate() {
                if let Some(pair) = slabs.values[4 * (j * head_dim + d)..].first_chunk::<4>() {
                    let pair =
                        (i32::from(w[0]) * code(pair, 0)).wrapping_add(i32::from(w[1]) * code(pair, 1));
                    sum = sum.wrapping_add(pair);
                }
            }
            *out = fma::<FMA>(sum as f32, weights.here, *out * weights.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::{Isa, Kernels};
    use super::super::kv::{Heads, KvType, PageLayout, write_position};
    use super::super::tests::Lcg;
    use super::*;

    struct Case {
        head_dim: usize,
        n_pos: usize,
        q: Vec<f32>,
        keys: Vec<f32>,
        values: Vec<f32>,
        slabs: Vec<Vec<u8>>,
    }

    impl Case {
        /// Of every key one number is `odd` times as large; the last page holds `left` where nothing is known.
        fn new(kernels: &Kernels, head_dim: usize, n_rows: usize, n_pos: usize, odd: f32, left: f32) -> Self {
            let mut rng = Lcg(11);
            let all = n_pos.next_multiple_of(PAGE_LEN) * head_dim;
            // As long as a trained model's, which keep scores within a few units.
            let scale = 4.0 / (head_dim as f32).sqrt();
            let q = (0..n_rows * head_dim).map(|_| scale * rng.unit()).collect();
            let mut keys: Vec<f32> = (0..all).map(|_| rng.unit()).collect();
            let mut values: Vec<f32> = (0..all).map(|_| rng.unit()).collect();
            keys.iter_mut().step_by(head_dim).for_each(|k| *k *= odd);
            keys[..head_dim].fill(0.0);
            for numbers in [&mut keys, &mut values] {
                numbers[n_pos * head_dim..].fill(left);
            }
            let heads = Heads { n_head: 1, n_head_kv: 1, head_dim };
            let layout = PageLayout { n_layer: 1, heads, kv: KvType::I16 };
            let pages = keys.chunks(PAGE_LEN * head_dim).zip(values.chunks(PAGE_LEN * head_dim));
            let slabs = pages.map(|(keys, values)| {
                let mut slabs = vec![0; 2 * layout.slab_bytes()];
                for (j, (k, v)) in keys.chunks(head_dim).zip(values.chunks(head_dim)).enumerate() {
                    write_position(KvType::I16, kernels, k, v, j, &mut slabs);
                }
                slabs
            });
            let slabs = slabs.collect();
            Self { head_dim, n_pos, q, keys, values, slabs }
        }

        /// What row `r` of `n_rows` sees.
        fn seen(&self, r: usize, window: usize) -> std::ops::Range<usize> {
            let last = self.n_pos - self.q.len() / self.head_dim + r + 1;
            last.saturating_sub(window)..last
        }

        /// What `rows` find, in one go.
        fn found(
            &self,
            kernels: &Kernels,
            rows: std::ops::Range<usize>,
            window: usize,
            cap: f32,
        ) -> Vec<f32> {
            let n = self.head_dim;
            let (mut codes, mut scales) = (vec![0; rows.len() * n], vec![0.0; rows.len()]);
            kernels.words(&self.q[rows.start * n..rows.end * n], n, LENGTH, &mut codes, &mut scales);
            let mut states = vec![RowState::default(); rows.len()];
            let mut out = vec![0.0; rows.len() * n];
            for (page, slabs) in self.slabs.iter().enumerate() {
                let inside = |position: usize| position.saturating_sub(page * PAGE_LEN).min(PAGE_LEN);
                let visible = rows.clone().map(|r| self.seen(r, window));
                let visible: Vec<Visible> =
                    visible.map(|seen| Visible { from: inside(seen.start), to: inside(seen.end) }).collect();
                let (keys, values) = slabs.split_at(slabs.len() / 2);
                let slabs = Slabs { keys, values, next: slabs };
                kernels.attention_words(&codes, &scales, slabs, &visible, cap, &mut states, &mut out);
            }
            let sums = states.iter().flat_map(|state| std::iter::repeat_n(state.sum, n));
            out.iter().zip(sums).map(|(out, sum)| out / sum).collect()
        }

        /// What row `r` should find, in f64 over what was not rounded.
        fn wanted(&self, r: usize, window: usize, cap: f32) -> Vec<f64> {
            let n = self.head_dim;
            let (seen, cap) = (self.seen(r, window), f64::from(cap));
            let score = |j: usize| {
                let score: f64 =
                    (0..n).map(|d| f64::from(self.q[r * n + d]) * f64::from(self.keys[j * n + d])).sum();
                if cap > 0.0 { cap * (score / cap).tanh() } else { score }
            };
            let weights: Vec<f64> = seen.clone().map(|j| score(j).exp()).collect();
            let total: f64 = weights.iter().sum();
            let weighed = |d: usize| {
                seen.clone().zip(&weights).map(move |(j, w)| w * f64::from(self.values[j * n + d]))
            };
            (0..n).map(|d| weighed(d).sum::<f64>() / total).collect()
        }
    }

    const SHAPES: [(usize, usize, usize, usize, f32); 8] = [
        (32, 1, 1, 99, 0.0),
        (64, 5, 33, 99, 0.0),
        (128, 13, 70, 99, 0.0),
        (96, 8, 64, 7, 0.0),
        (256, 19, 100, 40, 30.0),
        (128, 17, 17, 99, 0.0),
        (48, 3, 40, 99, 5.0),
        (20, 6, 90, 50, 0.0),
    ];

    fn classes() -> impl Iterator<Item = Kernels> {
        Isa::ALL.into_iter().filter_map(Kernels::of)
    }

    #[test]
    fn attention_in_codes_is_softmax() {
        for (kernels, (head_dim, n_rows, n_pos, window, cap)) in
            classes().flat_map(|kernels| SHAPES.map(|shape| (kernels, shape)))
        {
            for (odd, tolerance) in [(1.0, 3e-4), (20.0, 1e-3)] {
                let case = Case::new(&kernels, head_dim, n_rows, n_pos, odd, 0.0);
                let found = case.found(&kernels, 0..n_rows, window, cap);
                for (r, found) in found.chunks(head_dim).enumerate() {
                    for (d, (got, want)) in found.iter().zip(case.wanted(r, window, cap)).enumerate() {
                        let off = (f64::from(*got) - want).abs();
                        let isa = kernels.isa();
                        assert!(off < tolerance, "{isa:?} {head_dim} row {r} dim {d}: {got} is not {want}");
                    }
                }
            }
        }
    }

    /// Neither how many rows look at once, nor what an earlier owner left in a page, changes a bit.
    #[test]
    fn a_row_finds_the_same_in_any_company() {
        for (kernels, (head_dim, n_rows, n_pos, window, cap)) in
            classes().flat_map(|kernels| SHAPES.map(|shape| (kernels, shape)))
        {
            let case = Case::new(&kernels, head_dim, n_rows, n_pos, 1.0, 0.0);
            let used = Case::new(&kernels, head_dim, n_rows, n_pos, 1.0, 60_000.0);
            let together = used.found(&kernels, 0..n_rows, window, cap);
            for (r, want) in together.chunks(head_dim).enumerate() {
                let alone = case.found(&kernels, r..r + 1, window, cap);
                assert_eq!(alone, want, "{:?} {head_dim} row {r}", kernels.isa());
            }
        }
    }
}
