//! What the header says about one tensor, and the element types of the format.

use std::fmt;
use std::ops::Range;

/// An element type of the format: `(name, elements per block, bytes per block)` behind a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TensorType(u32);

/// Every type the format has defined, also those that no runner here computes: their sizes are needed to check that
/// a file's tensors lie inside it before it is refused by name.
const TYPES: &[(u32, &str, usize, usize)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

impl TensorType {
    /// 32-bit floats.
    pub const F32: Self = Self(0);
    /// 16-bit floats.
    pub const F16: Self = Self(1);
    /// Blocks of 32 bytes and one scale.
    pub const Q8_0: Self = Self(8);

    /// The type with this number in the format, if the format has one.
    pub fn from_number(number: u32) -> Option<Self> {
        TYPES.iter().find(|t| t.0 == number).map(|t| Self(t.0))
    }

    /// Its number in the format.
    pub fn number(self) -> u32 {
        self.0
    }

    fn row(self) -> (u32, &'static str, usize, usize) {
        // Values exist only through `from_number` and the constants, so the search cannot fail.
        TYPES.iter().copied().find(|t| t.0 == self.0).unwrap_or(TYPES[0])
    }

    /// As the format spells it: `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Elements per block.
    pub fn block_len(self) -> usize {
        self.row().2
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.row().3
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One tensor's entry in the header. Its numbers have been checked against the file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// `blk.0.attn_q.weight`.
    pub name: String,
    /// Lengths in the file's order: the first is the row length, contiguous in memory. One to four, none 0.
    pub dims: Vec<usize>,
    /// Element type.
    pub tensor_type: TensorType,
    /// In which of the model's files it lies.
    pub(super) part: usize,
    /// Where its bytes lie in that file.
    pub(super) range: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Row length.
    pub fn n_cols(&self) -> usize {
        self.dims[0]
    }

    /// Rows, all outer dimensions together.
    pub fn n_rows(&self) -> usize {
        self.dims[1..].iter().product()
    }

    /// Bytes in the file.
    pub fn size_bytes(&self) -> usize {
        self.range.len()
    }

    /// Offset of its bytes from the start of its file.
    pub fn offset(&self) -> usize {
        self.range.start
    }
}
