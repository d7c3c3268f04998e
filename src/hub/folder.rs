//! The folder of models in the data directory.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::checksum::{self, Hasher};
use super::preflight::{Preflight, Tried};
use super::tried::Untried;
use super::{BUILTIN, BUILTIN_NAME, HubError, ModelFile, at};
use crate::model::gguf::split::{PartName, part_paths};

/// Of the model in the binary; its card says the same.
const BUILTIN_SHA256: &str = "cea93fe38489cd63c5cc8cf5674f27606f468792bb27c03d5ab826089705e174";
/// Longest model name in bytes: what every file system takes, with room for the suffixes.
const MAX_NAME_BYTES: usize = 200;
const EXTENSION: &str = "gguf";

/// A model in the data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its file name; that of the first where it has several.
    pub name: String,
    /// Where that file lies.
    pub path: PathBuf,
    /// Its size, all files together.
    pub bytes: u64,
    /// When it was taken in.
    pub added: SystemTime,
}

/// What a check of one file of a model found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The file, or `builtin`.
    pub file: String,
    /// SHA-256 in hex.
    pub sha256: String,
    /// Whether it was compared with one recorded earlier.
    pub was_recorded: bool,
}

/// The folder of models in a data directory.
#[derive(Clone, Debug)]
pub struct Models {
    data_dir: PathBuf,
    dir: PathBuf,
}

impl Models {
    /// Of this data directory; the folder may not exist yet.
    pub fn of(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), dir: data_dir.join("models") }
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
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
            let is_later_part = PartName::parse(&name).is_some_and(|part| part.number > 1);
            if !meta.is_file() || !is_model_name(&name) || is_later_part {
                continue;
            }
            let parts = part_paths(&path);
            let bytes = parts.iter().filter_map(|part| fs::metadata(part).ok()).map(|meta| meta.len()).sum();
            // A hard link keeps its file's old time; the checksum beside it is as new as the import.
            let added = fs::metadata(checksum::record_of(&path)).and_then(|m| m.modified());
            let added = added.or_else(|_| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Entry { name, path, bytes, added });
        }
        found.sort_by(|a, b| b.added.cmp(&a.added).then_with(|| a.name.cmp(&b.name)));
        Ok(found)
    }

    /// The model of this name, with or without `.gguf`.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<Entry>, HubError> {
        let with_extension = format!("{name}.{EXTENSION}");
        Ok(self.list()?.into_iter().find(|entry| entry.name == name || entry.name == with_extension))
    }

    /// The model of this folder, or the built-in one, that somebody named who may not name paths.
    ///
    /// # Errors
    /// [`HubError::NotFound`].
    pub fn named(&self, name: &str) -> Result<ModelFile, HubError> {
        if name == BUILTIN_NAME {
            return Ok(ModelFile::Builtin);
        }
        let entry = self.find(name)?.ok_or_else(|| HubError::NotFound(name.to_owned()))?;
        Ok(ModelFile::File(entry.path))
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
        match self.named(asked) {
            Err(HubError::NotFound(_)) if Path::new(asked).exists() => {
                Ok(ModelFile::File(PathBuf::from(asked)))
            }
            other => other,
        }
    }

    /// The model, where it is still to be tried before it is loaded beside anything of value; `None` for the one in the
    /// program and for what was found good here.
    pub fn untried(&self, model: &ModelFile) -> Option<Untried> {
        Untried::of(&self.data_dir, model)
    }

    /// Takes down that what was tried elsewhere works here too; where that fails, it is tried again when it is used.
    pub(super) fn remember(&self, entry: &Entry, tried: &Tried) {
        if *tried == Tried::Works
            && let Some(untried) = self.untried(&ModelFile::File(entry.path.clone()))
            && let Err(e) = untried.remember()
        {
            tracing::warn!("{e}; the model is tried again when it is used");
        }
    }

    /// Takes a file in, and those that belong to it: by hard links where the disk is the same, else by copies. It is
    /// tried first, so that what lies in the folder can be used.
    ///
    /// # Errors
    /// A file that is no usable model, or a name that is taken; nothing is left behind then.
    pub fn import(&self, file: &Path, preflight: &Preflight) -> Result<(Entry, Tried), HubError> {
        let names = self.names_for(file)?;
        let tried = preflight.check(file)?;
        fs::create_dir_all(&self.dir).map_err(|e| at(&self.dir, e))?;
        let mut placed = Vec::new();
        let placing = (|| {
            // The first part last: with it the model appears in the list.
            for (part, name) in part_paths(file).iter().zip(&names).rev() {
                let target = self.dir.join(name);
                placed.push(target.clone());
                place(part, &target, name)?;
                checksum::write_record(&target, &checksum::of_file(&target)?)?;
            }
            Ok(())
        })();
        if let Err(e) = placing {
            if !matches!(e, HubError::Exists(_)) {
                for target in &placed {
                    forget(target);
                }
            }
            return Err(e);
        }
        let name = &names[0];
        let entry = self.find(name)?.ok_or_else(|| HubError::NotFound(name.clone()))?;
        self.remember(&entry, &tried);
        Ok((entry, tried))
    }

    /// What the files of a model to be taken in will be called here.
    fn names_for(&self, file: &Path) -> Result<Vec<String>, HubError> {
        let mut names = Vec::new();
        for part in part_paths(file) {
            let file_name = part.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let name = match file_name.rsplit_once('.') {
                Some((stem, extension)) if extension.eq_ignore_ascii_case(EXTENSION) => {
                    format!("{stem}.{EXTENSION}")
                }
                _ => format!("{file_name}.{EXTENSION}"),
            };
            if !is_model_name(&name) || name == format!("{BUILTIN_NAME}.{EXTENSION}") {
                return Err(HubError::BadName(name));
            }
            names.push(name);
        }
        match self.find(&names[0])? {
            Some(entry) => Err(HubError::Exists(entry.name)),
            None => Ok(names),
        }
    }

    /// Reads a model whole and compares every file of it with the checksum recorded when it was taken in.
    ///
    /// # Errors
    /// [`HubError::Changed`] and [`HubError::Model`].
    pub fn verify(&self, model: &ModelFile) -> Result<Vec<Verified>, HubError> {
        model.open()?;
        let checked = |file: String, sha256: String, recorded: Option<String>| match recorded {
            Some(recorded) if recorded != sha256 => {
                Err(HubError::Changed { name: file, found: sha256, recorded })
            }
            recorded => Ok(Verified { file, sha256, was_recorded: recorded.is_some() }),
        };
        match model {
            ModelFile::Builtin => {
                let mut hash = Hasher::default();
                hash.update(BUILTIN);
                let recorded = Some(BUILTIN_SHA256.to_owned());
                Ok(vec![checked(BUILTIN_NAME.to_owned(), hash.finish(), recorded)?])
            }
            ModelFile::File(path) => part_paths(path)
                .iter()
                .map(|part| {
                    let sha256 = checksum::of_file(part)?;
                    checked(part.display().to_string(), sha256, checksum::recorded(part)?)
                })
                .collect(),
        }
    }

    /// Removes a model of this folder and its checksums.
    ///
    /// # Errors
    /// [`HubError::NotFound`]; a path is never followed.
    pub fn remove(&self, name: &str) -> Result<Entry, HubError> {
        let entry = self.find(name)?.ok_or_else(|| HubError::NotFound(name.to_owned()))?;
        for (i, part) in part_paths(&entry.path).iter().enumerate() {
            for path in [part.clone(), checksum::record_of(part)] {
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound || (i == 0 && path == *part) => {
                        return Err(at(&path, e));
                    }
                    _ => {}
                }
            }
        }
        Ok(entry)
    }
}

pub(super) fn is_model_name(name: &str) -> bool {
    let stem = name.strip_suffix(".gguf").unwrap_or_default();
    !stem.is_empty()
        && !stem.starts_with(['.', '-'])
        && name.len() <= MAX_NAME_BYTES
        && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\')
}

/// Takes back what a failed import has placed.
fn forget(target: &Path) {
    let _ = fs::remove_file(target);
    let _ = fs::remove_file(checksum::record_of(target));
}

fn place(from: &Path, target: &Path, name: &str) -> Result<(), HubError> {
    let from = fs::canonicalize(from).map_err(|e| at(from, e))?;
    match fs::hard_link(&from, target) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(HubError::Exists(name.to_owned())),
        Err(_) => copy_whole(&from, target),
    }
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
