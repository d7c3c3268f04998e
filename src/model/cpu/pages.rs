//! Pages of keys and values handed out and taken back, so that somebody can keep them beyond this process.

use sha2::{Digest as _, Sha256};

use super::super::{Gguf, KvForm, ModelError, SeqId};
use super::CpuModel;
use crate::kernels::attention::PAGE_LEN;
use crate::kernels::kv::PAGE_MEANING;

/// Everything that decides which bytes a page has for given tokens. Of each tensor the first and the last row stand for
/// all: another training, or another rounding of the same weights, changes every one of them.
pub(super) fn fingerprint(gguf: &Gguf, model: &CpuModel) -> Result<[u8; 32], ModelError> {
    let mut hash = Sha256::new();
    let form =
        (env!("CARGO_PKG_VERSION"), PAGE_MEANING, model.team.kernels().isa().as_str(), model.pages.layout());
    hash.update(format!("{form:?} {:?}", model.config));
    let mut buffer = Vec::new();
    for tensor in gguf.tensors() {
        hash.update(format!("{} {:?} {}\n", tensor.name, tensor.dims, tensor.tensor_type));
        let n = tensor.n_rows();
        for row in [0, n.saturating_sub(1)].into_iter().filter(|row| *row < n) {
            hash.update(gguf.tensor_rows(tensor, row..row + 1, &mut buffer)?);
        }
    }
    Ok(hash.finalize().into())
}

impl CpuModel {
    pub(super) fn form(&self) -> KvForm {
        KvForm {
            page_len: PAGE_LEN,
            page_bytes: self.pages.layout().page_bytes(),
            fingerprint: self.fingerprint,
        }
    }

    pub(super) fn page_of(&self, seq: SeqId, i: usize) -> Option<Vec<u8>> {
        let is_whole = self.sequences.len_of(seq)? >= (i + 1) * PAGE_LEN;
        let page = *self.sequences.pages_of(seq).get(i).filter(|_| is_whole)?;
        Some(self.pages.page(page).to_vec())
    }

    pub(super) fn append_page(&mut self, seq: SeqId, bytes: &[u8]) -> Result<(), ModelError> {
        let n = self.pages.layout().page_bytes();
        if bytes.len() != n {
            return Err(ModelError::Backend(format!("a page has {n} bytes, not {}", bytes.len())));
        }
        let page = self.sequences.append_page(seq)?;
        self.pages.page_mut(page).copy_from_slice(bytes);
        Ok(())
    }
}
