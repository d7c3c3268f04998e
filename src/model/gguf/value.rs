//! Metadata values. They point into the file: a vocabulary of 150,000 tokens costs nothing until it is walked.

use std::fmt;
use std::ops::Range;

use super::super::ModelError;
use super::reader::Reader;
use super::{ARRAY_BUDGET_BYTES, ARRAY_ITEM_BYTES, MAX_STRING_LEN, MAX_TEMPLATE_LEN, malformed};

/// One metadata value, borrowed from the file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// Any of the format's unsigned integers.
    U64(u64),
    /// Any of the format's signed integers.
    I64(i64),
    /// A 32-bit float.
    F32(f32),
    /// A 64-bit float.
    F64(f64),
    /// A flag.
    Bool(bool),
    /// Text.
    Str(&'a str),
    /// A list of values of one scalar type.
    Array(Array<'a>),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U64(v) => v.fmt(f),
            Self::I64(v) => v.fmt(f),
            Self::F32(v) => v.fmt(f),
            Self::F64(v) => v.fmt(f),
            Self::Bool(v) => v.fmt(f),
            Self::Str(v) => v.fmt(f),
            Self::Array(v) => write!(f, "[{} x {}]", v.len(), v.kind.name()),
        }
    }
}

/// The format's scalar types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Str,
    U64,
    I64,
    F64,
}

/// The number of the array type, which may stand only at the top level.
const ARRAY: u32 = 9;

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Str,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "string",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// Bytes of one element; `None` for strings, which carry their length.
    fn width(self) -> Option<usize> {
        Some(match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Str => return None,
        })
    }
}

/// A value as the parsed header keeps it: small, and pointing into the file by offset.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(Range<usize>),
    Array { kind: Kind, len: usize, range: Range<usize> },
}

impl Stored {
    /// Reads the value of `key`; `budget` counts down what all arrays of the file may hold.
    pub(super) fn read(r: &mut Reader<'_>, key: &str, budget: &mut usize) -> Result<Self, ModelError> {
        let number = r.u32(key)?;
        if number == ARRAY {
            return Self::read_array(r, key, budget);
        }
        let Some(kind) = Kind::from_number(number) else {
            return Err(malformed(format!("{key}: value type {number} does not exist")));
        };
        let limit =
            if key.starts_with("tokenizer.chat_template") { MAX_TEMPLATE_LEN } else { MAX_STRING_LEN };
        Ok(match kind {
            Kind::U8 => Self::Unsigned(r.u8(key)?.into()),
            Kind::U16 => Self::Unsigned(r.u16(key)?.into()),
            Kind::U32 => Self::Unsigned(r.u32(key)?.into()),
            Kind::U64 => Self::Unsigned(r.u64(key)?),
            Kind::I8 => Self::Signed(r.i8(key)?.into()),
            Kind::I16 => Self::Signed(r.i16(key)?.into()),
            Kind::I32 => Self::Signed(r.i32(key)?.into()),
            Kind::I64 => Self::Signed(r.i64(key)?),
            Kind::F32 => Self::F32(r.f32(key)?),
            Kind::F64 => Self::F64(r.f64(key)?),
            Kind::Bool => match r.u8(key)? {
                0 => Self::Bool(false),
                1 => Self::Bool(true),
                other => return Err(malformed(format!("{key}: a bool must be 0 or 1, it is {other}"))),
            },
            Kind::Str => Self::Str(r.string(key, limit)?),
        })
    }

    fn read_array(r: &mut Reader<'_>, key: &str, budget: &mut usize) -> Result<Self, ModelError> {
        let number = r.u32(key)?;
        let Some(kind) = Kind::from_number(number) else {
            return Err(malformed(format!(
                "{key}: array of value type {number}, which cannot stand in an array"
            )));
        };
        let len = r.u64(key)?;
        if len > (*budget / ARRAY_ITEM_BYTES) as u64 {
            return Err(malformed(format!(
                "{key}: {len} elements x {ARRAY_ITEM_BYTES} bytes pass what is left of the {ARRAY_BUDGET_BYTES} bytes \
                 that all arrays may need"
            )));
        }
        let len = len as usize;
        *budget -= len * ARRAY_ITEM_BYTES;
        let range = if let Some(width) = kind.width() {
            r.take((len * width) as u64, key)?
        } else {
            let start = r.pos();
            for _ in 0..len {
                r.string(key, MAX_STRING_LEN)?;
            }
            start..r.pos()
        };
        Ok(Self::Array { kind, len, range })
    }

    pub(super) fn value<'a>(&self, bytes: &'a [u8]) -> Value<'a> {
        match self {
            Self::Unsigned(v) => Value::U64(*v),
            Self::Signed(v) => Value::I64(*v),
            Self::F32(v) => Value::F32(*v),
            Self::F64(v) => Value::F64(*v),
            Self::Bool(v) => Value::Bool(*v),
            Self::Str(range) => Value::Str(text(&bytes[range.clone()])),
            Self::Array { kind, len, range } => {
                Value::Array(Array { kind: *kind, len: *len, bytes: &bytes[range.clone()] })
            }
        }
    }
}

/// Reading the header has checked that these bytes are UTF-8.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A list of values of one scalar type, still in the file's bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Array<'a> {
    kind: Kind,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its strings, where it is an array of strings.
    pub fn strings(&self) -> Option<Strings<'a>> {
        (self.kind == Kind::Str).then_some(Strings { rest: self.bytes, left: self.len })
    }

    /// Its integers, where every element is one that `i64` holds.
    pub fn integers(&self) -> Option<Vec<i64>> {
        self.scalars()?
            .map(|value| match value {
                Value::U64(v) => i64::try_from(v).ok(),
                Value::I64(v) => Some(v),
                _ => None,
            })
            .collect()
    }

    /// Its floats, where it is an array of 32-bit floats.
    pub fn f32s(&self) -> Option<Vec<f32>> {
        self.scalars()?.map(|value| if let Value::F32(v) = value { Some(v) } else { None }).collect()
    }

    /// Its flags, where it is an array of flags.
    pub fn bools(&self) -> Option<Vec<bool>> {
        self.scalars()?.map(|value| if let Value::Bool(v) = value { Some(v) } else { None }).collect()
    }

    fn scalars(&self) -> Option<impl Iterator<Item = Value<'a>>> {
        let kind = self.kind;
        Some(self.bytes.chunks_exact(kind.width()?).map(move |bytes| scalar(kind, bytes)))
    }
}

fn scalar(kind: Kind, bytes: &[u8]) -> Value<'static> {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(wide);
    match kind {
        Kind::I8 => Value::I64((bits as u8).cast_signed().into()),
        Kind::I16 => Value::I64((bits as u16).cast_signed().into()),
        Kind::I32 => Value::I64((bits as u32).cast_signed().into()),
        Kind::I64 => Value::I64(bits.cast_signed()),
        Kind::F32 => Value::F32(f32::from_bits(bits as u32)),
        Kind::F64 => Value::F64(f64::from_bits(bits)),
        Kind::Bool => Value::Bool(bits != 0),
        Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 | Kind::Str => Value::U64(bits),
    }
}

/// Walks an array of strings without copying them.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        let (len, rest) = self.rest.split_first_chunk::<8>()?;
        let (string, rest) = rest.split_at_checked(u64::from_le_bytes(*len) as usize)?;
        self.rest = rest;
        Some(text(string))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}
