//! A model of the tile unit for machines without one: the kernels run as they are, and what the CPU refuses as an
//! illegal instruction is decoded and carried out here, as Intel's manual describes it.
//!
//! So the very bytes that a server would execute are tested: encodings, addresses, strides, shapes and the arithmetic.
//! Reading or writing outside of a configured shape panics, which aborts the test.

use std::cell::RefCell;
use std::sync::Once;

/// Tiles and their shapes, one set per thread.
struct Tiles {
    configured: bool,
    bytes_per_row: [usize; 8],
    rows: [usize; 8],
    data: [[u8; 1024]; 8],
}

thread_local! {
    static TILES: RefCell<Tiles> = const {
        RefCell::new(Tiles { configured: false, bytes_per_row: [0; 8], rows: [0; 8], data: [[0; 1024]; 8] })
    };
}

/// An instruction after decoding. Tiles are numbers; memory is base address and distance between rows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Op {
    Configure {
        at: usize,
    },
    Release,
    Zero(usize),
    Load {
        tile: usize,
        at: usize,
        stride: usize,
    },
    Store {
        tile: usize,
        at: usize,
        stride: usize,
    },
    /// `sum += a x b` of bytes; which of `a` and `b` are signed.
    DotBytes {
        sum: usize,
        a: usize,
        b: usize,
        signed: (bool, bool),
    },
    DotBf16 {
        sum: usize,
        a: usize,
        b: usize,
    },
}

/// Decodes the instruction at `code`; `register(n)` is the value of general register `n` in encoding order. Gives the
/// operation and its length, `None` for anything that is not of the tile unit.
pub(super) fn decode(code: &[u8], register: impl Fn(usize) -> usize) -> Option<(Op, usize)> {
    let &[0xc4, first, second, opcode, modrm, ..] = code else { return None };
    // A three-byte VEX prefix of map 0F38, 128 bits, W0; R, X and B are stored inverted.
    if first & 0x1f != 2 || second & 0x84 != 0 {
        return None;
    }
    let (r, x, b) = (first >> 7 & 1 ^ 1, first >> 6 & 1 ^ 1, first >> 5 & 1 ^ 1);
    let vvvv = usize::from(second >> 3 & 15 ^ 15);
    let prefix = second & 3; // none, 66, F3, F2
    let (mode, reg, rm) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    if mode == 3 {
        let op = match (opcode, prefix) {
            (0x49, 0) if modrm == 0xc0 => Op::Release,
            (0x49, 3) if rm == 0 => Op::Zero(reg),
            (0x5c, 2) => Op::DotBf16 { sum: reg, a: rm, b: vvvv },
            (0x5e, _) => {
                let signed =
                    [(false, false), (false, true), (true, false), (true, true)][usize::from(prefix)];
                Op::DotBytes { sum: reg, a: rm, b: vvvv, signed }
            }
            _ => return None,
        };
        return (r == 0).then_some((op, 5));
    }
    // Memory: an optional SIB byte, then a displacement of 0, 1 or 4 bytes.
    let (base, index, scale, mut length) = if rm == 4 {
        let sib = *code.get(5)?;
        let index = usize::from(sib >> 3 & 7) + 8 * usize::from(x);
        (usize::from(sib & 7) + 8 * usize::from(b), (index != 4).then_some(index), sib >> 6, 6)
    } else {
        (rm + 8 * usize::from(b), None, 0, 5)
    };
    assert!(!(mode == 0 && base % 8 == 5), "an address without base");
    let displacement = match mode {
        0 => 0,
        1 => isize::from(code.get(length)?.cast_signed()),
        _ => i32::from_le_bytes(code.get(length..length + 4)?.try_into().ok()?) as isize,
    };
    length += [0, 1, 4][usize::from(mode)];
    let at = register(base).wrapping_add_signed(displacement);
    let stride = index.map_or(0, |i| register(i) << scale);
    let op = match (opcode, prefix) {
        (0x49, 0) if reg == 0 && index.is_none() => Op::Configure { at },
        (0x4b, 3) => Op::Load { tile: reg, at, stride },
        (0x4b, 2) => Op::Store { tile: reg, at, stride },
        _ => return None,
    };
    Some((op, length))
}

fn bf16(low: u8, high: u8) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes([low, high])) << 16)
}

impl Tiles {
    fn shape(&self, tile: usize) -> (usize, usize) {
        assert!(self.configured && self.rows[tile] > 0, "tile {tile} has no shape");
        (self.rows[tile], self.bytes_per_row[tile])
    }

    /// Carries an operation out.
    ///
    /// # Safety
    /// The memory that it names must be accessible.
    unsafe fn run(&mut self, op: Op) {
        match op {
            Op::Configure { at } => {
                // SAFETY: the instruction reads 64 bytes there.
                let config = unsafe { std::slice::from_raw_parts(at as *const u8, 64) };
                assert!(config[0] == 1 && config[1..16].iter().all(|b| *b == 0), "not a configuration");
                for i in 0..8 {
                    let bytes = usize::from(u16::from_le_bytes([config[16 + 2 * i], config[17 + 2 * i]]));
                    let rows = usize::from(config[48 + i]);
                    assert!(bytes <= 64 && rows <= 16 && (bytes == 0) == (rows == 0), "shape of tile {i}");
                    (self.bytes_per_row[i], self.rows[i]) = (bytes, rows);
                }
                assert!(config[56..].iter().all(|b| *b == 0) && config[32..48].iter().all(|b| *b == 0));
                (self.configured, self.data) = (true, [[0; 1024]; 8]);
            }
            Op::Release => (self.configured, self.data) = (false, [[0; 1024]; 8]),
            Op::Zero(tile) => {
                self.shape(tile);
                self.data[tile] = [0; 1024];
            }
            Op::Load { tile, at, stride } => {
                let (rows, bytes) = self.shape(tile);
                self.data[tile] = [0; 1024];
                for row in 0..rows {
                    // SAFETY: the instruction reads these bytes.
                    let from = unsafe { std::slice::from_raw_parts((at + row * stride) as *const u8, bytes) };
                    self.data[tile][64 * row..64 * row + bytes].copy_from_slice(from);
                }
            }
            Op::Store { tile, at, stride } => {
                let (rows, bytes) = self.shape(tile);
                for row in 0..rows {
                    let from = &self.data[tile][64 * row..64 * row + bytes];
                    // SAFETY: the instruction writes these bytes; nobody else looks at them meanwhile.
                    unsafe { ((at + row * stride) as *mut u8).copy_from(from.as_ptr(), bytes) };
                }
            }
            Op::DotBytes { sum, a, b, signed } => self.dot_bytes(sum, a, b, signed),
            Op::DotBf16 { sum, a, b } => self.dot_bf16(sum, a, b),
        }
    }

    /// Rows, columns and steps of a product, once the three shapes are known to fit.
    fn product(&self, sum: usize, a: usize, b: usize) -> (usize, usize, usize) {
        let ((m, n), (a_rows, a_bytes), (b_rows, b_bytes)) = (self.shape(sum), self.shape(a), self.shape(b));
        assert!(sum != a && sum != b && a != b, "a product needs three tiles");
        assert!(a_rows == m && b_bytes == n && a_bytes == 4 * b_rows, "shapes of {sum} += {a} x {b}");
        (m, n / 4, b_rows)
    }

    fn dot_bytes(&mut self, sum: usize, a: usize, b: usize, signed: (bool, bool)) {
        let (m, n, steps) = self.product(sum, a, b);
        let wide = |byte: u8, signed: bool| {
            if signed { i32::from(byte.cast_signed()) } else { i32::from(byte) }
        };
        for (m, n) in (0..m).flat_map(|m| (0..n).map(move |n| (m, n))) {
            let mut total = 0i32;
            for (k, i) in (0..steps).flat_map(|k| (0..4).map(move |i| (k, i))) {
                let left = wide(self.data[a][64 * m + 4 * k + i], signed.0);
                total += left * wide(self.data[b][64 * k + 4 * n + i], signed.1);
            }
            let at = &mut self.data[sum][64 * m + 4 * n..][..4];
            let old = i32::from_le_bytes([at[0], at[1], at[2], at[3]]);
            at.copy_from_slice(&old.wrapping_add(total).to_le_bytes());
        }
    }

    fn dot_bf16(&mut self, sum: usize, a: usize, b: usize) {
        let (m, n, steps) = self.product(sum, a, b);
        for (m, n) in (0..m).flat_map(|m| (0..n).map(move |n| (m, n))) {
            // Even and odd k are summed apart.
            let mut totals = [0.0f32; 2];
            for (k, i) in (0..steps).flat_map(|k| (0..2).map(move |i| (k, i))) {
                let left = &self.data[a][64 * m + 4 * k + 2 * i..];
                let right = &self.data[b][64 * k + 4 * n + 2 * i..];
                totals[i] = bf16(left[0], left[1]).mul_add(bf16(right[0], right[1]), totals[i]);
            }
            let at = &mut self.data[sum][64 * m + 4 * n..][..4];
            let old = f32::from_le_bytes([at[0], at[1], at[2], at[3]]);
            at.copy_from_slice(&(old + (totals[0] + totals[1])).to_le_bytes());
        }
    }
}

/// What `rax`, `rcx`, `rdx` ... are called in a saved context, in the order of their encoding.
const REGISTERS: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn on_illegal_instruction(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the third argument is the interrupted thread's context, ours to change.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let rip = registers[libc::REG_RIP as usize] as usize;
    // SAFETY: code follows code; the longest of these instructions has ten bytes and a function's end is padded or
    // followed by others.
    let code = unsafe { std::slice::from_raw_parts(rip as *const u8, 10) };
    let decoded = decode(code, |n| registers[REGISTERS[n] as usize] as usize);
    let Some((op, length)) = decoded else {
        // Not ours: with the usual answer in place, the instruction fails again and ends the process.
        // SAFETY: setting the default answer to a signal touches no memory.
        unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
        return;
    };
    TILES.with_borrow_mut(|tiles| {
        // SAFETY: the instruction was about to access that memory itself.
        unsafe { tiles.run(op) };
    });
    registers[libc::REG_RIP as usize] = (rip + length).cast_signed() as i64;
}

/// From here on tile instructions work in this process, by hardware or by the model.
pub(super) fn switch_on() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if super::tiles::ask_permission() == super::tiles::Access::Granted {
            return;
        }
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            on_illegal_instruction;
        // SAFETY: an all-zero sigaction is a valid one; the handler has the type that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()), 0);
        }
    });
}
