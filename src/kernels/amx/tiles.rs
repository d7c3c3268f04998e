//! The tile unit itself: whether it may be used, how its eight registers are shaped, and its few instructions.
//!
//! The compiler knows no tile registers on stable Rust, so each block of `asm!` loads what it needs, multiplies and
//! stores; nothing lives in a tile between two blocks. A thread's tiles have one shape at a time; the shape stays until
//! [`release`], because loading it takes about as long as a dozen products.

use std::arch::asm;
use std::cell::Cell;

/// Rows of activations in a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Bytes of a tile's row, and between the rows of everything that is packed for tiles.
const LINE: usize = 64;

/// What the tiles are shaped for. In both, tmm0 to tmm3 hold 16 x 16 sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// 32 bytes a row of activations (tmm4, tmm5), 8 lines of weights (tmm6, tmm7): one scale's worth of k.
    Bytes,
    /// 32 bf16 a row of activations, 16 lines of weights; all tiles are full.
    Bf16,
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    const fn of(shape: Shape) -> Self {
        let (mut bytes_per_row, mut rows) = ([0; 16], [0; 16]);
        let mut i = 0;
        while i < 8 {
            (bytes_per_row[i], rows[i]) = (64, 16);
            i += 1;
        }
        if matches!(shape, Shape::Bytes) {
            (bytes_per_row[4], bytes_per_row[5]) = (32, 32);
            (rows[6], rows[7]) = (8, 8);
        }
        Self { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row, rows }
    }
}

static BYTES: TileConfig = TileConfig::of(Shape::Bytes);
static BF16: TileConfig = TileConfig::of(Shape::Bf16);

thread_local! {
    static LOADED: Cell<Option<Shape>> = const { Cell::new(None) };
}

/// Shapes this thread's tiles, unless they have that shape already.
///
/// # Safety
/// The CPU must have AMX and the process the permission to use it.
#[inline]
pub(super) unsafe fn configure(shape: Shape) {
    if LOADED.get() == Some(shape) {
        return;
    }
    let config = match shape {
        Shape::Bytes => &BYTES,
        Shape::Bf16 => &BF16,
    };
    // SAFETY: the caller vouches for AMX; the instruction reads the 64 bytes of `config`.
    unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack, readonly)) };
    LOADED.set(Some(shape));
}

/// Gives this thread's tiles back, so that the system need not save eight kilobytes when it sleeps. Cheap when there
/// is nothing to give back.
pub(in super::super) fn release() {
    if LOADED.take().is_some() {
        // SAFETY: a shape was loaded on this thread, so the instruction is there.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Whether tiles, `tdpbsud` and `tdpbf16ps` may be used in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// The CPU has them and the system lets us.
    Granted,
    /// The CPU has them; the words say who does not let us.
    Denied(&'static str),
    /// The CPU has none.
    Absent,
}

/// Asks the CPU and the system. Threads started later inherit the answer.
#[cfg(target_os = "linux")]
pub(super) fn ask_permission() -> Access {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // EDX of leaf 7: AMX-BF16, AMX-TILE, AMX-INT8.
    const AMX: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & AMX != AMX || __cpuid(1).ecx & OSXSAVE == 0 {
        return Access::Absent;
    }
    // SAFETY: OSXSAVE says that the instruction is there.
    let enabled = unsafe { enabled_states() };
    // The system must save both the tiles' configuration and their data.
    if enabled >> 17 & 3 != 3 {
        return Access::Denied("the kernel or the hypervisor keeps tiles switched off");
    }
    // SAFETY: the call takes two numbers and touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) } {
        0 => Access::Granted,
        _ => Access::Denied("the kernel refuses this process permission"),
    }
}

/// Other systems have no known way to ask.
#[cfg(not(target_os = "linux"))]
pub(super) fn ask_permission() -> Access {
    Access::Absent
}

/// Which register states the system saves (XCR0).
///
/// # Safety
/// The CPU must have `xgetbv` and the system must have switched it on (OSXSAVE).
#[cfg(target_os = "linux")]
#[target_feature(enable = "xsave")]
unsafe fn enabled_states() -> u64 {
    // SAFETY: the caller vouches for the instruction; register 0 always exists.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

macro_rules! four_dots {
    ($name:ident, $a1:literal, $a2:literal, $a3:literal) => {
        /// Four products of 16 rows of 32 signed bytes with 8 lines of unsigned ones. The four follow one another in
        /// `b` (512 bytes each) and `c` (1024 bytes each).
        ///
        /// # Safety
        /// Tiles are shaped for bytes; 16 rows of `a`, `stride` bytes apart, the last with all offsets used here plus
        /// 32 bytes, 2 KiB of `b` and 4 KiB of `c` are accessible.
        #[inline(always)]
        pub(super) unsafe fn $name(a: *const i8, stride: usize, b: *const u8, c: *mut i32) {
            // SAFETY: as the caller vouches. Only tiles are changed besides memory, and no other code keeps any.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm6, [{b} + {line}*1]",
                    "tileloadd tmm4, [{a} + {stride}*1]",
                    "tilezero tmm1",
                    "tdpbsud tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b} + {line}*1 + 512]",
                    concat!("tileloadd tmm5, [{a} + {stride}*1 + ", $a1, "]"),
                    "tilezero tmm2",
                    "tdpbsud tmm1, tmm5, tmm7",
                    "tilestored [{c} + {line}*1], tmm0",
                    "tileloadd tmm6, [{b} + {line}*1 + 1024]",
                    concat!("tileloadd tmm4, [{a} + {stride}*1 + ", $a2, "]"),
                    "tilezero tmm3",
                    "tdpbsud tmm2, tmm4, tmm6",
                    "tilestored [{c} + {line}*1 + 1024], tmm1",
                    "tileloadd tmm7, [{b} + {line}*1 + 1536]",
                    concat!("tileloadd tmm5, [{a} + {stride}*1 + ", $a3, "]"),
                    "tdpbsud tmm3, tmm5, tmm7",
                    "tilestored [{c} + {line}*1 + 2048], tmm2",
                    "tilestored [{c} + {line}*1 + 3072], tmm3",
                    a = in(reg) a,
                    b = in(reg) b,
                    c = in(reg) c,
                    stride = in(reg) stride,
                    line = in(reg) LINE,
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

// Four tiles of 32 k, or two of them with each half by itself (the other half of the weights being zeros).
four_dots!(dot_tiles, "32", "64", "96");
four_dots!(dot_halves, "0", "32", "32");

/// One such product: `c = a x b`.
///
/// # Safety
/// Tiles are shaped for bytes; 16 rows of 32 bytes of `a`, `stride` apart, 512 bytes of `b` and 1 KiB of `c` are
/// accessible.
#[inline(always)]
pub(super) unsafe fn dot_tile(a: *const i8, stride: usize, b: *const u8, c: *mut i32) {
    // SAFETY: as the caller vouches.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tileloadd tmm6, [{b} + {line}*1]",
            "tileloadd tmm4, [{a} + {stride}*1]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tilestored [{c} + {line}*1], tmm0",
            a = in(reg) a,
            b = in(reg) b,
            c = in(reg) c,
            stride = in(reg) stride,
            line = in(reg) LINE,
            options(nostack, preserves_flags),
        );
    }
}

/// `c += a x b` over `n` tiles of 32 k for 64 rows: four tiles of sums stay in registers, each tile of weights is used
/// four times.
///
/// # Safety
/// Tiles are shaped for bf16; `n` is not 0; each of the four `a` has `n` KiB, `b` has `n` KiB and `c` 4 KiB.
#[inline(always)]
pub(super) unsafe fn multiply_64(a: [*const u16; 4], b: *const u16, n: usize, c: *mut f32) {
    // SAFETY: as the caller vouches. Weights alternate between tmm4 and tmm7, so that a load waits for no product.
    unsafe {
        asm!(
            "tileloadd tmm0, [{c} + {line}*1]",
            "tileloadd tmm1, [{c} + {line}*1 + 1024]",
            "tileloadd tmm2, [{c} + {line}*1 + 2048]",
            "tileloadd tmm3, [{c} + {line}*1 + 3072]",
            "test {n}, 1",
            "jz 3f",
            "tileloadd tmm4, [{b} + {line}*1]",
            "tileloadd tmm5, [{a0} + {line}*1]",
            "tdpbf16ps tmm0, tmm5, tmm4",
            "tileloadd tmm6, [{a1} + {line}*1]",
            "tdpbf16ps tmm1, tmm6, tmm4",
            "tileloadd tmm5, [{a2} + {line}*1]",
            "tdpbf16ps tmm2, tmm5, tmm4",
            "tileloadd tmm6, [{a3} + {line}*1]",
            "tdpbf16ps tmm3, tmm6, tmm4",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {a2}, 1024",
            "add {a3}, 1024",
            "add {b}, 1024",
            "3:",
            "shr {n}, 1",
            "jz 4f",
            "2:",
            "tileloadd tmm4, [{b} + {line}*1]",
            "tileloadd tmm5, [{a0} + {line}*1]",
            "tdpbf16ps tmm0, tmm5, tmm4",
            "tileloadd tmm6, [{a1} + {line}*1]",
            "tdpbf16ps tmm1, tmm6, tmm4",
            "tileloadd tmm5, [{a2} + {line}*1]",
            "tdpbf16ps tmm2, tmm5, tmm4",
            "tileloadd tmm6, [{a3} + {line}*1]",
            "tdpbf16ps tmm3, tmm6, tmm4",
            "tileloadd tmm7, [{b} + {line}*1 + 1024]",
            "tileloadd tmm5, [{a0} + {line}*1 + 1024]",
            "tdpbf16ps tmm0, tmm5, tmm7",
            "tileloadd tmm6, [{a1} + {line}*1 + 1024]",
            "tdpbf16ps tmm1, tmm6, tmm7",
            "tileloadd tmm5, [{a2} + {line}*1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm7",
            "tileloadd tmm6, [{a3} + {line}*1 + 1024]",
            "tdpbf16ps tmm3, tmm6, tmm7",
            "add {a0}, 2048",
            "add {a1}, 2048",
            "add {a2}, 2048",
            "add {a3}, 2048",
            "add {b}, 2048",
            "dec {n}",
            "jnz 2b",
            "4:",
            "tilestored [{c} + {line}*1], tmm0",
            "tilestored [{c} + {line}*1 + 1024], tmm1",
            "tilestored [{c} + {line}*1 + 2048], tmm2",
            "tilestored [{c} + {line}*1 + 3072], tmm3",
            a0 = inout(reg) a[0] => _,
            a1 = inout(reg) a[1] => _,
            a2 = inout(reg) a[2] => _,
            a3 = inout(reg) a[3] => _,
            b = inout(reg) b => _,
            n = inout(reg) n => _,
            c = in(reg) c,
            line = in(reg) LINE,
            options(nostack),
        );
    }
}

/// The same for 16 rows, for what is left of a number that 64 does not divide.
///
/// # Safety
/// Tiles are shaped for bf16; `n` is not 0; `a` and `b` have `n` KiB and `c` 1 KiB.
#[inline(always)]
pub(super) unsafe fn multiply_16(a: *const u16, b: *const u16, n: usize, c: *mut f32) {
    // SAFETY: as the caller vouches.
    unsafe {
        asm!(
            "tileloadd tmm0, [{c} + {line}*1]",
            "2:",
            "tileloadd tmm4, [{b} + {line}*1]",
            "tileloadd tmm5, [{a} + {line}*1]",
            "tdpbf16ps tmm0, tmm5, tmm4",
            "add {a}, 1024",
            "add {b}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {line}*1], tmm0",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            n = inout(reg) n => _,
            c = in(reg) c,
            line = in(reg) LINE,
            options(nostack),
        );
    }
}
