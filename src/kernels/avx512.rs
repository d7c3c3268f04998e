//! AVX-512 with VNNI: 16 rows of a panel in the lanes of one register, four weights of each per `vpdpbusd`.
//!
//! Few rows (decode): codes are expanded in registers and used at once. Many rows (prefill): a run of 256 weights of a
//! panel, or of two, is expanded once into the first-level cache and multiplied with four activation rows at a time.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps,
};

use super::activations::Activations;
use super::blocks::BlockType;
use super::dispatch::Isa;
use super::pack::{PANEL_ROWS, PanelLayout, TILE_K, TILES_PER_SUPER};
use super::reached::{self, Path};
use planes::{
    Expanded, Family, Q2K, Q3K, Q4K, Q5K, Q6K, Q40, Q41, Q50, Q51, Q80, expand, line, lines,
    scale_and_offset, super_scales,
};

pub(super) mod planes;

/// How far ahead of the reading the second-level cache is told, in bytes. Every line has to be named, the super-block scales
/// too: where one in two kilobytes is left out, its whole latency is waited for, and the bandwidth of one core falls from 25
/// to 15 GB/s. Measured on Zen 4: at 6 KiB a core multiplies as fast as it can read; at 2 KiB half, at 12 KiB nine tenths.
const PREFETCH_BYTES: usize = 6144;
/// Rows up to which codes are used straight from registers, measured: expanding them first pays from about 30 rows on,
/// and a panel that does not fit into the first-level cache should not be read too often.
pub(super) const FEW_ROWS: usize = 16;

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

/// Tells the second-level cache of the `len` bytes that lie [`PREFETCH_BYTES`] behind `p`; they may be anywhere.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn prefetch(p: *const u8, len: usize) {
    for offset in (0..len).step_by(64) {
        _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(PREFETCH_BYTES + offset).cast());
    }
}

/// `M` activation rows (pointers to codes, scales, sums).
type Rows<const M: usize> = [(*const i8, *const f32, *const f32); M];

/// Sums of one panel over `n_tiles` tiles for `M` rows, codes used straight from registers. Every sum is made in the
/// order of [`row_block`], so that a row's result depends on no other row.
///
/// # Safety
/// `panel` must be a packed panel of the family over `n_tiles` tiles, `rows` valid for as many.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn few_rows<F: Family, const M: usize>(
    panel: *const u8,
    n_tiles: usize,
    rows: &Rows<M>,
) -> [__m512; M] {
    let mut acc = [_mm512_setzero_ps(); M];
    let mut run = panel;
    for t0 in (0..n_tiles).step_by(TILES_PER_SUPER) {
        // SAFETY: tiles stay under n_tiles, so tiles, activations and super-block scales are inside what the caller
        // vouched for; a prefetch may point anywhere.
        unsafe {
            let supers = run.add(TILES_PER_SUPER * F::TILE_BYTES);
            let (d, dmin) = super_scales::<F>(supers);
            prefetch(supers, F::SUPER_BYTES);
            for t in t0..n_tiles.min(t0 + TILES_PER_SUPER) {
                let tile = run.add((t - t0) * F::TILE_BYTES);
                let codes = lines::<F>(tile);
                prefetch(tile, F::TILE_BYTES);
                let scales = tile.add(F::PLANE_BYTES);
                let mut halves = [(_mm512_setzero_ps(), _mm512_setzero_ps()); 2];
                for h in 0..if F::HALVES { 2 } else { 1 } {
                    halves[h] = scale_and_offset::<F>(scales, h, d, dmin);
                }
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
                    let (dots, sums) = if F::HALVES {
                        (dots, sums)
                    } else {
                        ([_mm512_add_epi32(dots[0], dots[1]); 2], [sums[0] + sums[1]; 2])
                    };
                    for h in 0..if F::HALVES { 2 } else { 1 } {
                        let (scale, offset) = halves[h];
                        let dot = _mm512_cvtepi32_ps(dots[h]);
                        acc[m] = _mm512_fmadd_ps(_mm512_mul_ps(scale, a_scale), dot, acc[m]);
                        if F::OFFSETS {
                            acc[m] = _mm512_fmadd_ps(offset, _mm512_set1_ps(sums[h]), acc[m]);
                        }
                    }
                }
            }
            run = supers.add(F::SUPER_BYTES);
        }
    }
    acc
}

/// Adds `n` expanded tiles of `P` panels, starting at tile `t0` of the rows, to the sums of `M` rows.
///
/// What limits this loop is loads: every quad of activations that is spread over a register meets the lines of all `P`
/// panels before it goes.
///
/// # Safety
/// `rows` must be valid for tiles `t0..t0 + n`, each of `out` for `M` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn row_block<F: Family, const P: usize, const M: usize>(
    w: [&Expanded; P],
    t0: usize,
    n: usize,
    rows: &Rows<M>,
    out: [*mut [f32; PANEL_ROWS]; P],
) {
    // SAFETY: rows of `out` are 16 floats; activation offsets stay below the tiles the caller vouched for; the
    // expanded arrays are indexed within their eight tiles.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); M]; P];
        for p in 0..P {
            for m in 0..M {
                acc[p][m] = _mm512_loadu_ps(out[p].add(m).cast());
            }
        }
        for t in 0..n {
            for h in 0..if F::HALVES { 2 } else { 1 } {
                let mut dots = [[_mm512_setzero_si512(); M]; P];
                let (first, count) = if F::HALVES { (4 * h, 4) } else { (0, 8) };
                for g in first..first + count {
                    let mut codes = [_mm512_setzero_si512(); P];
                    for p in 0..P {
                        codes[p] = line(w[p].codes[8 * t + g].as_ptr());
                    }
                    for m in 0..M {
                        let a = quad(rows[m].0.add((t0 + t) * TILE_K + 4 * g));
                        for p in 0..P {
                            dots[p][m] = _mm512_dpbusd_epi32(dots[p][m], codes[p], a);
                        }
                    }
                }
                let at = 2 * t + h;
                let (mut scales, mut offsets) = ([_mm512_setzero_ps(); P], [_mm512_setzero_ps(); P]);
                for p in 0..P {
                    scales[p] = _mm512_loadu_ps(w[p].scales[at].as_ptr());
                    offsets[p] = _mm512_loadu_ps(w[p].offsets[at].as_ptr());
                }
                for m in 0..M {
                    let (_, a_scale, a_sums) = rows[m];
                    let a_scale = _mm512_set1_ps(*a_scale.add(t0 + t));
                    let at = 2 * (t0 + t);
                    let sum =
                        if F::HALVES { *a_sums.add(at + h) } else { *a_sums.add(at) + *a_sums.add(at + 1) };
                    let sum = _mm512_set1_ps(sum);
                    for p in 0..P {
                        let dot = _mm512_cvtepi32_ps(dots[p][m]);
                        acc[p][m] = _mm512_fmadd_ps(_mm512_mul_ps(scales[p], a_scale), dot, acc[p][m]);
                        if F::OFFSETS {
                            acc[p][m] = _mm512_fmadd_ps(offsets[p], sum, acc[p][m]);
                        }
                    }
                }
            }
        }
        for p in 0..P {
            for m in 0..M {
                _mm512_storeu_ps(out[p].add(m).cast(), acc[p][m]);
            }
        }
    }
}

fn rows_at<const M: usize>(a: &Activations, first: usize) -> Rows<M> {
    std::array::from_fn(|m| {
        let (codes, scales, sums) = a.row(first + m);
        (codes.as_ptr(), scales.as_ptr(), sums.as_ptr())
    })
}

/// A few rows, four at a time: weights come from memory for the first four and are still near for the others.
///
/// # Safety
/// `panel` must be a packed panel of the family over `a.k` weights; `out` has a row per activation row.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn few<F: Family>(panel: *const u8, a: &Activations, out: &mut [[f32; PANEL_ROWS]]) {
    let mut m = 0;
    macro_rules! rows {
        ($n:literal) => {{
            // SAFETY: the panel is as the caller vouched; the rows come from `a`, which has a.k codes each.
            let sums = unsafe { few_rows::<F, $n>(panel, a.k / TILE_K, &rows_at::<$n>(a, m)) };
            for (out, sum) in out[m..].iter_mut().zip(sums) {
                // SAFETY: a row of `out` is 16 floats.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            }
            m += $n;
        }};
    }
    while m < a.n_rows {
        match a.n_rows - m {
            1 => rows!(1),
            2 => rows!(2),
            3 => rows!(3),
            _ => rows!(4),
        }
    }
}

/// # Safety
/// Each of `panels` must be a packed panel of the family over `a.k` weights; each of `out` has a row per activation row.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn many<F: Family, const P: usize>(
    panels: [*const u8; P],
    a: &Activations,
    out: [&mut [[f32; PANEL_ROWS]]; P],
) {
    let (n_tiles, n_rows) = (a.k / TILE_K, a.n_rows);
    let mut w = [const { Expanded::new() }; P];
    let mut out = out.map(|out| &mut out[..n_rows]);
    for out in &mut out {
        out.fill([0.0; PANEL_ROWS]);
    }
    for t0 in (0..n_tiles).step_by(TILES_PER_SUPER) {
        let n = TILES_PER_SUPER.min(n_tiles - t0);
        let at = t0 * F::TILE_BYTES + t0 / TILES_PER_SUPER * F::SUPER_BYTES;
        for (panel, w) in panels.iter().zip(&mut w) {
            // SAFETY: `at` is the start of run t0 in the panel; super-block families have whole runs of eight.
            unsafe { expand::<F>(panel.add(at), n, w) };
        }
        let mut m = 0;
        macro_rules! rows {
            ($n:literal) => {{
                let out = out.each_mut().map(|out| out[m..m + $n].as_mut_ptr());
                // SAFETY: rows m.. of `a` are in use and have a.k codes, so tiles t0..t0 + n exist; `out` was sliced.
                unsafe { row_block::<F, P, $n>(w.each_ref(), t0, n, &rows_at(a, m), out) };
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

/// Calls a kernel for the family of a layout.
macro_rules! for_family {
    ($ty:expr, $kernel:ident $(::<_, $n:literal>)?, $($arg:expr),+) => {
        match $ty {
            BlockType::Q4_0 => $kernel::<Q40 $(, $n)?>($($arg),+),
            BlockType::Q4_1 => $kernel::<Q41 $(, $n)?>($($arg),+),
            BlockType::Q5_0 => $kernel::<Q50 $(, $n)?>($($arg),+),
            BlockType::Q5_1 => $kernel::<Q51 $(, $n)?>($($arg),+),
            BlockType::Q8_0 => $kernel::<Q80 $(, $n)?>($($arg),+),
            BlockType::Q2K => $kernel::<Q2K $(, $n)?>($($arg),+),
            BlockType::Q3K => $kernel::<Q3K $(, $n)?>($($arg),+),
            BlockType::Q4K => $kernel::<Q4K $(, $n)?>($($arg),+),
            BlockType::Q5K => $kernel::<Q5K $(, $n)?>($($arg),+),
            BlockType::Q6K => $kernel::<Q6K $(, $n)?>($($arg),+),
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => {
                unreachable!("plain floats have no packed layout")
            }
        }
    };
}

fn check(layout: &PanelLayout, panel: &[u8], a: &Activations, out: &[[f32; PANEL_ROWS]]) {
    assert!(panel.len() == layout.panel_bytes(a.k) && out.len() >= a.n_rows);
    assert!(
        a.k.is_multiple_of(TILE_K)
            && (layout.super_bytes == 0 || a.k.is_multiple_of(TILE_K * TILES_PER_SUPER))
    );
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
    check(layout, panel, a, out);
    let path = if a.n_rows <= FEW_ROWS { Path::FewRows } else { Path::ManyRows };
    reached::mark(Isa::Avx512, layout.ty, path);
    // SAFETY: lengths were checked against the layout just above, and the family is the layout's own.
    unsafe {
        if a.n_rows <= FEW_ROWS {
            for_family!(layout.ty, few, panel.as_ptr(), a, out);
        } else {
            for_family!(layout.ty, many::<_, 1>, [panel.as_ptr()], a, [out]);
        }
    }
}

/// Two panels of one layout at a time, as `scalar::panel_pair`: for more rows than a few.
///
/// # Safety
/// As [`panel()`].
///
/// # Panics
/// As [`panel()`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn panel_pair(
    layout: &PanelLayout,
    panels: [&[u8]; 2],
    a: &Activations,
    out: [&mut [[f32; PANEL_ROWS]]; 2],
) {
    for (panel, out) in panels.iter().zip(&out) {
        check(layout, panel, a, out);
    }
    reached::mark(Isa::Avx512, layout.ty, Path::ManyRows);
    // SAFETY: lengths were checked against the layout just above, and the family is the layout's own.
    unsafe { for_family!(layout.ty, many::<_, 2>, panels.map(<[u8]>::as_ptr), a, out) }
}
