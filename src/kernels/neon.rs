//! ARM with the dot product instructions (`sdot`, from about 2018) and, where the CPU has it, the matrix one (`smmla`).
//!
//! A line of a packed panel holds four weights of each of 16 rows: four registers of 4 rows, which is just what `sdot`
//! multiplies with four activations. `smmla` wants eight weights of two rows: two lines, zipped.
//! Both instructions are written as assembly, because their intrinsics are not stable.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, vcombine_s8, vcombine_s32, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s32,
    vfmaq_f32, vget_high_s32, vget_low_s32, vld1_s8, vld1q_f32, vld1q_s8, vmulq_f32, vreinterpretq_s8_s32,
    vreinterpretq_s32_s8, vst1q_f32, vzip1q_s32, vzip2q_s32,
};
use std::arch::asm;

use super::activations::Activations;
use super::dispatch::Isa;
use super::expand::{Expanded, expand, run_offset};
use super::pack::{PANEL_ROWS, PanelLayout, TILE_K, TILES_PER_SUPER};
use super::reached::{self, Path};

/// Rows of a panel in one register.
const QUARTER: usize = 4;

macro_rules! dot_lane {
    ($name:ident, $lane:literal) => {
        /// `acc[r] +=` four weights of row `r` times four activations, the lane of `a` that the name says.
        #[target_feature(enable = "neon,dotprod")]
        #[inline]
        fn $name(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
            // SAFETY: registers only, and the CPU has the instruction.
            unsafe {
                asm!(
                    concat!("sdot {acc:v}.4s, {w:v}.16b, {a:v}.4b[", $lane, "]"),
                    acc = inout(vreg) acc,
                    w = in(vreg) w,
                    a = in(vreg) a,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            acc
        }
    };
}

dot_lane!(dot_lane_0, "0");
dot_lane!(dot_lane_1, "1");
dot_lane!(dot_lane_2, "2");
dot_lane!(dot_lane_3, "3");

/// `acc[2 i + j] +=` eight activations of row `i` times eight weights of row `j`.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn multiply_2x2(mut acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: registers only, and the CPU has the instruction.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {a:v}.16b, {w:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// Half `h` of tile `t`: the four lines' registers, scales and minimums of the four rows from `first` on.
#[target_feature(enable = "neon")]
#[inline]
fn quarter(w: &Expanded, t: usize, h: usize, first: usize) -> ([int8x16_t; 4], float32x4_t, float32x4_t) {
    // SAFETY: a line has 64 bytes, scales and minimums 16 floats, and `first + 4 <= 16`.
    unsafe {
        let line = |g: usize| vld1q_s8(w.codes[8 * t + 4 * h + g].as_ptr().add(4 * first));
        let lines = [line(0), line(1), line(2), line(3)];
        let scales = vld1q_f32(w.scales[2 * t + h].as_ptr().add(first));
        (lines, scales, vld1q_f32(w.mins[2 * t + h].as_ptr().add(first)))
    }
}

/// Adds scaled sums of products, and minimums, to four of a row's sums.
#[target_feature(enable = "neon")]
#[inline]
fn accumulate(
    dot: int32x4_t,
    (scales, mins): (float32x4_t, float32x4_t),
    (a_scale, a_sum): (f32, f32),
    out: &mut [f32; QUARTER],
) {
    let scale = vmulq_f32(scales, vdupq_n_f32(a_scale));
    // SAFETY: `out` is four floats.
    unsafe {
        let acc = vfmaq_f32(vld1q_f32(out.as_ptr()), scale, vcvtq_f32_s32(dot));
        vst1q_f32(out.as_mut_ptr(), vfmaq_f32(acc, mins, vdupq_n_f32(a_sum)));
    }
}

/// Adds the `n` expanded tiles at `t0` to the sums of `M` activation rows from `m0` on.
#[target_feature(enable = "neon,dotprod")]
fn row_block<const M: usize>(
    w: &Expanded,
    t0: usize,
    n: usize,
    a: &Activations,
    m0: usize,
    out: &mut [[f32; PANEL_ROWS]],
) {
    let rows: [_; M] = std::array::from_fn(|m| a.row(m0 + m));
    for (t, h) in (0..n).flat_map(|t| [(t, 0), (t, 1)]) {
        let half = 2 * (t0 + t) + h;
        for q in 0..PANEL_ROWS / QUARTER {
            let (lines, scales, mins) = quarter(w, t, h, QUARTER * q);
            for m in 0..M {
                let (codes, a_scales, a_sums) = rows[m];
                let a16 = &codes[16 * half..16 * half + 16];
                // SAFETY: sixteen codes were just sliced.
                let a16 = unsafe { vld1q_s8(a16.as_ptr()) };
                let dot = dot_lane_0(vdupq_n_s32(0), lines[0], a16);
                let dot = dot_lane_1(dot, lines[1], a16);
                let dot = dot_lane_2(dot, lines[2], a16);
                let dot = dot_lane_3(dot, lines[3], a16);
                let out = &mut out[m].as_chunks_mut::<QUARTER>().0[q];
                accumulate(dot, (scales, mins), (a_scales[t0 + t], a_sums[half]), out);
            }
        }
    }
}

/// The same for two rows by the matrix instruction, each register of weights used for both.
#[target_feature(enable = "neon,i8mm")]
fn two_rows(w: &Expanded, t0: usize, n: usize, a: &Activations, m0: usize, out: &mut [[f32; PANEL_ROWS]]) {
    let rows = [a.row(m0), a.row(m0 + 1)];
    for (t, h) in (0..n).flat_map(|t| [(t, 0), (t, 1)]) {
        let half = 2 * (t0 + t) + h;
        let pair = |j: usize| {
            let eight = |m: usize| rows[m].0[16 * half + 8 * j..][..8].as_ptr();
            // SAFETY: eight codes of each row were just sliced.
            unsafe { vcombine_s8(vld1_s8(eight(0)), vld1_s8(eight(1))) }
        };
        let pairs = [pair(0), pair(1)];
        for q in 0..PANEL_ROWS / QUARTER {
            let (lines, scales, mins) = quarter(w, t, h, QUARTER * q);
            // Weight rows 0 and 1, then 2 and 3, against both activation rows.
            let mut sums = [vdupq_n_s32(0); 2];
            for j in 0..2 {
                let (low, high) =
                    (vreinterpretq_s32_s8(lines[2 * j]), vreinterpretq_s32_s8(lines[2 * j + 1]));
                sums[0] = multiply_2x2(sums[0], pairs[j], vreinterpretq_s8_s32(vzip1q_s32(low, high)));
                sums[1] = multiply_2x2(sums[1], pairs[j], vreinterpretq_s8_s32(vzip2q_s32(low, high)));
            }
            let dots = [
                vcombine_s32(vget_low_s32(sums[0]), vget_low_s32(sums[1])),
                vcombine_s32(vget_high_s32(sums[0]), vget_high_s32(sums[1])),
            ];
            for m in 0..2 {
                let (_, a_scales, a_sums) = rows[m];
                let out = &mut out[m].as_chunks_mut::<QUARTER>().0[q];
                accumulate(dots[m], (scales, mins), (a_scales[t0 + t], a_sums[half]), out);
            }
        }
    }
}

macro_rules! panel_kernel {
    ($panel:ident, $features:literal, $block:expr, $block_rows:literal) => {
        /// One panel times all activation rows, as `scalar::panel`.
        #[target_feature(enable = $features)]
        pub(super) fn $panel(
            layout: &PanelLayout,
            panel: &[u8],
            a: &Activations,
            out: &mut [[f32; PANEL_ROWS]],
        ) {
            assert!(panel.len() == layout.panel_bytes(a.k) && out.len() >= a.n_rows);
            reached::mark(Isa::Neon, layout.ty, if a.n_rows < 4 { Path::FewRows } else { Path::ManyRows });
            let n_tiles = a.k / TILE_K;
            let mut w = Expanded::new();
            out[..a.n_rows].fill([0.0; PANEL_ROWS]);
            for t0 in (0..n_tiles).step_by(TILES_PER_SUPER) {
                let n = TILES_PER_SUPER.min(n_tiles - t0);
                expand(layout, &panel[run_offset(layout, t0 / TILES_PER_SUPER)..], n, &mut w);
                let mut m = 0;
                while m < a.n_rows {
                    let out = &mut out[m..];
                    if a.n_rows - m >= $block_rows {
                        $block(&w, t0, n, a, m, out);
                        m += $block_rows;
                    } else {
                        row_block::<1>(&w, t0, n, a, m, out);
                        m += 1;
                    }
                }
            }
        }
    };
}

panel_kernel!(panel, "neon,dotprod", row_block::<4>, 4);
panel_kernel!(panel_i8mm, "neon,dotprod,i8mm", two_rows, 2);

#[cfg(test)]
mod tests {
    use std::arch::is_aarch64_feature_detected;

    use super::super::pack::pack_panel;
    use super::super::scalar;
    use super::super::tests::{Lcg, activations, quantized, random_row};
    use super::{Activations, PANEL_ROWS, PanelLayout};

    type Panel = unsafe fn(&PanelLayout, &[u8], &Activations, &mut [[f32; PANEL_ROWS]]);

    /// Both forms, whichever the table would choose, over all formats and odd numbers of rows.
    #[test]
    fn both_forms_equal_the_reference() {
        let mut forms: Vec<Panel> = Vec::new();
        if is_aarch64_feature_detected!("dotprod") {
            forms.push(super::panel);
            if is_aarch64_feature_detected!("i8mm") {
                forms.push(super::panel_i8mm);
            }
        }
        let mut rng = Lcg(21);
        for ty in quantized() {
            for (n_blocks, n_rows) in [(1, 1), (3, 2), (2, 7), (9, 12)] {
                let k = ty.block_len() * n_blocks;
                let rows: Vec<Vec<u8>> = (0..PANEL_ROWS).map(|_| random_row(ty, k, &mut rng)).collect();
                let views: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
                let layout = PanelLayout::of(ty).unwrap();
                let mut packed = vec![0; layout.panel_bytes(k)];
                pack_panel(&layout, k, &views, &mut packed);
                let (_, a) = activations(n_rows, k, &mut rng);
                let mut want = vec![[0.0; PANEL_ROWS]; n_rows];
                scalar::panel(&layout, &packed, &a, &mut want);
                for form in &forms {
                    let mut got = vec![[f32::NAN; PANEL_ROWS]; n_rows];
                    // SAFETY: only forms that the CPU has were put into the list.
                    unsafe { form(&layout, &packed, &a, &mut got) };
                    for (want, got) in want.iter().zip(&got) {
                        // Sums of k / 16 terms in another order.
                        let size = want.iter().fold(1e-3f32, |a, v| a.max(v.abs()));
                        let close = want.iter().zip(got).all(|(w, g)| (w - g).abs() <= 3e-5 * size);
                        assert!(close, "{ty:?} k {k} rows {n_rows}: {got:?} is not {want:?}");
                    }
                }
            }
        }
    }
}
