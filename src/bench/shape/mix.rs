//! Which tensor gets which type: the mixes of llama.cpp's `llama-quantize` (`llama_tensor_get_type_impl` and
//! `tensor_type_fallback` in `src/llama-quant.cpp`), without an importance matrix.

use super::Shape;
use crate::model::gguf::TensorType;

/// A named quantization of a whole file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Quant {
    name: &'static str,
    /// `general.file_type`.
    pub(super) file_type: u32,
    base: Type,
}

/// Element types by their number in the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(non_camel_case_types, reason = "spelled as the format spells them")]
pub(super) enum Type {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    BF16 = 30,
}

impl Type {
    pub(super) fn format(self) -> TensorType {
        TensorType::from_number(self as u32).unwrap_or(TensorType::F32)
    }

    fn is_quantized(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}

const QUANTS: &[Quant] = &[
    Quant { name: "F32", file_type: 0, base: Type::F32 },
    Quant { name: "F16", file_type: 1, base: Type::F16 },
    Quant { name: "BF16", file_type: 32, base: Type::BF16 },
    Quant { name: "Q4_0", file_type: 2, base: Type::Q4_0 },
    Quant { name: "Q4_1", file_type: 3, base: Type::Q4_1 },
    Quant { name: "Q8_0", file_type: 7, base: Type::Q8_0 },
    Quant { name: "Q5_0", file_type: 8, base: Type::Q5_0 },
    Quant { name: "Q5_1", file_type: 9, base: Type::Q5_1 },
    Quant { name: "Q2_K", file_type: 10, base: Type::Q2_K },
    Quant { name: "Q3_K_S", file_type: 11, base: Type::Q3_K },
    Quant { name: "Q3_K_M", file_type: 12, base: Type::Q3_K },
    Quant { name: "Q3_K_L", file_type: 13, base: Type::Q3_K },
    Quant { name: "Q4_K_S", file_type: 14, base: Type::Q4_K },
    Quant { name: "Q4_K_M", file_type: 15, base: Type::Q4_K },
    Quant { name: "Q5_K_S", file_type: 16, base: Type::Q5_K },
    Quant { name: "Q5_K_M", file_type: 17, base: Type::Q5_K },
    Quant { name: "Q6_K", file_type: 18, base: Type::Q6_K },
];

/// What a matrix is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    TokenEmbedding,
    Output,
    AttentionV,
    AttentionOutput,
    FfnDown,
    Other,
}

impl Quant {
    pub(super) fn named(name: &str) -> Option<Self> {
        QUANTS.iter().copied().find(|quant| quant.name.eq_ignore_ascii_case(name))
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        QUANTS.iter().map(|quant| quant.name)
    }

    pub(super) fn name(self) -> &'static str {
        self.name
    }

    /// The type of a matrix with rows of `n_cols`, in block `layer`.
    pub(super) fn type_of(self, shape: &Shape, role: Role, layer: usize, n_cols: usize) -> Type {
        if !self.base.is_quantized() {
            return self.base;
        }
        let chosen = match role {
            Role::Output => self.of_output(n_cols),
            Role::TokenEmbedding if shape.is_tied => self.of_output(n_cols),
            _ => self.of_block(shape, role, layer),
        };
        if n_cols.is_multiple_of(chosen.format().block_len()) {
            chosen
        } else {
            with_small_blocks(chosen, n_cols)
        }
    }

    fn of_output(self, n_cols: usize) -> Type {
        if !n_cols.is_multiple_of(self.base.format().block_len()) || self.base == Type::Q8_0 {
            Type::Q8_0
        } else {
            Type::Q6_K
        }
    }

    fn of_block(self, shape: &Shape, role: Role, layer: usize) -> Type {
        let n_layer = shape.n_layer;
        let more = gets_more_bits(layer, n_layer);
        match (self.name, role) {
            ("Q2_K", Role::AttentionV) if shape.n_head / shape.n_head_kv >= 4 => Type::Q4_K,
            ("Q2_K", Role::AttentionV | Role::FfnDown | Role::AttentionOutput) => Type::Q3_K,
            ("Q3_K_M", Role::AttentionV) => {
                if layer < 2 {
                    Type::Q5_K
                } else {
                    Type::Q4_K
                }
            }
            ("Q3_K_M", Role::FfnDown) => {
                if layer < n_layer / 16 {
                    Type::Q5_K
                } else {
                    Type::Q4_K
                }
            }
            ("Q3_K_M", Role::AttentionOutput) => Type::Q4_K,
            ("Q3_K_L", Role::AttentionV | Role::FfnDown | Role::AttentionOutput) => Type::Q5_K,
            ("Q4_K_M" | "Q5_K_M", Role::AttentionV | Role::FfnDown) if more => Type::Q6_K,
            ("Q4_K_S", Role::AttentionV) if layer < 4 => Type::Q5_K,
            ("Q4_K_S", Role::FfnDown) if layer < n_layer / 8 => Type::Q5_K,
            _ => self.base,
        }
    }
}

/// The first and last eighth of the layers, and every third between.
fn gets_more_bits(layer: usize, n_layer: usize) -> bool {
    layer < n_layer / 8 || layer >= 7 * n_layer / 8 || (layer - n_layer / 8) % 3 == 2
}

/// What takes the place of a type of 256-blocks where rows are no multiple of 256.
fn with_small_blocks(wanted: Type, n_cols: usize) -> Type {
    let small = match wanted {
        Type::Q2_K | Type::Q3_K => Type::Q4_0,
        Type::Q4_K => Type::Q5_0,
        Type::Q5_K => Type::Q5_1,
        Type::Q6_K => Type::Q8_0,
        other => other,
    };
    if n_cols.is_multiple_of(small.format().block_len()) { small } else { Type::F16 }
}
