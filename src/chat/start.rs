//! From a request to a running generation: what is refused is refused here, before anything is stored.
//!
//! But for words said in danger: they are stored first of all, so that the card with people who help stands there even
//! if the model is busy, broken or not loaded yet.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::generation::{self, Job};
use super::live::LiveEvent;
use super::log::{ChatEvent, ChatStream, GenerationLog};
use super::memory::{self, Change};
use super::prompt::{self, MAX_HISTORY_MESSAGES, Person, Prompt};
use super::running::Entry;
use super::{ChatError, ChatService, READY_WAIT, blocking, exemplars, safety};
use crate::domain::{
    ChatId, Invalid, Memory, Message, MessageId, MessageText, Source, Timestamp, User, UserId,
};
use crate::engine::{GenerateRequest, ModelInfo, Owner};
use crate::store::{self, MessagePage, Parent, StoreError, UserStore};
use crate::text::TextModel;

/// Newest messages among which the reply to a repeated message is looked for.
const REPLAY_MESSAGES: usize = 50;

/// What somebody asks for.
#[derive(Clone)]
pub(super) enum Ask {
    New { id: MessageId, content: MessageText, parent: Parent },
    Again { message: MessageId },
    Edit { message: MessageId, id: MessageId, content: MessageText },
}

impl Ask {
    fn message(&self) -> MessageId {
        match self {
            Self::New { id, .. } | Self::Edit { id, .. } => *id,
            Self::Again { message } => *message,
        }
    }
    fn content(&self) -> Option<String> {
        match self {
            Self::New { content, .. } | Self::Edit { content, .. } => Some(content.as_str().to_owned()),
            Self::Again { .. } => None,
        }
    }
}

/// The person's message: to be stored, or stored before.
enum Said {
    New(store::NewMessage),
    Stored(Message),
}

/// What is to be done, once everything was looked at.
enum Plan {
    /// It was answered before.
    Replay(Message, Message),
    Generate {
        said: Said,
        prompt: Prompt,
        changes: Vec<Change>,
        /// A reply to be taken over whole.
        written: Option<String>,
    },
}

/// Holds a chat's place in the register; however the task ends, the place is free and the log has an end.
struct Place {
    service: ChatService,
    user: UserId,
    chat: ChatId,
    log: Arc<GenerationLog>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.service.0.register.end(self.user, self.chat, &self.log, false);
        self.log.push(ChatEvent::Error {
            code: "generation_failed",
            message: "Something went wrong here. Please try again.".into(),
        });
    }
}

impl ChatService {
    /// Runs in a task of its own from the first step on, so that a client that hangs up changes nothing.
    pub(super) async fn start(
        &self,
        me: &UserStore,
        chat: ChatId,
        ask: Ask,
    ) -> Result<ChatStream, ChatError> {
        let entry = self.0.register.begin(me, chat, ask.message(), ask.content())?;
        let place = Place { service: self.clone(), user: me.user_id(), chat, log: Arc::clone(&entry.log) };
        if self.0.closing.is_cancelled() {
            return Err(ChatError::NotReady);
        }
        let stream = entry.log.read(0);
        let (tell, told) = oneshot::channel();
        let (service, me) = (self.clone(), me.clone());
        self.0.tasks.spawn(async move {
            let (place, mut tell) = (place, Some(tell));
            // Nobody may be waiting any more; the generation goes on.
            let mut answer = move |result| tell.take().map(|tell| tell.send(result));
            let alarm = service.store_alarm(&me, chat, &ask).await;
            let is_stored = alarm.is_some();
            if let Some(message) = alarm {
                entry.log.push(ChatEvent::Message(message));
                answer(Ok(()));
            }
            match service.prepare(&me, chat, ask, &entry, is_stored).await {
                Ok(job) => {
                    answer(Ok(()));
                    if let Some(job) = job {
                        generation::run(&service, &me, chat, &entry, job).await;
                    }
                }
                Err(error) => {
                    // For a retry that attached itself in the meantime.
                    let (code, message) = (error.code(), error.to_string());
                    service.0.register.end(place.user, chat, &place.log, false);
                    place.log.push(ChatEvent::Error { code, message });
                    answer(Err(error));
                }
            }
        });
        match told.await {
            Ok(result) => result.map(|()| stream),
            Err(_) => Err(ChatError::Store(StoreError::Unhealthy("an internal error".into()))),
        }
    }

    /// Stores a new message at once if its author is in danger. A store that refuses is heard of again by the message
    /// itself.
    async fn store_alarm(&self, me: &UserStore, chat: ChatId, ask: &Ask) -> Option<Message> {
        let kind = safety::check(&ask.content()?)?.kind.as_str().to_owned();
        let (me_too, ask) = (me.clone(), ask.clone());
        let new = blocking(move || {
            let (id, content, parent) = match ask {
                Ask::New { id, content, parent } => (id, content, parent),
                Ask::Edit { message, id, content } => {
                    let old = me_too.message(chat, message)?;
                    (id, content, old.parent_id.map_or(Parent::Root, Parent::Of))
                }
                Ask::Again { .. } => return Err(ChatError::NotFound),
            };
            Ok(store::NewMessage { id, parent, content, safety: Some(kind) })
        });
        let new = new.await.ok()?;
        self.store_message(me, chat, Said::New(new)).await.ok()
    }

    /// Everything up to the durable message, which the log holds already if it `is_stored`. `None`: the log holds the
    /// whole story.
    async fn prepare(
        &self,
        me: &UserStore,
        chat: ChatId,
        ask: Ask,
        entry: &Entry,
        is_stored: bool,
    ) -> Result<Option<Job>, ChatError> {
        let inner = &self.0;
        match tokio::time::timeout(READY_WAIT, inner.engine.ready()).await {
            Ok(ready) => ready?,
            Err(_) => return Err(ChatError::NotReady),
        }
        let (Some(text), Some(info)) = (inner.engine.text(), inner.engine.model_info()) else {
            return Err(ChatError::NotReady);
        };
        let plan = {
            let (me, text, info) = (me.clone(), Arc::clone(&text), Arc::clone(&info));
            blocking(move || plan(&me, chat, ask, &text, &info)).await?
        };
        let (said, prompt, changes, written) = match plan {
            Plan::Replay(message, reply) => {
                inner.register.end(me.user_id(), chat, &entry.log, false);
                if !is_stored {
                    entry.log.push(ChatEvent::Message(message));
                }
                entry.log.push(ChatEvent::Done(reply));
                return Ok(None);
            }
            Plan::Generate { said, prompt, changes, written } => (said, prompt, changes, written),
        };
        // A place in the queue first: when everybody is busy nothing is stored. What the engine sends until the message
        // is durable waits in the channel.
        let (truncated, already_thinking) = (prompt.truncated, prompt.already_thinking);
        let mut read = Vec::new();
        let recited = written.filter(|_| inner.options.take_over_written);
        let (generation, source) = if let Some(reply) = recited {
            let (generation, speak) = exemplars::recite(reply);
            inner.tasks.spawn(speak);
            (generation, Some(Source::Written))
        } else {
            read.clone_from(&prompt.tokens);
            self.bring_back(me, chat, &read, || entry.cancel.is_cancelled()).await;
            (inner.engine.submit_for(&info, self.request(me, prompt, &text, &info))?, None)
        };
        let is_new = matches!(said, Said::New(_));
        let message = self.store_message(me, chat, said).await?;
        if !is_stored {
            entry.log.push(ChatEvent::Message(message.clone()));
        }
        let prompt = read;
        Ok(Some(Job { message, generation, truncated, already_thinking, prompt, is_new, changes, source }))
    }

    fn request(&self, me: &UserStore, prompt: Prompt, text: &TextModel, info: &ModelInfo) -> GenerateRequest {
        let options = &self.0.options;
        let max_tokens = options.max_reply_tokens.map_or(prompt.max_tokens, |n| n.min(prompt.max_tokens));
        let owner = Owner(u128::from_be_bytes(*me.user_id().as_bytes()));
        let sampling = options.sampling.clone().unwrap_or_else(|| prompt::sampling(text, info.n_ctx));
        GenerateRequest {
            stop: text.template.stop_strings().to_vec(),
            ..GenerateRequest::new(owner, prompt.tokens, sampling, max_tokens.max(1))
        }
    }

    async fn store_message(&self, me: &UserStore, chat: ChatId, said: Said) -> Result<Message, ChatError> {
        let new = match said {
            Said::Stored(message) => return Ok(message),
            Said::New(new) => new,
        };
        let user = me.user_id();
        let me = me.clone();
        let appended = blocking(move || Ok(me.append_user_message(chat, new)?)).await?;
        if appended.created {
            self.0.live.publish(user, LiveEvent::Message(appended.message.clone()));
            self.0.live.publish(user, LiveEvent::Chat(appended.chat));
        }
        Ok(appended.message)
    }
}

fn plan(
    me: &UserStore,
    chat: ChatId,
    ask: Ask,
    text: &TextModel,
    info: &ModelInfo,
) -> Result<Plan, ChatError> {
    me.chat(chat)?;
    let (new, parent) = match ask {
        Ask::Again { message } => {
            let question = question_of(me, chat, message)?;
            return answer_again(me, chat, question, text, info);
        }
        Ask::New { id, content, parent } => {
            if let Some(stored) = stored_before(me, chat, id, content.as_str())? {
                return match reply_to(me, chat, id)? {
                    Some(reply) => Ok(Plan::Replay(stored, reply)),
                    None => answer_stored(me, chat, stored, text, info),
                };
            }
            let before = match parent {
                Parent::Newest => me.newest_message(chat)?.map(|m| m.id),
                Parent::Root => None,
                Parent::Of(message) => Some(message),
            };
            ((id, content), before)
        }
        Ask::Edit { message, id, content } => {
            let old = me.message(chat, message)?;
            if !old.is_user {
                return Err(Invalid::new("message", "only your own messages can be changed").into());
            }
            ((id, content), old.parent_id)
        }
    };
    let mut history = match parent {
        Some(leaf) => me.path(chat, leaf, MAX_HISTORY_MESSAGES)?,
        None => Vec::new(),
    };
    let (id, content) = new;
    let danger = safety::check(content.as_str());
    let safety = danger.map(|danger| danger.kind.as_str().to_owned());
    let mut memories = me.memories()?;
    // What somebody says in danger is for people to hear, not for a list of facts.
    let changes = if safety.is_some() {
        Vec::new()
    } else {
        memory::changes(content.as_str(), &memories, Timestamp::now())
    };
    apply_for_prompt(&changes, &mut memories);
    let written = written(content.as_str(), &history, &memories, danger, text);
    history.push(unstored_message(chat, id, content.as_str()));
    let user = me.user()?;
    let prompt = build(text, info, &user, &memories, &history)?;
    // The place was looked up once: what is stored hangs where the prompt thinks.
    let parent = parent.map_or(Parent::Root, Parent::Of);
    let said = Said::New(store::NewMessage { id, parent, content, safety });
    Ok(Plan::Generate { said, prompt, changes, written })
}

/// A written answer, for a model that was trained on such answers and speaks with one voice with them.
fn written(
    message: &str,
    before: &[Message],
    memories: &[Memory],
    danger: Option<safety::Danger>,
    text: &TextModel,
) -> Option<String> {
    if !text.template.supports_example() {
        return None;
    }
    let said: Vec<&str> = before.iter().filter(|m| !m.is_user).map(|m| m.content.trim()).collect();
    let n_before = before.iter().filter(|m| m.is_user).count();
    exemplars::whole(&exemplars::Asked { said: &said, n_before, message, memories, danger })
}

/// Answers a message that was stored and has no answer yet.
fn answer_stored(
    me: &UserStore,
    chat: ChatId,
    question: Message,
    text: &TextModel,
    info: &ModelInfo,
) -> Result<Plan, ChatError> {
    let history = me.path(chat, question.id, MAX_HISTORY_MESSAGES)?;
    let (user, memories) = (me.user()?, me.memories()?);
    let danger = safety::check(&question.content);
    let written = written(&question.content, &history[..history.len() - 1], &memories, danger, text);
    let prompt = build(text, info, &user, &memories, &history)?;
    Ok(Plan::Generate { said: Said::Stored(question), prompt, changes: Vec::new(), written })
}

fn answer_again(
    me: &UserStore,
    chat: ChatId,
    question: Message,
    text: &TextModel,
    info: &ModelInfo,
) -> Result<Plan, ChatError> {
    let in_danger = safety::check(&question.content).is_some();
    let again = answer_stored(me, chat, question, text, info)?;
    // Another answer is wanted, and there is only one written; but none in danger is left to the model.
    Ok(match again {
        Plan::Generate { said, prompt, changes, written } => {
            Plan::Generate { said, prompt, changes, written: written.filter(|_| in_danger) }
        }
        replay @ Plan::Replay(..) => replay,
    })
}

pub(super) fn build(
    text: &TextModel,
    info: &ModelInfo,
    user: &User,
    memories: &[Memory],
    history: &[Message],
) -> Result<Prompt, ChatError> {
    let person = Person { user, memories };
    let mut prompt = prompt::build(text, info, person, history)?;
    // A way longer than what is looked at was cut at its old end, too.
    prompt.truncated |= history.first().is_some_and(|m| m.parent_id.is_some());
    Ok(prompt)
}

/// The person's message that `message` is, or answers.
fn question_of(me: &UserStore, chat: ChatId, message: MessageId) -> Result<Message, ChatError> {
    let found = me.message(chat, message)?;
    if found.is_user {
        return Ok(found);
    }
    let parent = found.parent_id.ok_or_else(|| Invalid::new("message", "answers nothing"))?;
    Ok(me.message(chat, parent)?)
}

fn stored_before(
    me: &UserStore,
    chat: ChatId,
    id: MessageId,
    content: &str,
) -> Result<Option<Message>, ChatError> {
    match me.message(chat, id) {
        Ok(message) if message.is_user && message.content == content => Ok(Some(message)),
        Ok(_) => Err(ChatError::Conflict("id_taken")),
        Err(StoreError::NotFound) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// The newest reply to a message, if it is among the chat's newest messages and has ended.
fn reply_to(me: &UserStore, chat: ChatId, message: MessageId) -> Result<Option<Message>, ChatError> {
    let (newest, _) = me.messages(chat, &MessagePage { limit: REPLAY_MESSAGES, before: None })?;
    let answers = |m: &Message| !m.is_user && m.parent_id == Some(message) && m.finish_reason.is_some();
    Ok(newest.into_iter().rev().find(answers))
}

pub(super) fn apply_for_prompt(changes: &[Change], memories: &mut Vec<Memory>) {
    for change in changes {
        match change {
            Change::Add(content) => memories.push(prompt::unstored_memory(content.clone())),
            Change::Replace(id, content) => {
                if let Some(memory) = memories.iter_mut().find(|m| m.id == *id) {
                    memory.content.clone_from(content);
                    memory.origin = None;
                }
            }
            Change::Forget(id) => memories.retain(|m| m.id != *id),
        }
    }
}

pub(super) fn unstored_message(chat: ChatId, id: MessageId, content: &str) -> Message {
    Message {
        id,
        chat_id: chat,
        parent_id: None,
        content: content.to_owned(),
        is_user: true,
        created_at: Timestamp::now(),
        finish_reason: None,
        timings: None,
        safety: None,
        source: None,
        truncated: false,
    }
}
