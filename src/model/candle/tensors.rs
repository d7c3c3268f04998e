//! Tensors of a GGUF file as candle holds them.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use candle_transformers::quantized_nn::{Linear, RmsNorm};

use super::backend;
use crate::model::ModelError;
use crate::model::gguf::{Gguf, TensorInfo, TensorType};
use crate::model::tensor_list::TensorList;

/// The types that candle multiplies with, by their number in the format.
fn candle_type(tensor_type: TensorType) -> Option<GgmlDType> {
    Some(match tensor_type.number() {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

/// Whether candle computes with the type of that number.
pub(super) fn computes(tensor_type: TensorType) -> bool {
    candle_type(tensor_type).is_some()
}

/// Bytes that the weights will take here. Floats become 32-bit, and candle keeps a second, rearranged copy of the
/// types that it has wide kernels for.
pub(super) fn resident_bytes(gguf: &Gguf) -> u64 {
    gguf.tensors()
        .map(|tensor| {
            let bytes = tensor.size_bytes() as u64;
            match candle_type(tensor.tensor_type) {
                Some(GgmlDType::F16 | GgmlDType::BF16 | GgmlDType::Q8_0) => 2 * bytes,
                Some(GgmlDType::Q4K | GgmlDType::Q6K) => bytes * 5 / 2,
                _ => bytes,
            }
        })
        .sum()
}

/// The tensors of one file on their way to one device.
pub(super) struct Tensors<'a> {
    list: TensorList<'a>,
    device: &'a Device,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(gguf: &'a Gguf, device: &'a Device) -> Self {
        Self { list: TensorList::new(gguf), device }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.list.has(name)
    }

    /// The tensor of that name, whose dimensions in the file's order must be `dims`.
    pub(super) fn get(&self, name: &str, dims: &[usize]) -> Result<QTensor, ModelError> {
        let info = self.list.take(name, dims)?;
        let shape = info.dims.iter().rev().copied().collect();
        self.made(info, &self.list.gguf().tensor_data(info)?, shape)
    }

    /// A tensor of the file's type from its bytes, or from those of a part of it.
    fn made(&self, info: &TensorInfo, data: &[u8], shape: Vec<usize>) -> Result<QTensor, ModelError> {
        let Some(dtype) = candle_type(info.tensor_type) else {
            return Err(ModelError::Unsupported(format!(
                "tensor {} has type {}",
                info.name, info.tensor_type
            )));
        };
        let bytes = Aligned::new(data);
        let storage = QStorage::from_data(Cow::Borrowed(bytes.get()), self.device, dtype).map_err(backend)?;
        QTensor::new(storage, shape).map_err(backend)
    }

    /// A vector, as 32-bit floats.
    pub(super) fn vector(&self, name: &str, n: usize) -> Result<Tensor, ModelError> {
        self.get(name, &[n])?.dequantize(self.device).map_err(backend)
    }

    /// A matrix, as 32-bit floats of shape `(n_out, n_in)`.
    pub(super) fn matrix(&self, name: &str, n_in: usize, n_out: usize) -> Result<Tensor, ModelError> {
        self.get(name, &[n_in, n_out])?.dequantize(self.device).map_err(backend)
    }

    /// The `n` matrices of experts that stand one after the other in one tensor.
    pub(super) fn linears(
        &self,
        name: &str,
        n_in: usize,
        n_out: usize,
        n: usize,
    ) -> Result<Vec<Linear>, ModelError> {
        let info = self.list.take(name, &[n_in, n_out, n])?;
        let data = self.list.gguf().tensor_data(info)?;
        let of_one = |bytes: &[u8]| {
            let weight = Arc::new(self.made(info, bytes, vec![n_out, n_in])?);
            Linear::from_arc(weight, None).map_err(backend)
        };
        data.chunks_exact(data.len() / n).map(of_one).collect()
    }

    /// `x -> W x + b`, the bias where the file has one. `name` goes without `.weight`.
    pub(super) fn linear(&self, name: &str, n_in: usize, n_out: usize) -> Result<Linear, ModelError> {
        let weight = Arc::new(self.get(&format!("{name}.weight"), &[n_in, n_out])?);
        let bias = format!("{name}.bias");
        let bias = if self.has(&bias) { Some(self.vector(&bias, n_out)?) } else { None };
        Linear::from_arc(weight, bias).map_err(backend)
    }

    /// An RMS norm. `name` goes without `.weight`.
    pub(super) fn norm(&self, name: &str, n: usize, eps: f32) -> Result<RmsNorm, ModelError> {
        let weight = self.get(&format!("{name}.weight"), &[n])?;
        RmsNorm::from_qtensor(weight, f64::from(eps)).map_err(backend)
    }

    /// As [`Self::norm`], where the file has it.
    pub(super) fn optional_norm(
        &self,
        name: &str,
        n: usize,
        eps: f32,
    ) -> Result<Option<RmsNorm>, ModelError> {
        if self.has(&format!("{name}.weight")) { self.norm(name, n, eps).map(Some) } else { Ok(None) }
    }

    /// Refuses a file with tensors that nobody asked for.
    pub(super) fn finish(self) -> Result<(), ModelError> {
        self.list.gguf().check_unchanged()?;
        self.list.finish()
    }
}

/// Bytes at an address that any block type may stand at: those read from a file do already, those of the binary may not.
struct Aligned<'a> {
    bytes: Cow<'a, [u8]>,
    start: usize,
    len: usize,
}

/// The largest alignment among the block types, with room to spare.
const BLOCK_ALIGNMENT: usize = 8;

impl<'a> Aligned<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let len = bytes.len();
        if bytes.as_ptr().align_offset(BLOCK_ALIGNMENT) == 0 {
            return Self { bytes: Cow::Borrowed(bytes), start: 0, len };
        }
        let mut copy = vec![0; len + BLOCK_ALIGNMENT];
        let start = copy.as_ptr().align_offset(BLOCK_ALIGNMENT).min(BLOCK_ALIGNMENT);
        copy[start..start + len].copy_from_slice(bytes);
        Self { bytes: Cow::Owned(copy), start, len }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}
