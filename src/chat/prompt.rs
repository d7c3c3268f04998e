//! What the model reads: persona, remembered facts, and the newest whole exchanges that leave room for an answer.
//!
//! A message is never cut. Where older exchanges are left out, that is said with the reply.

use crate::domain::{Memory, MemoryId, Message, MessageId, Timestamp, User};
use crate::engine::{ModelInfo, SamplingParams, TokenId};
use crate::text::{Speaker, TextError, TextModel, Turn};

use super::{exemplars, persona};

/// A model trained on this project's own dialogues was never shown a persona: it gets facts alone, in one line that its
/// template keeps only if it is shorter than this.
const MAX_FACTS_LINE_CHARS: usize = 239;
/// Facts in a long system text: a paragraph, not a dossier.
const MAX_FACTS_CHARS: usize = 2000;
/// Below this context a persona would leave no room to talk.
const MIN_CTX_FOR_PERSONA: usize = 1024;
/// Most room kept for an answer.
const MAX_REPLY_TOKENS: usize = 1024;
/// Messages looked at; a context that holds more of them is larger than what a chat needs.
pub(super) const MAX_HISTORY_MESSAGES: usize = 400;
/// What a turn costs beside its words: role, markers, line ends.
const TURN_OVERHEAD_TOKENS: usize = 8;
/// In contexts from this size on, the start of the history moves in steps of [`START_STEP`] exchanges, so that most
/// messages of a long chat find their prefix in the cache.
const LARGE_CTX: usize = 4096;
const START_STEP: usize = 4;
/// A plan that names a weekday is over after this many seconds.
const PLAN_SECONDS: i64 = 7 * 24 * 3600;

/// A prompt and what it leaves room for.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Token ids.
    pub tokens: Vec<TokenId>,
    /// Most tokens the answer may have.
    pub max_tokens: usize,
    /// Older exchanges were left out.
    pub truncated: bool,
    /// The template opened the model's thoughts already.
    pub already_thinking: bool,
}

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The message alone does not fit.
    #[error("the message has {n_tokens} tokens; this model can read at most {limit} at once")]
    TooLong {
        /// Of the message.
        n_tokens: usize,
        /// What there is room for.
        limit: usize,
    },
    /// It could not be turned into tokens.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// Who writes and what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// The profile.
    pub user: &'a User,
    /// What the parent remembers, oldest first.
    pub memories: &'a [Memory],
}

/// Whether a model reads facts only: one trained on this project's dialogues, or with a tiny context.
pub(super) fn reads_facts_only(text: &TextModel, n_ctx: usize) -> bool {
    text.template.supports_example() || n_ctx < MIN_CTX_FOR_PERSONA
}

/// How this model's tokens are chosen where nobody says otherwise.
pub fn sampling(text: &TextModel, n_ctx: usize) -> SamplingParams {
    let neutral = SamplingParams::neutral();
    if reads_facts_only(text, n_ctx) {
        // Small models lose the thread when hot, and go round in circles when cold.
        SamplingParams {
            temperature: 0.4,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.05,
            repeat_penalty: 1.1,
            ..neutral
        }
    } else {
        SamplingParams {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.05,
            ..neutral
        }
    }
}

/// Builds the prompt for the last of `history`, which is the person's message; the others are the way to it.
pub fn build(
    text: &TextModel,
    info: &ModelInfo,
    person: Person<'_>,
    history: &[Message],
) -> Result<Prompt, PromptError> {
    let facts_only = reads_facts_only(text, info.n_ctx);
    let exchanges = exchanges(history);
    let example = example_turn(text, &exchanges);
    let voice = (!facts_only).then(|| opening_voice(&exchanges)).flatten();
    let head = |first: usize| {
        let shown: Vec<MessageId> = exchanges[first..].iter().flatten().map(|t| t.id).collect();
        let system = system_turn(facts_only, person, &shown, voice.as_deref());
        example.clone().into_iter().chain(system).collect()
    };
    fit(text, info.n_ctx, &exchanges, head)
}

/// The prompt of a conversation that is stored nowhere: turns in order, the person's last. Of `persona` the text, where
/// the model can follow one.
pub fn build_unstored(
    text: &TextModel,
    info: &ModelInfo,
    persona: &str,
    turns: &[Turn],
) -> Result<Prompt, PromptError> {
    let mut exchanges: Vec<Vec<Said>> = Vec::new();
    for turn in turns {
        push_turn(&mut exchanges, MessageId::from_bytes([0; 16]), turn.clone());
    }
    let example = example_turn(text, &exchanges);
    let system = (!reads_facts_only(text, info.n_ctx))
        .then(|| with_voice(persona.to_owned(), opening_voice(&exchanges).as_deref()))
        .map(|system| Turn::new(Speaker::System, system));
    fit(text, info.n_ctx, &exchanges, |_| example.clone().into_iter().chain(system.clone()).collect())
}

/// A turn and the message it came from.
#[derive(Clone, Debug)]
struct Said {
    id: MessageId,
    turn: Turn,
}

/// Exchanges in order: the person's turn and, but for the last, the parent's. Neighbours of the same speaker (an answer
/// that never came) become one turn, because templates insist on taking turns.
fn exchanges(history: &[Message]) -> Vec<Vec<Said>> {
    let mut out: Vec<Vec<Said>> = Vec::new();
    for message in history {
        let speaker = if message.is_user { Speaker::User } else { Speaker::Assistant };
        if !message.content.trim().is_empty() {
            push_turn(&mut out, message.id, Turn::new(speaker, message.content.trim()));
        }
    }
    out
}

fn push_turn(exchanges: &mut Vec<Vec<Said>>, id: MessageId, turn: Turn) {
    let last = exchanges.last_mut().and_then(|e| e.last_mut());
    match last {
        Some(last) if last.turn.speaker == turn.speaker => {
            last.turn.content.push_str("\n\n");
            last.turn.content.push_str(&turn.content);
            last.id = id;
        }
        _ if turn.speaker == Speaker::User => exchanges.push(vec![Said { id, turn }]),
        // An answer before anybody said anything has no place in a template.
        _ => {
            if let Some(exchange) = exchanges.last_mut() {
                exchange.push(Said { id, turn });
            }
        }
    }
}

fn fit(
    text: &TextModel,
    n_ctx: usize,
    exchanges: &[Vec<Said>],
    head: impl Fn(usize) -> Vec<Turn>,
) -> Result<Prompt, PromptError> {
    let reserve = (n_ctx / 4).clamp(1, MAX_REPLY_TOKENS);
    let budget = n_ctx.saturating_sub(reserve);
    let mut first = first_that_fits(text, budget, exchanges, &head)?;
    let last = exchanges.len().saturating_sub(1);
    loop {
        let turns: Vec<Turn> = head(first)
            .into_iter()
            .chain(exchanges[first..].iter().flatten().map(|s| s.turn.clone()))
            .collect();
        let tokens = text.encode_chat(&turns)?;
        if tokens.len() <= budget {
            let rendered = text.template.render(&turns, true)?.text();
            return Ok(Prompt {
                max_tokens: n_ctx - tokens.len(),
                truncated: first > 0,
                already_thinking: rendered.trim_end().ends_with("<think>"),
                tokens,
            });
        }
        if first >= last {
            let n_tokens = match exchanges.last().and_then(|e| e.first()) {
                Some(said) => text.count(&said.turn.content)?,
                None => 0,
            };
            let around = tokens.len().saturating_sub(n_tokens);
            return Err(PromptError::TooLong { n_tokens, limit: budget.saturating_sub(around) });
        }
        first += 1;
    }
}

/// The first exchange of those that should fit, by counting each turn alone.
fn first_that_fits(
    text: &TextModel,
    budget: usize,
    exchanges: &[Vec<Said>],
    head: &impl Fn(usize) -> Vec<Turn>,
) -> Result<usize, PromptError> {
    let last = exchanges.len().saturating_sub(1);
    let mut used = 0;
    for turn in head(0) {
        used += text.count(&turn.content)? + TURN_OVERHEAD_TOKENS;
    }
    let mut first = exchanges.len();
    for (i, exchange) in exchanges.iter().enumerate().rev() {
        for said in exchange {
            used += text.count(&said.turn.content)? + TURN_OVERHEAD_TOKENS;
        }
        if used > budget && i < last {
            break;
        }
        first = i;
    }
    if first > 0 && first < last && budget >= LARGE_CTX {
        first = first.next_multiple_of(START_STEP).min(last);
    }
    Ok(first.min(last))
}

/// The nearest written exchange, for the opening of a chat with a model that was trained to carry one over.
fn example_turn(text: &TextModel, exchanges: &[Vec<Said>]) -> Option<Turn> {
    let [opening] = exchanges else { return None };
    let said = opening.first().filter(|_| text.template.supports_example())?;
    exemplars::example(&said.turn.content)
}

/// Examples of the persona's voice, chosen by how the chat began and the same until it ends.
fn opening_voice(exchanges: &[Vec<Said>]) -> Option<String> {
    let opening = exchanges.first()?.first()?;
    exemplars::voice(&opening.turn.content)
}

fn with_voice(mut persona: String, voice: Option<&str>) -> String {
    if let Some(voice) = voice {
        persona.push_str("\n\n");
        persona.push_str(voice);
    }
    persona
}

/// Facts that the model does not read in the history itself: so the start of a chat's prompt stays the same while the
/// chat goes on, and its prefix stays in the cache.
fn system_turn(
    facts_only: bool,
    person: Person<'_>,
    shown: &[MessageId],
    voice: Option<&str>,
) -> Option<Turn> {
    let now = Timestamp::now();
    let facts: Vec<&str> = person
        .memories
        .iter()
        .filter(|m| !m.origin.is_some_and(|(_, message)| shown.contains(&message)))
        .filter(|m| !is_over(m, now))
        .map(|m| m.content.as_str())
        .collect();
    let limit = if facts_only { MAX_FACTS_LINE_CHARS } else { MAX_FACTS_CHARS };
    let line = facts_line(&facts, limit);
    if facts_only {
        return (!line.is_empty()).then(|| Turn::new(Speaker::System, line));
    }
    let mut system = with_voice(persona::text(person.user), voice);
    if !line.is_empty() {
        system.push_str("\n\nWhat you remember about them: ");
        system.push_str(&line);
        system.push('.');
    }
    Some(Turn::new(Speaker::System, system))
}

/// Facts joined as in the training dialogues; the newest are kept where not all fit, in their order.
fn facts_line(facts: &[&str], max_chars: usize) -> String {
    let mut first = facts.len();
    let mut n_chars = 0;
    for (i, fact) in facts.iter().enumerate().rev() {
        n_chars += fact.chars().count() + 2;
        // The last of them has no separator after it.
        if n_chars > max_chars + 2 {
            break;
        }
        first = i;
    }
    facts[first..].join("; ")
}

fn is_over(memory: &Memory, now: Timestamp) -> bool {
    super::memory::is_plan(&memory.content) && memory.updated_at.plus_seconds(PLAN_SECONDS) < now
}

/// A memory that is not stored yet, for the prompt of the very message that told it.
pub(super) fn unstored_memory(content: String) -> Memory {
    let now = Timestamp::now();
    Memory { id: MemoryId::new(), content, origin: None, created_at: now, updated_at: now }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ChatId;

    fn said(is_user: bool, content: &str) -> Message {
        Message {
            id: MessageId::new(),
            chat_id: ChatId::from_bytes([0; 16]),
            parent_id: None,
            content: content.into(),
            is_user,
            created_at: Timestamp::now(),
            finish_reason: None,
            timings: None,
            safety: None,
            source: None,
            truncated: false,
        }
    }

    fn shape(history: &[Message]) -> Vec<Vec<String>> {
        exchanges(history).iter().map(|e| e.iter().map(|s| s.turn.content.clone()).collect()).collect()
    }

    #[test]
    fn turns_alternate_whatever_was_stored() {
        let history = [said(true, "a"), said(false, "b"), said(true, "c"), said(false, " "), said(true, "d")];
        assert_eq!(shape(&history), [vec!["a", "b"], vec!["c\n\nd"]]);
        assert_eq!(shape(&[said(false, "x"), said(true, "a")]), [vec!["a"]]);
    }

    #[test]
    fn the_facts_line_keeps_the_newest_that_fit() {
        assert_eq!(facts_line(&["name Priya", "cat Biscuit"], 239), "name Priya; cat Biscuit");
        assert_eq!(facts_line(&["name Priya", "cat Biscuit"], 12), "cat Biscuit");
        assert_eq!(facts_line(&["name Priya", "cat Biscuit"], 3), "");
        let many: Vec<String> = (0..100).map(|i| format!("likes thing{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let line = facts_line(&many, MAX_FACTS_LINE_CHARS);
        assert!(line.chars().count() <= MAX_FACTS_LINE_CHARS && line.ends_with("likes thing99"));
    }
}
