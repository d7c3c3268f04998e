//! The bytes of a model file: read from disk when asked for, compiled into the binary, or written into
//! memory.
//!
//! Files are read and never mapped. A mapping of a file that somebody shortens kills the process at the next touch
//! (SIGBUS), and everybody's conversation with it; a read that comes up short is an error of that one load. Every
//! runner copies or rearranges the weights anyway, so a mapping would save nothing but one copy of one tensor.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::ModelError;
use crate::kernels::pages::{PageSize, Pages};

/// A model file that stays open, or a model that needs none.
#[derive(Debug)]
pub(super) struct Weights(Source);

#[derive(Debug)]
enum Source {
    File { file: File, path: PathBuf, stamp: Stamp },
    Builtin(&'static [u8]),
    Written { pages: Pages, len: usize },
}

/// By what a file is seen to have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { len: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl Weights {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`ModelError::Io`] when it cannot be opened; [`ModelError::Malformed`] when it is empty or not a regular file.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: path.to_path_buf(), source };
        // Asked before it is opened: opening a named pipe waits for somebody to write.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(ModelError::Malformed(format!("{} is not a regular file", path.display())));
        }
        let file = File::open(path).map_err(io)?;
        let stamp = Stamp::of(&file.metadata().map_err(io)?);
        if stamp.len == 0 {
            return Err(ModelError::Malformed(format!("{} is empty", path.display())));
        }
        Ok(Self(Source::File { file, path: path.to_path_buf(), stamp }))
    }

    /// Wraps bytes that are part of the binary.
    pub(super) fn builtin(bytes: &'static [u8]) -> Self {
        Self(Source::Builtin(bytes))
    }

    /// Asks for `len` bytes of zeroes and lets `fill` write them.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`] when the system does not give them.
    pub(super) fn written(len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self, ModelError> {
        let mut pages = Pages::new(len.div_ceil(size_of::<u64>()), PageSize::Base)
            .map_err(|e| ModelError::TooLarge(format!("{len} bytes for a model in memory: {e}")))?;
        fill(&mut pages.bytes_mut()[..len]);
        Ok(Self(Source::Written { pages, len }))
    }

    /// Length of the file when it was opened.
    pub(super) fn len(&self) -> usize {
        match &self.0 {
            Source::File { stamp, .. } => stamp.len as usize,
            Source::Builtin(bytes) => bytes.len(),
            Source::Written { len, .. } => *len,
        }
    }

    /// The bytes of `range`, which lies within [`Self::len`]; read into `buffer`, which keeps its room for the next read.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_into<'a>(
        &'a self,
        range: Range<usize>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], ModelError> {
        let (file, path) = match &self.0 {
            Source::Builtin(bytes) => return Ok(&bytes[range]),
            Source::Written { pages, .. } => return Ok(&pages.bytes()[range]),
            Source::File { file, path, .. } => (file, path),
        };
        buffer.resize(range.len(), 0);
        match file.read_exact_at(buffer, range.start as u64) {
            Ok(()) => Ok(buffer),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(changed(path)),
            Err(source) => Err(ModelError::Io { path: path.clone(), source }),
        }
    }

    /// The bytes of `range`, which lies within [`Self::len`].
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Malformed`] when the file has become shorter since;
    /// [`ModelError::TooLarge`] when there is no memory for them.
    pub(super) fn read(&self, range: Range<usize>) -> Result<Cow<'static, [u8]>, ModelError> {
        let (file, path) = match &self.0 {
            Source::Builtin(bytes) => return Ok(Cow::Borrowed(&bytes[range])),
            Source::Written { pages, .. } => return Ok(Cow::Owned(pages.bytes()[range].to_vec())),
            Source::File { file, path, .. } => (file, path),
        };
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(range.len()).is_err() {
            return Err(ModelError::TooLarge(format!("{} bytes of {}", range.len(), path.display())));
        }
        bytes.resize(range.len(), 0);
        match file.read_exact_at(&mut bytes, range.start as u64) {
            Ok(()) => Ok(Cow::Owned(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(changed(path)),
            Err(source) => Err(ModelError::Io { path: path.clone(), source }),
        }
    }

    /// Refuses a file that was written to since it was opened: what was read of it may be half of each.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] when it has changed, [`ModelError::Io`].
    pub(super) fn check_unchanged(&self) -> Result<(), ModelError> {
        let Source::File { file, path, stamp } = &self.0 else { return Ok(()) };
        let now = file.metadata().map_err(|source| ModelError::Io { path: path.clone(), source })?;
        if Stamp::of(&now) == *stamp { Ok(()) } else { Err(changed(path)) }
    }
}

fn changed(path: &Path) -> ModelError {
    ModelError::Malformed(format!("{} changed while it was being read", path.display()))
}
