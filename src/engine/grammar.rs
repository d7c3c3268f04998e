//! Text that must follow a grammar: JSON, or JSON of a schema.
//!
//! The grammar engine walks a trie of the vocabulary and says for each step which tokens may come next. That walk takes
//! about as long as a small model's step, so it runs on a thread of its own while the model computes: the mask is asked
//! for as soon as the token before is known ([`Constraint::ahead`]) and awaited only when the logits are there.
//!
//! A schema comes from a stranger's program, so it is bounded in size and depth before it is read and in fuel while it is
//! compiled and walked. Nothing of it is kept when its generation ends.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::{SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId as TrieId, TokenizerEnv};

use super::request::InvalidParam;
use crate::model::TokenId;
use crate::text::Tokenizer;

/// Largest schema in bytes of JSON: the largest that people publish for such uses have a few thousand.
pub const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Deepest nesting of a schema: beyond it nobody means it, and the compiler recurses.
pub const MAX_SCHEMA_DEPTH: usize = 64;
/// Work to build a lexer, at about 50,000 units a millisecond: half a second at most.
const COMPILE_FUEL: u64 = 10_000_000;
/// Work for one mask, at about 14,000 units a millisecond: never more than a slow step of the model.
const MASK_FUEL: u64 = 500_000;
/// Symbols in a grammar: what a schema of [`MAX_SCHEMA_BYTES`] comes to, several times over.
const MAX_GRAMMAR_SIZE: usize = 100_000;
/// States of a lexer, at 1 to 2 kB each: some tens of MB for the largest.
const MAX_LEXER_STATES: usize = 30_000;

/// Blanks between the parts of JSON. Without a bound a small model goes on with them until its context is full.
const BLANKS: &str = r"\x20|\x0A\x20{0,16}";

/// What a text must look like.
#[derive(Clone, PartialEq, Debug)]
pub enum Form {
    /// Any JSON object.
    JsonObject,
    /// JSON that the schema admits.
    JsonSchema(Value),
    /// One call of one of these functions between `<tool_call>` marks: name and schema of the arguments.
    ToolCall(Vec<(String, Value)>),
}

/// Compiles forms over one model's vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    /// One at a time, so that a flood of schemas takes one core and not the machine.
    compiling: Mutex<()>,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

/// The vocabulary as the grammar engine wants it.
struct Vocabulary {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TrieId> {
        let encoded =
            std::str::from_utf8(bytes).ok().and_then(|s| self.tokenizer.encode_plain(s, false).ok());
        encoded.unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
    // Every token is sampled, none is forced, so it does not matter how a text would be cut.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

impl Grammars {
    /// Prepares a vocabulary: some tenths of a second for a large one, so it is done when first needed.
    ///
    /// # Errors
    /// A vocabulary without an end token, or one that the engine refuses.
    pub fn new(tokenizer: &Arc<Tokenizer>, n_vocab: usize) -> Result<Self, InvalidParam> {
        let refused = |why: String| InvalidParam::new("response_format", why);
        let ids = 0..n_vocab.min(tokenizer.n_vocab()) as TokenId;
        let ends: Vec<TokenId> = ids.clone().filter(|&id| tokenizer.is_end_of_generation(id)).collect();
        let Some(&first_end) = ends.first() else {
            return Err(refused("needs a model with an end token, which this one lacks".into()));
        };
        let word = |id: TokenId| {
            if tokenizer.is_control(id) || tokenizer.is_end_of_generation(id) {
                let mut special = vec![TokTrie::SPECIAL_TOKEN_MARKER];
                special.extend_from_slice(tokenizer.token_text(id).as_bytes());
                special
            } else {
                tokenizer.token_bytes(id).to_vec()
            }
        };
        let words: Vec<Vec<u8>> = ids.map(word).collect();
        let trie =
            TokTrie::from(&TokRxInfo::new(words.len() as u32, first_end), &words).with_eos_tokens(&ends);
        let env: TokEnv = Arc::new(Vocabulary { trie, tokenizer: Arc::clone(tokenizer) });
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| refused(format!("{e:#}")))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            initial_lexer_fuel: COMPILE_FUEL,
            step_lexer_fuel: MASK_FUEL,
            max_grammar_size: MAX_GRAMMAR_SIZE,
            max_lexer_states: MAX_LEXER_STATES,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self { factory, compiling: Mutex::new(()) })
    }

    /// Compiles a form; it may take up to about a second, so not on a thread that others wait for. `in_thought`: the
    /// prompt left the model inside a thought, and the form begins behind it.
    ///
    /// # Errors
    /// A schema that is too large or deep, that is no schema, that the engine does not support, or that nothing can
    /// satisfy; the sentence says which.
    pub fn compile(&self, form: &Form, in_thought: bool) -> Result<Grammar, InvalidParam> {
        let refused = |why: String| InvalidParam::new("response_format", why);
        let any_object = json!({"type": "object"});
        let (before, after, schema) = match form {
            Form::JsonObject => ("", "", any_object),
            Form::JsonSchema(schema) => ("", "", schema.clone()),
            Form::ToolCall(tools) => ("\"<tool_call>\\n\" ", " \"\\n</tool_call>\"", calls(tools)),
        };
        check_schema(&schema).map_err(refused)?;
        let _one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let mut schema = schema;
        schema["x-guidance"] = json!({"whitespace_pattern": BLANKS});
        let grammar = if before.is_empty() && !in_thought {
            TopLevelGrammar::from_json_schema(schema)
        } else {
            let thought = if in_thought { "thought BLANK? " } else { "" };
            TopLevelGrammar::from_lark(format!(
                "start: {thought}{before}form{after}\nthought[suffix=\"</think>\"]: /(?s:.*)/\nBLANK: /[ \\n]+/\n\
                 form: %json {schema}\n"
            ))
        };
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        if let Some(why) = matcher.get_error() {
            return Err(refused(first_sentence(&why)));
        }
        // The first mask shows whether anything at all can satisfy it, and costs what every step will cost.
        matcher.compute_mask().map_err(|e| refused(first_sentence(&e.to_string())))?;
        Ok(Grammar(matcher))
    }
}

/// The schema of one call of any of these functions.
fn calls(tools: &[(String, Value)]) -> Value {
    let call = |(name, arguments): &(String, Value)| {
        json!({"type": "object", "properties": {"name": {"const": name}, "arguments": arguments},
            "required": ["name", "arguments"], "additionalProperties": false})
    };
    json!({"anyOf": tools.iter().map(call).collect::<Vec<_>>()})
}

fn check_schema(schema: &Value) -> Result<(), String> {
    let n_bytes = schema.to_string().len();
    if n_bytes > MAX_SCHEMA_BYTES {
        return Err(format!("the schema has {n_bytes} bytes; the limit is {MAX_SCHEMA_BYTES}"));
    }
    if !schema.is_object() {
        return Err("the schema must be a JSON object".into());
    }
    if depth(schema) > MAX_SCHEMA_DEPTH {
        return Err(format!("the schema is nested deeper than {MAX_SCHEMA_DEPTH}"));
    }
    if schema.get("x-guidance").is_some() {
        return Err("the schema's x-guidance is not taken".into());
    }
    Ok(())
}

/// JSON parsers here stop at 128 levels, so this recursion is bounded.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The engine's complaint without what it appends for its own developers.
fn first_sentence(why: &str) -> String {
    const MAX_CHARS: usize = 300;
    let line = why.lines().find(|l| !l.trim().is_empty()).unwrap_or("it cannot be followed");
    format!("the schema cannot be used: {}", line.chars().take(MAX_CHARS).collect::<String>())
}

/// A compiled form at its beginning.
pub struct Grammar(Matcher);

impl Clone for Grammar {
    fn clone(&self) -> Self {
        Self(self.0.deep_clone())
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grammar")
    }
}

/// The tokens that may come next, one bit each.
pub(super) struct Allowed(SimpleVob);

impl Allowed {
    /// Rules out all others.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        let n = self.0.len().min(logits.len());
        self.0.iter_unset_entries(|id| {
            if let Some(logit) = logits.get_mut(id) {
                *logit = f32::NEG_INFINITY;
            }
        });
        logits[n..].fill(f32::NEG_INFINITY);
    }
}

type Answer = (Matcher, Result<SimpleVob, String>);

/// A thread that computes masks while the model runs. It ends when the last handle is gone.
#[derive(Clone)]
pub(super) struct MaskThread(mpsc::Sender<(Matcher, mpsc::Sender<Answer>)>);

impl MaskThread {
    pub(super) fn start() -> Self {
        let (sender, jobs) = mpsc::channel::<(Matcher, mpsc::Sender<Answer>)>();
        let spawned = std::thread::Builder::new().name("grammar".into()).spawn(move || {
            for (mut matcher, answer) in jobs {
                let mask = matcher.compute_mask_or_eos().map_err(|e| e.to_string());
                // A generation that ended in the meantime needs no mask.
                let _ = answer.send((matcher, mask));
            }
        });
        if let Err(error) = spawned {
            // Masks are then computed where they are needed.
            tracing::warn!(%error, "no thread for grammars");
        }
        Self(sender)
    }
}

/// A generation's place in its grammar.
pub(super) struct Constraint {
    thread: MaskThread,
    state: State,
}

enum State {
    Here(Box<Matcher>),
    Computing(mpsc::Receiver<Answer>),
    Lost,
}

impl Constraint {
    pub(super) fn new(grammar: Grammar, thread: MaskThread) -> Self {
        Self { thread, state: State::Here(Box::new(grammar.0)) }
    }

    /// Begins to compute what may come next.
    pub(super) fn ahead(&mut self) {
        if let State::Here(matcher) = std::mem::replace(&mut self.state, State::Lost) {
            let (sender, receiver) = mpsc::channel();
            self.state = match self.thread.0.send((*matcher, sender)) {
                Ok(()) => State::Computing(receiver),
                Err(mpsc::SendError((matcher, _))) => State::Here(Box::new(matcher)),
            };
        }
    }

    /// What may come next.
    pub(super) fn allowed(&mut self) -> Result<Allowed, String> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Here(mut matcher) => {
                let mask = matcher.compute_mask_or_eos().map_err(|e| e.to_string());
                self.state = State::Here(matcher);
                mask.map(Allowed)
            }
            State::Computing(receiver) => {
                let (matcher, mask) = receiver.recv().map_err(|_| "the grammar thread is gone".to_owned())?;
                self.state = State::Here(Box::new(matcher));
                mask.map(Allowed)
            }
            State::Lost => Err("the grammar was lost".into()),
        }
    }

    /// Takes the sampled token; true when the text is complete and nothing may follow.
    pub(super) fn take(&mut self, token: TokenId) -> Result<bool, String> {
        let State::Here(matcher) = &mut self.state else { return Err("the grammar was lost".into()) };
        matcher.consume_token(token).map_err(|e| e.to_string())?;
        Ok(matcher.is_stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_bounded() {
        assert!(check_schema(&json!({"type": "string"})).is_ok());
        assert!(check_schema(&json!(true)).is_err());
        assert!(
            check_schema(&json!({"enum": ["x".repeat(MAX_SCHEMA_BYTES)]})).unwrap_err().contains("bytes")
        );
        let mut deep = json!({});
        for _ in 0..MAX_SCHEMA_DEPTH {
            deep = json!({ "items": deep });
        }
        assert!(check_schema(&deep).unwrap_err().contains("deeper"));
    }
}
