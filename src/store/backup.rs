//! Copies of the whole store while it runs, bringing one back, and checking that everything fits together.

use std::path::{Path, PathBuf};

use super::{Store, StoreError};

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

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Accounts.
    pub n_users: u64,
    /// Chats.
    pub n_chats: u64,
    /// Messages.
    pub n_messages: u64,
    /// Memories.
    pub n_memories: u64,
    /// Live and expired sessions.
    pub n_sessions: u64,
    /// API keys.
    pub n_api_keys: u64,
    /// What does not fit together, one sentence each; empty = all is well.
    pub problems: Vec<String>,
}

impl Store {
    /// Writes a snapshot of everything to `to`, while others go on writing. The file appears only when it is whole and
    /// verified; a file already there is refused.
    pub fn backup(&self, _to: &Path) -> Result<BackupReport, StoreError> {
        todo!()
    }
    /// Verifies that rows decode and that every index equals a recount.
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        todo!()
    }
}

/// Verifies every page's checksum and every row of the database in `dir`, without a running server and without
/// changing the file.
pub fn check(_dir: &Path) -> Result<CheckReport, StoreError> {
    todo!()
}

/// Puts the backup `from` in the place of the database in `dir`. A damaged or newer backup is refused before anything
/// is touched; the old database is kept beside it; every session and API key of the backup is void.
pub fn restore(_dir: &Path, _from: &Path) -> Result<RestoreReport, StoreError> {
    todo!()
}
