//! Reads an architecture's own keys with their limits; the words of an error name the whole key.

use super::super::ModelError;
use super::super::gguf::{Gguf, Value};
use super::Experts;

/// Experts in a block; the largest open models have 512.
const MAX_EXPERTS: usize = 1024;

/// The metadata below `<architecture>.`.
pub(super) struct Metadata<'a> {
    pub(super) gguf: &'a Gguf,
    architecture: &'a str,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(gguf: &'a Gguf) -> Self {
        Self { gguf, architecture: gguf.architecture() }
    }

    pub(super) fn architecture(&self) -> &'a str {
        self.architecture
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn missing(&self, name: &str) -> ModelError {
        ModelError::Malformed(format!("{} is missing", self.key(name)))
    }

    /// A count that must be there, 1 to `limit`.
    pub(super) fn size(&self, name: &str, limit: usize) -> Result<usize, ModelError> {
        match self.optional_size(name, limit)? {
            Some(0) => Err(ModelError::Malformed(format!("{}: 0, it must be 1 to {limit}", self.key(name)))),
            Some(size) => Ok(size),
            None => Err(self.missing(name)),
        }
    }

    /// A count of 0 to `limit`.
    pub(super) fn optional_size(&self, name: &str, limit: usize) -> Result<Option<usize>, ModelError> {
        let key = self.key(name);
        let Some(value) = self.gguf.get(&key) else { return Ok(None) };
        let size = self.gguf.u64(&key).and_then(|size| usize::try_from(size).ok());
        match size.filter(|&size| size <= limit) {
            Some(size) => Ok(Some(size)),
            None => {
                Err(ModelError::Malformed(format!("{key}: {value}, it must be an integer up to {limit}")))
            }
        }
    }

    /// A count that some files give once for each layer; layers that differ are a model no runner has.
    pub(super) fn optional_per_layer_size(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Option<usize>, ModelError> {
        let key = self.key(name);
        let size = match self.gguf.get(&key) {
            None => return Ok(None),
            Some(Value::Array(array)) => {
                let sizes = array.integers().unwrap_or_default();
                let Some((&first, rest)) = sizes.split_first() else {
                    return Err(ModelError::Malformed(format!("{key}: not a list of integers")));
                };
                if rest.iter().any(|&size| size != first) {
                    return Err(ModelError::Unsupported(format!("{key} differs from layer to layer")));
                }
                usize::try_from(first).ok()
            }
            Some(_) => self.optional_size(name, limit)?,
        };
        match size {
            Some(size) if size > 0 && size <= limit => Ok(Some(size)),
            _ => Err(ModelError::Malformed(format!("{key}: it must be 1 to {limit}"))),
        }
    }

    /// A count for each of `n_layer` layers, 0 included.
    pub(super) fn layer_sizes(
        &self,
        name: &str,
        limit: usize,
        n_layer: usize,
    ) -> Result<Vec<usize>, ModelError> {
        let key = self.key(name);
        let Some(Value::Array(array)) = self.gguf.get(&key) else {
            return Err(ModelError::Malformed(format!("{key}: a list of {n_layer} counts belongs there")));
        };
        let sizes: Vec<usize> = array
            .integers()
            .unwrap_or_default()
            .into_iter()
            .filter_map(|size| usize::try_from(size).ok().filter(|&size| size <= limit))
            .collect();
        if sizes.len() == n_layer && array.len() == n_layer {
            return Ok(sizes);
        }
        Err(ModelError::Malformed(format!(
            "{key}: {} entries; {n_layer} of up to {limit} belong there",
            array.len()
        )))
    }

    /// As [`Self::optional_per_layer_size`], and must be there.
    pub(super) fn per_layer_size(&self, name: &str, limit: usize) -> Result<usize, ModelError> {
        self.optional_per_layer_size(name, limit)?.ok_or_else(|| self.missing(name))
    }

    /// A finite float above 0 that must be there.
    pub(super) fn positive(&self, name: &str) -> Result<f32, ModelError> {
        self.optional_positive(name)?.ok_or_else(|| self.missing(name))
    }

    /// A finite float above 0; 0 counts as left out, as writers of the format have it.
    pub(super) fn optional_positive(&self, name: &str) -> Result<Option<f32>, ModelError> {
        let key = self.key(name);
        let Some(value) = self.gguf.get(&key) else { return Ok(None) };
        match self.gguf.f32(&key) {
            Some(0.0) => Ok(None),
            Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => Err(ModelError::Malformed(format!("{key}: {value}, it must be a finite number above 0"))),
        }
    }

    /// Text, where it is there.
    pub(super) fn str(&self, name: &str) -> Option<&'a str> {
        self.gguf.str(&self.key(name))
    }

    /// The experts of an architecture that has them. Some mixtures of experts carry the name of a dense architecture,
    /// and are none.
    pub(super) fn experts(&self) -> Result<Option<Experts>, ModelError> {
        let n = self.optional_size("expert_count", MAX_EXPERTS)?.unwrap_or(0);
        match (self.architecture, n) {
            ("qwen3moe", 0) => Err(self.missing("expert_count")),
            ("qwen3moe", n) => Ok(Some(Experts {
                n,
                n_used: self.size("expert_used_count", n)?,
                n_ff: self.size("expert_feed_forward_length", super::MAX_WIDTH)?,
            })),
            (_, 0) => Ok(None),
            (_, n) => Err(ModelError::Unsupported(format!(
                "{} {n}: a mixture of experts under the name of {}, which is not computed here",
                self.key("expert_count"),
                self.architecture
            ))),
        }
    }
}
