//! AVX2 (with FMA and F16C), and AVX-VNNI where the CPU has it: 8 of a panel's 16 rows in the lanes of one register.
//!
//! As in [`super::avx512`], a few rows meet codes straight from registers, many rows a run of 256 weights expanded once.
//! Without `vpdpbusd`, products of unsigned codes and signed activations are added up in 16 bits for as long as they
//! surely fit ([`Grouped`]). No closure of the standard library's stands between two intrinsics: one that is not inlined
//! there, because it has no instruction set of its own, costs ten times what it does.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps,
    _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_xor_si256,
};

use super::activations::Activations;
use super::avx512::planes::{Expanded, Family, Q2K, Q3K, Q4K, Q5K, Q6K, Q40, Q41, Q50, Q51, Q80};
use super::avx512::prefetch;
use super::blocks::BlockType;
use super::dispatch::Isa;
use super::pack::{PANEL_ROWS, PanelLayout, TILE_K, TILES_PER_SUPER};
use super::reached::{self, Path};
use planes::{lines, run_bytes, scale_and_offset, supers};

mod planes;

/// Rows of a panel in one register.
const LANES: usize = 8;
/// Rows up to which codes are used straight from registers.
const FEW_ROWS: usize = 4;

/// How products are added up without `vpdpbusd`.
trait Grouped: Family {
    /// Lines whose products fit into 16 bits together: twice the largest code times 127, each.
    const LINES: usize = match Self::LOW + Self::HIGH {
        0..=4 => 8,
        5 => 4,
        _ => 2,
    };
    /// Codes of eight bits: their products do not fit, so codes are made signed and the sign goes to the activations.
    const BYTES: bool = Self::LOW == 8;
}
impl<F: Family> Grouped for F {}

/// Four consecutive activation codes in every lane.
///
/// # Safety
/// `p` must be readable for 4 bytes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn quad(p: *const i8) -> __m256i {
    // SAFETY: the caller vouches for 4 readable bytes.
    _mm256_set1_epi32(unsafe { p.cast::<i32>().read_unaligned() })
}

/// Products of signed bytes, by pairs in 32 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn signed_products(line: __m256i, quad: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(line), _mm256_sign_epi8(quad, line));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// `M` activation rows (pointers to codes, scales, sums).
type Rows<const M: usize> = [(*const i8, *const f32, *const f32); M];

fn rows_at<const M: usize>(a: &Activations, first: usize) -> Rows<M> {
    std::array::from_fn(|m| {
        let (codes, scales, sums) = a.row(first + m);
        (codes.as_ptr(), scales.as_ptr(), sums.as_ptr())
    })
}

/// Scale and sum of a row for tile `t`, half `h` of it where the family has halves.
///
/// # Safety
/// The row must hold tile `t`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn scale_and_sum<F: Family>(
    (_, scales, sums): (*const i8, *const f32, *const f32),
    t: usize,
    h: usize,
) -> (__m256, __m256) {
    // SAFETY: the caller vouches for the tile.
    unsafe {
        let sum = if F::HALVES { *sums.add(2 * t + h) } else { *sums.add(2 * t) + *sums.add(2 * t + 1) };
        (_mm256_set1_ps(*scales.add(t)), _mm256_set1_ps(sum))
    }
}

macro_rules! class {
    ($module:ident, $isa:expr, $vnni:literal, $features:literal) => {
        mod $module {
            use super::*;

            /// Whether codes are used signed, with no zero point to take off.
            const fn is_signed<F: Family>() -> bool {
                F::BYTES && !$vnni
            }

            /// Lines of 8 rows times one row of activations: `count` lines from `first` on.
            ///
            /// # Safety
            /// `a` must be readable for the codes of one tile.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn dot<F: Family>(
                lines: &[__m256i; 8],
                first: usize,
                count: usize,
                a: *const i8,
            ) -> __m256i {
                let mut acc = _mm256_setzero_si256();
                // SAFETY: quads of a tile's 32 codes; `vpdpbusd` is only reached in the class that has it.
                unsafe {
                    if $vnni {
                        for g in first..first + count {
                            acc = _mm256_dpbusd_avx_epi32(acc, lines[g], quad(a.add(4 * g)));
                        }
                    } else if F::BYTES {
                        for g in first..first + count {
                            acc = _mm256_add_epi32(acc, signed_products(lines[g], quad(a.add(4 * g))));
                        }
                    } else {
                        for from in (first..first + count).step_by(F::LINES) {
                            let mut sums = _mm256_setzero_si256();
                            for g in from..(from + F::LINES).min(first + count) {
                                let products = _mm256_maddubs_epi16(lines[g], quad(a.add(4 * g)));
                                sums = _mm256_add_epi16(sums, products);
                            }
                            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
                        }
                    }
                }
                acc
            }

            /// Sums of one panel over `n_tiles` tiles for `M` rows, codes used straight from registers.
            ///
            /// # Safety
            /// `panel` must be a packed panel of the family over `n_tiles` tiles, `rows` valid for as many.
            #[target_feature(enable = $features)]
            unsafe fn few_rows<F: Family, const M: usize>(
                panel: *const u8,
                n_tiles: usize,
                rows: &Rows<M>,
            ) -> [[__m256; 2]; M] {
                let mut acc = [[_mm256_setzero_ps(); 2]; M];
                for t0 in (0..n_tiles).step_by(TILES_PER_SUPER) {
                    // SAFETY: runs, tiles and activations are inside what the caller vouched for; a prefetch may point
                    // anywhere.
                    unsafe {
                        let run = panel.add(t0 / TILES_PER_SUPER * run_bytes::<F>());
                        let supers = [supers::<F>(run, 0), supers::<F>(run, 1)];
                        prefetch(run.add(TILES_PER_SUPER * F::TILE_BYTES), F::SUPER_BYTES);
                        for t in t0..n_tiles.min(t0 + TILES_PER_SUPER) {
                            let tile = run.add((t - t0) * F::TILE_BYTES);
                            prefetch(tile, F::TILE_BYTES);
                            for half in 0..2 {
                                let mut codes = lines::<F>(tile, half);
                                if is_signed::<F>() {
                                    for codes in &mut codes {
                                        *codes = _mm256_xor_si256(*codes, _mm256_set1_epi8(-128));
                                    }
                                }
                                for h in 0..if F::HALVES { 2 } else { 1 } {
                                    let (first, count) = if F::HALVES { (4 * h, 4) } else { (0, 8) };
                                    let scales = tile.add(F::PLANE_BYTES);
                                    let (scale, offset) =
                                        scale_and_offset::<F>(scales, half, h, supers[half]);
                                    for m in 0..M {
                                        let dot = dot::<F>(&codes, first, count, rows[m].0.add(t * TILE_K));
                                        let (a_scale, sum) = scale_and_sum::<F>(rows[m], t, h);
                                        let scale = _mm256_mul_ps(scale, a_scale);
                                        let acc = &mut acc[m][half];
                                        *acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot), *acc);
                                        if F::OFFSETS && !is_signed::<F>() {
                                            *acc = _mm256_fmadd_ps(offset, sum, *acc);
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                acc
            }

            /// Expands `n` tiles (at most eight) at `run`.
            ///
            /// # Safety
            /// `run` must point at `n` tiles of the family and, for super-block families, at whole runs.
            #[target_feature(enable = $features)]
            unsafe fn expand<F: Family>(run: *const u8, n: usize, out: &mut Expanded) {
                for half in 0..2 {
                    // SAFETY: tiles and scales are inside the run; half a line is 32 bytes, half a row of scales 8 floats.
                    unsafe {
                        let supers = supers::<F>(run, half);
                        if half == 0 {
                            prefetch(run, run_bytes::<F>());
                        }
                        for t in 0..n {
                            let tile = run.add(t * F::TILE_BYTES);
                            for (g, mut codes) in lines::<F>(tile, half).into_iter().enumerate() {
                                if is_signed::<F>() {
                                    codes = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
                                }
                                let to = out.codes[8 * t + g].as_mut_ptr().add(32 * half);
                                _mm256_storeu_si256(to.cast(), codes);
                            }
                            for h in 0..if F::HALVES { 2 } else { 1 } {
                                let (s, o) = scale_and_offset::<F>(tile.add(F::PLANE_BYTES), half, h, supers);
                                let to = 2 * t + h;
                                _mm256_storeu_ps(out.scales[to].as_mut_ptr().add(LANES * half), s);
                                _mm256_storeu_ps(out.offsets[to].as_mut_ptr().add(LANES * half), o);
                            }
                        }
                    }
                }
            }

            /// Adds `n` expanded tiles, from tile `t0` of the rows on, to the sums of `M` rows.
            ///
            /// # Safety
            /// `rows` must be valid for tiles `t0..t0 + n`, `out` for `M` rows.
            #[target_feature(enable = $features)]
            unsafe fn row_block<F: Family, const M: usize>(
                w: &Expanded,
                t0: usize,
                n: usize,
                rows: &Rows<M>,
                out: *mut [f32; PANEL_ROWS],
            ) {
                for half in 0..2 {
                    // SAFETY: lines are 64 bytes, rows of scales and sums 16 floats; activations stay below the tiles that
                    // the caller vouched for.
                    unsafe {
                        let to = |m: usize| out.add(m).cast::<f32>().add(LANES * half);
                        let mut acc = [_mm256_setzero_ps(); M];
                        for m in 0..M {
                            acc[m] = _mm256_loadu_ps(to(m));
                        }
                        for t in 0..n {
                            let mut lines = [_mm256_setzero_si256(); 8];
                            for (g, line) in lines.iter_mut().enumerate() {
                                *line = _mm256_loadu_si256(
                                    w.codes[8 * t + g].as_ptr().add(32 * half).cast(),
                                );
                            }
                            for h in 0..if F::HALVES { 2 } else { 1 } {
                                let (first, count) = if F::HALVES { (4 * h, 4) } else { (0, 8) };
                                let at = LANES * half;
                                let scales = _mm256_loadu_ps(w.scales[2 * t + h].as_ptr().add(at));
                                let offsets = _mm256_loadu_ps(w.offsets[2 * t + h].as_ptr().add(at));
                                for m in 0..M {
                                    let codes = rows[m].0.add((t0 + t) * TILE_K);
                                    let dot = _mm256_cvtepi32_ps(dot::<F>(&lines, first, count, codes));
                                    let (a_scale, sum) = scale_and_sum::<F>(rows[m], t0 + t, h);
                                    acc[m] = _mm256_fmadd_ps(_mm256_mul_ps(scales, a_scale), dot, acc[m]);
                                    if F::OFFSETS && !is_signed::<F>() {
                                        acc[m] = _mm256_fmadd_ps(offsets, sum, acc[m]);
                                    }
                                }
                            }
                        }
                        for m in 0..M {
                            _mm256_storeu_ps(to(m), acc[m]);
                        }
                    }
                }
            }

            /// # Safety
            /// `panel` must be a packed panel of the family over `a.k` weights; `out` has a row per activation row.
            #[target_feature(enable = $features)]
            unsafe fn family_panel<F: Family>(
                panel: *const u8,
                a: &Activations,
                out: &mut [[f32; PANEL_ROWS]],
            ) {
                let (n_tiles, n_rows) = (a.k / TILE_K, a.n_rows);
                macro_rules! few {
                            ($m:literal) => {{
                                // SAFETY: the panel is as the caller vouched; the rows come from `a`, which has a.k codes each.
                                let sums = unsafe { few_rows::<F, $m>(panel, n_tiles, &rows_at(a, 0)) };
                                for (out, sums) in out.iter_mut().zip(sums) {
                                    for (out, sums) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
                                        // SAFETY: half a row of `out` is 8 floats.
                                        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sums) };
                                    }
                                }
                            }};
                        }
                match n_rows {
                    0 => return,
                    1 => return few!(1),
                    2 => return few!(2),
                    3 => return few!(3),
                    FEW_ROWS => return few!(4),
                    _ => {}
                }
                let mut w = Expanded::new();
                let out = &mut out[..n_rows];
                out.fill([0.0; PANEL_ROWS]);
                for t0 in (0..n_tiles).step_by(TILES_PER_SUPER) {
                    let n = TILES_PER_SUPER.min(n_tiles - t0);
                    // SAFETY: run t0 is in the panel; super-block families have whole runs of eight.
                    unsafe { expand::<F>(panel.add(t0 / TILES_PER_SUPER * run_bytes::<F>()), n, &mut w) };
                    let mut m = 0;
                    macro_rules! rows {
                                ($n:literal) => {{
                                    let out = out[m..m + $n].as_mut_ptr();
                                    // SAFETY: rows m.. of `a` are in use and have a.k codes, so tiles t0..t0 + n exist.
                                    unsafe { row_block::<F, $n>(&w, t0, n, &rows_at(a, m), out) };
                                    m += $n;
                                }};
                            }
                    while m < n_rows {
                        match n_rows - m {
                            1 => rows!(1),
                            2 | 3 => rows!(2),
                            _ => rows!(4),
                        }
                    }
                }
            }

            /// One panel times all activation rows, as `scalar::panel`.
            ///
            /// # Panics
            /// If the panel has not the length that its layout and `a.k` give, or `out` is shorter than the rows.
            #[target_feature(enable = $features)]
            pub(in super::super) fn panel(
                layout: &PanelLayout,
                panel: &[u8],
                a: &Activations,
                out: &mut [[f32; PANEL_ROWS]],
            ) {
                assert!(panel.len() == layout.panel_bytes(a.k) && out.len() >= a.n_rows);
                assert!(
                    a.k.is_multiple_of(TILE_K)
                        && (layout.super_bytes == 0 || a.k.is_multiple_of(TILE_K * TILES_PER_SUPER))
                );
                let path = if a.n_rows <= FEW_ROWS { Path::FewRows } else { Path::ManyRows };
                reached::mark($isa, layout.ty, path);
                let p = panel.as_ptr();
                // SAFETY: the length was checked against the layout just above, and the family is the layout's own.
                unsafe {
                    match layout.ty {
                        BlockType::Q4_0 => family_panel::<Q40>(p, a, out),
                        BlockType::Q4_1 => family_panel::<Q41>(p, a, out),
                        BlockType::Q5_0 => family_panel::<Q50>(p, a, out),
                        BlockType::Q5_1 => family_panel::<Q51>(p, a, out),
                        BlockType::Q8_0 => family_panel::<Q80>(p, a, out),
                        BlockType::Q2K => family_panel::<Q2K>(p, a, out),
                        BlockType::Q3K => family_panel::<Q3K>(p, a, out),
                        BlockType::Q4K => family_panel::<Q4K>(p, a, out),
                        BlockType::Q5K => family_panel::<Q5K>(p, a, out),
                        BlockType::Q6K => family_panel::<Q6K>(p, a, out),
                        BlockType::F32 | BlockType::F16 | BlockType::BF16 => {
                            unreachable!("plain floats have no packed layout")
                        }
                    }
                }
            }
        }
    };
}

class!(plain, Isa::Avx2, false, "avx2,fma,f16c");
class!(vnni, Isa::AvxVnni, true, "avx2,fma,f16c,avxvnni");
pub(super) use plain::panel;
pub(super) use vnni::panel as panel_vnni;
