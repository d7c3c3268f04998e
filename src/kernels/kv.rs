//! Keys and values of past positions, in pages of 32.
//!
//! A page holds, for every layer and KV head, a key slab and a value slab. Keys stand transposed, `(head_dim, 32)`, values
//! as they come, `(32, head_dim)`; see [`super::attention`]. As 16-bit floats a slab is just that; as bytes 32 scales
//! (binary16, one per position) follow the codes. As 16-bit integers pairs stand side by side; see [`super::words`].

use std::{fmt, io};

use super::arena::Arena;
use super::attention::PAGE_LEN;
use super::blocks::f16_to_f32;
use super::dispatch::Kernels;
use super::halves::f32_to_f16;
use super::words::{self, write_words};

/// How keys and values of past positions are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KvType {
    /// 16-bit fixed point with a scale per head and position: as exact as floats of 16 bits, and faster; see [`super::words`].
    #[default]
    I16,
    /// 16-bit floats.
    F16,
    /// Bytes with one scale per head and position: half the memory.
    Q8,
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I16 => "i16",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        })
    }
}

/// Heads of an attention layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heads {
    /// Query heads, a multiple of `n_head_kv`.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Width of one; even.
    pub head_dim: usize,
}

impl Heads {
    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.n_head / self.n_head_kv
    }

    /// Columns of a row of queries, keys and values side by side.
    pub fn qkv_width(&self) -> usize {
        (self.n_head + 2 * self.n_head_kv) * self.head_dim
    }
}

/// Which meaning the bytes of a page have; another one whenever that changes, because pages may be kept on disk.
pub const PAGE_MEANING: u32 = 1;

/// What a page looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageLayout {
    /// Layers.
    pub n_layer: usize,
    /// Heads of every layer.
    pub heads: Heads,
    /// How numbers are kept.
    pub kv: KvType,
}

impl PageLayout {
    /// Bytes of the keys, or of the values, of one head.
    pub fn slab_bytes(&self) -> usize {
        let n = PAGE_LEN * self.heads.head_dim;
        match self.kv {
            KvType::I16 => 2 * n + 4 * PAGE_LEN,
            KvType::F16 => 2 * n,
            KvType::Q8 => n + 2 * PAGE_LEN,
        }
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        2 * self.n_layer * self.heads.n_head_kv * self.slab_bytes()
    }

    /// Where the key slab stands; the value slab follows it.
    pub(super) fn slab_at(&self, page: u32, layer: usize, head: usize) -> usize {
        assert!(layer < self.n_layer && head < self.heads.n_head_kv);
        page as usize * self.page_bytes() + 2 * (layer * self.heads.n_head_kv + head) * self.slab_bytes()
    }
}

/// The memory of all pages. Which page belongs to whom is the caller's business.
#[derive(Debug)]
pub struct Pages {
    pub(super) layout: PageLayout,
    pub(super) arena: Arena,
    count: usize,
}

impl Pages {
    /// Address space for `n_pages`; each takes memory when it is first written.
    ///
    /// # Errors
    /// What the system said when it has no such memory.
    pub fn new(layout: PageLayout, n_pages: usize) -> io::Result<Self> {
        let bytes = n_pages.checked_mul(layout.page_bytes()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { layout, arena: Arena::new(bytes)?, count: n_pages })
    }

    /// What a page looks like.
    pub fn layout(&self) -> &PageLayout {
        &self.layout
    }

    /// How many there are.
    pub fn n_pages(&self) -> usize {
        self.count
    }

    /// The bytes of a page.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn page(&self, page: u32) -> &[u8] {
        let bytes = self.layout.page_bytes();
        &self.arena.bytes()[page as usize * bytes..(page as usize + 1) * bytes]
    }

    /// The bytes of a page, to be written as [`Pages::page`] gave them.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn page_mut(&mut self, page: u32) -> &mut [u8] {
        let bytes = self.layout.page_bytes();
        &mut self.arena.bytes_mut()[page as usize * bytes..(page as usize + 1) * bytes]
    }

    /// Makes page `to` equal to page `from`.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn copy(&mut self, from: u32, to: u32) {
        let bytes = self.layout.page_bytes();
        let start = from as usize * bytes;
        self.arena.bytes_mut().copy_within(start..start + bytes, to as usize * bytes);
    }
}

/// Widest head that is kept as 16-bit integers: what a position's codes are gathered in.
pub const WORDS_HEAD_DIM_MAX: usize = 512;

/// Numbers of a key that are narrowed before they are spread over their lines.
const NARROWED: usize = 128;

/// Writes one position's key and value into slot `slot` of their slabs; `bytes` is both slabs.
pub(super) fn write_position(
    kv: KvType,
    kernels: &Kernels,
    key: &[f32],
    value: &[f32],
    slot: usize,
    bytes: &mut [u8],
) {
    let head_dim = key.len();
    let (keys, values) = bytes.split_at_mut(bytes.len() / 2);
    match kv {
        KvType::I16 => {
            let mut codes = [[0i16; WORDS_HEAD_DIM_MAX]; 2];
            let mut scales = [[0.0f32]; 2];
            let [key_codes, value_codes] = codes.each_mut().map(|codes| &mut codes[..head_dim]);
            kernels.words(key, head_dim, words::LENGTH, key_codes, &mut scales[0]);
            kernels.words(value, head_dim, f32::INFINITY, value_codes, &mut scales[1]);
            write_words([key_codes, value_codes], scales.map(|[scale]| scale), slot, [keys, values]);
        }
        KvType::F16 => {
            let mut halves = [0u8; 2 * NARROWED];
            for (lines, k) in keys.chunks_mut(2 * PAGE_LEN * NARROWED).zip(key.chunks(NARROWED)) {
                kernels.narrow(k, &mut halves[..2 * k.len()]);
                for (line, half) in
                    lines.as_chunks_mut::<{ 2 * PAGE_LEN }>().0.iter_mut().zip(halves.as_chunks::<2>().0)
                {
                    line[2 * slot..2 * slot + 2].copy_from_slice(half);
                }
            }
            kernels.narrow(value, &mut values[2 * slot * head_dim..2 * (slot + 1) * head_dim]);
        }
        KvType::Q8 => {
            let n = PAGE_LEN * head_dim;
            let (codes, scales) = keys.split_at_mut(n);
            let inverse = set_scale(key, slot, scales);
            for (line, k) in codes.chunks_exact_mut(PAGE_LEN).zip(key) {
                line[slot] = code(*k, inverse);
            }
            let (codes, scales) = values.split_at_mut(n);
            let inverse = set_scale(value, slot, scales);
            for (out, v) in codes[slot * head_dim..(slot + 1) * head_dim].iter_mut().zip(value) {
                *out = code(*v, inverse);
            }
        }
    }
}

fn code(x: f32, inverse: f32) -> u8 {
    // Saturates where the scale was rounded down.
    ((x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8).cast_unsigned()
}

/// Writes the scale of slot `slot` and returns its inverse, 0 for a vector of zeros.
fn set_scale(x: &[f32], slot: usize, scales: &mut [u8]) -> f32 {
    let largest = x.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    let half = f32_to_f16(largest / 127.0);
    scales[2 * slot..2 * slot + 2].copy_from_slice(&half.to_le_bytes());
    let scale = f16_to_f32(half);
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

/// Both slabs of a head as f32.
pub(super) fn widen_slabs(kv: KvType, kernels: &Kernels, bytes: &[u8], keys: &mut [f32], values: &mut [f32]) {
    let (key_bytes, value_bytes) = bytes.split_at(bytes.len() / 2);
    match kv {
        KvType::I16 => unreachable!("integers are not widened"),
        KvType::F16 => {
            kernels.widen(key_bytes, keys);
            kernels.widen(value_bytes, values);
        }
        KvType::Q8 => {
            let scales = |bytes: &[u8]| -> [f32; PAGE_LEN] {
                let at = &bytes[keys.len()..];
                std::array::from_fn(|j| f16_to_f32(u16::from_le_bytes([at[2 * j], at[2 * j + 1]])))
            };
            let (key_scales, value_scales) = (scales(key_bytes), scales(value_bytes));
            kernels.widen_keys_q8(&key_bytes[..keys.len()], &key_scales, keys);
            kernels.widen_values_q8(&value_bytes[..values.len()], &value_scales, values);
        }
    }
}
