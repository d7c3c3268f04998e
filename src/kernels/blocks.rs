//! GGML's quantized block formats: sizes, integer codes, scales, and the plain dequantization everything is tested
//! against. Layouts follow ggml's `ggml-common.h`; all numbers are little endian.
//!
//! Every type here is read as `w = scale * code + offset`, with an unsigned `code` of a few bits and one pair
//! `(scale, offset)` per group of 16 or 32 weights. That one view serves dequantization and packing alike:
//!
//! | type | code | group | scale | offset |
//! |---|---|---|---|---|
//! | `Q4_0`, `Q5_0`, `Q8_0` | 4, 5, 8 bits | 32 | `d` | `-8 d`, `-16 d`, `-128 d` |
//! | `Q4_1`, `Q5_1` | 4, 5 bits | 32 | `d` | `m` |
//! | `Q4_K`, `Q5_K` | 4, 5 bits | 32 | `d * sc` | `-dmin * mn` |
//! | `Q2_K` | 2 bits | 16 | `d * sc` | `-dmin * mn` |
//! | `Q3_K`, `Q6_K` | 3, 6 bits | 16 | `d * sc` | `-4 d sc`, `-32 d sc` |

/// Weights in the largest block.
pub const MAX_BLOCK_LEN: usize = 256;
/// Groups in the largest block.
pub const MAX_GROUPS: usize = 16;

/// A weight format of GGUF files that the kernels can read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "the names are the format's own")]
pub enum BlockType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// The integer view of one block, reused between blocks.
#[derive(Clone, Debug)]
pub struct Codes {
    /// One code per weight, in the order of the weights.
    pub codes: [u8; MAX_BLOCK_LEN],
    /// Integer scale per group: 1 for formats without a second level.
    pub scales: [i8; MAX_GROUPS],
    /// Integer minimum per group: 0 for formats without one.
    pub mins: [u8; MAX_GROUPS],
    /// The block's float scale.
    pub d: f32,
    /// The block's second float: `m` of `Q4_1` and `Q5_1`, `-dmin` of the K types, else 0.
    pub m: f32,
}

impl Default for Codes {
    fn default() -> Self {
        Self { codes: [0; MAX_BLOCK_LEN], scales: [1; MAX_GROUPS], mins: [0; MAX_GROUPS], d: 0.0, m: 0.0 }
    }
}

impl BlockType {
    /// Every format.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The format with ggml's type number, if the kernels can read it.
    pub fn from_ggml(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            30 => Self::BF16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            _ => return None,
        })
    }

    /// Weights per block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Weights that share a scale.
    pub const fn group_len(self) -> usize {
        match self {
            Self::Q2K | Self::Q3K | Self::Q6K => 16,
            _ => 32,
        }
    }

    /// What is subtracted from a code before it is scaled; formats with minimums have 0.
    pub const fn zero_point(self) -> u8 {
        match self {
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q8_0 => 128,
            Self::Q3K => 4,
            Self::Q6K => 32,
            _ => 0,
        }
    }

    /// Whether this is a format of integer codes (not plain floats).
    pub const fn is_quantized(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// Bytes of a row of `n` weights; `None` unless `n` is a whole number of blocks.
    pub const fn row_bytes(self, n: usize) -> Option<usize> {
        if n.is_multiple_of(self.block_len()) {
            Some(n / self.block_len() * self.block_bytes())
        } else {
            None
        }
    }
}

/// A binary16 number as f32.
pub fn f16_to_f32(bits: u16) -> f32 {
    let (sign, exponent, fraction) =
        (u32::from(bits >> 15), u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    let magnitude = match exponent {
        0 => (fraction as f32) * f32::from_bits(0x3380_0000), // 2^-24
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    f32::from_bits(magnitude.to_bits() | sign << 31)
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Reads one quantized block into codes and scales.
///
/// # Panics
/// If `block` is shorter than the format's block or the format is a plain float one.
pub fn read_codes(ty: BlockType, block: &[u8], out: &mut Codes) {
    let block = &block[..ty.block_bytes()];
    out.scales = [1; MAX_GROUPS];
    out.mins = [0; MAX_GROUPS];
    out.m = 0.0;
    match ty {
        BlockType::Q4_0 => {
            out.d = f16_at(block, 0);
            nibbles(&block[2..18], &mut out.codes);
        }
        BlockType::Q4_1 => {
            (out.d, out.m) = (f16_at(block, 0), f16_at(block, 2));
            out.mins = [1; MAX_GROUPS];
            nibbles(&block[4..20], &mut out.codes);
        }
        BlockType::Q5_0 => {
            out.d = f16_at(block, 0);
            nibbles(&block[6..22], &mut out.codes);
            fifth_bits(&block[2..6], &mut out.codes);
        }
        BlockType::Q5_1 => {
            (out.d, out.m) = (f16_at(block, 0), f16_at(block, 2));
            out.mins = [1; MAX_GROUPS];
            nibbles(&block[8..24], &mut out.codes);
            fifth_bits(&block[4..8], &mut out.codes);
        }
        BlockType::Q8_0 => {
            out.d = f16_at(block, 0);
            for (code, &q) in out.codes.iter_mut().zip(&block[2..34]) {
                *code = q ^ 0x80; // two's complement to excess 128
            }
        }
        BlockType::Q2K => read_q2k(block, out),
        BlockType::Q3K => read_q3k(block, out),
        BlockType::Q4K => {
            (out.d, out.m) = (f16_at(block, 0), -f16_at(block, 2));
            six_bit_pairs(&block[4..16], out);
            nibble_pairs(&block[16..144], &mut out.codes);
        }
        BlockType::Q5K => {
            (out.d, out.m) = (f16_at(block, 0), -f16_at(block, 2));
            six_bit_pairs(&block[4..16], out);
            nibble_pairs(&block[48..176], &mut out.codes);
            for (g, codes) in out.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (code, bits) in codes.iter_mut().zip(&block[16..48]) {
                    *code |= (bits >> g & 1) << 4;
                }
            }
        }
        BlockType::Q6K => read_q6k(block, out),
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => panic!("{ty:?} has no codes"),
    }
}

/// 32 codes: low nibbles first, then high nibbles.
fn nibbles(qs: &[u8], codes: &mut [u8]) {
    for (j, &q) in qs.iter().enumerate() {
        codes[j] = q & 15;
        codes[j + 16] = q >> 4;
    }
}

fn fifth_bits(qh: &[u8], codes: &mut [u8]) {
    for (k, code) in codes.iter_mut().take(32).enumerate() {
        *code |= (qh[k / 8] >> (k % 8) & 1) << 4;
    }
}

/// 256 codes: each 32 bytes hold 64 weights, low nibbles before high nibbles.
fn nibble_pairs(qs: &[u8], codes: &mut [u8]) {
    for (chunk, out) in qs.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        for (j, &q) in chunk.iter().enumerate() {
            out[j] = q & 15;
            out[j + 32] = q >> 4;
        }
    }
}

/// Eight scales and eight minimums of six bits in 12 bytes.
fn six_bit_pairs(s: &[u8], out: &mut Codes) {
    for j in 0..4 {
        out.scales[j] = (s[j] & 63).cast_signed();
        out.mins[j] = s[j + 4] & 63;
        out.scales[j + 4] = (s[j + 8] & 15 | s[j] >> 6 << 4).cast_signed();
        out.mins[j + 4] = s[j + 8] >> 4 | s[j + 4] >> 6 << 4;
    }
}

fn read_q2k(block: &[u8], out: &mut Codes) {
    (out.d, out.m) = (f16_at(block, 80), -f16_at(block, 82));
    for (g, &s) in block[..16].iter().enumerate() {
        out.scales[g] = (s & 15).cast_signed();
        out.mins[g] = s >> 4;
    }
    for (g, codes) in out.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (code, q) in codes.iter_mut().zip(&block[16 + g / 4 * 32..]) {
            *code = q >> (g % 4 * 2) & 3;
        }
    }
}

fn read_q3k(block: &[u8], out: &mut Codes) {
    out.d = f16_at(block, 108);
    let s = &block[96..108];
    for g in 0..16 {
        let low = s[g % 8] >> (g / 8 * 4) & 15;
        let high = s[8 + g % 4] >> (g / 4 * 2) & 3;
        out.scales[g] = (low | high << 4).cast_signed() - 32;
    }
    for (g, codes) in out.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for ((code, low), high) in codes.iter_mut().zip(&block[32 + g / 4 * 32..]).zip(&block[..32]) {
            *code = low >> (g % 4 * 2) & 3 | (high >> g & 1) << 2;
        }
    }
}

fn read_q6k(block: &[u8], out: &mut Codes) {
    out.d = f16_at(block, 208);
    for g in 0..16 {
        out.scales[g] = block[192 + g].cast_signed();
    }
    for (g, codes) in out.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (half, quarter) = (g / 4, g % 4);
        let low = &block[half * 64 + quarter % 2 * 32..];
        for ((code, low), high) in codes.iter_mut().zip(low).zip(&block[128 + half * 32..]) {
            *code = low >> (quarter / 2 * 4) & 15 | (high >> (quarter * 2) & 3) << 4;
        }
    }
}

/// The weights of `bytes` as f32.
///
/// # Panics
/// If `bytes` is not exactly the encoding of `out.len()` weights.
pub fn dequantize(ty: BlockType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        ty.row_bytes(out.len()),
        Some(bytes.len()),
        "{ty:?}: {} bytes for {} weights",
        bytes.len(),
        out.len()
    );
    match ty {
        BlockType::F32 => {
            for (w, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *w = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        BlockType::F16 => {
            for (w, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *w = f16_to_f32(u16::from_le_bytes([b[0], b[1]]));
            }
        }
        BlockType::BF16 => {
            for (w, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *w = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
            }
        }
        _ => {
            let mut codes = Codes::default();
            let zero = f32::from(ty.zero_point());
            for (block, out) in bytes.chunks_exact(ty.block_bytes()).zip(out.chunks_exact_mut(ty.block_len()))
            {
                read_codes(ty, block, &mut codes);
                for (g, group) in out.chunks_exact_mut(ty.group_len()).enumerate() {
                    let scale = codes.d * f32::from(codes.scales[g]);
                    let min = codes.m * f32::from(codes.mins[g]);
                    for (w, &q) in group.iter_mut().zip(&codes.codes[g * ty.group_len()..]) {
                        *w = scale * (f32::from(q) - zero) + min;
                    }
                }
            }
        }
    }
}
