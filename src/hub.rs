//! Model files: which there are in the data directory, fetching one, taking one in, checking one, removing one.
//!
//! Operator's commands; nothing here can be reached over HTTP but the choice among the models that an operator put into
//! the folder. A model's name is looked up in a listing of the folder and never joined into a path, so no name leads out
//! of it. A new file is tried in a process of its own (`preflight`) before it is taken in, and one that is used where it
//! lies before a server or a conversation loads it; what was found good is remembered (`tried`).

pub mod catalog;
mod checksum;
#[cfg(feature = "hub")]
mod download;
mod folder;
pub mod preflight;
#[cfg(feature = "hub")]
mod progress;
#[cfg(feature = "hub")]
pub mod pull;
#[cfg(feature = "hub")]
mod repository;
mod tried;

use std::io;
use std::path::{Path, PathBuf};

pub use folder::{Entry, Models, Verified};
pub use tried::Untried;

use crate::model::ModelError;
use crate::model::config::ModelConfig;
use crate::model::gguf::Gguf;

/// The model in the binary, so that the first start needs no network and no file.
pub const BUILTIN: &[u8] = include_bytes!("../models/mommy.gguf");
/// What the model in the binary is called.
pub const BUILTIN_NAME: &str = "builtin";

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
    /// The process that tried a new file did not end well: the file is not to be trusted (exit 3).
    #[error("{name}: refused, because {what} while it was being tried")]
    Broke {
        /// Which.
        name: String,
        /// What happened to that process.
        what: String,
    },
    /// Fetching failed; what has come so far stays for the next try.
    #[error("{what}: {problem}")]
    Pull {
        /// A repository, file or address.
        what: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// What came is not what the hub says it is (exit 3).
    #[error(
        "{name}: what came has SHA-256 {found}, the hub says {stated}; it is removed, so `mommygpt pull` starts again"
    )]
    Damaged {
        /// Which.
        name: String,
        /// Of what came.
        found: String,
        /// As the hub says.
        stated: String,
    },
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

fn at(path: &Path, source: io::Error) -> HubError {
    HubError::Io { path: path.to_owned(), source }
}
