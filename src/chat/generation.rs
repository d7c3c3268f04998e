//! One running generation: the engine's events go to the log and to every device, what has come so far is stored now
//! and then, and the end in one transaction. It runs to its end whoever listens.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::live::LiveEvent;
use super::log::ChatEvent;
use super::memory::Change;
use super::running::Entry;
use super::{ChatError, ChatService, blocking, safety};
use crate::domain::{ChatId, FinishReason, Message, MessageId, Source, Timings};
use crate::engine::{self, Event, Finish, Generation, TokenId};
use crate::store::{ReplyEnd, StoreError, UserStore};
use crate::text::ThinkingSplitter;

/// A crash loses at most this much of an unfinished reply,
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// or this many tokens of it, whichever is less.
const CHECKPOINT_TOKENS: usize = 64;

/// A generation that the engine has taken, for a message that is durable.
pub(super) struct Job {
    pub(super) message: Message,
    pub(super) generation: Generation,
    pub(super) truncated: bool,
    pub(super) already_thinking: bool,
    /// What the model reads; empty where it is not asked.
    pub(super) prompt: Vec<TokenId>,
    /// The message is new: a model that can may be asked what it told.
    pub(super) is_new: bool,
    /// What the message said that is worth remembering, or forgetting.
    pub(super) changes: Vec<Change>,
    /// Where the answer comes from, if not from the model.
    pub(super) source: Option<Source>,
}

/// How it ended, as far as the engine says.
struct End {
    finish_reason: FinishReason,
    timings: Option<Timings>,
    failure: Option<String>,
}

pub(super) async fn run(service: &ChatService, me: &UserStore, chat: ChatId, entry: &Entry, job: Job) {
    let id = MessageId::new();
    let Job { message: said, mut generation, truncated, already_thinking, prompt, is_new, changes, source } =
        job;
    if let Err(error) = begin(service, me, chat, id, &said, changes).await {
        generation.cancel.cancel();
        return fail(service, me, chat, entry, &error);
    }
    let mut reply = Reply::new(service, me, chat, id, entry, already_thinking);
    let end = reply.receive(&mut generation).await;
    let content = reply.finish().await;
    let failure = end.failure.clone();
    match store_end(me, chat, id, content, end, truncated, source).await {
        Ok((message, chat_row)) => {
            let user = me.user_id();
            service.0.live.publish(user, LiveEvent::Done(message.clone()));
            service.0.live.publish(user, LiveEvent::Chat(chat_row));
            let last = match failure {
                Some(reason) => {
                    tracing::error!(%chat, reason, "a generation failed");
                    let message = "The model broke off. What came is kept; please try again.".into();
                    ChatEvent::Error { code: "generation_failed", message }
                }
                None => ChatEvent::Done(message),
            };
            // The place first: who hears the end may write again at once.
            service.0.register.end(user, chat, &entry.log, true);
            entry.log.push(last);
            let (service_too, me) = (service.clone(), me.clone());
            service.0.tasks.spawn(async move {
                service_too.behind_answer(&me, &said, id, prompt, is_new).await;
            });
        }
        Err(error) => fail(service, me, chat, entry, &error),
    }
}

impl ChatService {
    /// What is done when nobody waits any more.
    async fn behind_answer(
        &self,
        me: &UserStore,
        said: &Message,
        reply: MessageId,
        prompt: Vec<TokenId>,
        is_new: bool,
    ) {
        let ahead = if prompt.is_empty() {
            Ok(None)
        } else {
            tokio::select! {
                ahead = self.read_ahead(me, said.chat_id, reply) => ahead,
                () = self.0.closing.cancelled() => return,
            }
        };
        let read = ahead.unwrap_or_else(|error| {
            tracing::debug!(%error, "the next prompt was not read ahead");
            None
        });
        self.put_away(me, said.chat_id, &read.unwrap_or(prompt)).await;
        if is_new {
            self.learn(me, said).await;
        }
    }
}

fn fail(service: &ChatService, me: &UserStore, chat: ChatId, entry: &Entry, error: &ChatError) {
    // A chat deleted in the meantime is no failure.
    if !matches!(error, ChatError::NotFound) {
        tracing::error!(%chat, %error, "a reply could not be stored");
    }
    service.0.register.end(me.user_id(), chat, &entry.log, false);
    entry.log.push(ChatEvent::Error { code: error.code(), message: error.to_string() });
}

/// Stores the empty reply, so that a crash leaves a trace of it, and what is to be remembered.
async fn begin(
    service: &ChatService,
    me: &UserStore,
    chat: ChatId,
    id: MessageId,
    message: &Message,
    changes: Vec<Change>,
) -> Result<(), ChatError> {
    let live = service.0.live.clone();
    let (me, parent) = (me.clone(), message.id);
    blocking(move || {
        let user = me.user_id();
        let reply = me.begin_reply(chat, id, parent)?;
        live.publish(user, LiveEvent::Message(reply));
        for change in changes {
            match remember(&me, chat, parent, change) {
                Ok(event) => live.publish(user, event),
                // The answer is worth more than the note.
                Err(error) => tracing::warn!(%error, "a memory was not stored"),
            }
        }
        Ok(())
    })
    .await
}

pub(super) fn remember(
    me: &UserStore,
    chat: ChatId,
    message: MessageId,
    change: Change,
) -> Result<LiveEvent, StoreError> {
    Ok(match change {
        Change::Add(content) => LiveEvent::Memory(me.add_memory(&content, Some((chat, message)))?),
        Change::Replace(id, content) => LiveEvent::Memory(me.update_memory(id, &content)?),
        Change::Forget(id) => {
            me.delete_memory(id)?;
            LiveEvent::MemoryDeleted(id)
        }
    })
}

async fn store_end(
    me: &UserStore,
    chat: ChatId,
    id: MessageId,
    content: String,
    end: End,
    truncated: bool,
    source: Option<Source>,
) -> Result<(Message, crate::domain::Chat), ChatError> {
    let me = me.clone();
    blocking(move || {
        let safety = safety::check_reply(&content).map(|danger| danger.kind.as_str().to_owned());
        let end = ReplyEnd {
            content,
            finish_reason: end.finish_reason,
            // Nothing was computed for a reply that was written before.
            timings: end.timings.filter(|_| source.is_none()),
            safety,
            source,
            truncated,
        };
        Ok(me.finish_reply(chat, id, end)?)
    })
    .await
}

/// A reply as it grows.
struct Reply<'a> {
    service: &'a ChatService,
    me: &'a UserStore,
    chat: ChatId,
    id: MessageId,
    entry: &'a Entry,
    content: String,
    splitter: ThinkingSplitter,
    /// Of the content, when it was last given to the store.
    n_stored: usize,
    n_tokens_since: usize,
    checkpoint: Option<JoinHandle<()>>,
}

impl<'a> Reply<'a> {
    fn new(
        service: &'a ChatService,
        me: &'a UserStore,
        chat: ChatId,
        id: MessageId,
        entry: &'a Entry,
        already_thinking: bool,
    ) -> Self {
        let splitter = ThinkingSplitter::new(already_thinking);
        let content = String::new();
        Self {
            service,
            me,
            chat,
            id,
            entry,
            content,
            splitter,
            n_stored: 0,
            n_tokens_since: 0,
            checkpoint: None,
        }
    }

    async fn receive(&mut self, generation: &mut Generation) -> End {
        let mut cancelled = false;
        let mut clock = tokio::time::interval_at(Instant::now() + CHECKPOINT_EVERY, CHECKPOINT_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = generation.events.recv() => match event {
                    Some(event) => {
                        if let Some(end) = self.take(event) {
                            return end;
                        }
                    }
                    None => return End::failed("the inference thread is gone".into()),
                },
                () = self.entry.cancel.cancelled(), if !cancelled => {
                    // The engine answers with what it has, then with the end.
                    generation.cancel.cancel();
                    cancelled = true;
                }
                _ = clock.tick() => self.store_progress(),
            }
        }
    }

    fn take(&mut self, event: Event) -> Option<End> {
        let log = &self.entry.log;
        match event {
            Event::Queued { position, wait } => log.push(ChatEvent::Queue { position, wait }),
            Event::Prefill { prompt_tokens, cached_tokens, processed_tokens } => {
                log.push(ChatEvent::Prefill { prompt_tokens, cached_tokens, processed_tokens });
            }
            Event::Delta { text, n_tokens, .. } => {
                let answer = self.splitter.push(&text).answer;
                self.append(&answer);
                self.n_tokens_since += n_tokens;
                if self.n_tokens_since >= CHECKPOINT_TOKENS {
                    self.store_progress();
                }
            }
            Event::Done { finish_reason, timings } => return Some(End::of(finish_reason, timings)),
            Event::Failed(reason) => return Some(End::failed(reason)),
        }
        None
    }

    /// Adds to the reply and tells everybody; blanks before the first word are dropped.
    fn append(&mut self, text: &str) {
        let text = if self.content.is_empty() { text.trim_start() } else { text };
        if text.is_empty() {
            return;
        }
        self.content.push_str(text);
        let (chat_id, id) = (self.chat, self.id);
        self.entry.log.push(ChatEvent::Delta { id, text: text.to_owned() });
        self.service
            .0
            .live
            .publish(self.me.user_id(), LiveEvent::Delta { chat_id, id, text: text.to_owned() });
    }

    /// Stores what has come, in the background, unless that is already under way.
    fn store_progress(&mut self) {
        let busy = self.checkpoint.as_ref().is_some_and(|task| !task.is_finished());
        if busy || self.content.len() == self.n_stored {
            return;
        }
        self.n_stored = self.content.len();
        self.n_tokens_since = 0;
        let (me, chat, id, content) = (self.me.clone(), self.chat, self.id, self.content.clone());
        self.checkpoint = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = me.checkpoint_reply(chat, id, &content) {
                // The end tries again, and says so if it cannot.
                tracing::warn!(%chat, %error, "an unfinished reply was not stored");
            }
        }));
    }

    /// The whole text, once no checkpoint can come after its end.
    async fn finish(mut self) -> String {
        let rest = std::mem::replace(&mut self.splitter, ThinkingSplitter::new(false)).finish().answer;
        self.append(&rest);
        if let Some(task) = self.checkpoint.take() {
            // It logs its own failure.
            let _ = task.await;
        }
        self.content
    }
}

impl End {
    fn of(finish: Finish, timings: engine::Timings) -> Self {
        let finish_reason = match finish {
            Finish::Stop => FinishReason::Stop,
            Finish::Length => FinishReason::Length,
            Finish::Cancelled => FinishReason::Cancelled,
        };
        let engine::Timings { cache_n, prompt_n, prompt_ms, predicted_n, predicted_ms } = timings;
        let timings = Some(Timings { cache_n, prompt_n, prompt_ms, predicted_n, predicted_ms });
        Self { finish_reason, timings, failure: None }
    }

    fn failed(reason: String) -> Self {
        Self { finish_reason: FinishReason::Error, timings: None, failure: Some(reason) }
    }
}
