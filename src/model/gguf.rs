//! Reads the header of a GGUF file (versions 2 and 3, little-endian), or of several that are one model, and hands out
//! metadata and tensor bytes.
//!
//! A model file is untrusted input: every number is checked against the file's length and a named limit before it is
//! used, nothing is allocated by a number that the file states, and tensors are proven to lie inside the file and
//! apart from each other. Whether the metadata describes a model that can run is `config`'s question, so that a file
//! with a vocabulary only opens too.

mod reader;
pub mod split;
mod tensor;
mod value;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::ModelError;
use super::weights::Weights;
use reader::Reader;
pub use tensor::{TensorInfo, TensorType};
use value::Stored;
pub use value::{Array, Strings, Value};

/// Metadata entries; real files have fewer than 100.
pub const MAX_METADATA: usize = 4096;
/// Tensors; 512 layers of a hundred tensors each stay below.
pub const MAX_TENSORS: usize = 65_536;
/// Bytes of a metadata key, the format's own limit being 64 KiB - 1.
pub const MAX_KEY_LEN: usize = 64 << 10;
/// Bytes of a metadata string; the longest in real files are licence texts.
pub const MAX_STRING_LEN: usize = 1 << 20;
/// Bytes of a chat template, which is a program and runs for every message; the longest known has 17 KiB.
pub const MAX_TEMPLATE_LEN: usize = 256 << 10;
/// What one array element may cost whoever turns it into a `String`.
pub const ARRAY_ITEM_BYTES: usize = 24;
/// What all arrays of a file may cost so: vocabularies of 260,000 tokens with merges, scores and types need 25 MB.
pub const ARRAY_BUDGET_BYTES: usize = 256 << 20;
/// Bytes of a tensor's name; the format's own writers stop at 64.
pub const MAX_TENSOR_NAME_LEN: usize = 256;
/// The format's limit on dimensions.
pub const MAX_DIMS: u32 = 4;
/// Alignment of tensor data: the format says a multiple of 8, and its writers use 32.
pub const ALIGNMENT_RANGE: std::ops::RangeInclusive<u64> = 8..=1 << 20;
const DEFAULT_ALIGNMENT: u64 = 32;
/// Bytes of a file that are read first to find its header, which is most often 2 to 16 MiB of vocabulary.
const FIRST_HEADER_READ: usize = 4 << 20;
/// Bytes of a header; all that the limits above allow in useful files stays below.
pub const MAX_HEADER_LEN: usize = 512 << 20;
/// Bytes handed over at once where a whole file is read.
const PIECE_LEN: usize = 4 << 20;
/// How many times more is read when the header turns out to be longer.
const HEADER_READ_GROWTH: usize = 4;

/// A model file with its header read. Clones share the file.
#[derive(Clone, Debug)]
pub struct Gguf(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    /// In the order of their numbers; one for a model in one file.
    parts: Vec<Weights>,
    header: Header,
    /// Of the first part: metadata values point into it.
    header_bytes: Cow<'static, [u8]>,
}

#[derive(Debug)]
struct Header {
    version: u32,
    metadata: Vec<(String, Stored)>,
    metadata_by_key: HashMap<String, usize>,
    tensors: Vec<TensorInfo>,
    tensor_by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Opens the file at `path`, the first where a model has several, and reads its header. The file stays open, and
    /// is read again when a tensor's bytes are asked for.
    ///
    /// # Errors
    /// [`ModelError::Io`] when it cannot be opened, [`ModelError::Malformed`] naming the field, its value and the limit
    /// that it breaks, [`ModelError::Unsupported`] for a format version or tensor type that nothing here reads.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let first = Inner::read(name, Weights::open(path)?)?;
        Ok(Self(Arc::new(split::open_parts(path, first)?)))
    }

    /// Reads a model that is part of the binary.
    ///
    /// # Errors
    /// As [`Gguf::open`], without the I/O.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, ModelError> {
        Ok(Self(Arc::new(Inner::read(name.to_owned(), Weights::builtin(bytes))?)))
    }

    /// Reads a model of `len` bytes that `fill` writes into memory: for measurements, which need no file.
    ///
    /// # Errors
    /// As [`Gguf::open`], and [`ModelError::TooLarge`] when the memory is not there.
    pub fn in_memory(name: &str, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self, ModelError> {
        Ok(Self(Arc::new(Inner::read(name.to_owned(), Weights::written(len, fill)?)?)))
    }

    /// File name, or the name given to the built-in model.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.0.header.version
    }

    /// The value of a metadata key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let header = &self.0.header;
        header.metadata_by_key.get(key).map(|&i| header.metadata[i].1.value(&self.0.header_bytes))
    }

    /// The value where it is text.
    pub fn str(&self, key: &str) -> Option<&str> {
        if let Some(Value::Str(v)) = self.get(key) { Some(v) } else { None }
    }

    /// The value where it is an integer, of any width and sign, that `u64` holds.
    pub fn u64(&self, key: &str) -> Option<u64> {
        Self::integer(self.get(key)?)
    }

    fn integer(value: Value<'_>) -> Option<u64> {
        match value {
            Value::U64(v) => Some(v),
            Value::I64(v) => u64::try_from(v).ok(),
            _ => None,
        }
    }

    /// The value where it is an integer, of any width and sign, that `u32` holds.
    pub fn u32(&self, key: &str) -> Option<u32> {
        u32::try_from(self.u64(key)?).ok()
    }

    /// The value where it is a float.
    pub fn f32(&self, key: &str) -> Option<f32> {
        match self.get(key)? {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// The value where it is a flag.
    pub fn bool(&self, key: &str) -> Option<bool> {
        if let Some(Value::Bool(v)) = self.get(key) { Some(v) } else { None }
    }

    /// The value where it is an array.
    pub fn array(&self, key: &str) -> Option<Array<'_>> {
        if let Some(Value::Array(v)) = self.get(key) { Some(v) } else { None }
    }

    /// The strings of an array of strings, in order, without copies.
    pub fn strings(&self, key: &str) -> Option<Strings<'_>> {
        self.array(key)?.strings()
    }

    /// The elements of an array of integers that `i32` holds.
    pub fn i32s(&self, key: &str) -> Option<Vec<i32>> {
        self.array(key)?.integers()?.into_iter().map(|v| i32::try_from(v).ok()).collect()
    }

    /// The elements of an array of 32-bit floats.
    pub fn f32s(&self, key: &str) -> Option<Vec<f32>> {
        self.array(key)?.f32s()
    }

    /// `general.architecture`, empty where the file names none.
    pub fn architecture(&self) -> &str {
        self.str("general.architecture").unwrap_or_default()
    }

    /// All metadata in the file's order.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let bytes = &self.0.header_bytes;
        self.0.header.metadata.iter().map(move |(key, stored)| (key.as_str(), stored.value(bytes)))
    }

    /// All tensors in the file's order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.0.header.tensors.iter()
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let header = &self.0.header;
        header.tensor_by_name.get(name).map(|&i| &header.tensors[i])
    }

    /// The bytes of one of this model's tensors, read now; those of a model in the binary are borrowed from it.
    ///
    /// # Errors
    /// [`ModelError::Io`], and [`ModelError::Malformed`] when the file has become shorter since it was opened.
    ///
    /// # Panics
    /// When `tensor` comes from another model.
    pub fn tensor_data(&self, tensor: &TensorInfo) -> Result<Cow<'static, [u8]>, ModelError> {
        self.0.parts[tensor.part].read(tensor.range.clone())
    }

    /// Rows of one of this model's tensors, read now into `buffer`.
    ///
    /// # Errors
    /// As [`Self::tensor_data`].
    ///
    /// # Panics
    /// When `tensor` comes from another model, or has not so many rows.
    pub fn tensor_rows<'a>(
        &'a self,
        tensor: &TensorInfo,
        rows: Range<usize>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], ModelError> {
        let row_bytes = tensor.size_bytes() / tensor.n_rows();
        let (start, end) = (rows.start * row_bytes, rows.end * row_bytes);
        assert!(start <= end && end <= tensor.size_bytes(), "rows {rows:?} of {}", tensor.name);
        let range = tensor.range.start + start..tensor.range.start + end;
        self.0.parts[tensor.part].read_into(range, buffer)
    }

    /// Refuses a model whose files were written to since they were opened; asked when its tensors have been read.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] when one has changed, [`ModelError::Io`].
    pub fn check_unchanged(&self) -> Result<(), ModelError> {
        self.0.parts.iter().try_for_each(Weights::check_unchanged)
    }

    /// Hands all bytes of its files to `see`, piece by piece in order: for a checksum or a copy.
    ///
    /// # Errors
    /// As [`Self::tensor_data`].
    pub fn read_through(&self, mut see: impl FnMut(&[u8])) -> Result<(), ModelError> {
        for part in &self.0.parts {
            for start in (0..part.len()).step_by(PIECE_LEN) {
                see(&part.read(start..(start + PIECE_LEN).min(part.len()))?);
            }
        }
        Ok(())
    }

    /// Length of its files together.
    pub fn size_bytes(&self) -> u64 {
        self.0.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// In how many files it lies.
    pub fn n_parts(&self) -> usize {
        self.0.parts.len()
    }
}

impl Inner {
    fn read(name: String, weights: Weights) -> Result<Self, ModelError> {
        let (header, header_bytes) = read_header(&weights)?;
        Ok(Self { name, parts: vec![weights], header, header_bytes })
    }
}

/// Reads as much of a file as its header takes, and the header.
fn read_header(weights: &Weights) -> Result<(Header, Cow<'static, [u8]>), ModelError> {
    let mut n = weights.len().min(FIRST_HEADER_READ);
    loop {
        let mut bytes = weights.read(0..n)?;
        let mut reader = Reader::new(&bytes, weights.len());
        match Header::read(&mut reader, &bytes, weights.len()) {
            Err(_) if reader.wants_more() && n >= MAX_HEADER_LEN => {
                return Err(malformed(format!("the header does not end within {MAX_HEADER_LEN} bytes")));
            }
            Err(_) if reader.wants_more() => n = n.saturating_mul(HEADER_READ_GROWTH).min(weights.len()),
            Err(e) => return Err(e),
            Ok(header) => {
                let end = reader.pos();
                if let Cow::Owned(bytes) = &mut bytes {
                    bytes.truncate(end);
                    bytes.shrink_to_fit();
                }
                return Ok((header, bytes));
            }
        }
    }
}

fn malformed(text: String) -> ModelError {
    ModelError::Malformed(text)
}

/// A name from the file, made fit for one line of an error message.
fn shown(name: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    let mut out: String = name.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// A count that the file states, held against its limit.
fn count(value: u64, what: &str, limit: usize) -> Result<usize, ModelError> {
    usize::try_from(value)
        .ok()
        .filter(|&n| n <= limit)
        .ok_or_else(|| malformed(format!("{what}: {value}, the limit is {limit}")))
}

impl Header {
    /// `bytes` are the beginning of a file of `file_len` bytes.
    fn read(r: &mut Reader<'_>, bytes: &[u8], file_len: usize) -> Result<Self, ModelError> {
        let magic = r.take(4, "magic")?;
        if &bytes[magic.clone()] != b"GGUF" {
            return Err(malformed(format!(
                "magic: {:02x?}, a GGUF file starts with \"GGUF\"",
                &bytes[magic]
            )));
        }
        let version = r.u32("version")?;
        match version {
            2 | 3 => {}
            _ if (1..=3).contains(&version.swap_bytes()) => {
                return Err(ModelError::Unsupported(
                    "a big-endian GGUF file; only little-endian is read".into(),
                ));
            }
            _ => {
                return Err(ModelError::Unsupported(format!("GGUF version {version}; 2 and 3 are read")));
            }
        }
        let n_tensors = count(r.u64("tensor count")?, "tensor count", MAX_TENSORS)?;
        let n_metadata = count(r.u64("metadata count")?, "metadata count", MAX_METADATA)?;
        let mut header = Self {
            version,
            metadata: Vec::new(),
            metadata_by_key: HashMap::new(),
            tensors: Vec::new(),
            tensor_by_name: HashMap::new(),
        };
        header.read_metadata(r, bytes, n_metadata)?;
        header.read_tensors(r, bytes, n_tensors, file_len)?;
        Ok(header)
    }

    fn read_metadata(&mut self, r: &mut Reader<'_>, bytes: &[u8], n: usize) -> Result<(), ModelError> {
        let mut budget = ARRAY_BUDGET_BYTES;
        for i in 0..n {
            let range = r.string(&format!("key of metadata entry {i}"), MAX_KEY_LEN)?;
            let key = String::from_utf8_lossy(&bytes[range]).into_owned();
            if key.is_empty() {
                return Err(malformed(format!("key of metadata entry {i}: empty")));
            }
            let stored = Stored::read(r, &shown(&key), &mut budget)?;
            if self.metadata_by_key.insert(key.clone(), i).is_some() {
                return Err(malformed(format!("{}: the key stands twice", shown(&key))));
            }
            self.metadata.push((key, stored));
        }
        Ok(())
    }

    fn alignment(&self) -> Result<u64, ModelError> {
        const KEY: &str = "general.alignment";
        let Some(&i) = self.metadata_by_key.get(KEY) else { return Ok(DEFAULT_ALIGNMENT) };
        match self.metadata[i].1 {
            Stored::Unsigned(v) if ALIGNMENT_RANGE.contains(&v) && v.is_power_of_two() => Ok(v),
            Stored::Unsigned(v) => Err(malformed(format!(
                "{KEY}: {v}, it must be a power of two from {} to {}",
                ALIGNMENT_RANGE.start(),
                ALIGNMENT_RANGE.end()
            ))),
            _ => Err(malformed(format!("{KEY}: not an unsigned integer"))),
        }
    }

    fn read_tensors(
        &mut self,
        r: &mut Reader<'_>,
        bytes: &[u8],
        n: usize,
        file_len: usize,
    ) -> Result<(), ModelError> {
        let alignment = self.alignment()?;
        for i in 0..n {
            let range = r.string(&format!("name of tensor {i}"), MAX_TENSOR_NAME_LEN)?;
            let name = String::from_utf8_lossy(&bytes[range]).into_owned();
            if name.is_empty() {
                return Err(malformed(format!("name of tensor {i}: empty")));
            }
            let info = read_tensor(r, name, alignment)?;
            if self.tensor_by_name.insert(info.name.clone(), i).is_some() {
                return Err(malformed(format!("tensor {}: the name stands twice", shown(&info.name))));
            }
            self.tensors.push(info);
        }
        let data_start = (r.pos() as u64).next_multiple_of(alignment);
        place_tensors(&mut self.tensors, data_start, file_len)
    }
}

/// Reads one entry of the tensor list; its range is still relative to the start of the tensor data.
fn read_tensor(r: &mut Reader<'_>, name: String, alignment: u64) -> Result<TensorInfo, ModelError> {
    let what = format!("tensor {}", shown(&name));
    let n_dims = r.u32(&what)?;
    if n_dims == 0 || n_dims > MAX_DIMS {
        return Err(malformed(format!("{what}: {n_dims} dimensions, it must be 1 to {MAX_DIMS}")));
    }
    let mut dims = Vec::with_capacity(MAX_DIMS as usize);
    let mut n_elements = 1_usize;
    for axis in 0..n_dims {
        let dim = r.u64(&what)?;
        let dim_usize = usize::try_from(dim).ok().filter(|&d| d > 0);
        let product = dim_usize.and_then(|d| n_elements.checked_mul(d));
        let (Some(d), Some(product)) = (dim_usize, product) else {
            return Err(malformed(format!("{what}: dimension {axis} is {dim}: zero, or the size overflows")));
        };
        dims.push(d);
        n_elements = product;
    }
    let number = r.u32(&what)?;
    let Some(tensor_type) = TensorType::from_number(number) else {
        return Err(ModelError::Unsupported(format!("{what}: tensor type {number} is unknown")));
    };
    let (block_len, block_bytes) = (tensor_type.block_len(), tensor_type.block_bytes());
    if dims[0] % block_len != 0 {
        return Err(malformed(format!(
            "{what}: rows of {} elements, {tensor_type} needs a multiple of {block_len}",
            dims[0]
        )));
    }
    let offset = r.u64(&what)?;
    if !offset.is_multiple_of(alignment) {
        return Err(malformed(format!(
            "{what}: offset {offset} is not a multiple of the alignment {alignment}"
        )));
    }
    let start = usize::try_from(offset).ok();
    let end = (n_elements / block_len).checked_mul(block_bytes).and_then(|size| start?.checked_add(size));
    let (Some(start), Some(end)) = (start, end) else {
        return Err(malformed(format!("{what}: offset {offset} and {n_elements} elements overflow")));
    };
    Ok(TensorInfo { name, dims, tensor_type, part: 0, range: start..end })
}

/// Turns ranges relative to the tensor data into ranges of the file, and proves that they lie in it and apart.
fn place_tensors(tensors: &mut [TensorInfo], data_start: u64, file_len: usize) -> Result<(), ModelError> {
    for tensor in &mut *tensors {
        let in_file = |relative: usize| (relative as u64).checked_add(data_start).map(|at| at as usize);
        match (in_file(tensor.range.start), in_file(tensor.range.end)) {
            (Some(start), Some(end)) if end <= file_len => tensor.range = start..end,
            _ => {
                return Err(malformed(format!(
                    "tensor {}: bytes {}..{} after the header's {data_start}, the file ends at {file_len}",
                    shown(&tensor.name),
                    tensor.range.start,
                    tensor.range.end
                )));
            }
        }
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_unstable_by_key(|tensor| tensor.range.start);
    for pair in order.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            return Err(malformed(format!(
                "tensors {} and {} overlap at byte {}",
                shown(&pair[0].name),
                shown(&pair[1].name),
                pair[1].range.start
            )));
        }
    }
    Ok(())
}
