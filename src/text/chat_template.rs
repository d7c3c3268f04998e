//! Chats to prompts, by the model's own template.

mod builtins;
mod guard;
mod json;
pub mod limits;
mod program;
mod python;
mod tools;

use std::borrow::Cow;

use guard::Guard;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use minijinja::Value;
use program::{Program, template};
pub use tools::ToolChat;

use super::{TextError, Tokenizer};
use crate::model::gguf::Gguf;

/// Who says a turn.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Speaker {
    /// The persona and what the parent knows.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A written exchange shown to the model; only for templates that know it, see [`ChatTemplate::supports_example`].
    Example,
}

impl Speaker {
    /// The role's name in templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Example => "example",
        }
    }
}

/// One turn of a chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Who.
    pub speaker: Speaker,
    /// What, as it was typed.
    pub content: String,
}

impl Turn {
    /// A turn.
    pub fn new(speaker: Speaker, content: impl Into<String>) -> Self {
        Self { speaker, content: content.into() }
    }
}

/// A rendered chat in which a person's words can be told from the template's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    marked: String,
    mark: Option<char>,
}

impl Rendered {
    /// The prompt, byte for byte as the template wrote it.
    pub fn text(&self) -> String {
        self.mark.map_or_else(|| self.marked.clone(), |mark| self.marked.replace(mark, ""))
    }

    pub(super) fn marked(&self) -> &str {
        &self.marked
    }

    /// The character that breaks control tokens in a person's words; it is no part of the prompt.
    pub(super) fn mark(&self) -> Option<char> {
        self.mark
    }
}

/// What a rendering of JSON messages may vary.
#[derive(Clone, Copy, Debug)]
pub struct RenderOptions<'a> {
    /// End with the words that begin an answer.
    pub add_generation_prompt: bool,
    /// Text of `bos_token`; the model's own where `None`.
    pub bos: Option<&'a str>,
    /// Text of `eos_token`; the model's own where `None`.
    pub eos: Option<&'a str>,
    /// Seconds since 1970 for `strftime_now`, in UTC; the clock where `None`.
    pub now_s: Option<i64>,
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    program: Program,
    guard: Guard,
    bos: String,
    eos: String,
    origin: &'static str,
    supports_system: bool,
    supports_example: bool,
    stop_strings: Vec<String>,
}

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\
    {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
const PLAIN: &str = "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\\n\\n' }}\
    {% elif m.role == 'user' %}{{ 'User: ' + m.content + '\\n' }}\
    {% else %}{{ 'Assistant: ' + m.content + '\\n' }}{% endif %}{% endfor %}\
    {% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

/// Gemma 4's template looks, for every message, back through all before it, and goes on when it has found what it looks
/// for: 150 ms for a thousand messages. In this very passage it may stop there; what it writes is the same.
fn stopping_early(source: &str) -> Cow<'_, str> {
    const FOUND: &str = "{%- set prev_nt.found = true -%}";
    const NOTHING_MORE: &str =
        "\n                {%- endif -%}\n            {%- endif -%}\n        {%- endfor -%}";
    let passage = [FOUND, NOTHING_MORE].concat();
    if !source.contains(&passage) {
        return Cow::Borrowed(source);
    }
    Cow::Owned(source.replace(&passage, &[FOUND, "{%- break -%}", NOTHING_MORE].concat()))
}

impl ChatTemplate {
    /// The file's own template, else `ChatML` if the vocabulary has its tokens, else a plain form (see
    /// [`ChatTemplate::origin`]).
    ///
    /// # Errors
    /// [`TextError::Template`] when the template does not parse or cannot render a single user turn, and what
    /// [`Tokenizer::from_gguf`] refuses.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TextError> {
        Self::for_vocabulary(gguf, &Tokenizer::from_gguf(gguf)?)
    }

    pub(super) fn for_vocabulary(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let (source, origin) = match gguf.str("tokenizer.chat_template") {
            Some(source) if !source.trim().is_empty() => (source, "the model's own chat template"),
            _ if tokenizer.token_id("<|im_start|>").is_some() => (
                CHATML,
                "the file has no chat template; its vocabulary has ChatML's marks, so ChatML is used",
            ),
            _ => (PLAIN, "the file has no chat template; a plain \"User: / Assistant:\" form is used"),
        };
        let text = |id: Option<u32>| id.map(|id| tokenizer.token_text(id).to_owned()).unwrap_or_default();
        let mut template = Self::new(source, origin, text(tokenizer.bos()), text(tokenizer.eos()))?;
        template.guard = Guard::for_vocabulary(tokenizer, template.program.source())?;
        if source == PLAIN {
            template.stop_strings = vec!["\nUser:".to_owned()];
        }
        template.probe(gguf.str("general.name").unwrap_or_default())?;
        Ok(template)
    }

    /// A template by its source and the texts of BOS and EOS. It knows no vocabulary, so that it tells nobody's words
    /// from its own: it is for showing what a template does.
    ///
    /// # Errors
    /// [`TextError::Template`] when it does not parse or is too large.
    pub fn from_source(source: &str, bos: &str, eos: &str) -> Result<Self, TextError> {
        let mut template = Self::new(source, "a template file", bos.to_owned(), eos.to_owned())?;
        // A template that refuses the probe may still render what it is meant for.
        let _ = template.probe("");
        Ok(template)
    }

    fn new(source: &str, origin: &'static str, bos: String, eos: String) -> Result<Self, TextError> {
        Ok(Self {
            program: Program::compile(&stopping_early(source))?,
            guard: Guard::none()?,
            bos,
            eos,
            origin,
            supports_system: false,
            supports_example: false,
            stop_strings: Vec::new(),
        })
    }

    /// Finds out by trying what the template has a place for.
    fn probe(&mut self, model_name: &str) -> Result<(), TextError> {
        const FIRST: &str = "probe-first";
        const SECOND: &str = "probe-second";
        let shows = |template: &Self, speaker: Speaker| {
            let turns = [Turn::new(speaker, FIRST), Turn::new(Speaker::User, SECOND)];
            let text = template.run_turns(&turns, true).map(|rendered| rendered.text())?;
            Ok::<_, TextError>(text.contains(FIRST) && text.contains(SECOND))
        };
        let system = shows(self, Speaker::System);
        self.supports_system = matches!(system, Ok(true));
        // Many templates write any role's name; only a model that was trained on examples knows what they are.
        let knows_examples = model_name.starts_with("mommy") || self.program.source().contains("'example'");
        self.supports_example = knows_examples && matches!(shows(self, Speaker::Example), Ok(true));
        if !self.supports_system {
            self.run_turns(&[Turn::new(Speaker::User, SECOND)], true)?;
        }
        Ok(())
    }

    /// The prompt of these turns. A system turn that the template has no place for goes into the first user turn.
    ///
    /// # Errors
    /// [`TextError::Template`] when the template refuses the turns, when it takes more than its limits, and for
    /// [`Speaker::Example`] where the template does not know it.
    pub fn render(&self, turns: &[Turn], add_generation_prompt: bool) -> Result<Rendered, TextError> {
        if !self.supports_example && turns.iter().any(|turn| turn.speaker == Speaker::Example) {
            return Err(template("the model's template has no place for an example"));
        }
        let turns = self.with_system_placed(turns);
        let refused = match self.run_turns(&turns, add_generation_prompt) {
            Ok(rendered) => return Ok(rendered),
            Err(refused) => refused,
        };
        // Some templates insist that person and model take turns.
        let joined = joined_neighbours(&turns);
        if joined.len() == turns.len() {
            return Err(refused);
        }
        self.run_turns(&joined, add_generation_prompt).map_err(|_| refused)
    }

    /// The prompt of JSON messages, which go to the template as they are: what `mommygpt prompt` prints.
    ///
    /// # Errors
    /// [`TextError::Template`] when `messages` is not a list, when the template refuses them or breaks a limit.
    pub fn render_json(
        &self,
        messages: &serde_json::Value,
        options: &RenderOptions<'_>,
    ) -> Result<String, TextError> {
        if !messages.is_array() {
            return Err(template("the messages must be a JSON list of objects with role and content"));
        }
        let variables = variables(
            json::to_value(messages),
            options.add_generation_prompt,
            options.bos.unwrap_or(&self.bos),
            options.eos.unwrap_or(&self.eos),
        );
        self.program.run(variables, civil(options.now_s)?)
    }

    fn run_turns(&self, turns: &[Turn], add_generation_prompt: bool) -> Result<Rendered, TextError> {
        let mark = if self.guard.is_empty() {
            None
        } else {
            let own = [self.program.source(), self.bos.as_str(), self.eos.as_str()];
            Some(Guard::mark_for(turns.iter().map(|turn| turn.content.as_str()).chain(own))?)
        };
        let messages: Value = turns
            .iter()
            .map(|turn| {
                let content =
                    mark.map_or_else(|| turn.content.as_str().into(), |mark| self.guard.marked(turn, mark));
                Value::from_pairs([("role", turn.speaker.as_str()), ("content", &*content)])
            })
            .collect();
        let variables = variables(messages, add_generation_prompt, &self.bos, &self.eos);
        Ok(Rendered { marked: self.program.run(variables, civil(None)?)?, mark })
    }

    fn with_system_placed(&self, turns: &[Turn]) -> Vec<Turn> {
        if self.supports_system || !turns.iter().any(|turn| turn.speaker == Speaker::System) {
            return turns.to_vec();
        }
        let (system, mut others): (Vec<Turn>, Vec<Turn>) =
            turns.iter().cloned().partition(|turn| turn.speaker == Speaker::System);
        let mut words: Vec<String> = system.into_iter().map(|turn| turn.content).collect();
        match others.iter_mut().find(|turn| turn.speaker == Speaker::User) {
            Some(first) => {
                words.push(std::mem::take(&mut first.content));
                first.content = words.join("\n\n");
            }
            None => others.insert(0, Turn::new(Speaker::User, words.join("\n\n"))),
        }
        others
    }

    /// Whether the template writes system turns itself.
    pub fn supports_system(&self) -> bool {
        self.supports_system
    }

    /// Whether the template knows [`Speaker::Example`]; if not, such turns are refused.
    pub fn supports_example(&self) -> bool {
        self.supports_example
    }

    /// Where the template came from, one sentence for the log.
    pub fn origin(&self) -> &'static str {
        self.origin
    }

    /// Texts at which a generation must end because the template has no end token for a turn; mostly empty.
    pub fn stop_strings(&self) -> &[String] {
        &self.stop_strings
    }
}

fn variables(messages: Value, add_generation_prompt: bool, bos: &str, eos: &str) -> Value {
    Value::from_pairs([
        ("messages", messages),
        ("add_generation_prompt", add_generation_prompt.into()),
        ("bos_token", bos.into()),
        ("eos_token", eos.into()),
    ])
}

fn civil(now_s: Option<i64>) -> Result<DateTime, TextError> {
    let now = match now_s {
        Some(seconds) => {
            Timestamp::from_second(seconds).map_err(|e| template(format!("the time {seconds}: {e}")))?
        }
        None => Timestamp::now(),
    };
    Ok(now.to_zoned(TimeZone::UTC).datetime())
}

/// The turns with neighbours of one speaker made one turn.
fn joined_neighbours(turns: &[Turn]) -> Vec<Turn> {
    let mut joined: Vec<Turn> = Vec::with_capacity(turns.len());
    for turn in turns {
        match joined.last_mut().filter(|last| last.speaker == turn.speaker) {
            Some(last) => last.content = format!("{}\n\n{}", last.content, turn.content),
            None => joined.push(turn.clone()),
        }
    }
    joined
}
