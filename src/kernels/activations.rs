//! Activations in the form the integer kernels read: signed bytes with one float scale per 32.
//!
//! One scale per 32 for every weight format: finer than the 256 that llama.cpp uses beside K types, at the price of
//! one more multiplication per tile.

use super::halves::f32_to_bf16;
use super::pack::TILE_K;

/// A group whose largest magnitude is not above this counts as zeros: its inverse would overflow.
pub const SMALLEST: f32 = 1e-30;

/// Several rows of quantized activations; allocated once and refilled.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    /// Row length.
    pub k: usize,
    /// Rows in use.
    pub n_rows: usize,
    /// `(n_rows, k)` codes in -127..=127.
    pub codes: Vec<i8>,
    /// `(n_rows, k / 32)`: the value is `scale * code`.
    pub scales: Vec<f32>,
    /// `(n_rows, k / 16)`: `scale` times the sum of 16 codes, for minimums and zero points.
    pub sums: Vec<f32>,
    /// The same rows as bf16, in place of codes, for kernels that would rather have them so; not in use unless resized
    /// after the codes were. See [`super::dispatch::Kernels::bf16_rows_from`].
    pub bf16: Bf16Activations,
}

impl Activations {
    /// Makes room for `n_rows` of `k` weights (a multiple of 32); allocates only past the largest size seen.
    pub fn resize(&mut self, n_rows: usize, k: usize) {
        assert_eq!(k % TILE_K, 0, "rows of {k} are not a multiple of {TILE_K}");
        (self.n_rows, self.k) = (n_rows, k);
        self.bf16.n_rows = 0;
        let grow = |len: usize, wanted: usize| wanted.max(len);
        self.codes.resize(grow(self.codes.len(), n_rows * k), 0);
        self.scales.resize(grow(self.scales.len(), n_rows * k / 32), 0.0);
        self.sums.resize(grow(self.sums.len(), n_rows * k / 16), 0.0);
    }

    /// The rows as bf16, where they are in use.
    pub fn wide(&self) -> Option<&Bf16Activations> {
        (self.bf16.n_rows > 0 && self.bf16.n_rows == self.n_rows && self.bf16.k == self.k)
            .then_some(&self.bf16)
    }

    /// The codes, scales and sums of row `m`.
    pub fn row(&self, m: usize) -> (&[i8], &[f32], &[f32]) {
        let k = self.k;
        (
            &self.codes[m * k..(m + 1) * k],
            &self.scales[m * (k / 32)..(m + 1) * (k / 32)],
            &self.sums[m * (k / 16)..(m + 1) * (k / 16)],
        )
    }

    /// The same, to be written by [`quantize_row`]. Rows may be filled by different threads through `split`.
    pub fn row_mut(&mut self, m: usize) -> (&mut [i8], &mut [f32], &mut [f32]) {
        let k = self.k;
        (
            &mut self.codes[m * k..(m + 1) * k],
            &mut self.scales[m * (k / 32)..(m + 1) * (k / 32)],
            &mut self.sums[m * (k / 16)..(m + 1) * (k / 16)],
        )
    }
}

/// Quantizes one row, rounding half to even; all-zero groups get scale 0. Per group the best of twelve
/// levels, and the scale with which its codes are nearest.
///
/// # Panics
/// If the lengths do not belong together.
pub fn quantize_row(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
    assert!(x.len() == codes.len() && x.len() == scales.len() * 32 && x.len() == sums.len() * 16);
    super::lanes::quantize_row(x, codes, scales, sums);
}

/// Rows that share a tile of [`Bf16Activations`].
pub const BF16_TILE_ROWS: usize = 16;

/// Several rows of activations as bf16, laid out for tile units: tiles of 16 rows x 32 k, one KiB each, the k tiles of
/// 16 rows one after the other. Allocated once and refilled.
#[derive(Clone, Debug, Default)]
pub struct Bf16Activations {
    /// Row length.
    pub k: usize,
    /// Rows in use.
    pub n_rows: usize,
    /// `(n_rows / 16, k / 32, 16, 32)`, the last rows filled up with anything.
    pub tiles: Vec<u16>,
}

impl Bf16Activations {
    /// Makes room for `n_rows` of `k` weights (a multiple of 32); allocates only past the largest size seen.
    pub fn resize(&mut self, n_rows: usize, k: usize) {
        assert_eq!(k % TILE_K, 0, "rows of {k} are not a multiple of {TILE_K}");
        (self.n_rows, self.k) = (n_rows, k);
        let wanted = n_rows.next_multiple_of(BF16_TILE_ROWS) * k;
        self.tiles.resize(wanted.max(self.tiles.len()), 0);
    }

    /// Where the 32 numbers of row `m` and k tile `t` start.
    pub const fn offset(&self, m: usize, t: usize) -> usize {
        ((m / BF16_TILE_ROWS * (self.k / TILE_K) + t) * BF16_TILE_ROWS + m % BF16_TILE_ROWS) * TILE_K
    }

    /// Elements of the tiles that 16 rows share.
    pub const fn group_len(&self) -> usize {
        BF16_TILE_ROWS * self.k
    }

    /// Rounds `x` to row `m`, half to even.
    ///
    /// # Panics
    /// If the row is not in use or `x` has not `k` numbers.
    pub fn fill_row(&mut self, m: usize, x: &[f32]) {
        assert!(m < self.n_rows && x.len() == self.k);
        for (t, x) in x.chunks_exact(TILE_K).enumerate() {
            let at = self.offset(m, t);
            for (to, x) in self.tiles[at..at + TILE_K].iter_mut().zip(x) {
                *to = f32_to_bf16(*x);
            }
        }
    }
}
