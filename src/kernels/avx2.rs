//! AVX2 (with FMA and F16C), and AVX-VNNI where the CPU has it: 8 of a panel's 16 rows in the lanes of one register.

use std::arch::x86_64::{
    __m256i, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps,
    _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps,
};

use super::activations::Activations;
use super::dispatch::Isa;
use super::expand::{Expanded, expand, run_offset};
use super::pack::{PANEL_ROWS, PanelLayout, TILE_K, TILES_PER_SUPER};
use super::reached::{self, Path};

/// Adds products of 16 weights: four lines of 8 rows with four quads of activations.
///
/// Codes are signed: `|w| * sign(a, w)`. At most `128 * 127 * 2` per 16-bit lane, which fits; two such would not, so for
/// codes of eight bits the lanes are widened line by line (`WIDE`).
///
/// # Safety
/// `line(g)` must give 32 readable bytes and `a` 16.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn dot_half<const WIDE: bool>(lines: [__m256i; 4], a: *const i8, acc: __m256i) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let mut acc = acc;
    let product = |g: usize| {
        // SAFETY: the caller vouches for 16 readable activations.
        let quad = _mm256_set1_epi32(unsafe { a.add(4 * g).cast::<i32>().read_unaligned() });
        _mm256_maddubs_epi16(_mm256_abs_epi8(lines[g]), _mm256_sign_epi8(quad, lines[g]))
    };
    if WIDE {
        for g in 0..4 {
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(product(g), ones));
        }
    } else {
        for g in [0, 2] {
            let pair = _mm256_add_epi16(product(g), product(g + 1));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pair, ones));
        }
    }
    acc
}

/// The same with AVX-VNNI's one instruction.
///
/// # Safety
/// As [`dot_half`], and the CPU has avxvnni.
#[target_feature(enable = "avx2,avxvnni")]
#[inline]
unsafe fn dot_half_vnni(lines: [__m256i; 4], a: *const i8, acc: __m256i) -> __m256i {
    let mut acc = acc;
    for (g, line) in lines.into_iter().enumerate() {
        // SAFETY: the caller vouches for 16 readable activations.
        let quad = _mm256_set1_epi32(unsafe { a.add(4 * g).cast::<i32>().read_unaligned() });
        acc = _mm256_dpbusd_avx_epi32(acc, _mm256_abs_epi8(line), _mm256_sign_epi8(quad, line));
    }
    acc
}

macro_rules! panel_kernel {
    ($panel:ident, $row_block:ident, $isa:expr, $features:literal, $dot:ident $(::<$wide:ident>)?) => {
        /// Adds the `n` expanded tiles at `t0` to the sums of `M` activation rows from `m0` on.
        #[target_feature(enable = $features)]
        fn $row_block<const M: usize, const WIDE: bool>(
            w: &Expanded,
            t0: usize,
            n: usize,
            a: &Activations,
            m0: usize,
            out: &mut [[f32; PANEL_ROWS]],
        ) {
            let rows: [_; M] = std::array::from_fn(|m| a.row(m0 + m));
            for (t, first) in (0..n).flat_map(|t| [(t, 0), (t, 8)]) {
                for h in 0..2 {
                    let lines: [__m256i; 4] = std::array::from_fn(|g| {
                        // SAFETY: a line has 64 bytes and `4 * first` is 0 or 32.
                        unsafe { _mm256_loadu_si256(w.codes[8 * t + 4 * h + g].as_ptr().add(4 * first).cast()) }
                    });
                    // SAFETY: rows of scales, minimums and sums are 16 floats and `first + 8 <= 16`.
                    let (s, mn) = unsafe {
                        (
                            _mm256_loadu_ps(w.scales[2 * t + h].as_ptr().add(first)),
                            _mm256_loadu_ps(w.mins[2 * t + h].as_ptr().add(first)),
                        )
                    };
                    for m in 0..M {
                        let (codes, scales, sums) = rows[m];
                        let a16 = codes[(t0 + t) * TILE_K + 16 * h..][..16].as_ptr();
                        // SAFETY: `a16` is a slice of 16 codes.
                        let dot = unsafe { $dot$(::<$wide>)?(lines, a16, _mm256_setzero_si256()) };
                        let scale = _mm256_mul_ps(s, _mm256_set1_ps(scales[t0 + t]));
                        let sum = _mm256_set1_ps(sums[2 * (t0 + t) + h]);
                        // SAFETY: as for the scales above.
                        unsafe {
                            let at = out[m].as_mut_ptr().add(first);
                            let acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot), _mm256_loadu_ps(at));
                            _mm256_storeu_ps(at, _mm256_fmadd_ps(mn, sum, acc));
                        }
                    }
                }
            }
        }

        /// One panel times all activation rows, as `scalar::panel`.
        #[target_feature(enable = $features)]
        pub(super) fn $panel(layout: &PanelLayout, panel: &[u8], a: &Activations, out: &mut [[f32; PANEL_ROWS]]) {
            assert!(panel.len() == layout.panel_bytes(a.k) && out.len() >= a.n_rows);
            reached::mark($isa, layout.ty, if a.n_rows < 4 { Path::FewRows } else { Path::ManyRows });
            let n_tiles = a.k / TILE_K;
            let mut w = Expanded::new();
            out[..a.n_rows].fill([0.0; PANEL_ROWS]);
            for t0 in (0..n_tiles).step_by(TILES_PER_SUPER) {
                let n = TILES_PER_SUPER.min(n_tiles - t0);
                expand(layout, &panel[run_offset(layout, t0 / TILES_PER_SUPER)..], n, &mut w);
                let mut m = 0;
                while m < a.n_rows {
                    let out = &mut out[m..];
                    let wide = layout.ty == super::blocks::BlockType::Q8_0;
                    m += match (a.n_rows - m >= 4, wide) {
                        (true, false) => ($row_block::<4, false>(&w, t0, n, a, m, out), 4).1,
                        (true, true) => ($row_block::<4, true>(&w, t0, n, a, m, out), 4).1,
                        (false, false) => ($row_block::<1, false>(&w, t0, n, a, m, out), 1).1,
                        (false, true) => ($row_block::<1, true>(&w, t0, n, a, m, out), 1).1,
                    };
                }
            }
        }
    };
}

panel_kernel!(panel, row_block, Isa::Avx2, "avx2,fma,f16c", dot_half::<WIDE>);
panel_kernel!(panel_vnni, row_block_vnni, Isa::AvxVnni, "avx2,fma,f16c,avxvnni", dot_half_vnni);
