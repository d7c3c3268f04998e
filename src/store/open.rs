//! Opening and making the database file, and the number that a restore changes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use redb::{Builder, Database, DatabaseError, Durability, ReadableDatabase as _, StorageBackend};

use super::StoreError;
use super::arrivals;
use super::disk::{Backend, DiskFile, Trial, is_full};
use super::tables::{Snapshot, Tables};
use super::writer::Handle;

/// The schema this program writes, and the newest it reads. 2 has the journal of arrivals, which a program that knows
/// only 1 would leave unread.
pub(super) const SCHEMA: u32 = 2;
/// Pages kept in memory: a family's working set, and small beside the model.
const CACHE_BYTES: usize = 16 << 20;
/// Files up to this size are verified page by page at every start (at more than 1 GB/s); larger ones only after a
/// crash, or by `mommygpt check`.
const VERIFY_BYTES_MAX: u64 = 64 << 20;
/// The database's file name in the data directory.
pub(super) const FILE_NAME: &str = "mommygpt.redb";

impl From<io::Error> for StoreError {
    fn from(e: io::Error) -> Self {
        if is_full(&e) { Self::DiskFull } else { Self::Unhealthy(e.to_string()) }
    }
}
impl From<redb::StorageError> for StoreError {
    fn from(e: redb::StorageError) -> Self {
        match e {
            redb::StorageError::Io(e) => e.into(),
            other => Self::Unhealthy(other.to_string()),
        }
    }
}
macro_rules! wrapped {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for StoreError {
            fn from(e: redb::$error) -> Self {
                match e {
                    redb::$error::Storage(e) => e.into(),
                    other => Self::Unhealthy(other.to_string()),
                }
            }
        })+
    };
}
wrapped!(TableError, TransactionError, CommitError, DatabaseError);

/// An error that names the path it happened at.
pub(super) fn at(path: &Path, e: &io::Error) -> StoreError {
    if is_full(e) { StoreError::DiskFull } else { StoreError::Io(format!("{}: {e}", path.display())) }
}

/// Locks the data directory for this process; the lock goes with the file, even by `kill -9`.
pub(super) fn lock_dir(dir: &Path) -> Result<File, StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| at(dir, &e))?;
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| at(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(fs::TryLockError::Error(e)) => Err(at(&path, &e)),
    }
}

/// Makes a rename or a new name in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| at(dir, &e))
}

/// Makes an empty database under a passing name, and gives it its own only when it is whole: a file of that name is
/// therefore never a half-made one.
pub(super) fn create(dir: &Path) -> Result<PathBuf, StoreError> {
    let (path, making) = (dir.join(FILE_NAME), dir.join("mommygpt.redb.new"));
    match fs::remove_file(&making) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(&making, &e)),
        _ => {}
    }
    let file: Arc<dyn StorageBackend> = Arc::new(DiskFile::create_new(&making).map_err(|e| at(&making, &e))?);
    create_on(&file)?;
    file.sync_data().map_err(|e| at(&making, &e))?;
    fs::rename(&making, &path).map_err(|e| at(&path, &e))?;
    sync_dir(dir)?;
    Ok(path)
}

/// Makes an empty database in an empty file.
pub(super) fn create_on(file: &Arc<dyn StorageBackend>) -> Result<(), StoreError> {
    let db = create_redb(file)?;
    write(&db, |t| {
        t.meta.insert(b"schema".as_slice(), SCHEMA.to_le_bytes().as_slice())?;
        Ok(())
    })?;
    Ok(db.close()?)
}

/// One durable transaction over all tables.
fn write(
    db: &Database,
    op: impl FnOnce(&mut Tables<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate).map_err(|e| StoreError::Unhealthy(e.to_string()))?;
    txn.set_two_phase_commit(true);
    op(&mut Tables::open(&txn)?)?;
    Ok(txn.commit()?)
}

/// A redb database without tables in an empty file, written to at once.
pub(super) fn create_redb(file: &Arc<dyn StorageBackend>) -> Result<Database, StoreError> {
    let trial = Trial::of(Arc::clone(file))?;
    trial.settle()?;
    Ok(builder().create_with_backend(Backend(trial))?)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens a database without writing to its file: what redb would write waits in the handle's trial. `verify` reads
/// every page even of a large file.
pub(super) fn open_trial(file: &Arc<dyn StorageBackend>, verify: bool) -> Result<Handle, StoreError> {
    let len = file.len()?;
    if len == 0 {
        return Err(StoreError::Corrupt("the file is empty".into()));
    }
    let trial = Trial::of(Arc::clone(file))?;
    let backend = Backend(Arc::clone(&trial));
    // redb promises no panic when it verifies, and makes no promise when it does not.
    catch_unwind(AssertUnwindSafe(|| {
        let db = builder()
            .set_check_integrity_on_open(verify || len <= VERIFY_BYTES_MAX)
            .create_with_backend(backend)
            .map_err(|e| not_opened(&e))?;
        let found = schema(&Snapshot { txn: db.begin_read()? })?;
        if found < SCHEMA {
            write(&db, |t| {
                t.meta.insert(b"schema".as_slice(), SCHEMA.to_le_bytes().as_slice())?;
                Ok(())
            })?;
        }
        let left = arrivals::journal(&Snapshot { txn: db.begin_read()? })?;
        if !left.is_empty() {
            write(&db, |t| left.move_all(t))?;
        }
        Ok(Handle { db, trial: Arc::clone(&trial), pending: RwLock::default() })
    }))
    .unwrap_or_else(|_| Err(StoreError::Corrupt("its pages contradict each other".into())))
    .inspect_err(|_| trial.cut())
}

fn not_opened(e: &DatabaseError) -> StoreError {
    match e {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::InUse,
        DatabaseError::UpgradeRequired(v) => StoreError::Corrupt(format!("its file format {v} is too old")),
        DatabaseError::Storage(redb::StorageError::Io(e)) if is_full(e) => StoreError::DiskFull,
        DatabaseError::Storage(redb::StorageError::Io(e))
            if !matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Unhealthy(e.to_string())
        }
        other => StoreError::Corrupt(other.to_string()),
    }
}

/// The schema of a database that this program can read.
fn schema(snapshot: &Snapshot) -> Result<u32, StoreError> {
    let not_ours = || StoreError::Corrupt("it is not a database of this program".into());
    let meta = snapshot.meta().map_err(|_| not_ours())?;
    let row = meta.get(b"schema".as_slice())?.ok_or_else(not_ours)?;
    let found = u32::from_le_bytes(row.value().try_into().map_err(|_| not_ours())?);
    match found {
        0 => Err(not_ours()),
        1..=SCHEMA => Ok(found),
        found => Err(StoreError::Newer { found, known: SCHEMA }),
    }
}

/// The number of this life of the data directory. Sessions and keys carry it; a restore draws another, kept outside
/// the database, so that what a backup brings back opens nothing.
pub(super) fn epoch(dir: &Path) -> Result<u64, StoreError> {
    let path = dir.join("epoch");
    let known = fs::read_to_string(&path).ok().and_then(|s| u64::from_str_radix(s.trim(), 16).ok());
    match known {
        Some(epoch) => Ok(epoch),
        // Missing or unreadable: somebody copied the database file alone, which is a restore too.
        None => new_epoch(dir),
    }
}

/// Draws the next number.
pub(super) fn new_epoch(dir: &Path) -> Result<u64, StoreError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::Io(format!("no random bytes: {e}")))?;
    let epoch = u64::from_le_bytes(bytes);
    let (path, making) = (dir.join("epoch"), dir.join("epoch.new"));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&making)?;
        writeln!(file, "{epoch:016x}")?;
        file.sync_all()?;
        fs::rename(&making, &path)
    };
    write().map_err(|e| at(&path, &e))?;
    sync_dir(dir)?;
    Ok(epoch)
}
