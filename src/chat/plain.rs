//! Text for programs: the conversation comes whole with the request, no persona is added, nothing of it is kept.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{ChatError, ChatService, READY_WAIT, blocking, prompt};
use crate::domain::Invalid;
use crate::engine::grammar::Form;
use crate::engine::sampler;
use crate::engine::{
    EngineError, Event, Finish, GenerateRequest, Generation, InvalidParam, Logprob, ModelInfo, Owner,
    SamplingParams, Timings, TokenId,
};
use crate::store::UserStore;
use crate::text::{TextError, TextModel, ThinkingSplitter, ToolCallSplitter};

pub use crate::text::{Speaker, ToolCall, ToolChat, Turn};

/// What a program wants continued.
#[derive(Clone, Debug)]
pub enum Given {
    /// Turns, rendered with the model's own chat template.
    Chat(Vec<Turn>),
    /// A chat in which the model may call functions.
    Tools(ToolChat),
    /// Text, taken as it is.
    Text(String),
}

/// A program's request.
pub struct PlainRequest {
    /// What is to be continued.
    pub given: Given,
    /// Changes the model's usual sampling.
    pub sampling: Box<dyn FnOnce(&mut SamplingParams) + Send>,
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// Most tokens to generate; `None` = what the context has left.
    pub max_tokens: Option<usize>,
    /// What the text must look like; behind the model's thoughts, if the prompt opens any.
    pub form: Option<Form>,
    /// Tell tokens with their probabilities and this many alternatives.
    pub logprobs: Option<usize>,
}

/// What is running for a program. Dropping it cancels.
pub struct PlainReply {
    /// Tokens of the prompt.
    pub prompt: Arc<[TokenId]>,
    /// Which model answers.
    pub model: Arc<ModelInfo>,
    /// How its tokens are chosen.
    pub sampling: SamplingParams,
    generation: Generation,
    text: Arc<TextModel>,
    thoughts: Option<ThinkingSplitter>,
    calls: Option<ToolCallSplitter>,
    ready: VecDeque<PlainEvent>,
}

/// What happens to a program's text.
#[derive(Clone, PartialEq, Debug)]
pub enum PlainEvent {
    /// More of it.
    Piece(Piece),
    /// It ended.
    Done(Finish, Timings),
    /// It broke; for the log.
    Failed(String),
}

/// A piece of a program's text, told apart.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Piece {
    /// What the model thinks.
    pub thought: String,
    /// What it answers.
    pub answer: String,
    /// Functions that it calls.
    pub calls: Vec<ToolCall>,
    /// The tokens that came, thoughts included, where they were asked for.
    pub tokens: Vec<TokenText>,
}

/// A token with its text and how likely it was.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenText {
    /// The token.
    pub id: TokenId,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes, which need not be whole characters.
    pub bytes: Vec<u8>,
    /// The likeliest tokens at its place: bytes and logarithm.
    pub top: Vec<(Vec<u8>, f32)>,
}

impl ChatService {
    /// Generates for a program. It shares the person's place in the queue.
    ///
    /// # Errors
    /// [`ChatError::Invalid`] names the field; [`ChatError::TooLong`] when the prompt leaves no room for an answer.
    pub async fn plain(&self, me: &UserStore, request: PlainRequest) -> Result<PlainReply, ChatError> {
        let engine = &self.0.engine;
        match tokio::time::timeout(READY_WAIT, engine.ready()).await {
            Ok(ready) => ready?,
            Err(_) => return Err(ChatError::NotReady),
        }
        let (Some(text), Some(model)) = (engine.text(), engine.model_info()) else {
            return Err(ChatError::NotReady);
        };
        let PlainRequest { given, sampling: change, mut stop, max_tokens, form, logprobs } = request;
        let mut sampling = prompt::sampling(&text, model.n_ctx);
        change(&mut sampling);
        // Told with the answer where tokens are, so that it can be had again.
        sampling.seed = sampling.seed.or_else(|| Some(sampler::random_seed()));
        sampling.validate().map_err(|e| invalid(&e))?;
        if let Some((id, _)) = sampling.logit_bias.iter().find(|(id, _)| *id as usize >= model.n_vocab) {
            let problem = format!("token {id} is outside the vocabulary of {}", model.n_vocab);
            return Err(Invalid::new("logit_bias", problem).into());
        }
        let is_chat = !matches!(given, Given::Text(_));
        let calls = matches!(given, Given::Tools(_)).then(ToolCallSplitter::default);
        if is_chat {
            stop.extend_from_slice(text.template.stop_strings());
        }
        let (compiler, text_there) = (engine.clone(), Arc::clone(&text));
        let (tokens, in_thought, grammar) = blocking(move || {
            let (tokens, in_thought) = encode(&text_there, given).map_err(|e| unreadable(&e))?;
            let compiled = form.map(|form| compiler.compile(&form, in_thought)).transpose();
            Ok((tokens, in_thought, compiled.map_err(refused)?))
        })
        .await?;
        let n_prompt = tokens.len();
        if n_prompt >= model.n_ctx {
            return Err(ChatError::TooLong { n_tokens: n_prompt, limit: model.n_ctx });
        }
        let room = model.n_ctx - n_prompt;
        let owner = Owner(u128::from_be_bytes(*me.user_id().as_bytes()));
        let prompt: Arc<[TokenId]> = tokens.as_slice().into();
        let max_tokens = max_tokens.map_or(room, |n| n.min(room));
        let new = GenerateRequest::new(owner, tokens, sampling.clone(), max_tokens);
        let submitted = engine.submit_for(&model, GenerateRequest { stop, logprobs, grammar, ..new });
        let generation = submitted.map_err(refused)?;
        let thoughts = is_chat.then(|| ThinkingSplitter::new(in_thought));
        Ok(PlainReply { prompt, model, sampling, generation, text, thoughts, calls, ready: VecDeque::new() })
    }
}

/// The prompt, and whether it leaves the model inside a thought.
fn encode(text: &TextModel, given: Given) -> Result<(Vec<TokenId>, bool), TextError> {
    let rendered = match given {
        Given::Text(words) => return Ok((text.tokenizer.encode_plain(&words, true)?, false)),
        Given::Chat(turns) => text.template.render(&turns, true)?,
        Given::Tools(chat) => text.template.render_tools(&chat)?,
    };
    Ok((text.tokenizer.encode_template(&rendered)?, ThinkingSplitter::is_opened_by(&rendered.text())))
}

impl PlainReply {
    /// The next event; nothing comes after [`PlainEvent::Done`] and [`PlainEvent::Failed`]. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> PlainEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let event = self.generation.events.recv().await;
            self.take(event);
        }
    }

    fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Delta { text, tokens, .. }) => {
                let mut piece = self.split(&text);
                piece.tokens = tokens.into_iter().map(|t| self.told(t)).collect();
                self.offer(piece);
            }
            Some(Event::Done { finish_reason, timings }) => {
                let rest = self.finish_split();
                self.offer(rest);
                self.ready.push_back(PlainEvent::Done(finish_reason, timings));
            }
            Some(Event::Failed(cause)) => self.ready.push_back(PlainEvent::Failed(cause)),
            Some(Event::Queued { .. } | Event::Prefill { .. }) => {}
            None => self.ready.push_back(PlainEvent::Failed("a generation without an end".into())),
        }
    }

    fn offer(&mut self, piece: Piece) {
        if piece != Piece::default() {
            self.ready.push_back(PlainEvent::Piece(piece));
        }
    }

    fn split(&mut self, text: &str) -> Piece {
        let (thought, answer) = match &mut self.thoughts {
            None => (String::new(), text.to_owned()),
            Some(splitter) => {
                let split = splitter.push(text);
                (split.thought, split.answer)
            }
        };
        self.with_calls(thought, answer)
    }

    fn with_calls(&mut self, thought: String, answer: String) -> Piece {
        let Some(splitter) = &mut self.calls else { return Piece { thought, answer, ..Piece::default() } };
        let found = splitter.push(&answer);
        Piece { thought, answer: found.text, calls: found.calls, tokens: Vec::new() }
    }

    fn finish_split(&mut self) -> Piece {
        let split = self.thoughts.take().map(ThinkingSplitter::finish).unwrap_or_default();
        let mut piece = self.with_calls(split.thought, split.answer);
        if let Some(splitter) = self.calls.take() {
            let rest = splitter.finish();
            piece.answer.push_str(&rest.text);
            piece.calls.extend(rest.calls);
        }
        piece
    }

    fn told(&self, token: Logprob) -> TokenText {
        let Logprob { id, logprob, top } = token;
        let bytes = |id: TokenId| {
            let tokenizer = &self.text.tokenizer;
            let bytes = tokenizer.token_bytes(id);
            // A control token has a name only.
            if bytes.is_empty() { tokenizer.token_text(id).as_bytes().to_vec() } else { bytes.to_vec() }
        };
        let top = top.into_iter().map(|(id, logprob)| (bytes(id), logprob)).collect();
        TokenText { id, logprob, bytes: bytes(id), top }
    }
}

fn refused(error: EngineError) -> ChatError {
    match error {
        EngineError::Invalid(param) => invalid(&param),
        other => other.into(),
    }
}

fn invalid(param: &InvalidParam) -> ChatError {
    Invalid::new(param.field, param.problem.clone()).into()
}

fn unreadable(error: &TextError) -> ChatError {
    match error {
        TextError::TooLong { .. } | TextError::Template(_) => {
            Invalid::new("messages", error.to_string()).into()
        }
        TextError::Malformed(_) | TextError::Unsupported(_) => ChatError::Broken(error.to_string()),
    }
}
