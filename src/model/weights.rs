//! The bytes of a model file: mapped from disk, or compiled into the binary.
//!
//! The one mmap of the program, and so the one `unsafe` outside `kernels`.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use super::ModelError;

/// Bytes that stay where they are for as long as this value lives.
#[derive(Debug)]
pub(super) struct Weights(Source);

#[derive(Debug)]
enum Source {
    Mapped(Mmap),
    Builtin(&'static [u8]),
}

impl Weights {
    /// Maps the file at `path` read-only.
    ///
    /// # Errors
    /// [`ModelError::Io`] when it cannot be opened or mapped; [`ModelError::Malformed`] when it is empty or not a
    /// regular file, which no mapping can show.
    #[allow(unsafe_code, reason = "mapping a file has no safe form")]
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(ModelError::Malformed(format!("{} is not a regular file", path.display())));
        }
        if metadata.len() == 0 {
            return Err(ModelError::Malformed(format!("{} is empty", path.display())));
        }
        // SAFETY: a mapping is sound as long as nobody shortens or rewrites the file while it is mapped. Model files
        // are the operator's own and are replaced by rename, never written in place; an operator who truncates one
        // under a running server gets SIGBUS, a crash and not a leak.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self(Source::Mapped(map)))
    }

    /// Wraps bytes that are part of the binary.
    pub(super) fn builtin(bytes: &'static [u8]) -> Self {
        Self(Source::Builtin(bytes))
    }

    /// All bytes of the file.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Source::Mapped(map) => map,
            Source::Builtin(bytes) => bytes,
        }
    }
}
