//! What a caller hands in and gets back: the request, its events, the handle that cancels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::grammar::Grammar;
use super::sampler::SamplingParams;
use super::stop;
use crate::model::TokenId;

/// Who waits. Fairness and the prefix cache are per owner; what an owner is (a person, a terminal) is the caller's
/// business.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Owner(pub u128);

/// Most alternatives told per token: the bound that clients of the `OpenAI` API know.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// One text to be generated.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Who waits for it.
    pub owner: Owner,
    /// The whole prompt, one token at least.
    pub prompt: Vec<TokenId>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Strings that end the text and do not appear in it; at most [`stop::MAX_STOPS`] of [`stop::MAX_STOP_BYTES`] bytes.
    pub stop: Vec<String>,
    /// Most tokens to generate; cut to what the context has left.
    pub max_tokens: usize,
    /// Says with each delta which tokens it is made of, with their probabilities and this many of the likeliest
    /// alternatives; at most [`MAX_TOP_LOGPROBS`].
    pub logprobs: Option<usize>,
    /// What the text must look like.
    pub grammar: Option<Grammar>,
    /// Whether anybody waits for it.
    pub urgency: Urgency,
}

/// Whether anybody waits for a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Urgency {
    /// Its owner does.
    #[default]
    Awaited,
    /// Nobody: it begins when nothing else runs or waits, ends with [`Finish::Cancelled`] as soon as somebody writes, and
    /// leaves nothing warm.
    Background,
    /// The same, but what was read of the prompt stays warm: its owner will go on from there.
    ReadAhead,
}

impl GenerateRequest {
    /// A request without stop strings, probabilities and grammar, for somebody who waits.
    pub fn new(owner: Owner, prompt: Vec<TokenId>, sampling: SamplingParams, max_tokens: usize) -> Self {
        Self {
            owner,
            prompt,
            sampling,
            stop: Vec::new(),
            max_tokens,
            logprobs: None,
            grammar: None,
            urgency: Urgency::Awaited,
        }
    }

    /// Refuses values out of range; the error names the field.
    pub fn validate(&self) -> Result<(), InvalidParam> {
        self.sampling.validate()?;
        stop::validate(&self.stop)?;
        if self.prompt.is_empty() {
            return Err(InvalidParam::new("prompt", "must have at least one token"));
        }
        if self.max_tokens == 0 {
            return Err(InvalidParam::new("max_tokens", "must be at least 1"));
        }
        if self.logprobs.is_some_and(|n| n > MAX_TOP_LOGPROBS) {
            return Err(InvalidParam::new("top_logprobs", format!("must be at most {MAX_TOP_LOGPROBS}")));
        }
        Ok(())
    }
}

/// A request's value out of its range.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidParam {
    /// The field's name as it stands in requests.
    pub field: &'static str,
    /// One sentence naming the range.
    pub problem: String,
}

impl InvalidParam {
    /// A refusal of `field` with one sentence.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

/// A running or waiting generation. Dropping `events` (or the whole) cancels it.
#[derive(Debug)]
pub struct Generation {
    /// What happens to it, in order; the last is [`Event::Done`] or [`Event::Failed`].
    ///
    /// Unbounded, because the engine never waits for a reader; what can pile up is bounded by `max_tokens`.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Ends it early, from anywhere.
    pub cancel: CancelHandle,
}

/// Ends a generation early; clones end the same one.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// Asks for the end. The generation stops before its next token or prefill chunk, wherever it stands, and says so
    /// with [`Finish::Cancelled`]; what was generated so far has been sent by then.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }
    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What happens to a generation.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// It waits; sent when the position changes.
    Queued {
        /// 1 is the next to run.
        position: usize,
        /// How long that may take, from how long generations took so far.
        wait: Duration,
    },
    /// Its prompt is being evaluated; sent at the start and after every chunk.
    Prefill {
        /// Length of the prompt.
        prompt_tokens: usize,
        /// How many of them the prefix cache already had.
        cached_tokens: usize,
        /// How many are done, those of the cache included.
        processed_tokens: usize,
    },
    /// Text, whole characters only.
    Delta {
        /// The piece.
        text: String,
        /// Tokens generated since the last delta.
        n_tokens: usize,
        /// These tokens, where the request asked for them; the text of the newest may still be held back.
        tokens: Vec<Logprob>,
    },
    /// It ended.
    Done {
        /// Why.
        finish_reason: Finish,
        /// How fast it was.
        timings: Timings,
    },
    /// It broke; one sentence for the log. Text sent before stays true.
    Failed(String),
}

/// A generated token and how likely the model held it, before penalties, biases and filters.
#[derive(Clone, PartialEq, Debug)]
pub struct Logprob {
    /// The token.
    pub id: TokenId,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens at this place with theirs, likely ones first.
    pub top: Vec<(TokenId, f32)>,
}

/// Why a generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Finish {
    /// The model said it was done, or a stop string came.
    Stop,
    /// `max_tokens`, the context, the time limit, or the model going round in circles (see [`super::loop_guard`]).
    Length,
    /// Somebody asked for the end, or nobody listens any more.
    Cancelled,
}

impl Finish {
    /// The word used in metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How fast a generation was, named as in llama.cpp; times in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Timings {
    /// Prompt tokens taken from the prefix cache.
    pub cache_n: u32,
    /// Prompt tokens evaluated.
    pub prompt_n: u32,
    /// From leaving the queue to the end of the prefill.
    pub prompt_ms: f32,
    /// Tokens generated, the end-of-generation token not counted.
    pub predicted_n: u32,
    /// From the end of the prefill to the end.
    pub predicted_ms: f32,
}
