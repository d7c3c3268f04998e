//! Which instruction set runs, chosen once; every kernel behind one table.

use super::activations::{Activations, Bf16Activations};
use super::attention::{self, PAGE_LEN, RowState, Slabs, Visible};
#[cfg(target_arch = "x86_64")]
use super::attention_x86::{avx2 as attention_avx2, avx512 as attention_avx512};
use super::lanes;
use super::pack::{PANEL_ROWS, PanelLayout};
use super::scalar;
use super::words;

/// A kernel class.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isa {
    /// No vector instructions asked for by name; what every other class is tested against.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX2 and AVX-VNNI.
    AvxVnni,
    /// AVX-512 F, BW and VNNI.
    Avx512,
    /// The same and the tile unit, in both its forms (bytes and bf16), with the system's permission.
    Amx,
    /// NEON with dot products, and `smmla` where the CPU has it.
    Neon,
}

impl Isa {
    /// Every class, best last.
    pub const ALL: [Self; 6] = [Self::Scalar, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Amx, Self::Neon];

    /// The word used on the command line and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
            Self::Neon => "neon",
        }
    }

    /// Whether this CPU can run the class.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            match self {
                Self::Scalar => true,
                Self::Avx2 => avx2,
                Self::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
                Self::Avx512 => {
                    avx2 && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512vnni")
                }
                Self::Amx => Self::Avx512.is_available() && super::amx::is_usable(),
                Self::Neon => false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
            self == Self::Scalar || self == Self::Neon && dotprod
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Self::Scalar
        }
    }

    /// The best class of this CPU.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Scalar)
    }
}

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*);)+) => {
        /// The kernels of one class. Holding one is the proof that the CPU can run it.
        #[derive(Clone, Copy, Debug)]
        pub struct Kernels {
            isa: Isa,
            $($name: unsafe fn($($ty),*),)+
        }

        impl Kernels {
            $($(#[$doc])*
            #[inline]
            #[allow(clippy::too_many_arguments, reason = "a kernel takes its operands one by one")]
            pub fn $name(&self, $($arg: $ty),*) {
                // SAFETY: a table is only made by `Kernels::of`, which checked that the CPU has the class's instructions;
                // the functions are otherwise safe ones.
                unsafe { (self.$name)($($arg),*) }
            })+
        }
    };
}

table! {
    /// One packed panel times all activation rows: `out[m][r]`.
    panel(layout: &PanelLayout, panel: &[u8], a: &Activations, out: &mut [[f32; PANEL_ROWS]]);
    /// Two panels of one layout at a time; see [`Kernels::pair_rows_from`].
    panel_pair(layout: &PanelLayout, panels: [&[u8]; 2], a: &Activations, out: [&mut [[f32; PANEL_ROWS]]; 2]);
    /// One packed panel times the rows of bf16 from `first_row` (a multiple of 16) on, as many as `out` has; weights are
    /// rounded to bf16 too.
    panel_bf16(layout: &PanelLayout, panel: &[u8], a: &Bf16Activations, first_row: usize, out: &mut [[f32; PANEL_ROWS]]);
    /// Up to 16 rows of `k` numbers to their tiles in a [`Bf16Activations`].
    bf16_rows(x: &[f32], k: usize, tiles: &mut [u16]);
    /// See [`super::activations::quantize_row`].
    quantize_row(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [f32]);
    /// `out = x / sqrt(mean(x^2) + eps) * weight`.
    rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
    /// The same in place.
    rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32);
    /// `gate = silu(gate) * up`.
    silu_mul(gate: &mut [f32], up: &[f32]);
    /// `gate = gelu_tanh(gate) * up`.
    gelu_mul(gate: &mut [f32], up: &[f32]);
    /// `x += y`.
    add(x: &mut [f32], y: &[f32]);
    /// `cap * tanh(x / cap)`, in place.
    soft_cap(x: &mut [f32], cap: f32);
    /// Rotates one head by the pairs of `cos` and `sin`.
    rope(head: &mut [f32], cos: &[f32], sin: &[f32], neox: bool);
    /// Query rows against one page of keys and values; see [`super::attention`].
    attention_page(q: &[f32], k: &[f32], v: &[f32], visible: &[Visible], cap: f32, states: &mut [RowState], out: &mut [f32]);
    /// The same over keys and values of binary16; slow, and a reference only, unless [`Kernels::reads_halves`].
    attention_halves(q: &[f32], slabs: Slabs<'_>, visible: &[Visible], cap: f32, states: &mut [RowState], out: &mut [f32]);
    /// Rows of `width` numbers as codes, a scale per row, no row of codes longer than `length`; see [`super::words`].
    words(x: &[f32], width: usize, length: f32, codes: &mut [i16], scales: &mut [f32]);
    /// Query rows, codes and scales, against one page of codes.
    attention_words(q: &[i16], scales: &[f32], slabs: Slabs<'_>, visible: &[Visible], cap: f32, states: &mut [RowState], out: &mut [f32]);
    /// binary16 (little-endian bytes) to f32, equally many.
    widen(from: &[u8], to: &mut [f32]);
    /// f32 to binary16 (little-endian bytes), rounding half to even.
    narrow(from: &[f32], to: &mut [u8]);
    /// bfloat16 (little-endian bytes) to f32, equally many.
    widen_bf16(from: &[u8], to: &mut [f32]);
    /// Keys of a page kept as bytes, `(head_dim, 32)`, with a scale per position.
    widen_keys_q8(codes: &[u8], scales: &[f32; PAGE_LEN], to: &mut [f32]);
    /// Values of a page kept as bytes, `(32, head_dim)`, with a scale per position.
    widen_values_q8(codes: &[u8], scales: &[f32; PAGE_LEN], to: &mut [f32]);
    /// `rows[m][r] += sum over k of w[k][r] * x[m][k]` for 16 columns of f32 weights side by side.
    float_panel(w: &[f32], x: &[f32], x_stride: usize, rows: &mut [[f32; PANEL_ROWS]]);
}

macro_rules! class {
    ($module:ident, $fma:literal $(, $features:literal)?) => {
        mod $module {
            use super::{PAGE_LEN, PANEL_ROWS, lanes};

            $(#[target_feature(enable = $features)])?
            pub(super) fn bf16_rows(x: &[f32], k: usize, tiles: &mut [u16]) {
                lanes::bf16_rows(x, k, tiles);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
                lanes::rms_norm::<$fma>(x, weight, eps, out);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
                lanes::rms_norm_in_place::<$fma>(x, weight, eps);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
                lanes::silu_mul::<$fma>(gate, up);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn gelu_mul(gate: &mut [f32], up: &[f32]) {
                lanes::gelu_mul::<$fma>(gate, up);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn add(x: &mut [f32], y: &[f32]) {
                lanes::add(x, y);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn soft_cap(x: &mut [f32], cap: f32) {
                lanes::soft_cap::<$fma>(x, cap);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn rope(head: &mut [f32], cos: &[f32], sin: &[f32], neox: bool) {
                lanes::rope::<$fma>(head, cos, sin, neox);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn widen_bf16(from: &[u8], to: &mut [f32]) {
                lanes::widen_bf16(from, to);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn widen_keys_q8(codes: &[u8], scales: &[f32; PAGE_LEN], to: &mut [f32]) {
                lanes::widen_keys_q8(codes, scales, to);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn widen_values_q8(codes: &[u8], scales: &[f32; PAGE_LEN], to: &mut [f32]) {
                lanes::widen_values_q8(codes, scales, to);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn float_panel(w: &[f32], x: &[f32], x_stride: usize, rows: &mut [[f32; PANEL_ROWS]]) {
                lanes::float_panel::<$fma>(w, x, x_stride, rows);
            }
        }
    };
}

/// What AVX2 and AVX-512 have in a form of their own.
macro_rules! loops {
    ($module:ident, $fma:literal $(, $features:literal)?) => {
        mod $module {
            use super::{RowState, Slabs, Visible, attention, lanes, words};

            $(#[target_feature(enable = $features)])?
            pub(super) fn quantize_row(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
                lanes::quantize_row(x, codes, scales, sums);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn page(
                q: &[f32],
                k: &[f32],
                v: &[f32],
                visible: &[Visible],
                cap: f32,
                states: &mut [RowState],
                out: &mut [f32],
            ) {
                attention::page_rows::<$fma>(q, k, v, visible, cap, states, out);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn page_halves(
                q: &[f32],
                slabs: Slabs<'_>,
                visible: &[Visible],
                cap: f32,
                states: &mut [RowState],
                out: &mut [f32],
            ) {
                attention::page_halves::<$fma>(q, slabs, visible, cap, states, out);
            }
            $(#[target_feature(enable = $features)])?
            pub(super) fn attention_words(
                q: &[i16],
                scales: &[f32],
                slabs: Slabs<'_>,
                visible: &[Visible],
                cap: f32,
                states: &mut [RowState],
                out: &mut [f32],
            ) {
                words::attention_words::<$fma>(q, scales, slabs, visible, cap, states, out);
            }
        }
    };
}

class!(plain, false);
loops!(plain_loops, false);
#[cfg(target_arch = "x86_64")]
class!(avx2, true, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
class!(avx512, true, "avx512f,avx512bw,avx512vl,avx2,fma,f16c");
#[cfg(target_arch = "aarch64")]
class!(neon, true, "neon");
#[cfg(target_arch = "aarch64")]
loops!(neon_loops, true, "neon");

macro_rules! kernels {
    ($isa:expr, $module:ident, $quantize_row:expr, $attention:ident, $words:expr, $attention_words:expr, $panel:expr, $widen:expr, $narrow:expr) => {
        Kernels {
            isa: $isa,
            panel: $panel,
            panel_pair: scalar::panel_pair,
            panel_bf16: scalar::panel_bf16,
            bf16_rows: $module::bf16_rows,
            quantize_row: $quantize_row,
            rms_norm: $module::rms_norm,
            rms_norm_in_place: $module::rms_norm_in_place,
            silu_mul: $module::silu_mul,
            gelu_mul: $module::gelu_mul,
            add: $module::add,
            soft_cap: $module::soft_cap,
            rope: $module::rope,
            attention_page: $attention::page,
            attention_halves: $attention::page_halves,
            words: $words,
            attention_words: $attention_words,
            widen: $widen,
            narrow: $narrow,
            widen_bf16: $module::widen_bf16,
            widen_keys_q8: $module::widen_keys_q8,
            widen_values_q8: $module::widen_values_q8,
            float_panel: $module::float_panel,
        }
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86_kernels {
    ($isa:expr, $module:ident, $attention:ident, $panel:expr) => {
        kernels!(
            $isa,
            $module,
            super::quantize_x86::$module::quantize_row,
            $attention,
            words::$module::words,
            words::$module::attention_words,
            $panel,
            super::halves::widen_f16c,
            super::halves::narrow_f16c
        )
    };
}

impl Kernels {
    /// The kernels of `isa`; `None` where the CPU cannot run them.
    pub fn of(isa: Isa) -> Option<Self> {
        isa.is_available().then(|| Self::table(isa))
    }

    /// The best kernels of this CPU.
    pub fn best() -> Self {
        Self::table(Isa::best())
    }

    /// The table of a class that this CPU must have, unless nothing of it is called.
    fn table(isa: Isa) -> Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86_kernels!(isa, avx2, attention_avx2, super::avx2::panel),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => x86_kernels!(isa, avx2, attention_avx2, super::avx2::panel_vnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Self {
                panel_pair: super::avx512::panel_pair,
                ..x86_kernels!(isa, avx512, attention_avx512, super::avx512::panel)
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Self {
                panel_bf16: super::amx::panel_bf16,
                ..x86_kernels!(isa, avx512, attention_avx512, super::amx::panel)
            },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => {
                let panel = if std::arch::is_aarch64_feature_detected!("i8mm") {
                    super::neon::panel_i8mm
                } else {
                    super::neon::panel
                };
                kernels!(
                    isa,
                    neon,
                    neon_loops::quantize_row,
                    neon_loops,
                    words::words,
                    neon_loops::attention_words,
                    panel,
                    super::halves::widen_neon,
                    super::halves::narrow_neon
                )
            }
            _ => kernels!(
                Isa::Scalar,
                plain,
                plain_loops::quantize_row,
                plain_loops,
                words::words,
                plain_loops::attention_words,
                scalar::panel,
                super::halves::widen,
                super::halves::narrow
            ),
        }
    }

    /// From how many rows on these kernels want two panels at a time; `None` for never.
    pub fn pair_rows_from(&self) -> Option<usize> {
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Avx512 {
            return Some(super::avx512::FEW_ROWS + 1);
        }
        None
    }

    /// From how many rows on these kernels want [`Activations::bf16`] instead of codes; `None` for never.
    pub fn bf16_rows_from(&self) -> Option<usize> {
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx {
            return Some(super::amx::BF16_ROWS_FROM);
        }
        None
    }

    /// Whether [`Kernels::attention_halves`] is for more than reference.
    pub fn reads_halves(&self) -> bool {
        matches!(self.isa, Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Amx)
    }

    /// Which class this is.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::fn_addr_eq;

    use super::{Isa, Kernels, scalar};

    /// Many CPUs that run the tests lack a class that its users have: what it asks for must still be its own.
    #[test]
    fn no_class_asks_for_a_kernel_that_it_has_not() {
        for isa in Isa::ALL {
            let kernels = Kernels::table(isa);
            let reference = scalar::panel_bf16 as unsafe fn(_, _, _, _, _);
            let asks = kernels.bf16_rows_from().is_some();
            assert_eq!(asks, !fn_addr_eq(kernels.panel_bf16, reference), "{isa:?}");
            let reference = scalar::panel_pair as unsafe fn(_, _, _, _);
            let asks = kernels.pair_rows_from().is_some();
            assert_eq!(asks, !fn_addr_eq(kernels.panel_pair, reference), "{isa:?}");
        }
    }
}
