//! A chat's keys and values between the engine's warm sequences and the disk, where the operator wants them kept.
//!
//! Behind an answer the model reads ahead what the next prompt will begin with, where that is not what it has just
//! written: thoughts are not shown to it again, and a text may be cut into other tokens. Then the pages that are new are put away; before a message is answered, those that the engine has lost
//! (it was started again, or others needed the memory) come back. Whatever goes wrong costs time only: what is missing
//! is computed.

use super::start::{build, unstored_message};
use super::{ChatError, ChatService, blocking, prompt};
use crate::domain::{ChatId, MessageId};
use crate::engine::{Event, GenerateRequest, KvForm, ModelInfo, Owner, SamplingParams, TokenId, Urgency};
use crate::store::{self, UserStore};
use crate::text::TextModel;

/// Fewer tokens are not worth a step of their own.
const MIN_READ_AHEAD: usize = 8;

/// A person's chat as pages of tokens.
struct Kept<'a> {
    me: &'a UserStore,
    chat: ChatId,
    form: KvForm,
    owner: Owner,
}

impl ChatService {
    /// `None` where nothing is kept.
    fn kept<'a>(&self, me: &'a UserStore, chat: ChatId) -> Option<Kept<'a>> {
        let form = self.0.engine.kv_form().filter(|_| self.0.store.keeps_kv())?;
        Some(Kept { me, chat, form, owner: owner_of(me) })
    }

    /// Makes as much of a prompt warm as was put away of its chat; `is_over` is asked between two pages.
    pub(super) async fn bring_back(
        &self,
        me: &UserStore,
        chat: ChatId,
        prompt: &[TokenId],
        is_over: impl Fn() -> bool,
    ) {
        let Some(kept) = self.kept(me, chat) else { return };
        let engine = &self.0.engine;
        // The last token is evaluated anyway.
        let usable = &prompt[..prompt.len().saturating_sub(1)];
        let end = |i: usize| &usable[..(i + 1) * kept.form.page_len];
        let n_kept = kept.n_pages_of(usable).await;
        if n_kept == 0 {
            return;
        }
        let n_warm = engine.n_warm(kept.owner, usable).await.unwrap_or(0) / kept.form.page_len;
        let mut page = if n_warm < n_kept { kept.page(end(n_warm)).await } else { None };
        for i in n_warm..n_kept {
            let Some(bytes) = page.take().filter(|_| !is_over()) else { return };
            let next = async { if i + 1 < n_kept { kept.page(end(i + 1)).await } else { None } };
            let (brought, next) = tokio::join!(engine.bring_page(kept.form, kept.owner, end(i), bytes), next);
            if brought.is_none() {
                return;
            }
            page = next;
        }
        tracing::debug!(n_warm, n_kept, "pages of a chat came back from the disk");
    }

    /// Has the model read what the next message of a chat will be asked behind, as far as it is not warm; says what that
    /// is. `None` where nothing was read.
    pub(super) async fn read_ahead(
        &self,
        me: &UserStore,
        chat: ChatId,
        reply: MessageId,
    ) -> Result<Option<Vec<TokenId>>, ChatError> {
        let engine = &self.0.engine;
        let (Some(text), Some(info)) = (engine.text(), engine.model_info()) else { return Ok(None) };
        if !engine.keeps_warm() {
            return Ok(None);
        }
        let (reader, about) = (me.clone(), info.clone());
        let ahead = blocking(move || next_beginning(&reader, chat, reply, &text, &about)).await?;
        let owner = owner_of(me);
        let n_warm = engine.n_warm(owner, &ahead).await.unwrap_or(ahead.len());
        if n_warm + MIN_READ_AHEAD > ahead.len() {
            return Ok(None);
        }
        let new = GenerateRequest::new(owner, ahead.clone(), SamplingParams::greedy(), 1);
        let mut reading = engine.submit_for(&info, GenerateRequest { urgency: Urgency::ReadAhead, ..new })?;
        while let Some(event) = reading.events.recv().await {
            if matches!(event, Event::Done { .. } | Event::Failed(_)) {
                break;
            }
        }
        Ok(Some(ahead))
    }

    /// Puts away what the engine has made of a prompt and its answer, as far as that was not done before.
    pub(super) async fn put_away(&self, me: &UserStore, chat: ChatId, prompt: &[TokenId]) {
        let Some(kept) = self.kept(me, chat) else { return };
        let engine = &self.0.engine;
        let Some(tokens) = engine.warm_tokens(kept.form, kept.owner, prompt).await else { return };
        for i in kept.n_pages_of(&tokens).await..tokens.len() / kept.form.page_len {
            let tokens = &tokens[..(i + 1) * kept.form.page_len];
            let Some(page) = engine.warm_page(kept.form, kept.owner, tokens).await else { return };
            if self.0.closing.is_cancelled() || !kept.put(tokens, page).await {
                return;
            }
        }
    }
}

/// What the prompts of all messages behind a reply have in common.
fn next_beginning(
    me: &UserStore,
    chat: ChatId,
    reply: MessageId,
    text: &TextModel,
    info: &ModelInfo,
) -> Result<Vec<TokenId>, ChatError> {
    let mut history = me.path(chat, reply, prompt::MAX_HISTORY_MESSAGES)?;
    let (user, memories) = (me.user()?, me.memories()?);
    history.push(unstored_message(chat, MessageId::new(), "."));
    let mut one = build(text, info, &user, &memories, &history)?.tokens;
    if let Some(next) = history.last_mut() {
        next.content = "?".into();
    }
    let other = build(text, info, &user, &memories, &history)?.tokens;
    one.truncate(std::iter::zip(&one, &other).take_while(|(a, b)| a == b).count());
    Ok(one)
}

fn owner_of(me: &UserStore) -> Owner {
    Owner(u128::from_be_bytes(*me.user_id().as_bytes()))
}

impl Kept<'_> {
    fn stored_form(&self) -> store::KvForm {
        let KvForm { page_len, page_bytes, fingerprint } = self.form;
        store::KvForm { page_len, page_bytes, fingerprint }
    }

    /// With how many whole pages on disk these tokens begin.
    async fn n_pages_of(&self, tokens: &[TokenId]) -> usize {
        let (me, chat, form, tokens) = (self.me.clone(), self.chat, self.stored_form(), tokens.to_vec());
        let n_common = blocking(move || {
            let kept = me.kept_tokens(chat, &form);
            Ok(std::iter::zip(kept, tokens).take_while(|(a, b)| a == b).count())
        });
        n_common.await.unwrap_or(0) / self.form.page_len
    }

    /// The last page of these tokens.
    async fn page(&self, tokens: &[TokenId]) -> Option<Vec<u8>> {
        let (me, chat, form, tokens) = (self.me.clone(), self.chat, self.stored_form(), tokens.to_vec());
        blocking(move || Ok(me.kept_page(chat, &form, &tokens))).await.ok()?
    }

    /// False where it was not put away.
    async fn put(&self, tokens: &[TokenId], page: Vec<u8>) -> bool {
        let (me, chat, form, tokens) = (self.me.clone(), self.chat, self.stored_form(), tokens.to_vec());
        let put = blocking(move || Ok(me.keep_page(chat, &form, &tokens, &page)?)).await;
        put.unwrap_or_else(|error| {
            tracing::warn!(%error, "what a model made of a chat was not put away");
            false
        })
    }
}
