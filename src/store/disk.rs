//! The file under the database: a trial before anything is written to it, and a reserve for when the disk is full.
//!
//! redb may write while it opens (it repairs after a crash). So it opens on a [`Trial`], which keeps those writes in
//! memory until the database was found good, and then replays them in their order, with their syncs. A file that is
//! refused was never touched, and a full disk can still be read.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// Unit of the writes held back during a trial.
const PAGE: u64 = 4096;
/// Room kept for the writes in hand when the disk fills up: the pages of one batch of ordinary messages (64 writers
/// touch about 6 pages each), with as much again for deleting.
const RESERVE_BYTES: u64 = 4 << 20;
/// What must be left of the reserve for a delete to be tried.
const RESERVE_FOR_DELETES: u64 = RESERVE_BYTES / 2;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this error means that there is no room, rather than that the disk is broken.
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A file of blocks that are really taken, given back to the disk when it is full, so that a write already begun can
/// end well; the next one is then refused before it begins.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: Mutex<u64>,
}

impl Reserve {
    pub(super) fn at(path: PathBuf) -> Self {
        let held = std::fs::metadata(&path).map_or(0, |m| m.len());
        Self { path, held: Mutex::new(held.min(RESERVE_BYTES)) }
    }
    /// Makes sure of the whole reserve; for a delete, what is left of it may do.
    pub(super) fn ensure(&self, for_delete: bool) -> io::Result<()> {
        let mut held = lock(&self.held);
        if *held == RESERVE_BYTES {
            return Ok(());
        }
        match self.fill(*held) {
            Ok(()) => {
                *held = RESERVE_BYTES;
                Ok(())
            }
            Err(e) => {
                let _ = OpenOptions::new().write(true).open(&self.path).and_then(|f| f.set_len(*held));
                if for_delete && is_full(&e) && *held >= RESERVE_FOR_DELETES { Ok(()) } else { Err(e) }
            }
        }
    }
    fn fill(&self, from: u64) -> io::Result<()> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        // Noise, because a disk that compresses would keep zeros in no room at all.
        let mut noise = vec![0; PAGE as usize * 16];
        getrandom::fill(&mut noise).map_err(io::Error::other)?;
        let mut at = from;
        while at < RESERVE_BYTES {
            let n = (RESERVE_BYTES - at).min(noise.len() as u64);
            file.write_all_at(&noise[..n as usize], at)?;
            at += n;
        }
        file.sync_data()
    }
    /// Gives half of the reserve back, then the rest; false when there is none.
    fn release(&self) -> bool {
        let mut held = lock(&self.held);
        let left = if *held > RESERVE_FOR_DELETES { RESERVE_FOR_DELETES } else { 0 };
        if *held == 0 {
            return false;
        }
        *held = left;
        OpenOptions::new().write(true).open(&self.path).and_then(|f| f.set_len(left)).is_ok()
    }
}

/// The database file on a real disk.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: File,
    reserve: Option<Arc<Reserve>>,
}

impl DiskFile {
    /// An existing file, for reading and writing.
    pub(super) fn open(path: &Path, reserve: Option<Arc<Reserve>>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { file, reserve })
    }
    /// An existing file that must not change; writing to it fails.
    pub(super) fn open_read_only(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, reserve: None })
    }
    /// A new file that only its owner reads.
    pub(super) fn create_new(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, reserve: None })
    }
    /// For copying into it.
    pub(super) fn as_file(&self) -> &File {
        &self.file
    }
    fn with_reserve(&self, mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        loop {
            match write() {
                Err(e) if is_full(&e) && self.reserve.as_ref().is_some_and(|r| r.release()) => {}
                other => return other,
            }
        }
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_reserve(|| self.file.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        // Never tried again: after a failed sync nobody knows what reached the disk.
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with_reserve(|| self.file.write_all_at(data, offset))
    }
}

const HELD_BACK: u8 = 0;
const LIVE: u8 = 1;
const CUT: u8 = 2;

/// Stands between redb and the file. Begins holding writes back; [`Trial::settle`] lets them through.
#[derive(Debug)]
pub(super) struct Trial {
    file: Arc<dyn StorageBackend>,
    mode: AtomicU8,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    log: Vec<Op>,
    pages: HashMap<u64, Vec<u8>>,
    len: u64,
    /// How much of the file still counts; beyond it, unwritten bytes read as zero.
    n_valid: u64,
}

#[derive(Debug)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

impl Trial {
    pub(super) fn of(file: Arc<dyn StorageBackend>) -> io::Result<Arc<Self>> {
        let len = file.len()?;
        let held = Held { len, n_valid: len, ..Held::default() };
        Ok(Arc::new(Self { file, mode: AtomicU8::new(HELD_BACK), held: Mutex::new(held) }))
    }
    pub(super) fn is_settled(&self) -> bool {
        self.mode.load(Ordering::Acquire) == LIVE
    }
    /// Writes what was held back, in order, and lets everything through from now on. On an error the file is as a
    /// crash would have left it, and this handle is dead.
    pub(super) fn settle(&self) -> io::Result<()> {
        let mut held = lock(&self.held);
        if self.mode.load(Ordering::Acquire) != HELD_BACK {
            return self.through();
        }
        for op in std::mem::take(&mut held.log) {
            let done = match op {
                Op::Write(offset, data) => self.file.write(offset, &data),
                Op::SetLen(len) => self.file.set_len(len),
                Op::Sync => self.file.sync_data(),
            };
            if let Err(e) = done {
                self.mode.store(CUT, Ordering::Release);
                return Err(e);
            }
        }
        *held = Held::default();
        self.mode.store(LIVE, Ordering::Release);
        Ok(())
    }
    /// From now on nothing passes: the handle above is given up, and must not reach a file that another handle has.
    pub(super) fn cut(&self) {
        let mut held = lock(&self.held);
        *held = Held::default();
        self.mode.store(CUT, Ordering::Release);
    }
    fn through(&self) -> io::Result<()> {
        if self.is_settled() { Ok(()) } else { Err(io::Error::other("this database handle was given up")) }
    }
    /// The held-back state, or `None` once writes go through.
    fn holding(&self) -> io::Result<Option<MutexGuard<'_, Held>>> {
        if self.mode.load(Ordering::Acquire) != HELD_BACK {
            return self.through().map(|()| None);
        }
        let held = lock(&self.held);
        if self.mode.load(Ordering::Acquire) == HELD_BACK {
            Ok(Some(held))
        } else {
            self.through().map(|()| None)
        }
    }
}

impl Held {
    fn page(&self, idx: u64, file: &dyn StorageBackend) -> io::Result<Vec<u8>> {
        if let Some(page) = self.pages.get(&idx) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE as usize];
        let n = self.n_valid.saturating_sub(idx * PAGE).min(PAGE);
        if n > 0 {
            file.read(idx * PAGE, &mut page[..n as usize])?;
        }
        Ok(page)
    }
    /// Calls `f` with each touched page's index, the range within it, and the range within the data.
    fn pages_of(
        offset: u64,
        len: usize,
        mut f: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let n = (PAGE as usize - within).min(len - done);
            f(at / PAGE, within..within + n, done..done + n)?;
            done += n;
        }
        Ok(())
    }
}

/// What redb is given; the store keeps the [`Trial`] itself.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<Trial>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        match self.0.holding()? {
            Some(held) => Ok(held.len),
            None => self.0.file.len(),
        }
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let Some(held) = self.0.holding()? else {
            return self.0.file.read(offset, out);
        };
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > held.len) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        if held.pages.is_empty() && held.n_valid >= offset + out.len() as u64 {
            return self.0.file.read(offset, out);
        }
        Held::pages_of(offset, out.len(), |idx, within, data| {
            out[data].copy_from_slice(&held.page(idx, &*self.0.file)?[within]);
            Ok(())
        })
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let Some(mut held) = self.0.holding()? else {
            return self.0.file.set_len(len);
        };
        held.log.push(Op::SetLen(len));
        if len < held.len {
            held.n_valid = held.n_valid.min(len);
            held.pages.retain(|idx, _| idx * PAGE < len);
            if let Some(page) = held.pages.get_mut(&(len / PAGE)) {
                page[(len % PAGE) as usize..].fill(0);
            }
        }
        held.len = len;
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        let Some(mut held) = self.0.holding()? else {
            return self.0.file.sync_data();
        };
        held.log.push(Op::Sync);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(mut held) = self.0.holding()? else {
            return self.0.file.write(offset, data);
        };
        held.log.push(Op::Write(offset, data.to_vec()));
        held.len = held.len.max(offset + data.len() as u64);
        Held::pages_of(offset, data.len(), |idx, within, part| {
            let mut page = held.page(idx, &*self.0.file)?;
            page[within].copy_from_slice(&data[part]);
            held.pages.insert(idx, page);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    fn contents(b: &impl StorageBackend) -> Vec<u8> {
        let mut all = vec![0; b.len().unwrap() as usize];
        b.read(0, &mut all).unwrap();
        all
    }

    proptest! {
        /// A trial reads as the file would after the same writes, leaves the file alone, and then makes it so.
        #[test]
        fn a_trial_reads_as_if_written_and_writes_nothing_until_settled(
            ops in prop::collection::vec((0u8..4, 0u64..40_000, 1usize..9_000, any::<u8>()), 1..30),
            start in 0u64..20_000,
        ) {
            let (plain, under) = (InMemoryBackend::new(), Arc::new(InMemoryBackend::new()));
            for b in [&plain, &*under] {
                b.set_len(start).unwrap();
                b.write(0, &vec![7; start as usize]).unwrap();
            }
            let before = contents(&*under);
            let trial = Trial::of(Arc::clone(&under) as Arc<dyn StorageBackend>).unwrap();
            let held = Backend(Arc::clone(&trial));
            for (kind, offset, n, byte) in ops {
                if kind == 0 {
                    plain.set_len(offset).unwrap();
                    held.set_len(offset).unwrap();
                } else if offset + n as u64 <= plain.len().unwrap() {
                    plain.write(offset, &vec![byte; n]).unwrap();
                    held.write(offset, &vec![byte; n]).unwrap();
                }
                prop_assert_eq!(contents(&plain), contents(&held));
            }
            prop_assert_eq!(&before, &contents(&*under));
            trial.settle().unwrap();
            prop_assert_eq!(contents(&plain), contents(&*under));
            trial.cut();
            prop_assert!(held.write(0, &[1]).is_err());
        }
    }
}
