//! Takes tensors out of a GGUF file by name and shape, and notices those that nobody asked for.

use std::cell::RefCell;
use std::collections::HashSet;

use super::gguf::{Gguf, TensorInfo, TensorType};
use super::{ModelConfig, ModelError};

/// Tensors that `config` reads.
const READ_BY_CONFIG: &[&str] =
    &["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// The tensors of one file on their way into a runner.
pub(super) struct TensorList<'a> {
    gguf: &'a Gguf,
    taken: RefCell<HashSet<&'a str>>,
}

impl<'a> TensorList<'a> {
    pub(super) fn new(gguf: &'a Gguf) -> Self {
        Self { gguf, taken: RefCell::default() }
    }

    pub(super) fn gguf(&self) -> &'a Gguf {
        self.gguf
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// The tensor of that name, whose dimensions in the file's order must be `dims`.
    pub(super) fn take(&self, name: &str, dims: &[usize]) -> Result<&'a TensorInfo, ModelError> {
        let Some(info) = self.gguf.tensor(name) else {
            return Err(ModelError::Malformed(format!("tensor {name} is missing")));
        };
        if info.dims != dims {
            return Err(ModelError::Malformed(format!(
                "tensor {name} is {:?}, the metadata ask for {dims:?}",
                info.dims
            )));
        }
        self.taken.borrow_mut().insert(&info.name);
        Ok(info)
    }

    /// A tensor left over means a model that computes something else than we do: refused, because the text it would
    /// write looks almost right.
    pub(super) fn finish(&self) -> Result<(), ModelError> {
        let taken = self.taken.borrow();
        let left = self.gguf.tensors().map(|tensor| tensor.name.as_str()).find(|name| {
            !taken.contains(name) && !READ_BY_CONFIG.contains(name) && !name.ends_with(".rope_freqs.weight")
        });
        match left {
            None => Ok(()),
            Some(name) => Err(ModelError::Unsupported(format!(
                "tensor {name} has no place in a model of architecture {}",
                self.gguf.architecture()
            ))),
        }
    }
}

/// Blocks of the file against the metadata, before a loop over them: a missing one is named as what it is.
pub(super) fn check_layers(gguf: &Gguf, config: &ModelConfig) -> Result<(), ModelError> {
    let layer_of = |tensor: &TensorInfo| -> Option<usize> {
        tensor.name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
    };
    let found = gguf.tensors().filter_map(layer_of).max().map_or(0, |last| last.saturating_add(1));
    if found != config.n_layer {
        return Err(ModelError::Malformed(format!(
            "block_count is {}, the tensors are of {found} blocks",
            config.n_layer
        )));
    }
    Ok(())
}

/// Refuses a file with a tensor of a type that `computed` does not know, before anything is allocated for it.
pub(super) fn check_types(gguf: &Gguf, computed: impl Fn(TensorType) -> bool) -> Result<(), ModelError> {
    match gguf.tensors().find(|tensor| !computed(tensor.tensor_type)) {
        None => Ok(()),
        Some(tensor) => Err(ModelError::Unsupported(format!(
            "tensor {} has type {}; computed are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K",
            tensor.name, tensor.tensor_type
        ))),
    }
}
