//! Loops that the compiler turns into vector code: written once, compiled for every instruction set.
//!
//! Each body is `#[inline(always)]` and works on small arrays of lanes; the modules of [`super::dispatch`] call it from a
//! function with the instruction set enabled. `FMA` says whether `mul_add` is one instruction there.

use super::activations::BF16_TILE_ROWS;
use super::attention::PAGE_LEN;
use super::halves::f32_to_bf16;
use super::pack::TILE_K;

/// Lanes that accumulate side by side: one AVX-512 register, two of AVX2, four of NEON.
pub(super) const LANES: usize = 16;

/// `a * b + c`, fused only where that is one instruction (elsewhere it would be a library call).
#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Sum of squares.
#[inline(always)]
pub(super) fn sum_of_squares<const FMA: bool>(x: &[f32]) -> f32 {
    let mut acc = [0.0f32; 2 * LANES];
    let (chunks, rest) = x.as_chunks::<{ 2 * LANES }>();
    for chunk in chunks {
        for i in 0..2 * LANES {
            acc[i] = fma::<FMA>(chunk[i], chunk[i], acc[i]);
        }
    }
    acc.iter().sum::<f32>() + rest.iter().map(|v| v * v).sum::<f32>()
}

/// `out = x / sqrt(mean(x^2) + eps) * weight`.
#[inline(always)]
pub(super) fn rms_norm<const FMA: bool>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (sum_of_squares::<FMA>(x) / x.len() as f32 + eps).sqrt();
    for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * w;
    }
}

/// The same in place.
#[inline(always)]
pub(super) fn rms_norm_in_place<const FMA: bool>(x: &mut [f32], weight: &[f32], eps: f32) {
    let scale = 1.0 / (sum_of_squares::<FMA>(x) / x.len() as f32 + eps).sqrt();
    for (x, w) in x.iter_mut().zip(weight) {
        *x *= scale * w;
    }
}

/// `e^x` for x <= 88, to 2 units in the last place: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes' coefficients).
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Below this the result is under the smallest normal number; it is taken as 0 at the end.
    const LOWEST: f32 = -87.3;
    // Adding 1.5 * 2^23 rounds to an integer held in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(LOWEST, 88.0);
    let shifted = fma::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -LN2_HIGH, clamped);
    let r = fma::<FMA>(n, -LN2_LOW, r);
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = fma::<FMA>(p, r, c);
    }
    let poly = fma::<FMA>(p * r, r, r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { poly * power }
}

/// `gate = silu(gate) * up`.
#[inline(always)]
pub(super) fn silu_mul<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = *g / (1.0 + exp::<FMA>(-*g)) * u;
    }
}

/// The hyperbolic tangent, to 3 units in the last place: a polynomial where `e^2x` would cancel (Cephes' coefficients).
#[inline(always)]
pub(super) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let square = x * x;
    let mut p = -5.704_989e-3_f32;
    for c in [2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = fma::<FMA>(p, square, c);
    }
    let small = fma::<FMA>(p * square, x, x);
    let large = 1.0 - 2.0 / (exp::<FMA>(2.0 * x) + 1.0);
    if x.abs() < 0.625 { small } else { large }
}

/// `gate = gelu_tanh(gate) * up`.
#[inline(always)]
pub(super) fn gelu_mul<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    for (g, u) in gate.iter_mut().zip(up) {
        let x = *g;
        let inner = SQRT_2_OVER_PI * x * fma::<FMA>(0.044_715 * x, x, 1.0);
        *g = 0.5 * x * (1.0 + tanh::<FMA>(inner)) * u;
    }
}

/// `x += y`.
#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `cap * tanh(x / cap)`, in place.
#[inline(always)]
pub(super) fn soft_cap<const FMA: bool>(x: &mut [f32], cap: f32) {
    for v in x {
        *v = cap * tanh::<FMA>(*v / cap);
    }
}

/// Rotates one head. NEOX pairs `i` with `i + n/2`; NORM pairs neighbours. `cos_sin` holds `n / 2` pairs.
#[inline(always)]
pub(super) fn rope<const FMA: bool>(head: &mut [f32], cos: &[f32], sin: &[f32], neox: bool) {
    let half = cos.len();
    if neox {
        let (a, b) = head[..2 * half].split_at_mut(half);
        for i in 0..half {
            let (x, y) = (a[i], b[i]);
            a[i] = fma::<FMA>(x, cos[i], -(y * sin[i]));
            b[i] = fma::<FMA>(x, sin[i], y * cos[i]);
        }
    } else {
        for ((pair, c), s) in head[..2 * half].chunks_exact_mut(2).zip(cos).zip(sin) {
            let (x, y) = (pair[0], pair[1]);
            pair[0] = fma::<FMA>(x, *c, -(y * s));
            pair[1] = fma::<FMA>(x, *s, y * c);
        }
    }
}

/// Codes that the largest magnitude of a group may get. Which of them leaves the least error depends on where the other
/// numbers fall between the steps; the best of twelve, with its scale fitted to the codes, leaves 12% less than always 127.
pub(super) const LEVELS: [f32; 12] =
    [127.0, 126.0, 125.0, 124.0, 123.0, 122.0, 121.0, 120.0, 119.0, 118.0, 117.0, 116.0];
/// 1.5 * 2^23: adding and subtracting it rounds half to even.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Joins 16 lanes by halves: the same order for every instruction set.
#[inline(always)]
pub(super) fn fold_lanes(lanes: &[f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let lanes: [f32; 8] = std::array::from_fn(|i| join(lanes[i], lanes[i + 8]));
    let lanes: [f32; 4] = std::array::from_fn(|i| join(lanes[i], lanes[i + 4]));
    let lanes: [f32; 2] = std::array::from_fn(|i| join(lanes[i], lanes[i + 2]));
    join(lanes[0], lanes[1])
}

/// What 32 numbers are multiplied by to become codes; 0 for a group of zeros.
///
/// Nothing here may be fused into one rounding: every instruction set must choose alike.
#[inline(always)]
fn best_inverse(x: &[f32; 32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [0.0f32; LANES];
    for i in 0..LANES {
        lanes[i] = larger(x[i].abs(), x[i + LANES].abs());
    }
    let largest = fold_lanes(&lanes, larger);
    if largest <= super::activations::SMALLEST {
        return 0.0;
    }
    let (mut best, mut least) = (LEVELS[0] / largest, f32::INFINITY);
    for level in LEVELS {
        let inverse = level / largest;
        let mut errors = [0.0f32; LANES];
        for i in 0..LANES {
            let error = |x: f32| x * inverse - ((x * inverse + ROUND) - ROUND);
            let (low, high) = (error(x[i]), error(x[i + LANES]));
            errors[i] = low * low + high * high;
        }
        // Of codes; a code is worth less at a higher level.
        let total = fold_lanes(&errors, |a, b| a + b) / (level * level);
        if total < least {
            (best, least) = (inverse, total);
        }
    }
    best
}

/// Quantizes one row, rounding half to even; groups of zeros get scale 0. See [`super::activations`].
#[inline(always)]
pub(super) fn quantize_row(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
    let groups = x.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<32>().0);
    for ((x, codes), (scale, sums)) in groups.zip(scales.iter_mut().zip(sums.as_chunks_mut::<2>().0)) {
        let inverse = best_inverse(x);
        // Cut to a byte, which changes only what is no number: damaged weights may make infinities.
        let code = |x: f32| (x * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i8;
        let (mut products, mut squares, mut totals) = ([0.0f32; LANES], 0i32, [0i32; 2]);
        for i in 0..LANES {
            let (low, high) = (code(x[i]), code(x[i + LANES]));
            (codes[i], codes[i + LANES]) = (low, high);
            products[i] = x[i] * f32::from(low) + x[i + LANES] * f32::from(high);
            squares += i32::from(low) * i32::from(low) + i32::from(high) * i32::from(high);
            totals = [totals[0] + i32::from(low), totals[1] + i32::from(high)];
        }
        // The scale with which these codes are nearest to the numbers.
        *scale = if squares > 0 { fold_lanes(&products, |a, b| a + b) / squares as f32 } else { 0.0 };
        *sums = totals.map(|total| *scale * total as f32);
    }
}

/// bfloat16 (little-endian bytes) to f32.
#[inline(always)]
pub(super) fn widen_bf16(from: &[u8], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from.as_chunks::<2>().0) {
        *to = f32::from_bits(u32::from(u16::from_le_bytes(*from)) << 16);
    }
}

/// Keys of a page kept as bytes, `(head_dim, 32)`, with a scale per position.
#[inline(always)]
pub(super) fn widen_keys_q8(codes: &[u8], scales: &[f32; PAGE_LEN], to: &mut [f32]) {
    for (to, codes) in to.as_chunks_mut::<PAGE_LEN>().0.iter_mut().zip(codes.as_chunks::<PAGE_LEN>().0) {
        for j in 0..PAGE_LEN {
            to[j] = f32::from(codes[j].cast_signed()) * scales[j];
        }
    }
}

/// Values of a page kept as bytes, `(32, head_dim)`, with a scale per position.
#[inline(always)]
pub(super) fn widen_values_q8(codes: &[u8], scales: &[f32; PAGE_LEN], to: &mut [f32]) {
    let head_dim = codes.len() / PAGE_LEN;
    for j in 0..PAGE_LEN {
        let row = j * head_dim..(j + 1) * head_dim;
        for (to, code) in to[row.clone()].iter_mut().zip(&codes[row]) {
            *to = f32::from(code.cast_signed()) * scales[j];
        }
    }
}

/// Up to 16 rows of `k` numbers, rounded to bf16, as one row of tiles of [`super::activations::Bf16Activations`].
#[inline(always)]
pub(super) fn bf16_rows(x: &[f32], k: usize, tiles: &mut [u16]) {
    for (m, x) in x.chunks_exact(k).enumerate().take(BF16_TILE_ROWS) {
        for (x, tile) in x.as_chunks::<TILE_K>().0.iter().zip(tiles.chunks_exact_mut(BF16_TILE_ROWS * TILE_K))
        {
            if let Some(to) = tile[m * TILE_K..(m + 1) * TILE_K].as_mut_array::<TILE_K>() {
                for i in 0..TILE_K {
                    to[i] = f32_to_bf16(x[i]);
                }
            }
        }
    }
}

/// `rows[m][r] += sum over k of w[k][r] * x[m][k]`: 16 columns of f32 weights side by side, eight rows at a time.
#[inline(always)]
pub(super) fn float_panel<const FMA: bool>(
    w: &[f32],
    x: &[f32],
    x_stride: usize,
    rows: &mut [[f32; super::pack::PANEL_ROWS]],
) {
    let mut m = 0;
    while m < rows.len() {
        let x = &x[m * x_stride..];
        if rows.len() - m >= 8 {
            float_rows::<FMA, 8>(w, x, x_stride, &mut rows[m..]);
            m += 8;
        } else {
            float_rows::<FMA, 1>(w, x, x_stride, &mut rows[m..]);
            m += 1;
        }
    }
}

#[inline(always)]
fn float_rows<const FMA: bool, const M: usize>(
    w: &[f32],
    x: &[f32],
    x_stride: usize,
    rows: &mut [[f32; LANES]],
) {
    let mut acc = [[0.0f32; LANES]; M];
    acc.copy_from_slice(&rows[..M]);
    for (k, w) in w.as_chunks::<LANES>().0.iter().enumerate() {
        for m in 0..M {
            let x = x[m * x_stride + k];
            for r in 0..LANES {
                acc[m][r] = fma::<FMA>(x, w[r], acc[m][r]);
            }
        }
    }
    rows[..M].copy_from_slice(&acc);
}
