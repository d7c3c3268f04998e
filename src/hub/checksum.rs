//! SHA-256 of files, and the record of it that lies beside a model in the form of `sha256sum`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{HubError, at};

/// Read at once: large enough that the system call costs nothing.
const BUFFER_BYTES: usize = 1 << 20;

/// Hashes bytes as they come.
#[derive(Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// In hex.
    pub(super) fn finish(self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.0.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }

    /// Hashes what a file holds from where it stands to its end.
    pub(super) fn read(&mut self, file: &mut File) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                n => self.update(&buffer[..n]),
            }
        }
    }
}

/// SHA-256 of a file in hex.
pub(super) fn of_file(path: &Path) -> Result<String, HubError> {
    let mut hash = Hasher::default();
    File::open(path).and_then(|mut file| hash.read(&mut file)).map_err(|e| at(path, e))?;
    Ok(hash.finish())
}

/// Where a model's checksum lies.
pub(super) fn record_of(model: &Path) -> PathBuf {
    let mut name = model.as_os_str().to_owned();
    name.push(".sha256");
    PathBuf::from(name)
}

pub(super) fn write_record(model: &Path, sha256: &str) -> Result<(), HubError> {
    let record = record_of(model);
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    fs::write(&record, format!("{sha256}  {name}\n")).map_err(|e| at(&record, e))
}

/// What was recorded, if anything was.
pub(super) fn recorded(model: &Path) -> Result<Option<String>, HubError> {
    let record = record_of(model);
    match fs::read_to_string(&record) {
        Ok(text) => Ok(text.split_whitespace().next().map(str::to_owned)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(&record, e)),
    }
}
