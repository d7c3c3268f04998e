//! One large piece of memory for weights or for keys and values, in huge pages where the system gives them.
//!
//! Decoding reads every weight once per token. Over pages of 4 KiB the address translation alone costs a quarter of the
//! memory's bandwidth, so the advice for 2 MiB pages is given before the first byte is touched.

use std::fs;
use std::io;
use std::ptr::NonNull;

/// Size and alignment of a huge page on x86-64 and on 64-bit Arm with 4 KiB pages.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Zeroed memory of a fixed size; untouched parts of it cost nothing.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
    len: usize,
    /// What was asked of the system, to be given back.
    mapped: usize,
}

// SAFETY: an arena owns its memory like a `Box<[u8]>`; the pointer is not shared with anything else.
unsafe impl Send for Arena {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Arena {}

impl Arena {
    /// `len` zero bytes at a multiple of [`HUGE_PAGE_BYTES`].
    ///
    /// # Errors
    /// What the system said when it has no such memory.
    pub fn new(len: usize) -> io::Result<Self> {
        let too_large = || io::Error::new(io::ErrorKind::OutOfMemory, format!("{len} bytes in one piece"));
        let wanted = len.max(1).checked_next_multiple_of(HUGE_PAGE_BYTES).ok_or_else(too_large)?;
        let start = system::map(wanted)?;
        Ok(Self { start, len, mapped: wanted })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` bytes, initialised to zero by the system, for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// All bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` is the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// How many of its bytes stand in huge pages now; `None` where the system does not tell.
    pub fn huge_bytes(&self) -> Option<usize> {
        let text = fs::read_to_string("/proc/self/smaps").ok()?;
        let (start, end) = (self.start.as_ptr().addr(), self.start.as_ptr().addr() + self.mapped);
        let mut inside = false;
        let mut kib = 0;
        for line in text.lines() {
            if let Some(range) = mapping(line) {
                inside = range.0 < end && range.1 > start;
            } else if inside && let Some(rest) = line.strip_prefix("AnonHugePages:") {
                kib += rest.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()?;
            }
        }
        Some((kib << 10).min(self.mapped))
    }
}

/// Whether the system really gives huge pages to whoever asks, found by asking; `None` where it does not tell.
pub fn are_huge_pages_given() -> Option<bool> {
    let mut arena = Arena::new(HUGE_PAGE_BYTES).ok()?;
    arena.bytes_mut()[0] = 1;
    arena.huge_bytes().map(|bytes| bytes > 0)
}

/// The addresses of a mapping's first line in `smaps`: `7f12-7f34 rw-p ...`.
fn mapping(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the memory came from `map` with this size, and nothing refers to it any more.
        unsafe { system::unmap(self.start, self.mapped) };
    }
}

#[cfg(unix)]
mod system {
    use std::io;
    use std::ptr::{self, NonNull};

    use super::HUGE_PAGE_BYTES;

    /// `len` (a multiple of [`HUGE_PAGE_BYTES`]) fresh zero bytes at a multiple of it.
    pub(super) fn map(len: usize) -> io::Result<NonNull<u8>> {
        let Some(padded) = len.checked_add(HUGE_PAGE_BYTES) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the system's choice touches nothing that exists.
        let raw =
            unsafe { libc::mmap(ptr::null_mut(), padded, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if raw == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let raw = raw.cast::<u8>();
        let before = raw.addr().next_multiple_of(HUGE_PAGE_BYTES) - raw.addr();
        // SAFETY: `before` is less than the padding, so the aligned start and both ends lie inside the mapping; the parts
        // given back are page-aligned and never referred to.
        unsafe {
            let start = raw.add(before);
            if before > 0 {
                libc::munmap(raw.cast(), before);
            }
            if before < HUGE_PAGE_BYTES {
                libc::munmap(start.add(len).cast(), HUGE_PAGE_BYTES - before);
            }
            // Only advice: where it is refused the memory is as usable, and slower; `huge_bytes` tells.
            #[cfg(target_os = "linux")]
            libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE);
            Ok(NonNull::new_unchecked(start))
        }
    }

    /// # Safety
    /// `start` and `len` must be those of a [`map`] whose memory nobody refers to.
    pub(super) unsafe fn unmap(start: NonNull<u8>, len: usize) {
        // SAFETY: the caller vouches for the range; failing would only leak it.
        unsafe { libc::munmap(start.as_ptr().cast(), len) };
    }
}

#[cfg(not(unix))]
mod system {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::io;
    use std::ptr::NonNull;

    use super::HUGE_PAGE_BYTES;

    fn layout(len: usize) -> io::Result<Layout> {
        Layout::from_size_align(len, HUGE_PAGE_BYTES).map_err(|_| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn map(len: usize) -> io::Result<NonNull<u8>> {
        // SAFETY: the size is not 0: callers round up to a whole page.
        NonNull::new(unsafe { alloc_zeroed(layout(len)?) }).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// # Safety
    /// `start` and `len` must be those of a [`map`] whose memory nobody refers to.
    pub(super) unsafe fn unmap(start: NonNull<u8>, len: usize) {
        if let Ok(layout) = layout(len) {
            // SAFETY: allocated by `map` with this layout.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }
}
