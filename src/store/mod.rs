//! The one embedded database: accounts, chats, messages, and the keys that make them readable.
//!
//! The only code that knows redb and encryption at rest. It knows nothing of HTTP, JSON or the engine, and it never
//! blocks an async task by itself: every method is synchronous, callers in async code use `spawn_blocking`.
//!
//! A person's rows are reached only through a [`UserStore`], which only [`Store::as_user`] and
//! [`Store::as_user_by_key`] give out; every key of theirs starts with their id, and what they wrote is encrypted
//! under a data key that a stolen disk does not hold.
//!
//! What is acknowledged is durable: one writer thread puts all waiting writes into one two-phase commit with an fsync,
//! and answers them after it.

pub mod backup;
mod chats;
mod memories;
mod messages;
mod search;
mod sessions;
mod transfer;
mod users;
mod vault;

use std::path::Path;

use crate::domain::{Invalid, UserId};

pub use chats::{ChatPage, ChatPatch, Cursor, UserStore};
pub use messages::{Appended, MessagePage, NewMessage, Parent, ReplyEnd};
pub use search::SearchHit;
pub use sessions::{ApiKeyInfo, InviteInfo, Session, SessionEnded};
pub use transfer::{Export, ExportItem, ImportChat, ImportMessage, ImportReport, ImportTree};
pub use users::{Admission, Credentials, NewUser, PasswordRecord, UserPatch};
pub use vault::{ApiKey, DataKey, InviteCode, RecoveryCode, SessionToken, WrapKey};

/// Longest page of chats or messages: what a screen can use, and a bound on memory per request.
pub const MAX_PAGE: usize = 200;
/// Facts kept per person: more would not fit into a prompt.
pub const MAX_MEMORIES: usize = 500;
/// Longest fact in bytes: one sentence.
pub const MAX_MEMORY_BYTES: usize = 1000;

/// Why the store refused. `Clone`, because one failed commit answers everybody who waited for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not there, or not this person's: the two are not told apart.
    #[error("not found")]
    NotFound,
    /// The request contradicts what is stored; a stable word says how: `email_taken`, `invite_invalid`, `setup_done`,
    /// `id_taken`, `last_admin`, `reply_ended`.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// A value past a limit.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The database is damaged or is not one; the file was left as it was. Exit code 3.
    #[error(
        "the database is damaged ({0}); it was left untouched; bring back a backup with `mommygpt restore FILE`"
    )]
    Corrupt(String),
    /// The database was written by a newer program; the file was left as it was. Exit code 3.
    #[error(
        "the database has schema {found}, this program knows up to {known}; use the newer program, or bring back an older backup with `mommygpt restore FILE`"
    )]
    Newer {
        /// The schema version of the file.
        found: u32,
        /// The newest schema version this program reads.
        known: u32,
    },
    /// Another process has this data directory open.
    #[error("another mommygpt is using this data directory; stop it first, or choose another with --dir")]
    InUse,
    /// Nothing was stored; reads go on, and writes resume by themselves when there is room.
    #[error("the disk is full; nothing was stored; make room and try again")]
    DiskFull,
    /// The disk failed; nothing more is acknowledged until the server is started again.
    #[error("the store is unwell: {0}")]
    Unhealthy(String),
    /// The secret given does not open this person's data key.
    #[error("this does not unlock the account's data")]
    Locked,
    /// The data directory or file cannot be used: which, and why.
    #[error("{0}")]
    Io(String),
}

/// The database. Cloning is cheap; all clones are one store.
#[derive(Clone)]
pub struct Store {}

/// Counters since the start, and sizes now.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreMetrics {
    /// Writes acknowledged.
    pub n_writes: u64,
    /// Commits; many writes may share one.
    pub n_commits: u64,
    /// Writes refused because the disk was full or failed.
    pub n_write_errors: u64,
    /// Time spent in commits, in microseconds.
    pub commit_us: u64,
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Accounts.
    pub n_users: u64,
}

impl Store {
    /// Opens the database in `dir`, making both (0700 and 0600) where they are missing. A file that is not a good
    /// database of a known schema is refused and left as it is. Closes replies that a crash left unfinished.
    pub fn open(_dir: &Path) -> Result<Store, StoreError> {
        todo!()
    }
    /// A store that lives in memory only, for tests and `mommygpt run`.
    pub fn in_memory() -> Result<Store, StoreError> {
        todo!()
    }
    /// Whether writes are acknowledged.
    pub fn healthy(&self) -> Result<(), StoreError> {
        todo!()
    }
    /// Counters and sizes.
    pub fn metrics(&self) -> StoreMetrics {
        todo!()
    }
    /// Finishes the writes in hand, then closes the file; every later call answers [`StoreError::Unhealthy`].
    pub fn close(&self) -> Result<(), StoreError> {
        todo!()
    }
    /// Sessions as they end, for cutting open streams. A receiver that lagged must check its sessions again.
    pub fn session_watch(&self) -> tokio::sync::broadcast::Receiver<SessionEnded> {
        todo!()
    }
    /// How many accounts there are.
    pub fn n_users(&self) -> Result<u64, StoreError> {
        todo!()
    }
    /// The id a person's log lines and metrics may show, if the account exists.
    pub(crate) fn exists(&self, _user: UserId) -> Result<bool, StoreError> {
        todo!()
    }
}
