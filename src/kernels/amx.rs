//! AMX, the tile unit of Intel's servers: two kernels above what [`super::avx512`] does.
//!
//! `tiles` holds the instructions, `int8` the kernel for middle batches, `bf16` the one for prefill. Both read the same
//! packed panels as every other class. The unit needs the system's permission and is believed only after a product
//! that equals the reference's; otherwise the class is not there, and the log says so.

mod bf16;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod emulator;
mod int8;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
mod tiles;

use std::sync::OnceLock;

use super::activations::{Activations, BF16_TILE_ROWS, Bf16Activations, quantize_row};
use super::avx512;
use super::blocks::BlockType;
use super::dispatch::Isa;
use super::pack::{PANEL_ROWS, PanelLayout, TILE_K, TILES_PER_SUPER};
use super::reached::{self, Path};
use super::scalar;
use tiles::Access;
pub(super) use tiles::release;

/// Rows from which a tile product beats `vpdpbusd`: below, most of the 16 rows of a tile would be empty.
const TILE_ROWS_FROM: usize = 9;

/// Rows from which bf16 is faster: its weights take longer to make, its products need no scales. From the cycle counts of
/// both loops (28 a tile product of bytes, 640 to widen a run of weights); measure it where such a unit is at hand.
pub(super) const BF16_ROWS_FROM: usize = 64;

/// Calls a kernel for the family of a layout, once its operands are checked.
macro_rules! for_family {
    ($kernel:ident, $layout:expr, $panel:expr, $a:expr, $out:expr) => {{
        use avx512::planes::{Q2K, Q3K, Q4K, Q5K, Q6K, Q40, Q41, Q50, Q51, Q80};
        let (p, bytes) = ($panel.as_ptr(), $layout.super_bytes);
        match $layout.ty {
            BlockType::Q4_0 => $kernel::family_panel::<Q40>(p, bytes, $a, $out),
            BlockType::Q4_1 => $kernel::family_panel::<Q41>(p, bytes, $a, $out),
            BlockType::Q5_0 => $kernel::family_panel::<Q50>(p, bytes, $a, $out),
            BlockType::Q5_1 => $kernel::family_panel::<Q51>(p, bytes, $a, $out),
            BlockType::Q8_0 => $kernel::family_panel::<Q80>(p, bytes, $a, $out),
            BlockType::Q2K => $kernel::family_panel::<Q2K>(p, bytes, $a, $out),
            BlockType::Q3K => $kernel::family_panel::<Q3K>(p, bytes, $a, $out),
            BlockType::Q4K => $kernel::family_panel::<Q4K>(p, bytes, $a, $out),
            BlockType::Q5K => $kernel::family_panel::<Q5K>(p, bytes, $a, $out),
            BlockType::Q6K => $kernel::family_panel::<Q6K>(p, bytes, $a, $out),
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => {
                unreachable!("plain floats have no packed layout")
            }
        }
    }};
}

fn check(layout: &PanelLayout, panel: &[u8], k: usize, n_rows: usize, n_out: usize) {
    assert!(panel.len() == layout.panel_bytes(k) && n_out >= n_rows);
    assert!(
        k.is_multiple_of(TILE_K) && (layout.super_bytes == 0 || k.is_multiple_of(TILE_K * TILES_PER_SUPER))
    );
}

/// One packed panel times all activation rows, as `scalar::panel`.
///
/// # Safety
/// The CPU must have AVX-512 F, BW and VNNI, and [`is_usable`] must have said yes.
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
    let few = a.n_rows < TILE_ROWS_FROM;
    reached::mark(Isa::Amx, layout.ty, if few { Path::FewRows } else { Path::ManyRows });
    // SAFETY: the CPU has what both need, by contract; operands are checked before pointers are taken.
    unsafe {
        if few {
            avx512::panel(layout, panel, a, out);
        } else {
            check(layout, panel, a.k, a.n_rows, out.len());
            for_family!(int8, layout, panel, a, out);
        }
    }
}

/// One packed panel times rows of bf16, as `scalar::panel_bf16`.
///
/// # Safety
/// The CPU must have AVX-512 F, BW and BF16, and [`is_usable`] must have said yes.
///
/// # Panics
/// As [`panel()`], and if `first_row` is not a multiple of 16 or the rows are not there.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn panel_bf16(
    layout: &PanelLayout,
    panel: &[u8],
    a: &Bf16Activations,
    first_row: usize,
    out: &mut [[f32; PANEL_ROWS]],
) {
    check(layout, panel, a.k, 0, 0);
    assert!(first_row.is_multiple_of(BF16_TILE_ROWS) && first_row + out.len() <= a.n_rows);
    reached::mark(Isa::Amx, layout.ty, Path::ManyRows);
    let rows = bf16::Rows { all: a, first_tile: first_row / BF16_TILE_ROWS };
    // SAFETY: the CPU has what is needed, by contract; operands are checked.
    unsafe { for_family!(bf16, layout, panel, rows, out) }
}

/// Whether this process may use the tile unit and it computes rightly; asked and tried once.
pub(super) fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx512bf16");
        if !vectors {
            return false;
        }
        match tiles::ask_permission() {
            Access::Granted => {}
            Access::Denied(why) => {
                tracing::warn!("the tile unit (AMX) is not used, AVX-512 is: {why}");
                return false;
            }
            Access::Absent => return false,
        }
        // SAFETY: CPU and system have just said that vectors and tiles are there.
        let right = unsafe { computes_rightly() };
        if !right {
            tracing::warn!("the tile unit (AMX) computes wrongly here; AVX-512 is used instead");
        }
        right
    })
}

/// Both kernels on a small panel against the reference.
///
/// # Safety
/// As [`panel()`] and [`panel_bf16`], but for the answer of [`is_usable`], which this gives.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bf16")]
unsafe fn computes_rightly() -> bool {
    const K: usize = 512;
    const ROWS: usize = 83;
    let Some(layout) = PanelLayout::of(BlockType::Q8_0) else { return false };
    // Bytes that follow no pattern; each tile's scales are halves between 1/128 and 1/64.
    let mut state = 1u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as u8
    };
    let mut packed: Vec<u8> = (0..layout.panel_bytes(K)).map(|_| next()).collect();
    for tile in packed.chunks_exact_mut(layout.tile_bytes) {
        for half in tile[layout.plane_bytes..].chunks_exact_mut(2) {
            half[1] = 0x20 | half[1] & 3;
        }
    }
    let (mut a, mut wide) = (Activations::default(), Bf16Activations::default());
    a.resize(ROWS, K);
    wide.resize(ROWS, K);
    for m in 0..ROWS {
        let x: Vec<f32> = (0..K).map(|_| f32::from(next()) / 128.0 - 1.0).collect();
        let (codes, scales, sums) = a.row_mut(m);
        quantize_row(&x, codes, scales, sums);
        wide.fill_row(m, &x);
    }
    let (mut want, mut got) = (vec![[0.0; PANEL_ROWS]; ROWS], vec![[f32::NAN; PANEL_ROWS]; ROWS]);
    // Sums of 512 terms in another order, beside a largest sum of about ten; with bf16, of terms rounded to 8 bits.
    let close = |want: &[[f32; PANEL_ROWS]], got: &[[f32; PANEL_ROWS]], tolerance: f32| {
        want.as_flattened().iter().zip(got.as_flattened()).all(|(w, g)| (w - g).abs() <= tolerance)
    };
    scalar::panel(&layout, &packed, &a, &mut want);
    // SAFETY: the caller vouches for vectors and tiles.
    unsafe { panel(&layout, &packed, &a, &mut got) };
    let bytes_are_right = close(&want, &got, 1e-3);
    scalar::panel_bf16(&layout, &packed, &wide, 0, &mut want);
    // SAFETY: as above.
    unsafe { panel_bf16(&layout, &packed, &wide, 0, &mut got) };
    release();
    bytes_are_right && close(&want, &got, 0.05)
}
