//! Copies of the whole store while it runs, and bringing one back.
//!
//! redb has no hot copy of its file, so a backup reads one snapshot and writes a new database beside the target, which
//! gets its name only after it was verified. The words in it stay encrypted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, StorageBackend,
    TableHandle as _,
};

use super::check::check_snapshot;
use super::disk::DiskFile;
use super::open::{self, FILE_NAME};
use super::tables::{Def, Snapshot, TABLE_NAMES};
use super::{Store, StoreError};
use crate::domain::Timestamp;

pub use super::check::{CheckReport, check};

/// Rows copied between two commits of a backup: bounds the memory it takes.
const ROWS_PER_COMMIT: usize = 20_000;
/// Under this name `meta` of a backup says how many rows it holds.
pub(super) const MANIFEST: &[u8] = b"backup rows";

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// The finished file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Rows copied.
    pub n_rows: u64,
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// Where the database that was there before lies now.
    pub kept: Option<PathBuf>,
    /// Rows brought back.
    pub n_rows: u64,
}

impl Store {
    /// Writes a snapshot of everything to `to`, while others go on writing. The file appears only when it is whole and
    /// verified; a file already there is refused.
    pub fn backup(&self, to: &Path) -> Result<BackupReport, StoreError> {
        if fs::symlink_metadata(to).is_ok() {
            return Err(StoreError::Io(format!("{} exists already; choose another name", to.display())));
        }
        let making = beside(to, "partial")?;
        let snapshot = self.snapshot()?;
        let done = write_copy(&snapshot, &making).and_then(|n_rows| {
            drop(snapshot);
            verify(&making)?;
            fs::rename(&making, to).map_err(|e| open::at(to, &e))?;
            open::sync_dir(folder(to))?;
            let bytes = fs::metadata(to).map_err(|e| open::at(to, &e))?.len();
            Ok(BackupReport { path: to.to_owned(), bytes, n_rows })
        });
        if done.is_err() {
            // Nothing that looks like a backup stays behind; that it may already be gone is fine.
            let _ = fs::remove_file(&making);
        }
        done
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A passing name in the same folder, so that the rename stays on one disk.
fn beside(path: &Path, suffix: &str) -> Result<PathBuf, StoreError> {
    let name =
        path.file_name().ok_or_else(|| StoreError::Io(format!("{} is not a file name", path.display())))?;
    let mut name = name.to_owned();
    name.push(format!(".{suffix}"));
    let making = path.with_file_name(name);
    match fs::remove_file(&making) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(open::at(&making, &e)),
        _ => Ok(making),
    }
}

/// Copies every table into a new file and makes it durable; returns the number of rows.
fn write_copy(from: &Snapshot, to: &Path) -> Result<u64, StoreError> {
    let known = |name: &str| TABLE_NAMES.contains(&name);
    if let Some(table) = from.txn.list_tables()?.find(|t| !known(t.name())) {
        return Err(StoreError::Unhealthy(format!(
            "the table {} is unknown, so the copy would lack it",
            table.name()
        )));
    }
    let disk = Arc::new(DiskFile::create_new(to).map_err(|e| open::at(to, &e))?);
    let db = open::create_redb(&(Arc::clone(&disk) as Arc<dyn StorageBackend>))?;
    let mut n_rows = 0;
    for &name in TABLE_NAMES {
        let rows = from.txn.open_table(Def::new(name))?;
        let mut rows = rows.iter()?.peekable();
        loop {
            let mut txn = db.begin_write()?;
            // Only the last commit has to last: until then the file has no name that counts.
            txn.set_durability(Durability::None).map_err(|e| StoreError::Unhealthy(e.to_string()))?;
            {
                let mut copy = txn.open_table(Def::new(name))?;
                for row in rows.by_ref().take(ROWS_PER_COMMIT) {
                    let (key, value) = row?;
                    // What the journal holds was acknowledged after the snapshot was asked for.
                    if (name == "meta" && key.value() == MANIFEST) || name == "arrivals" {
                        continue;
                    }
                    copy.insert(key.value(), value.value())?;
                    n_rows += 1;
                }
            }
            txn.commit()?;
            if rows.peek().is_none() {
                break;
            }
        }
    }
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate).map_err(|e| StoreError::Unhealthy(e.to_string()))?;
    txn.set_two_phase_commit(true);
    txn.open_table(Def::new("meta"))?.insert(MANIFEST, u64::to_le_bytes(n_rows).as_slice())?;
    txn.commit()?;
    db.close()?;
    disk.sync_data().map_err(|e| open::at(to, &e))?;
    Ok(n_rows)
}

/// Reads a backup as a restore would, without changing it: every page, every row, every index, and its own count.
fn verify(path: &Path) -> Result<u64, StoreError> {
    let file: Arc<dyn StorageBackend> =
        Arc::new(DiskFile::open_read_only(path).map_err(|e| open::at(path, &e))?);
    let handle = open::open_trial(&file, true)?;
    let snapshot = Snapshot { txn: handle.db.begin_read()? };
    let report = check_snapshot(&snapshot)?;
    if let Some(problem) = report.problems.first() {
        return Err(StoreError::Corrupt(problem.clone()));
    }
    let mut n_rows = 0;
    for &name in TABLE_NAMES {
        n_rows += snapshot.txn.open_table(Def::new(name))?.len()?;
    }
    let manifest = snapshot.meta()?.get(MANIFEST)?.map(|v| v.value().to_vec());
    let n_told = manifest.map(|v| v.try_into().map_or(0, u64::from_le_bytes));
    // A database file that was copied by hand has no count; a backup's does not count itself.
    if n_told.is_some_and(|told| told.checked_add(1) != Some(n_rows)) {
        return Err(StoreError::Corrupt("it holds another number of rows than it says".into()));
    }
    drop(snapshot);
    handle.trial.cut();
    Ok(n_rows)
}

/// Puts the backup `from` in the place of the database in `dir`. A damaged or newer backup is refused before anything
/// is touched; the old database is kept beside it; every session and API key of the backup is void.
pub fn restore(dir: &Path, from: &Path) -> Result<RestoreReport, StoreError> {
    let _lock = open::lock_dir(dir)?;
    verify(from).map_err(|e| match e {
        StoreError::Corrupt(why) => StoreError::Corrupt(format!("{}: {why}", from.display())),
        other => other,
    })?;
    let live = dir.join(FILE_NAME);
    let making = beside(&live, "restoring")?;
    let copied = copy(from, &making).and_then(|()| verify(&making));
    let n_rows = copied.inspect_err(|_| {
        let _ = fs::remove_file(&making);
    })?;
    let kept = keep_old(&live)?;
    // First the new number, then the old database under it: a crash between them signs people out, never in.
    open::new_epoch(dir)?;
    fs::rename(&making, &live).map_err(|e| open::at(&live, &e))?;
    open::sync_dir(dir)?;
    Ok(RestoreReport { kept, n_rows })
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut source = fs::File::open(from).map_err(|e| open::at(from, &e))?;
    let target = DiskFile::create_new(to).map_err(|e| open::at(to, &e))?;
    std::io::copy(&mut source, &mut target.as_file()).map_err(|e| open::at(to, &e))?;
    target.sync_data().map_err(|e| open::at(to, &e))
}

/// Gives the live file a second name, so that there is no moment without a database; a copy where the disk knows no
/// links.
fn keep_old(live: &Path) -> Result<Option<PathBuf>, StoreError> {
    if fs::symlink_metadata(live).is_err() {
        return Ok(None);
    }
    let stamp = Timestamp::now().to_string().replace(':', "-");
    let kept = live.with_file_name(format!("mommygpt.redb.before-restore-{stamp}"));
    fs::hard_link(live, &kept)
        .or_else(|_| fs::copy(live, &kept).map(drop))
        .map_err(|e| open::at(&kept, &e))?;
    Ok(Some(kept))
}
