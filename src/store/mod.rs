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

mod arrivals;
pub mod backup;
mod chats;
mod check;
mod codec;
mod disk;
mod invites;
mod kv_files;
mod memories;
mod messages;
mod open;
mod queue;
mod search;
mod sessions;
mod tables;
mod transfer;
mod users;
mod vault;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use redb::{ReadableTableMetadata as _, StorageBackend};
use tokio::sync::broadcast;

use crate::domain::{Invalid, SessionId, UserId};
use disk::{DiskFile, Reserve};
use kv_files::KvFolder;
use queue::{Hints, Queue};
use sessions::Unsaved;
use tables::{Snapshot, Tables};
use writer::Core;

pub use chats::{ChatPage, ChatPatch, Cursor, FullChat, UserStore};
pub use invites::{INVITE_S, InviteInfo, MAX_INVITES};
pub use kv_files::KvForm;
pub use messages::{Appended, MAX_SAFETY_BYTES, MessagePage, NewMessage, Parent, ReplyEnd};
pub use search::{MAX_HITS, MAX_QUERY_CHARS, SearchHit};
pub use sessions::{
    ApiKeyInfo, MAX_API_KEYS, MAX_LABEL_BYTES, MAX_SESSIONS, SESSION_S, Session, SessionEnded,
};
pub use transfer::{Export, ExportItem, ImportChat, ImportMessage, ImportReport, ImportTree};
pub use transfer::{MAX_IMPORT_BYTES, MAX_IMPORT_CHATS, MAX_IMPORT_MESSAGES};
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

/// Sessions that may end before a slow watcher looks; past it, the watcher is told that it missed some.
const WATCH_BACKLOG: usize = 256;

/// The database. Cloning is cheap; all clones are one store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: broadcast::Sender<SessionEnded>,
    epoch: u64,
    /// Sessions begun while the disk was full.
    unsaved: Unsaved,
    /// What models made of chats.
    kv: KvFolder,
    /// Keeps other processes out of the data directory.
    dir_lock: Mutex<Option<File>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            tracing::warn!(error = %e, "the database was not closed cleanly; the next start repairs it");
        }
    }
}

impl Inner {
    fn close(&self) -> Result<(), StoreError> {
        self.queue.end();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The last handle may be one that the writer itself held on behalf of a caller; it ends by itself then.
            if thread.thread().id() != std::thread::current().id() {
                // The writer catches panics; if it died of one anyway, the file is as after a crash.
                let _ = thread.join();
            }
        }
        let closed = self.core.close();
        self.dir_lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        closed
    }
}

/// Upper bounds in microseconds of [`StoreMetrics::commits_within`]: from a battery-backed cache to a dying disk.
pub const COMMIT_BOUNDS_US: [u64; 10] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// Counters since the start, and sizes now.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreMetrics {
    /// Writes acknowledged.
    pub n_writes: u64,
    /// Commits; many writes may share one.
    pub n_commits: u64,
    /// Messages that became durable in the journal first, because many came at once.
    pub n_arrivals: u64,
    /// Writes refused because the disk was full or failed.
    pub n_write_errors: u64,
    /// Time spent in commits, in microseconds.
    pub commit_us: u64,
    /// Commits that took at most the bound of the same index and longer than the one before.
    pub commits_within: [u64; COMMIT_BOUNDS_US.len()],
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Accounts.
    pub n_users: u64,
    /// Bytes on disk of what models made of chats.
    pub kv_bytes: u64,
    /// How many those may be; 0 where none are kept.
    pub kv_max_bytes: u64,
}

impl Store {
    /// Opens the database in `dir`, making both (0700 and 0600) where they are missing. A file that is not a good
    /// database of a known schema is refused and left as it is. Closes replies that a crash left unfinished.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        let dir_lock = open::lock_dir(dir)?;
        let mut path = dir.join(open::FILE_NAME);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                return Err(StoreError::Corrupt(format!("{} is a directory", path.display())));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => path = open::create(dir)?,
            Err(e) => return Err(open::at(&path, &e)),
        }
        let reserve = Arc::new(Reserve::at(dir.join("reserve")));
        let file = DiskFile::open(&path, Some(Arc::clone(&reserve))).map_err(|e| open::at(&path, &e))?;
        let file: Arc<dyn StorageBackend> = Arc::new(file);
        let handle = open::open_trial(&file, false)?;
        let epoch = open::epoch(dir)?;
        Self::start(Core::new(file, Some(reserve), handle), epoch, Some(dir_lock), KvFolder::of(dir))
    }

    /// A store that lives in memory only, for tests and `mommygpt run`.
    pub fn in_memory() -> Result<Store, StoreError> {
        Self::open_on(Arc::new(redb::backends::InMemoryBackend::new()))
    }

    /// A store on any storage that redb can use; an empty one becomes a new store. For tests that break the disk.
    pub fn open_on(file: Arc<dyn StorageBackend>) -> Result<Store, StoreError> {
        if file.len()? == 0 {
            open::create_on(&file)?;
        }
        let handle = open::open_trial(&file, false)?;
        Self::start(Core::new(file, None, handle), 0, None, KvFolder::default())
    }

    fn start(core: Core, epoch: u64, dir_lock: Option<File>, kv: KvFolder) -> Result<Store, StoreError> {
        core.settle()?;
        let core = Arc::new(core);
        let (queue, thread) = Queue::start(&core);
        let inner = Inner {
            core,
            queue,
            thread: Mutex::new(Some(thread)),
            ended: broadcast::channel(WATCH_BACKLOG).0,
            epoch,
            unsaved: Unsaved::default(),
            kv,
            dir_lock: Mutex::new(dir_lock),
        };
        let store = Store { inner: Arc::new(inner) };
        match store.after_crash() {
            // Without room the traces of a crash stay until the next start.
            Ok(()) | Err(StoreError::DiskFull) => Ok(store),
            Err(e) => Err(e),
        }
    }

    /// Ends what a crash interrupted: replies in progress, and deletions.
    fn after_crash(&self) -> Result<(), StoreError> {
        let (replies, doomed, restored) = self.read(|s| {
            let restored = s.meta()?.get(backup::MANIFEST)?.is_some();
            Ok((!s.generating()?.is_empty()?, !s.doomed()?.is_empty()?, restored))
        })?;
        self.inner.core.purge.store(doomed, Ordering::Release);
        if restored {
            // The count of a backup no longer holds once somebody writes.
            self.write(Hints::default(), |t| Ok(t.meta.remove(backup::MANIFEST).map(drop)?))?;
        }
        if replies || doomed {
            let n = self.write(Hints::default(), messages::close_interrupted)?;
            tracing::info!(n_replies = n, "ended what the last run left unfinished");
        }
        Ok(())
    }

    /// Whether writes are acknowledged.
    pub fn healthy(&self) -> Result<(), StoreError> {
        self.inner.core.healthy()
    }

    /// Counters and sizes.
    pub fn metrics(&self) -> StoreMetrics {
        let counts = &self.inner.core.counts;
        let (kv_bytes, kv_max_bytes) = self.inner.kv.sizes();
        StoreMetrics {
            n_writes: counts.n_writes.load(Ordering::Relaxed),
            n_commits: counts.n_commits.load(Ordering::Relaxed),
            n_arrivals: counts.n_arrivals.load(Ordering::Relaxed),
            n_write_errors: counts.n_errors.load(Ordering::Relaxed),
            commit_us: counts.commit_us.load(Ordering::Relaxed),
            commits_within: counts.commits_within.each_ref().map(|n| n.load(Ordering::Relaxed)),
            file_bytes: self.inner.core.file_bytes(),
            n_users: self.n_users().unwrap_or(0),
            kv_bytes,
            kv_max_bytes,
        }
    }

    /// Finishes the writes in hand, then closes the file; every later call answers [`StoreError::Unhealthy`].
    pub fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }

    /// Sessions as they end, for cutting open streams. A receiver that lagged must check its sessions again.
    pub fn session_watch(&self) -> broadcast::Receiver<SessionEnded> {
        self.inner.ended.subscribe()
    }

    /// How many accounts there are.
    pub fn n_users(&self) -> Result<u64, StoreError> {
        self.read(|s| Ok(s.users()?.len()?))
    }

    fn read<T>(&self, f: impl Fn(&Snapshot) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.inner.core.read(f)
    }

    /// A snapshot that holds everything acknowledged so far, for somebody who keeps it.
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.inner.queue.settle(&self.inner.core, None);
        self.inner.core.snapshot()
    }

    fn write<T: Send + 'static>(
        &self,
        hints: Hints,
        op: impl FnMut(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.queue.write(hints, op)
    }

    /// Tells the watchers; nobody listening is fine.
    fn ended(&self, user: UserId, session: Option<SessionId>) {
        let _ = self.inner.ended.send(SessionEnded { user, session });
    }
}
