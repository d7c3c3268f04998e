//! Which generations run, one per chat at most, and which ended a moment ago.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::ChatError;
use super::log::GenerationLog;
use crate::domain::{ApiKeyId, ChatId, MessageId, SessionId, UserId};
use crate::store::UserStore;

/// How long an ended generation can still be read from its log: a phone that comes out of a tunnel.
const KEPT_AFTER_END: Duration = Duration::from_mins(2);
/// Ended logs kept in all; each is at most a reply long.
const MAX_KEPT: usize = 256;

/// A generation's place in the register.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) log: Arc<GenerationLog>,
    /// The person's message it answers, and its text where it was sent with it: a retry must bring the same.
    pub(super) message: MessageId,
    pub(super) content: Option<String>,
    pub(super) cancel: CancellationToken,
    pub(super) session: Option<SessionId>,
    pub(super) api_key: Option<ApiKeyId>,
    ended_at: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Register {
    entries: Mutex<HashMap<(UserId, ChatId), Entry>>,
}

impl Register {
    fn lock(&self) -> MutexGuard<'_, HashMap<(UserId, ChatId), Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a chat's place, or says that it is taken.
    pub(super) fn begin(
        &self,
        me: &UserStore,
        chat: ChatId,
        message: MessageId,
        content: Option<String>,
    ) -> Result<Entry, ChatError> {
        let mut entries = self.lock();
        sweep(&mut entries);
        let key = (me.user_id(), chat);
        if entries.get(&key).is_some_and(|e| e.ended_at.is_none()) {
            return Err(ChatError::Conflict("generation_running"));
        }
        let entry = Entry {
            log: GenerationLog::new(),
            message,
            content,
            cancel: CancellationToken::new(),
            session: me.session_id(),
            api_key: me.api_key_id(),
            ended_at: None,
        };
        entries.insert(key, entry.clone());
        Ok(entry)
    }

    /// The chat's generation, running or just ended.
    pub(super) fn find(&self, user: UserId, chat: ChatId) -> Option<Entry> {
        let entries = self.lock();
        let entry = entries.get(&(user, chat))?;
        (!entry.is_stale()).then(|| entry.clone())
    }

    /// The chat's generation if it runs.
    pub(super) fn running(&self, user: UserId, chat: ChatId) -> Option<Entry> {
        self.find(user, chat).filter(|e| e.ended_at.is_none())
    }

    /// Frees the place that the generation of this log holds; the log stays readable for a while if `keep`. Does
    /// nothing if the place was freed before.
    pub(super) fn end(&self, user: UserId, chat: ChatId, log: &Arc<GenerationLog>, keep: bool) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&(user, chat)) else { return };
        if !Arc::ptr_eq(&entry.log, log) || entry.ended_at.is_some() {
            return;
        }
        if keep {
            entry.ended_at = Some(Instant::now());
        } else {
            entries.remove(&(user, chat));
        }
    }

    /// All that run for a person.
    pub(super) fn of_user(&self, user: UserId) -> Vec<Entry> {
        self.lock()
            .iter()
            .filter(|((u, _), e)| *u == user && e.ended_at.is_none())
            .map(|(_, e)| e.clone())
            .collect()
    }

    /// Everybody for whom something runs.
    pub(super) fn users(&self) -> Vec<UserId> {
        let mut users: Vec<_> =
            self.lock().iter().filter(|(_, e)| e.ended_at.is_none()).map(|((u, _), _)| *u).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    pub(super) fn cancel_all(&self) {
        self.lock().values().for_each(|e| e.cancel.cancel());
    }

    pub(super) fn n_running(&self) -> usize {
        self.lock().values().filter(|e| e.ended_at.is_none()).count()
    }
}

impl Entry {
    fn is_stale(&self) -> bool {
        self.ended_at.is_some_and(|t| t.elapsed() >= KEPT_AFTER_END)
    }
}

/// Drops ended logs that are old, and the oldest where there are too many.
fn sweep(entries: &mut HashMap<(UserId, ChatId), Entry>) {
    entries.retain(|_, e| !e.is_stale());
    let mut ended: Vec<_> = entries.iter().filter_map(|(key, e)| Some((e.ended_at?, *key))).collect();
    if ended.len() > MAX_KEPT {
        ended.sort_unstable_by_key(|(at, _)| *at);
        for (_, key) in &ended[..ended.len() - MAX_KEPT] {
            entries.remove(key);
        }
    }
}
