//! AVX-512 with VNNI: 16 rows of a panel in the lanes of one register, four weights of each per `vpdpbusd`.
//!
//! Few rows (decode): codes are expanded in registers and used at once. Many rows (prefill): a run of 256 weights of a
//! panel is expanded once into the first-level cache and multiplied with eight activation rows at a time.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};

use super::activations::Activations;
use super::blocks::BlockType;
use super::dispatch::Isa;
use super::pack::{PANEL_ROWS, PanelLayout, TILE_K, TILES_PER_SUPER};
use super::reached::{self, Path};
use planes::{
    Expanded, Family, Q2K, Q3K, Q4K, Q5K, Q6K, Q40, Q41, Q50, Q51, Q80, expand, halves, line, lines,
    scale_and_min,
};

pub(super) mod planes;

/// How far ahead of the reading the second-level cache is told, in bytes.
const PREFETCH_BYTES: usize = 3584;
/// Rows up to which codes are used straight from registers.
const FEW_ROWS: usize = 4;
/// Activation rows whose sums stay in registers while a run of weights is multiplied.
const ROW_BLOCK: usize = 8;

/// Four consecutive activation codes in every lane.
///
/// # Safety
/// `p` must be readable for 4 bytes.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn quad(p: *const i8) -> __m512i {
    // SAFETY: the caller vouches for 4 readable bytes.
    _mm512_set1_epi32(unsafe { p.cast::<i32>().read_unaligned() })
}

/// `M` activation rows (pointers to codes, scales, sums).
type Rows<const M: usize> = [(*const i8, *const f32, *const f32); M];

/// Sums of one panel over `n_tiles` tiles for `M` rows, codes used straight from registers.
///
/// # Safety
/// `panel` must be a packed panel of the family over `n_tiles` tiles, `rows` valid for as many.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn few_rows<F: Family, const M: usize>(
    panel: *const u8,
    n_tiles: usize,
    rows: &Rows<M>,
) -> [__m512; M] {
    let zero = _mm512_setzero_ps();
    let (mut acc, mut fs, mut fm) = ([zero; M], [zero; M], [zero; M]);
    let mut p = panel;
    for t in 0..n_tiles {
        // SAFETY: t stays under n_tiles, so tile, activations and super-block scales are inside what the caller vouched
        // for; a prefetch may point anywhere.
        unsafe {
            let codes = lines::<F>(p);
            for offset in (0..F::TILE_BYTES).step_by(64) {
                _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(PREFETCH_BYTES + offset).cast());
            }
            let scales = p.add(F::PLANE_BYTES);
            for m in 0..M {
                let (a, a_scale, a_sums) = rows[m];
                let a = a.add(t * TILE_K);
                let mut dots = [_mm512_setzero_si512(); 2];
                for g in 0..4 {
                    dots[0] = _mm512_dpbusd_epi32(dots[0], codes[g], quad(a.add(4 * g)));
                    dots[1] = _mm512_dpbusd_epi32(dots[1], codes[g + 4], quad(a.add(4 * g + 16)));
                }
                let a_scale = _mm512_set1_ps(*a_scale.add(t));
                let sums = [*a_sums.add(2 * t), *a_sums.add(2 * t + 1)];
                if F::HALVES {
                    for h in 0..2 {
                        let (s, mn) = scale_and_min::<F>(scales, h);
                        let offset = _mm512_set1_ps(-F::ZERO * sums[h]);
                        let v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[h]), a_scale, offset);
                        fs[m] = _mm512_fmadd_ps(s, v, fs[m]);
                        if F::MINS {
                            fm[m] = _mm512_fmadd_ps(mn, _mm512_set1_ps(sums[h]), fm[m]);
                        }
                    }
                } else {
                    let (s, mn) = scale_and_min::<F>(scales, 0);
                    let sum = sums[0] + sums[1];
                    let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dots[0], dots[1]));
                    let v = _mm512_fmadd_ps(dot, a_scale, _mm512_set1_ps(-F::ZERO * sum));
                    fs[m] = _mm512_fmadd_ps(s, v, fs[m]);
                    if F::MINS {
                        fm[m] = _mm512_fmadd_ps(mn, _mm512_set1_ps(sum), fm[m]);
                    }
                }
            }
            p = p.add(F::TILE_BYTES);
            if F::SUPER && t % TILES_PER_SUPER == TILES_PER_SUPER - 1 {
                let d = halves(p);
                for m in 0..M {
                    acc[m] = _mm512_fmadd_ps(d, fs[m], acc[m]);
                    if F::MINS {
                        acc[m] = _mm512_fnmadd_ps(halves(p.add(32)), fm[m], acc[m]);
                    }
                }
                (fs, fm) = ([zero; M], [zero; M]);
                p = p.add(if F::MINS { 64 } else { 32 });
            }
        }
    }
    if !F::SUPER {
        for m in 0..M {
            acc[m] = _mm512_fmadd_ps(_mm512_set1_ps(1.0), fs[m], fm[m]);
        }
    }
    acc
}

/// Adds `n` expanded tiles, starting at tile `t0` of the rows, to the sums of `M` rows.
///
/// # Safety
/// `rows` must be valid for tiles `t0..t0 + n`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn row_block<F: Family, const M: usize>(
    w: &Expanded,
    t0: usize,
    n: usize,
    rows: &Rows<M>,
    out: &mut [[f32; PANEL_ROWS]],
) {
    let out = &mut out[..M];
    // SAFETY: `out` has M rows of 16 floats; activation offsets stay below the tiles the caller vouched for; the
    // expanded arrays are indexed within their eight tiles.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); M];
        for m in 0..M {
            acc[m] = _mm512_loadu_ps(out[m].as_ptr());
        }
        for t in 0..n {
            for h in 0..if F::HALVES { 2 } else { 1 } {
                let mut dots = [_mm512_setzero_si512(); M];
                let (first, count) = if F::HALVES { (4 * h, 4) } else { (0, 8) };
                for g in first..first + count {
                    let codes = line(w.codes[8 * t + g].as_ptr());
                    for m in 0..M {
                        let a = quad(rows[m].0.add((t0 + t) * TILE_K + 4 * g));
                        dots[m] = _mm512_dpbusd_epi32(dots[m], codes, a);
                    }
                }
                let s = _mm512_loadu_ps(w.scales[2 * t + h].as_ptr());
                let mn = _mm512_loadu_ps(w.mins[2 * t + h].as_ptr());
                for m in 0..M {
                    let (_, a_scale, a_sums) = rows[m];
                    let at = 2 * (t0 + t);
                    let sum =
                        if F::HALVES { *a_sums.add(at + h) } else { *a_sums.add(at) + *a_sums.add(at + 1) };
                    let a_scale = _mm512_set1_ps(*a_scale.add(t0 + t));
                    let dot = _mm512_cvtepi32_ps(dots[m]);
                    if F::ZERO == 0.0 {
                        acc[m] = _mm512_fmadd_ps(_mm512_mul_ps(s, a_scale), dot, acc[m]);
                    } else {
                        let v = _mm512_fmadd_ps(dot, a_scale, _mm512_set1_ps(-F::ZERO * sum));
                        acc[m] = _mm512_fmadd_ps(s, v, acc[m]);
                    }
                    if F::MINS {
                        acc[m] = _mm512_fmadd_ps(mn, _mm512_set1_ps(sum), acc[m]);
                    }
                }
            }
        }
        for m in 0..M {
            _mm512_storeu_ps(out[m].as_mut_ptr(), acc[m]);
        }
    }
}

fn rows_at<const M: usize>(a: &Activations, first: usize) -> Rows<M> {
    std::array::from_fn(|m| {
        let (codes, scales, sums) = a.row(first + m);
        (codes.as_ptr(), scales.as_ptr(), sums.as_ptr())
    })
}

/// # Safety
/// `panel` must be a packed panel of the family over `a.k` weights; `out` has a row per activation row.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn family_panel<F: Family>(
    ty: BlockType,
    panel: *const u8,
    a: &Activations,
    out: &mut [[f32; PANEL_ROWS]],
) {
    let n_tiles = a.k / TILE_K;
    macro_rules! few {
        ($m:literal) => {{
            // SAFETY: the panel is as the caller vouched; the rows come from `a`, which has a.k codes each.
            let sums = unsafe { few_rows::<F, $m>(panel, n_tiles, &rows_at::<$m>(a, 0)) };
            for (out, sum) in out.iter_mut().zip(sums) {
                // SAFETY: a row of `out` is 16 floats.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            }
        }};
    }
    let path = if a.n_rows <= FEW_ROWS { Path::FewRows } else { Path::ManyRows };
    reached::mark(Isa::Avx512, ty, path);
    match a.n_rows {
        0 => {}
        1 => few!(1),
        2 => few!(2),
        3 => few!(3),
        FEW_ROWS => few!(4),
        n_rows => {
            let mut w = Expanded { codes: [[0; 64]; 64], scales: [[0.0; 16]; 16], mins: [[0.0; 16]; 16] };
            out[..n_rows].fill([0.0; PANEL_ROWS]);
            let super_bytes = if !F::SUPER {
                0
            } else if F::MINS {
                64
            } else {
                32
            };
            for t0 in (0..n_tiles).step_by(TILES_PER_SUPER) {
                let n = TILES_PER_SUPER.min(n_tiles - t0);
                let at = t0 * F::TILE_BYTES + t0 / TILES_PER_SUPER * super_bytes;
                // SAFETY: `at` is the start of run t0 in the panel; super-block families have whole runs of eight.
                unsafe { expand::<F>(panel.add(at), n, &mut w) };
                let mut m = 0;
                while m < n_rows {
                    let out = &mut out[m..n_rows];
                    // SAFETY: rows m.. of `a` are in use and have a.k codes, so tiles t0..t0 + n exist.
                    m += unsafe {
                        match n_rows - m {
                            1 => (row_block::<F, 1>(&w, t0, n, &rows_at(a, m), out), 1).1,
                            2..4 => (row_block::<F, 2>(&w, t0, n, &rows_at(a, m), out), 2).1,
                            4..ROW_BLOCK => (row_block::<F, 4>(&w, t0, n, &rows_at(a, m), out), 4).1,
                            _ => (row_block::<F, ROW_BLOCK>(&w, t0, n, &rows_at(a, m), out), ROW_BLOCK).1,
                        }
                    };
                }
            }
        }
    }
}

/// One panel times all activation rows, as `scalar::panel`.
///
/// # Safety
/// The CPU must have avx512f, avx512bw and avx512vnni.
///
/// # Panics
/// If the panel has not the length that its layout and `a.k` give, or `out` is shorter than the rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn panel(
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
    let (ty, p) = (layout.ty, panel.as_ptr());
    // SAFETY: the length was checked against the layout just above, and the family is the layout's own.
    unsafe {
        match ty {
            BlockType::Q4_0 => family_panel::<Q40>(ty, p, a, out),
            BlockType::Q4_1 => family_panel::<Q41>(ty, p, a, out),
            BlockType::Q5_0 => family_panel::<Q50>(ty, p, a, out),
            BlockType::Q5_1 => family_panel::<Q51>(ty, p, a, out),
            BlockType::Q8_0 => family_panel::<Q80>(ty, p, a, out),
            BlockType::Q2K => family_panel::<Q2K>(ty, p, a, out),
            BlockType::Q3K => family_panel::<Q3K>(ty, p, a, out),
            BlockType::Q4K => family_panel::<Q4K>(ty, p, a, out),
            BlockType::Q5K => family_panel::<Q5K>(ty, p, a, out),
            BlockType::Q6K => family_panel::<Q6K>(ty, p, a, out),
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => {
                unreachable!("plain floats have no packed layout")
            }
        }
    }
}
