//! `mommygpt run`: a conversation in the terminal, of which nothing is stored.
//!
//! With a prompt, or with a message piped in, there is one answer: its text alone on stdout, everything else on stderr.
//! Else lines are read until somebody leaves. The crisis check reads every message and every answer here too.
//! Nothing here knows the store, HTTP or accounts.

mod conversation;
mod keys;

use std::io::{self, IsTerminal as _, Read as _, Write};

use anyhow::{Context as _, anyhow, bail};
use rustyline::error::ReadlineError;

use self::conversation::{Conversation, Ended};
use self::keys::Keys;
use crate::chat::safety::Cards;
use crate::domain::{MAX_MESSAGE_BYTES, MessageText};
use crate::engine::{Engine, SamplingParams};

const HELP: &str = "\
/new    start over; what was said is forgotten
/stop   stop the answer that is being written (Ctrl-C does too)
/bye    leave (Ctrl-D does too)
/help   this list
Everything else is a message. Nothing is stored.";

/// What a conversation in the terminal needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// One message, whose answer goes to stdout.
    pub prompt: Option<String>,
    /// The persona's text, for models that can follow one.
    pub persona: String,
    /// The cards shown on danger.
    pub cards: Cards,
    /// How tokens are chosen; `None` = what suits the model.
    pub sampling: Option<SamplingParams>,
}

/// Talks until the person leaves, or gives one answer. Call it outside of any async runtime.
///
/// # Errors
/// The model did not load, a single message could not be answered, or the terminal broke.
pub fn run(engine: &Engine, options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let message = match options.prompt.clone() {
        Some(prompt) => Some(prompt),
        None if io::stdin().is_terminal() => None,
        None => Some(read_stdin()?),
    };
    // What one waits for before the first prompt is said on the terminal, where it does not mix with an answer.
    if message.is_none() {
        writeln!(io::stderr(), "Loading the model...")?;
    }
    runtime.block_on(engine.ready())?;
    let mut conversation = Conversation::new(engine.clone(), options)?;
    match message {
        Some(message) => runtime.block_on(one_answer(&mut conversation, message)),
        None => talk(&runtime, &mut conversation),
    }
}

async fn one_answer(conversation: &mut Conversation, message: String) -> anyhow::Result<()> {
    let parsed = MessageText::parse(message).map_err(|e| anyhow!("the message {}", e.problem));
    let message = parsed?.into_string();
    let is_terminal = io::stdout().is_terminal();
    let mut out = Lines::new(io::stdout(), is_terminal);
    let mut keys = Keys::interrupt_only();
    let ended = conversation.say(message, &mut out, &mut io::stderr(), &mut keys).await;
    match ended.and_then(|ended| out.end_line().map(|()| ended).map_err(Into::into)) {
        Ok(Ended::Complete | Ended::Long) => Ok(()),
        Ok(Ended::Stopped) => bail!("stopped"),
        // The reader of a pipe has what it wanted.
        Err(e) if is_broken_pipe(&e) => Ok(()),
        Err(e) => Err(e),
    }
}

fn talk(runtime: &tokio::runtime::Runtime, conversation: &mut Conversation) -> anyhow::Result<()> {
    let mut editor = rustyline::DefaultEditor::new().context("this terminal cannot be used for typing")?;
    let mut keys = Keys::with_terminal();
    let mut out = Lines::new(io::stdout(), true);
    let mut err = io::stderr();
    writeln!(out, "{} is here. /help lists what you can do; /bye leaves.", conversation.model_name())?;
    let mut was_interrupted = false;
    loop {
        let line = match keys.typed_ahead.pop_front() {
            Some(line) => {
                writeln!(out, "> {line}")?;
                line
            }
            None => match editor.readline("> ") {
                Ok(line) => line,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(ReadlineError::Interrupted) if was_interrupted => return Ok(()),
                Err(ReadlineError::Interrupted) => {
                    writeln!(out, "(Ctrl-C again leaves, /bye does too)")?;
                    was_interrupted = true;
                    continue;
                }
                Err(e) => return Err(e.into()),
            },
        };
        was_interrupted = false;
        match Input::parse(&line) {
            Input::Nothing => {}
            Input::Bye => return Ok(()),
            Input::Help => writeln!(out, "{HELP}")?,
            Input::New => {
                conversation.start_over();
                writeln!(out, "(a new conversation)")?;
            }
            Input::Stop => writeln!(out, "(nothing is being written)")?,
            Input::Unknown(command) => writeln!(out, "There is no {command}; /help lists what there is.")?,
            Input::Message(message) => {
                // Lines of this conversation only, gone with the process; a failure costs the arrow keys.
                let _ = editor.add_history_entry(line.as_str());
                let ended = runtime.block_on(conversation.say(message, &mut out, &mut err, &mut keys));
                out.end_line()?;
                match ended {
                    Ok(Ended::Complete) => {}
                    Ok(Ended::Long) => writeln!(out, "(the answer was cut at its longest)")?,
                    Ok(Ended::Stopped) => writeln!(out, "(stopped)")?,
                    Err(e) => writeln!(err, "{e:#}")?,
                }
            }
        }
    }
}

fn read_stdin() -> anyhow::Result<String> {
    let mut message = String::new();
    // One byte more than allowed, so that the limit is noticed.
    let mut bounded = io::stdin().lock().take(MAX_MESSAGE_BYTES as u64 + 1);
    bounded.read_to_string(&mut message).context("the message on stdin must be UTF-8 text")?;
    Ok(message)
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// What a line typed at the prompt asks for.
#[derive(PartialEq, Eq, Debug)]
enum Input {
    Nothing,
    Help,
    New,
    Stop,
    Bye,
    /// Looks like a command, is none.
    Unknown(String),
    Message(String),
}

impl Input {
    fn parse(line: &str) -> Self {
        let line = line.trim();
        let word = line.strip_prefix('/').unwrap_or("");
        match line {
            "" => Self::Nothing,
            "/help" | "/?" => Self::Help,
            "/new" => Self::New,
            "/stop" => Self::Stop,
            "/bye" => Self::Bye,
            // A path or a sentence that begins with a slash is a message.
            _ if !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic()) => {
                Self::Unknown(line.to_owned())
            }
            _ => Self::Message(line.to_owned()),
        }
    }
}

/// Written text, of which only the last character is remembered.
struct Lines<W> {
    inner: W,
    /// Text goes to a terminal: control characters in a model's words must not reach it, because they could move the
    /// cursor, change the title or answer questions in the person's name.
    is_terminal: bool,
    in_line: bool,
}

impl<W: Write> Lines<W> {
    fn new(inner: W, is_terminal: bool) -> Self {
        Self { inner, is_terminal, in_line: false }
    }

    /// Ends a line that was begun.
    fn end_line(&mut self) -> io::Result<()> {
        if self.in_line {
            self.inner.write_all(b"\n")?;
            self.in_line = false;
        }
        self.inner.flush()
    }
}

/// Where an answer's text goes, piece by piece.
trait Sink {
    fn piece(&mut self, text: &str) -> io::Result<()>;
}

impl<W: Write> Sink for Lines<W> {
    fn piece(&mut self, text: &str) -> io::Result<()> {
        if self.is_terminal {
            self.write_all(printable(text).as_bytes())?;
        } else {
            self.write_all(text.as_bytes())?;
        }
        self.flush()
    }
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        if let Some(last) = bytes[..n].last() {
            self.in_line = *last != b'\n';
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Text with every control character but tab and newline made visible as U+FFFD.
fn printable(text: &str) -> String {
    let shown =
        |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_words_and_messages_are_the_rest() {
        assert_eq!(Input::parse("  /bye "), Input::Bye);
        assert_eq!(Input::parse(""), Input::Nothing);
        assert_eq!(Input::parse("/exit"), Input::Unknown("/exit".into()));
        for message in ["hi", "/", "/etc/hosts is what?", "/new thing happened today", "say /bye"] {
            assert_eq!(Input::parse(message), Input::Message(message.into()));
        }
    }

    #[test]
    fn a_model_cannot_drive_the_terminal() {
        let mut bytes = Vec::new();
        let mut out = Lines::new(&mut bytes, true);
        out.piece("a\x1b[2Jb\u{9b}c\td").unwrap();
        out.end_line().unwrap();
        out.end_line().unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "a\u{fffd}[2Jb\u{fffd}c\td\n");
        let mut bytes = Vec::new();
        Lines::new(&mut bytes, false).piece("a\x1bb").unwrap();
        assert_eq!(bytes, b"a\x1bb");
    }
}
