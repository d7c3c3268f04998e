//! A cursor over untrusted little-endian bytes: every read names what it was after, and none goes past the end.

use std::ops::Range;

use super::super::ModelError;

/// Where we are in a GGUF header.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
    file_len: usize,
    wants_more: bool,
}

macro_rules! read_number {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&mut self, what: &str) -> Result<$type, ModelError> {
            self.array(what).map(<$type>::from_le_bytes)
        }
    };
}

impl<'a> Reader<'a> {
    /// `bytes` are the beginning of a file of `file_len` bytes.
    pub(super) fn new(bytes: &'a [u8], file_len: usize) -> Self {
        Self { bytes, pos: 0, file_len, wants_more: false }
    }

    /// Whether the last error came from bytes that the file has and this reader was not given.
    pub(super) fn wants_more(&self) -> bool {
        self.wants_more
    }

    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    /// Takes `len` bytes and returns where they lie.
    pub(super) fn take(&mut self, len: u64, what: &str) -> Result<Range<usize>, ModelError> {
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| self.pos.checked_add(len))
            .filter(|&end| end <= self.file_len);
        self.wants_more = end.is_some_and(|end| end > self.bytes.len());
        let Some(end) = end.filter(|&end| end <= self.bytes.len()) else {
            return Err(ModelError::Malformed(format!(
                "{what}: {len} bytes wanted at offset {}, the file ends at {}",
                self.pos, self.file_len
            )));
        };
        let range = self.pos..end;
        self.pos = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ModelError> {
        let range = self.take(N as u64, what)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[range]);
        Ok(out)
    }

    read_number!(u8, u8);
    read_number!(i8, i8);
    read_number!(u16, u16);
    read_number!(i16, i16);
    read_number!(u32, u32);
    read_number!(i32, i32);
    read_number!(u64, u64);
    read_number!(i64, i64);
    read_number!(f32, f32);
    read_number!(f64, f64);

    /// A length-prefixed UTF-8 string of at most `limit` bytes.
    pub(super) fn string(&mut self, what: &str, limit: usize) -> Result<Range<usize>, ModelError> {
        let len = self.u64(what)?;
        if len > limit as u64 {
            return Err(ModelError::Malformed(format!("{what}: {len} bytes long, the limit is {limit}")));
        }
        let range = self.take(len, what)?;
        if std::str::from_utf8(&self.bytes[range.clone()]).is_err() {
            return Err(ModelError::Malformed(format!("{what}: not valid UTF-8")));
        }
        Ok(range)
    }
}
