//! Which model files were tried here already, so that a file that was found good starts without delay.
//!
//! A verdict holds for the bytes it was given for. Hashing them would take as long as trying them, so files are known
//! by what the system says of them: path, device and number, size, and when they were last changed in any way, which no
//! program can set back. Another version of this program tries everything anew.

use std::fs::{self, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::preflight::{Preflight, Tried};
use super::{HubError, ModelFile};
use crate::model::gguf::split::part_paths;

/// The record, in the data directory.
const RECORD_NAME: &str = "tried-models";
/// Lines kept: a model in sixteen files, sixteen times. The newest stay.
const MAX_LINES: usize = 256;
/// A record larger than its lines can be is none.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// A model that is to be tried before anything here trusts it.
#[derive(Clone, Debug)]
pub struct Untried {
    record: PathBuf,
    path: PathBuf,
    /// What its files were when they were looked at; empty when that cannot be written down.
    lines: Vec<String>,
}

impl Untried {
    /// A model, unless it was found good in this data directory, or is the one in the program.
    pub(super) fn of(data_dir: &Path, model: &ModelFile) -> Option<Self> {
        let ModelFile::File(path) = model else { return None };
        let record = data_dir.join(RECORD_NAME);
        let lines = lines_of(path).unwrap_or_default();
        let known = known(&record);
        let is_known = !lines.is_empty() && lines.iter().all(|line| known.contains(line));
        (!is_known).then(|| Self { record, path: path.clone(), lines })
    }

    /// Its size, all files together.
    pub fn bytes(&self) -> u64 {
        part_paths(&self.path).iter().filter_map(|part| fs::metadata(part).ok()).map(|meta| meta.len()).sum()
    }

    /// Tries it in a process of its own.
    ///
    /// # Errors
    /// As [`Preflight::check`].
    pub fn check(&self, preflight: &Preflight) -> Result<Tried, HubError> {
        preflight.check(&self.path)
    }

    /// Writes down that it was found good, where there is a data directory. If that fails it is tried again next time.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn remember(&self) -> Result<(), HubError> {
        let is_dir = self.record.parent().is_some_and(Path::is_dir);
        if self.lines.is_empty() || !is_dir {
            return Ok(());
        }
        let mut lines = known(&self.record);
        lines.retain(|line| !self.lines.contains(line) && is_there(line));
        lines.extend(self.lines.iter().cloned());
        let kept = &lines[lines.len().saturating_sub(MAX_LINES)..];
        let text = kept.join("\n") + "\n";
        // Two processes may write at once: each its own file, and the last one stays whole.
        let new = self.record.with_extension(std::process::id().to_string());
        let written = (|| {
            fs::File::create(&new)?.write_all(text.as_bytes())?;
            fs::rename(&new, &self.record)
        })();
        written.map_err(|e| {
            let _ = fs::remove_file(&new);
            super::at(&self.record, e)
        })
    }
}

/// A line for each file of a model.
fn lines_of(path: &Path) -> io::Result<Vec<String>> {
    let line = |part: &PathBuf| {
        let part = fs::canonicalize(part)?;
        let meta = fs::metadata(&part)?;
        let path = part.to_str().filter(|path| !path.contains('\n'));
        let path = path.ok_or_else(|| io::Error::other("a path that is no line of text"))?;
        Ok(format!("{} {path}", identity(&meta)))
    };
    part_paths(path).iter().map(line).collect()
}

fn identity(meta: &Metadata) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (seconds, nanoseconds) = (meta.ctime(), meta.ctime_nsec());
    format!("{version} {}:{} {} {seconds}.{nanoseconds:09}", meta.dev(), meta.ino(), meta.len())
}

/// Whether the file of a line is still what it was.
fn is_there(line: &str) -> bool {
    let path = line.splitn(5, ' ').nth(4).unwrap_or_default();
    fs::metadata(path).is_ok_and(|meta| line.starts_with(&identity(&meta)))
}

fn known(record: &Path) -> Vec<String> {
    let is_record = fs::metadata(record).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_RECORD_BYTES);
    let text = if is_record { fs::read_to_string(record).unwrap_or_default() } else { String::new() };
    text.lines().map(str::to_owned).collect()
}
