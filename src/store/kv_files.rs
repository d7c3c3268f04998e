//! What a model made of a chat, kept on disk so that the chat goes on at once after a restart.
//!
//! A cache, and nothing else: it is never synced, it may be torn, damaged or deleted at any time, and what cannot be read
//! is as good as not there. One file per chat under `kv/PERSON/`, encrypted under the person's data key as their messages
//! are:
//!
//! ```text
//! magic, fingerprint, bytes of a page, tokens of a page
//! page 0: sealed tokens | sealed keys and values
//! page 1: ...
//! ```
//!
//! What is sealed is bound to person, chat, fingerprint, place and all tokens before it, so that nothing can be put
//! where it does not belong. A file goes with its chat and its person; what a crash leaves behind goes at the next start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::chats::UserStore;
use super::open::at;
use super::tables::key2;
use super::vault::SEALED_EXTRA_BYTES;
use super::{Store, StoreError};
use crate::domain::{ChatId, UserId};

/// The folder's name in the data directory.
const FOLDER: &str = "kv";
const MAGIC: &[u8; 8] = b"MOMMYKV1";
const HEADER_BYTES: usize = MAGIC.len() + 32 + 4 + 4;
/// The word that a data key binds what it seals here to.
const TABLE: &str = "kv";
/// Left free on the disk: messages are worth more than what can be computed again.
const MIN_FREE_BYTES: u64 = 1 << 30;

/// What pages of keys and values are, and what they are good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvForm {
    /// Tokens of a page.
    pub page_len: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Of everything that decides what the bytes mean.
    pub fingerprint: [u8; 32],
}

impl KvForm {
    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..40].copy_from_slice(&self.fingerprint);
        header[40..44].copy_from_slice(&(self.page_bytes as u32).to_le_bytes());
        header[44..].copy_from_slice(&(self.page_len as u32).to_le_bytes());
        header
    }
    fn tokens_bytes(&self) -> usize {
        4 * self.page_len + SEALED_EXTRA_BYTES
    }
    fn record_bytes(&self) -> usize {
        self.tokens_bytes() + self.page_bytes + SEALED_EXTRA_BYTES
    }
    fn record_at(&self, i: usize) -> u64 {
        (HEADER_BYTES + i * self.record_bytes()) as u64
    }
}

/// The folder, and how much may be in it.
#[derive(Debug, Default)]
pub(super) struct KvFolder {
    /// `None` where the store has no directory.
    folder: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// 0 keeps nothing.
    max_bytes: u64,
    n_bytes: u64,
}

impl KvFolder {
    pub(super) fn of(dir: &Path) -> Self {
        Self { folder: Some(dir.join(FOLDER)), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are kept, and how many may be.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let state = self.state();
        (state.n_bytes, state.max_bytes)
    }

    fn of_user(&self, user: UserId) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(user.to_string()))
    }

    fn of_chat(&self, user: UserId, chat: ChatId) -> Option<PathBuf> {
        self.of_user(user).map(|folder| folder.join(chat.to_string()))
    }

    /// Deletes what was kept of a chat; called when the chat is gone.
    pub(super) fn forget_chat(&self, user: UserId, chat: ChatId) {
        let Some(path) = self.of_chat(user, chat) else { return };
        let mut state = self.state();
        remove(&mut state, &path);
    }

    /// Deletes what was kept of a person; called when their account is gone.
    pub(super) fn forget_user(&self, user: UserId) {
        let Some(folder) = self.of_user(user) else { return };
        let mut state = self.state();
        for (path, ..) in files_of(&folder) {
            remove(&mut state, &path);
        }
        said(&folder, fs::remove_dir(&folder));
    }
}

impl Store {
    /// Keeps up to `max_bytes` of what models make of chats on disk; with 0 nothing, and what was kept goes.
    pub fn keep_kv(&self, max_bytes: u64) -> Result<(), StoreError> {
        let kept = &self.inner.kv;
        let Some(folder) = &kept.folder else { return Ok(()) };
        let mut state = kept.state();
        *state = State { max_bytes, n_bytes: 0 };
        if max_bytes == 0 {
            return match fs::remove_dir_all(folder) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(folder, &e)),
                _ => Ok(()),
            };
        }
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| at(folder, &e))?;
        // What a crash between a deletion and its file left behind, or an older database does not know.
        for entry in fs::read_dir(folder).map_err(|e| at(folder, &e))?.flatten() {
            let user: Option<UserId> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            for (path, len, _) in files_of(&entry.path()) {
                let chat: Option<ChatId> = path.file_name().and_then(|n| n.to_str()?.parse().ok());
                state.n_bytes += len;
                let is_known = match (user, chat) {
                    (Some(user), Some(chat)) => self.has_chat(user, chat)?,
                    _ => false,
                };
                if !is_known {
                    remove(&mut state, &path);
                }
            }
        }
        make_room(&mut state, folder, None, 0);
        Ok(())
    }

    /// Whether anything is kept of what models make of chats.
    pub fn keeps_kv(&self) -> bool {
        self.inner.kv.state().max_bytes > 0
    }

    /// Bytes kept of what models made of chats.
    pub fn kept_kv_bytes(&self) -> u64 {
        self.inner.kv.state().n_bytes
    }

    fn has_chat(&self, user: UserId, chat: ChatId) -> Result<bool, StoreError> {
        // The rows of a person who is gone are cleared bit by bit.
        self.read(|s| {
            let is_there = s.users()?.get(user.as_bytes().as_slice())?.is_some();
            Ok(is_there && s.chats()?.get(key2(user, chat.as_bytes()).as_slice())?.is_some())
        })
    }
}

impl UserStore {
    /// The tokens of which pages are kept for a chat, from its first on; none where nothing is, or not of this form.
    pub fn kept_tokens(&self, chat: ChatId, form: &KvForm) -> Vec<u32> {
        let mut tokens = Vec::new();
        let Some(mut file) = self.kept_file(chat, form) else { return tokens };
        // Used now, for whoever has to make room.
        let _ = file.set_modified(SystemTime::now());
        for i in 0.. {
            let sealed = read_at(&mut file, form.record_at(i), form.tokens_bytes());
            let key = self.row_key(chat, form, i, 0, &tokens);
            let page = sealed.and_then(|sealed| self.key.open(TABLE, &key, &sealed).ok());
            let Some(page) = page else { break };
            let ids = page.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id));
            tokens.extend(ids);
        }
        tokens
    }

    /// The last page of `tokens`, if it is kept.
    pub fn kept_page(&self, chat: ChatId, form: &KvForm, tokens: &[u32]) -> Option<Vec<u8>> {
        let i = (tokens.len() / form.page_len).checked_sub(1)?;
        let mut file = self.kept_file(chat, form)?;
        let offset = form.record_at(i) + form.tokens_bytes() as u64;
        let sealed = read_at(&mut file, offset, form.page_bytes + SEALED_EXTRA_BYTES)?;
        self.key.open(TABLE, &self.row_key(chat, form, i, 1, tokens), &sealed).ok()
    }

    /// Keeps the last page of `tokens` behind those kept of the tokens before it; whatever stood there goes. False where
    /// there is no room, or the chat or those pages are gone.
    pub fn keep_page(
        &self,
        chat: ChatId,
        form: &KvForm,
        tokens: &[u32],
        page: &[u8],
    ) -> Result<bool, StoreError> {
        let kept = &self.store.inner.kv;
        let (Some(folder), Some(path)) = (&kept.folder, kept.of_chat(self.user, chat)) else {
            return Ok(false);
        };
        let Some(i) = (tokens.len() / form.page_len).checked_sub(1) else { return Ok(false) };
        let (before, own) = tokens.split_at(i * form.page_len);
        let own: Vec<u8> = own.iter().flat_map(|id| id.to_le_bytes()).collect();
        let mut record = self.key.seal(TABLE, &self.row_key(chat, form, i, 0, before), &own);
        record.extend(self.key.seal(TABLE, &self.row_key(chat, form, i, 1, tokens), page));
        debug_assert_eq!(record.len(), form.record_bytes(), "a page of this form");
        let mut state = kept.state();
        // Under the lock that a deletion takes behind it: a file never outlives its chat.
        if state.max_bytes == 0 || !self.store.has_chat(self.user, chat)? {
            return Ok(false);
        }
        if !make_room(&mut state, folder, Some(&path), record.len() as u64) {
            return Ok(false);
        }
        let written = write_record(&path, form, i, &record, &mut state.n_bytes);
        if !matches!(written, Ok(true)) {
            // Half a record is nothing, and a disk that is full needs the room.
            remove(&mut state, &path);
        }
        written.map_err(|e| at(&path, &e))
    }

    /// A chat's file, if its header is of this form.
    fn kept_file(&self, chat: ChatId, form: &KvForm) -> Option<File> {
        let kept = &self.store.inner.kv;
        if kept.state().max_bytes == 0 {
            return None;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(kept.of_chat(self.user, chat)?).ok()?;
        (read_at(&mut file, 0, HEADER_BYTES)? == form.header()).then_some(file)
    }

    /// What a sealed part is bound to: person, chat, form, place, and the tokens up to there.
    fn row_key(&self, chat: ChatId, form: &KvForm, i: usize, part: u8, tokens: &[u32]) -> Vec<u8> {
        let mut hash = Sha256::new();
        for id in tokens {
            hash.update(id.to_le_bytes());
        }
        let mut key = key2(self.user, chat.as_bytes()).to_vec();
        key.extend_from_slice(&form.header());
        key.extend_from_slice(&(i as u32).to_le_bytes());
        key.push(part);
        key.extend_from_slice(&hash.finalize());
        key
    }
}

/// Puts record `i` into a file that holds all before it; false where it does not.
fn write_record(path: &Path, form: &KvForm, i: usize, record: &[u8], n_bytes: &mut u64) -> io::Result<bool> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mut len = file.metadata()?.len();
    if read_at(&mut file, 0, HEADER_BYTES).is_none_or(|header| header != form.header()) {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&form.header())?;
        *n_bytes = n_bytes.saturating_sub(len) + HEADER_BYTES as u64;
        len = HEADER_BYTES as u64;
    }
    let start = form.record_at(i);
    if len < start {
        return Ok(false);
    }
    file.set_len(start)?;
    *n_bytes = n_bytes.saturating_sub(len - start);
    file.seek(SeekFrom::Start(start))?;
    file.write_all(record)?;
    *n_bytes += record.len() as u64;
    Ok(true)
}

fn read_at(file: &mut File, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.seek(SeekFrom::Start(offset)).ok()?;
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Deletes the files that were used least recently, until `more` bytes fit; not `spared`.
fn make_room(state: &mut State, folder: &Path, spared: Option<&Path>, more: u64) -> bool {
    let fits = |state: &State| {
        let free = nix::sys::statvfs::statvfs(folder)
            .map_or(u64::MAX, |disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
        state.n_bytes + more <= state.max_bytes && free >= more + MIN_FREE_BYTES
    };
    if fits(state) {
        return true;
    }
    let people = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = people.flat_map(|person| files_of(&person.path())).collect();
    files.sort_by_key(|&(_, _, used)| used);
    for (path, ..) in files.into_iter().filter(|(path, ..)| Some(path.as_path()) != spared) {
        remove(state, &path);
        if fits(state) {
            return true;
        }
    }
    false
}

/// Path, length and last use of the files in a folder.
fn files_of(folder: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let known = |entry: fs::DirEntry| {
        let meta = entry.metadata().ok()?;
        Some((entry.path(), meta.len(), meta.modified().ok()?))
    };
    entries.filter_map(known).collect()
}

fn remove(state: &mut State, path: &Path) {
    let len = fs::metadata(path).map_or(0, |meta| meta.len());
    if said(path, fs::remove_file(path)) {
        state.n_bytes = state.n_bytes.saturating_sub(len);
    }
}

/// Whether it was done; that there was nothing to do is no failure.
fn said(path: &Path, done: io::Result<()>) -> bool {
    match done {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => {
            tracing::warn!("{}: {e}; what a model made of a chat stays on disk, encrypted", path.display());
            false
        }
    }
}
