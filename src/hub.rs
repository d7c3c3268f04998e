//! Model files: which there are in the data directory, taking one in, checking one, removing one.
//!
//! Operator's commands only; nothing here can be reached over HTTP. A model's name is looked up in a listing of the
//! folder and never joined into a path, so no name leads out of it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use crate::model::ModelError;
use crate::model::config::ModelConfig;
use crate::model::gguf::Gguf;

/// The model in the binary, so that the first start needs no network and no file.
pub const BUILTIN: &[u8] = include_bytes!("../models/mommy-v0-q8_0.gguf");
/// What the model in the binary is called.
pub const BUILTIN_NAME: &str = "builtin";
/// Of the model in the binary; its card says the same.
const BUILTIN_SHA256: &str = "76459e100397768f1601994f942a289043eb2636a4d74f4619d62d3e288a7209";
/// Longest model name in bytes: what every file system takes, with room for the suffixes.
const MAX_NAME_BYTES: usize = 200;
const EXTENSION: &str = "gguf";

/// Why a model command failed. The text names the model and what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The file is no usable model (exit 3).
    #[error("{name}: {source}")]
    Model {
        /// Which.
        name: String,
        /// What is wrong with it.
        source: ModelError,
    },
    /// The file is not what it was when it was taken in (exit 3).
    #[error("{name}: its SHA-256 is {found}, but was {recorded} when it was imported; import it again")]
    Changed {
        /// Which.
        name: String,
        /// As it is.
        found: String,
        /// As it was.
        recorded: String,
    },
    /// No such model.
    #[error("{0}: no such model; `mommygpt list` shows what there is, and a path or `builtin` works too")]
    NotFound(String),
    /// There is a model of that name.
    #[error("{0}: there is a model of that name; remove it first with `mommygpt rm {0}`")]
    Exists(String),
    /// A name that no model may have.
    #[error("{0:?}: a model's name must be a plain file name ending in .gguf")]
    BadName(String),
    /// Reading or writing failed.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A model somebody named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModelFile {
    /// The one in the binary.
    Builtin,
    /// A file.
    File(PathBuf),
}

impl ModelFile {
    /// Opens it and reads its header.
    ///
    /// # Errors
    /// [`HubError::Model`].
    pub fn open(&self) -> Result<Gguf, HubError> {
        let opened = match self {
            Self::Builtin => Gguf::from_static(BUILTIN_NAME, BUILTIN),
            Self::File(path) => Gguf::open(path),
        };
        opened.map_err(|source| match source {
            ModelError::Io { path, source } => HubError::Io { path, source },
            source => HubError::Model { name: self.to_string(), source },
        })
    }

    /// Opens it and checks that its shape and architecture run here.
    ///
    /// # Errors
    /// [`HubError::Model`]; for an unknown architecture it names those that run.
    pub fn open_runnable(&self) -> Result<Gguf, HubError> {
        let gguf = self.open()?;
        match ModelConfig::from_gguf(&gguf, None) {
            Ok(_) => Ok(gguf),
            Err(source) => Err(HubError::Model { name: self.to_string(), source }),
        }
    }
}

impl std::fmt::Display for ModelFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Builtin => f.write_str(BUILTIN_NAME),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A model in the data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its file name.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was taken in.
    pub added: SystemTime,
}

/// What a check of a model found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// SHA-256 in hex.
    pub sha256: String,
    /// Whether it was compared with one recorded earlier.
    pub was_recorded: bool,
}

/// The folder of models in a data directory.
#[derive(Clone, Debug)]
pub struct Models {
    dir: PathBuf,
}

impl Models {
    /// Of this data directory; the folder may not exist yet.
    pub fn of(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("models") }
    }

    /// What there is, newest first.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, HubError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| at(&self.dir, e))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| at(&self.dir, e))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            // Follows links, so that a model may lie on another disk.
            let Ok(meta) = fs::metadata(&path) else { continue };
            if !meta.is_file() || !is_model_name(&name) {
                continue;
            }
            // A hard link keeps its file's old time; the checksum beside it is as new as the import.
            let added = fs::metadata(sidecar(&path)).and_then(|m| m.modified()).or_else(|_| meta.modified());
            let added = added.unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Entry { name, path, bytes: meta.len(), added });
        }
        found.sort_by(|a, b| b.added.cmp(&a.added).then_with(|| a.name.cmp(&b.name)));
        Ok(found)
    }

    /// The model of this name, with or without `.gguf`.
    fn find(&self, name: &str) -> Result<Option<Entry>, HubError> {
        let with_extension = format!("{name}.{EXTENSION}");
        Ok(self.list()?.into_iter().find(|entry| entry.name == name || entry.name == with_extension))
    }

    /// What `-m` names; without it the newest model here, else the one in the binary.
    ///
    /// # Errors
    /// [`HubError::NotFound`] when it is no name here and no file.
    pub fn resolve(&self, asked: Option<&str>) -> Result<ModelFile, HubError> {
        let Some(asked) = asked else {
            let newest = self.list()?.into_iter().next();
            return Ok(newest.map_or(ModelFile::Builtin, |entry| ModelFile::File(entry.path)));
        };
        if asked == BUILTIN_NAME {
            return Ok(ModelFile::Builtin);
        }
        if let Some(entry) = self.find(asked)? {
            return Ok(ModelFile::File(entry.path));
        }
        if Path::new(asked).exists() {
            return Ok(ModelFile::File(PathBuf::from(asked)));
        }
        Err(HubError::NotFound(asked.to_owned()))
    }

    /// Takes a file in: by a hard link where the disk is the same, else by a copy. It is opened first, so that what
    /// lies in the folder can be used.
    ///
    /// # Errors
    /// A file that is no usable model, or a name that is taken; nothing is left behind then.
    pub fn import(&self, file: &Path) -> Result<Entry, HubError> {
        let source = ModelFile::File(file.to_owned());
        source.open_runnable()?;
        let file_name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let name = match file_name.rsplit_once('.') {
            Some((stem, extension)) if extension.eq_ignore_ascii_case(EXTENSION) => {
                format!("{stem}.{EXTENSION}")
            }
            _ => format!("{file_name}.{EXTENSION}"),
        };
        if !is_model_name(&name) || name == format!("{BUILTIN_NAME}.{EXTENSION}") {
            return Err(HubError::BadName(name));
        }
        if self.find(&name)?.is_some() {
            return Err(HubError::Exists(name));
        }
        fs::create_dir_all(&self.dir).map_err(|e| at(&self.dir, e))?;
        let target = self.dir.join(&name);
        let file = fs::canonicalize(file).map_err(|e| at(file, e))?;
        if let Err(e) = fs::hard_link(&file, &target) {
            if e.kind() == io::ErrorKind::AlreadyExists {
                return Err(HubError::Exists(name));
            }
            copy_whole(&file, &target)?;
        }
        let sha256 = sha256_of(&ModelFile::File(target.clone()))?;
        let record = sidecar(&target);
        fs::write(&record, format!("{sha256}  {name}\n")).map_err(|e| at(&record, e))?;
        self.find(&name)?.ok_or(HubError::NotFound(name))
    }

    /// Reads a model whole and compares it with the checksum recorded at its import.
    ///
    /// # Errors
    /// [`HubError::Changed`] and [`HubError::Model`].
    pub fn verify(&self, model: &ModelFile) -> Result<Verified, HubError> {
        model.open()?;
        let found = sha256_of(model)?;
        let recorded = match model {
            ModelFile::Builtin => Some(BUILTIN_SHA256.to_owned()),
            ModelFile::File(path) => recorded_sha256(path)?,
        };
        match recorded {
            Some(recorded) if recorded != found => {
                Err(HubError::Changed { name: model.to_string(), found, recorded })
            }
            recorded => Ok(Verified { sha256: found, was_recorded: recorded.is_some() }),
        }
    }

    /// Removes a model of this folder and its checksum.
    ///
    /// # Errors
    /// [`HubError::NotFound`]; a path is never followed.
    pub fn remove(&self, name: &str) -> Result<Entry, HubError> {
        let entry = self.find(name)?.ok_or_else(|| HubError::NotFound(name.to_owned()))?;
        fs::remove_file(&entry.path).map_err(|e| at(&entry.path, e))?;
        let record = sidecar(&entry.path);
        match fs::remove_file(&record) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(&record, e)),
            _ => Ok(entry),
        }
    }
}

fn at(path: &Path, source: io::Error) -> HubError {
    HubError::Io { path: path.to_owned(), source }
}

fn is_model_name(name: &str) -> bool {
    let stem = name.strip_suffix(".gguf").unwrap_or_default();
    !stem.is_empty()
        && !stem.starts_with(['.', '-'])
        && name.len() <= MAX_NAME_BYTES
        && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\')
}

/// Where a model's checksum lies, in the form of `sha256sum`.
fn sidecar(model: &Path) -> PathBuf {
    let mut name = model.as_os_str().to_owned();
    name.push(".sha256");
    PathBuf::from(name)
}

fn recorded_sha256(model: &Path) -> Result<Option<String>, HubError> {
    let record = sidecar(model);
    match fs::read_to_string(&record) {
        Ok(text) => Ok(text.split_whitespace().next().map(str::to_owned)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(&record, e)),
    }
}

fn sha256_of(model: &ModelFile) -> Result<String, HubError> {
    let mut hash = Sha256::new();
    match model {
        ModelFile::Builtin => hash.update(BUILTIN),
        ModelFile::File(path) => {
            let mut file = File::open(path).map_err(|e| at(path, e))?;
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer).map_err(|e| at(path, e))? {
                    0 => break,
                    n => hash.update(&buffer[..n]),
                }
            }
        }
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

/// Copies so that the target appears only when it is whole and on the disk.
fn copy_whole(from: &Path, to: &Path) -> Result<(), HubError> {
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let copied = (|| {
        let mut target = File::create(&part)?;
        io::copy(&mut File::open(from)?, &mut target)?;
        target.flush()?;
        target.sync_all()?;
        fs::rename(&part, to)
    })();
    copied.map_err(|e| {
        let _ = fs::remove_file(&part);
        at(to, e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builtin_path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mommy-v0-q8_0.gguf")
    }

    #[test]
    fn a_model_is_taken_in_found_by_name_checked_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let models = Models::of(dir.path());
        assert_eq!(models.resolve(None).unwrap(), ModelFile::Builtin);
        let entry = models.import(&builtin_path()).unwrap();
        assert_eq!(entry.name, "mommy-v0-q8_0.gguf");
        assert_eq!(models.resolve(None).unwrap(), ModelFile::File(entry.path.clone()));
        for name in ["mommy-v0-q8_0", "mommy-v0-q8_0.gguf"] {
            assert_eq!(models.resolve(Some(name)).unwrap(), ModelFile::File(entry.path.clone()));
        }
        assert!(matches!(models.import(&builtin_path()), Err(HubError::Exists(_))));
        let file = models.resolve(None).unwrap();
        assert_eq!(models.verify(&file).unwrap(), models.verify(&ModelFile::Builtin).unwrap());
        fs::write(sidecar(&entry.path), "00  x\n").unwrap();
        assert!(matches!(models.verify(&file), Err(HubError::Changed { .. })));
        models.remove("mommy-v0-q8_0").unwrap();
        assert!(fs::read_dir(dir.path().join("models")).unwrap().next().is_none());
        assert!(builtin_path().exists());
    }

    #[test]
    fn what_is_no_model_is_refused_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let models = Models::of(dir.path());
        let mut bytes = BUILTIN[..5000].to_vec();
        let broken = dir.path().join("broken.gguf");
        fs::write(&broken, &bytes).unwrap();
        assert!(matches!(models.import(&broken), Err(HubError::Model { .. })));
        bytes[0] = b'X';
        fs::write(&broken, &bytes).unwrap();
        assert!(matches!(models.import(&broken), Err(HubError::Model { .. })));
        assert!(matches!(models.import(&dir.path().join("none.gguf")), Err(HubError::Io { .. })));
        assert!(models.list().unwrap().is_empty());
    }

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let models = Models::of(dir.path());
        fs::create_dir(dir.path().join("models")).unwrap();
        fs::write(dir.path().join("outside.gguf"), "kept").unwrap();
        for name in ["../outside.gguf", "../outside", "/etc/passwd", "..", "", "models/../../outside.gguf"] {
            assert!(matches!(models.remove(name), Err(HubError::NotFound(_))), "{name}");
        }
        assert!(dir.path().join("outside.gguf").exists());
    }
}
