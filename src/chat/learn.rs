//! After an answer: an instruction model is asked what the message told about its writer.
//!
//! It happens behind the answer, when nobody writes, and is given up as soon as somebody does: the rules of `memory`
//! have read the message already. A model that was trained here is not asked, because it knows those rules' facts only.

use super::generation::remember;
use super::memory::{Change, extract};
use super::{ChatError, ChatService, blocking, prompt};
use crate::domain::Message;
use crate::engine::grammar::{Form, Grammar};
use crate::engine::{Engine, Event, Finish, GenerateRequest, Owner, SamplingParams, TokenId, Urgency};
use crate::store::{StoreError, UserStore};
use crate::text::{Speaker, TextError, TextModel, ThinkingSplitter, Turn};

/// What a model is asked.
struct Question {
    prompt: Vec<TokenId>,
    grammar: Grammar,
    in_thought: bool,
}

impl ChatService {
    /// Notes what the message says about the person, each fact with the message it came from.
    pub(super) async fn learn(&self, me: &UserStore, message: &Message) {
        let learned = async {
            match self.answer_about(me, message).await? {
                Some(answer) => self.note(me, message, answer).await,
                None => Ok(()),
            }
        };
        let learned = tokio::select! {
            learned = learned => learned,
            () = self.0.closing.cancelled() => return,
        };
        match learned {
            // The chat or the person went meanwhile, or everybody writes: nothing was promised.
            Ok(()) | Err(ChatError::NotFound | ChatError::Busy { .. } | ChatError::NotReady) => {}
            Err(error) => tracing::warn!(%error, "a message was not read for facts"),
        }
    }

    /// What the model answers where it is asked for facts; `None` where it is not, or was interrupted.
    async fn answer_about(&self, me: &UserStore, message: &Message) -> Result<Option<String>, ChatError> {
        let engine = &self.0.engine;
        let (Some(text), Some(info)) = (engine.text(), engine.model_info()) else { return Ok(None) };
        if prompt::reads_facts_only(&text, info.n_ctx) || message.safety.is_some() {
            return Ok(None);
        }
        let (me_too, content, compiler) = (me.clone(), message.content.clone(), engine.clone());
        let question = blocking(move || {
            let is_worth = extract::is_worth_reading(&content, &me_too.memories()?);
            if is_worth { question(&compiler, &text, content).map(Some) } else { Ok(None) }
        });
        let Some(Question { prompt, grammar, in_thought }) = question.await? else { return Ok(None) };
        let max_tokens = extract::MAX_TOKENS + if in_thought { extract::MAX_THOUGHT_TOKENS } else { 0 };
        if prompt.len() + max_tokens > info.n_ctx {
            return Ok(None);
        }
        let owner = Owner(u128::from_be_bytes(*me.user_id().as_bytes()));
        let new = GenerateRequest::new(owner, prompt, SamplingParams::greedy(), max_tokens);
        let request = GenerateRequest { grammar: Some(grammar), urgency: Urgency::Background, ..new };
        let mut generation = engine.submit_for(&info, request)?;
        let (mut answer, mut splitter) = (String::new(), ThinkingSplitter::new(in_thought));
        while let Some(event) = generation.events.recv().await {
            match event {
                Event::Delta { text, .. } => answer.push_str(&splitter.push(&text).answer),
                Event::Done { finish_reason: Finish::Stop, .. } => {
                    answer.push_str(&splitter.finish().answer);
                    return Ok(Some(answer));
                }
                Event::Done { .. } | Event::Failed(_) => return Ok(None),
                Event::Queued { .. } | Event::Prefill { .. } => {}
            }
        }
        Ok(None)
    }

    /// Keeps what is believed of an answer, if the message still stands and its writer still wants facts kept: both may
    /// have changed while the model ran.
    async fn note(&self, me: &UserStore, message: &Message, answer: String) -> Result<(), ChatError> {
        let (me, chat, id, live) = (me.clone(), message.chat_id, message.id, self.0.live.clone());
        blocking(move || {
            let message = me.message(chat, id)?;
            let known = me.memories()?;
            if !extract::is_worth_reading(&message.content, &known) {
                return Ok(());
            }
            for fact in extract::facts(&answer, &message.content, &known) {
                match remember(&me, chat, id, Change::Add(fact)) {
                    Ok(event) => live.publish(me.user_id(), event),
                    Err(StoreError::Invalid(full)) => {
                        tracing::debug!(%full, "no more facts are kept");
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
        .await
    }
}

fn question(engine: &Engine, text: &TextModel, content: String) -> Result<Question, ChatError> {
    let unreadable = |e: TextError| ChatError::Broken(e.to_string());
    let turns = [Turn::new(Speaker::System, extract::TASK), Turn::new(Speaker::User, content)];
    let rendered = text.template.render(&turns, true).map_err(unreadable)?;
    let in_thought = ThinkingSplitter::is_opened_by(&rendered.text());
    let prompt = text.tokenizer.encode_template(&rendered).map_err(unreadable)?;
    let grammar = engine.compile(&Form::JsonSchema(extract::schema()), in_thought)?;
    Ok(Question { prompt, grammar, in_thought })
}
