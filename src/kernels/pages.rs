//! Memory in pages of a chosen size, never of a file.

#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::MmapMut;

/// Page sizes that can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageSize {
    /// The system's base pages: 4 KB on most machines.
    Base,
    /// Transparent huge pages, 2 MB on most machines; the system may refuse without a word.
    Huge,
}

impl PageSize {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Base, Self::Huge];

    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "4K",
            Self::Huge => "2M",
        }
    }
}

/// Zeroed memory of its own mapping, untouched: whoever writes a page first has it near.
#[derive(Debug)]
pub struct Pages(MmapMut);

impl Pages {
    /// Asks for at least `n_words` words of 8 bytes.
    ///
    /// # Errors
    /// When the system has not so much.
    pub fn new(n_words: usize, size: PageSize) -> std::io::Result<Self> {
        let map = MmapMut::map_anon(n_words.max(1) * size_of::<u64>())?;
        #[cfg(target_os = "linux")]
        {
            let advice = match size {
                PageSize::Base => Advice::NoHugePage,
                PageSize::Huge => Advice::HugePage,
            };
            // Kernels without it have base pages only, which the report then shows.
            let _ = map.advise(advice);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = size;
        Ok(Self(map))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The words, to be written.
    pub fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: every bit pattern is a u64; a mapping begins on a page, so that nothing is left out at the start.
        let (_, words, _) = unsafe { self.0.align_to_mut::<u64>() };
        words
    }

    /// The words.
    pub fn words(&self) -> &[u64] {
        // SAFETY: as above.
        let (_, words, _) = unsafe { self.0.align_to::<u64>() };
        words
    }
}
