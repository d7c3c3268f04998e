//! What happens to each row by itself between two linear layers: norms, quantization, sums.

use super::activations::{Activations, BF16_TILE_ROWS};
use super::team::{Parts, Shares, Team};

/// Elements from which waking the other threads pays: about two microseconds of work.
pub(super) const FORK_FROM: usize = 1 << 14;
/// Rows that go to a thread at a time.
const GRAIN: usize = 4;

/// A root-mean-square norm.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// One factor per column.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// Calls `work` for every row of `0..n_rows`, on all threads where that pays.
fn for_each_row(team: &Team, n_rows: usize, width: usize, work: &(dyn Fn(usize) + Sync)) {
    if n_rows < 2 || n_rows * width < FORK_FROM {
        (0..n_rows).for_each(work);
        return;
    }
    let shares = Shares::new(&team.cursors, n_rows, GRAIN);
    team.pool.run(&|thread_idx| shares.each(thread_idx, |rows| rows.for_each(work)));
}

/// `normed = norm(x)`, row by row, and the quantized form of it where `codes` is given.
///
/// # Panics
/// If the slices are shorter than `n_rows` rows of the norm's width.
pub fn norm_rows(
    team: &Team,
    x: &[f32],
    n_rows: usize,
    norm: Norm<'_>,
    normed: &mut [f32],
    codes: Option<&mut Activations>,
) {
    let width = norm.weight.len();
    {
        let (normed, kernels) = (Parts::new(normed), &team.kernels);
        for_each_row(team, n_rows, width, &|m| {
            // SAFETY: a row's elements belong to its unit.
            let out = unsafe { normed.part(m * width..(m + 1) * width) };
            kernels.rms_norm(&x[m * width..(m + 1) * width], norm.weight, norm.eps, out);
        });
    }
    if let Some(codes) = codes {
        quantize_rows(team, normed, n_rows, width, codes);
    }
}

/// Quantizes `n_rows` rows, or rounds them to bf16 where the kernels would rather have them so.
///
/// # Panics
/// If `x` is shorter, or `width` is not a multiple of 32.
pub fn quantize_rows(team: &Team, x: &[f32], n_rows: usize, width: usize, out: &mut Activations) {
    out.resize(n_rows, width);
    if team.kernels.bf16_rows_from().is_some_and(|from| n_rows >= from) {
        out.bf16.resize(n_rows, width);
        let (group_len, n_groups) = (out.bf16.group_len(), n_rows.div_ceil(BF16_TILE_ROWS));
        let (rows, tiles) = (&x[..n_rows * width], Parts::new(&mut out.bf16.tiles));
        let kernels = &team.kernels;
        for_each_row(team, n_groups, group_len, &|group| {
            let first = group * group_len;
            // SAFETY: the tiles of a group belong to its unit.
            let tiles = unsafe { tiles.part(first..first + group_len) };
            kernels.bf16_rows(&rows[first..rows.len().min(first + group_len)], width, tiles);
        });
        return;
    }
    let (codes, scales) = (Parts::new(&mut out.codes), Parts::new(&mut out.scales));
    let (sums, kernels) = (Parts::new(&mut out.sums), &team.kernels);
    let row = |m: usize, n: usize| m * n..(m + 1) * n;
    for_each_row(team, n_rows, width, &|m| {
        // SAFETY: a row's codes, scales and sums belong to its unit.
        let (codes, scales, sums) = unsafe {
            (codes.part(row(m, width)), scales.part(row(m, width / 32)), sums.part(row(m, width / 16)))
        };
        kernels.quantize_row(&x[row(m, width)], codes, scales, sums);
    });
}

/// `x += scale * norm(found)`, row by row; `found` is normed in place.
///
/// # Panics
/// If the slices are shorter than `n_rows` rows of the norm's width.
pub fn add_normed_rows(
    team: &Team,
    x: &mut [f32],
    n_rows: usize,
    norm: Norm<'_>,
    found: &mut [f32],
    scale: f32,
) {
    let width = norm.weight.len();
    let (x, found, kernels) = (Parts::new(x), Parts::new(found), &team.kernels);
    for_each_row(team, n_rows, width, &|m| {
        // SAFETY: a row's elements belong to its unit.
        let (x, found) =
            unsafe { (x.part(m * width..(m + 1) * width), found.part(m * width..(m + 1) * width)) };
        kernels.rms_norm_in_place(found, norm.weight, norm.eps);
        x.iter_mut().zip(&*found).for_each(|(x, found)| *x += scale * found);
    });
}

/// Calls `fill(row, out)` for every row of `out`, on all threads where that pays.
///
/// # Panics
/// If `out` is shorter than `n_rows` rows of `width`.
pub fn fill_rows(
    team: &Team,
    out: &mut [f32],
    n_rows: usize,
    width: usize,
    fill: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    let out = Parts::new(out);
    for_each_row(team, n_rows, width, &|m| {
        // SAFETY: a row's elements belong to its unit.
        fill(m, unsafe { out.part(m * width..(m + 1) * width) });
    });
}
