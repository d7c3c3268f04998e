//! Turns in order, and the way of one message to its answer.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use super::keys::Keys;
use super::{Options, Sink};
use crate::chat::safety::{self, Card, Danger};
use crate::chat::{exemplars, prompt};
use crate::engine::{Engine, Event, Finish, GenerateRequest, ModelInfo, Owner};
use crate::text::{Speaker, TextModel, ThinkingSplitter, Turn};

/// Nobody else uses this engine.
const OWNER: Owner = Owner(0);

/// How an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// The model was done.
    Complete,
    /// The context was full.
    Long,
    /// The person wanted it to end.
    Stopped,
}

/// What was said so far, and who answers.
pub(super) struct Conversation {
    engine: Engine,
    text: Arc<TextModel>,
    info: Arc<ModelInfo>,
    options: Options,
    turns: Vec<Turn>,
    told_truncated: bool,
}

impl Conversation {
    /// An empty conversation with an engine that is ready.
    pub(super) fn new(engine: Engine, options: Options) -> anyhow::Result<Self> {
        let (text, info) = engine.text().zip(engine.model_info()).context("the model is not ready")?;
        Ok(Self { engine, text, info, options, turns: Vec::new(), told_truncated: false })
    }

    pub(super) fn model_name(&self) -> &str {
        &self.info.name
    }

    /// Forgets what was said.
    pub(super) fn start_over(&mut self) {
        self.turns.clear();
        self.told_truncated = false;
    }

    /// Sends `message` and writes the answer to `out` as it comes; notes and the crisis card go to `notes`. A message
    /// that could not be answered is forgotten.
    pub(super) async fn say(
        &mut self,
        message: String,
        out: &mut impl Sink,
        notes: &mut impl Write,
        keys: &mut Keys,
    ) -> anyhow::Result<Ended> {
        self.show_card(safety::check(&message), notes)?;
        self.turns.push(Turn::new(Speaker::User, message));
        let mut answer = String::new();
        let ended = self.answer(&mut answer, out, notes, keys).await;
        self.show_card(safety::check_reply(&answer), notes)?;
        if answer.trim().is_empty() {
            self.turns.pop();
        } else {
            self.turns.push(Turn::new(Speaker::Assistant, answer.trim()));
        }
        ended
    }

    async fn answer(
        &mut self,
        answer: &mut String,
        out: &mut impl Sink,
        notes: &mut impl Write,
        keys: &mut Keys,
    ) -> anyhow::Result<Ended> {
        if let Some(written) = self.written() {
            write_piece(answer, &written, out)?;
            return Ok(Ended::Complete);
        }
        let prompt = prompt::build_unstored(&self.text, &self.info, &self.options.persona, &self.turns)?;
        if prompt.truncated && !self.told_truncated {
            writeln!(notes, "(the oldest messages no longer fit what the model can read at once)")?;
            self.told_truncated = true;
        }
        let sampling = self.options.sampling.clone();
        let sampling = sampling.unwrap_or_else(|| prompt::sampling(&self.text, self.info.n_ctx));
        let mut generation = self.engine.submit(GenerateRequest {
            stop: self.text.template.stop_strings().to_vec(),
            ..GenerateRequest::new(OWNER, prompt.tokens, sampling, prompt.max_tokens)
        })?;
        let mut thoughts = ThinkingSplitter::new(prompt.already_thinking);
        // One listener for the whole answer, so that no key is missed between two pieces.
        let stop = keys.stop();
        tokio::pin!(stop);
        loop {
            let event = tokio::select! {
                event = generation.events.recv() => event.context("the engine went away")?,
                stop = &mut stop, if !generation.cancel.is_cancelled() => {
                    stop?;
                    generation.cancel.cancel();
                    continue;
                }
            };
            match event {
                Event::Queued { .. } | Event::Prefill { .. } => {}
                Event::Delta { text, .. } => write_piece(answer, &thoughts.push(&text).answer, out)?,
                Event::Done { finish_reason, .. } => {
                    write_piece(answer, &thoughts.finish().answer, out)?;
                    return Ok(match finish_reason {
                        Finish::Stop => Ended::Complete,
                        Finish::Length => Ended::Long,
                        Finish::Cancelled => Ended::Stopped,
                    });
                }
                Event::Failed(why) => return Err(anyhow!("the answer failed: {why}")),
            }
        }
    }

    /// A reply from the written collection, for a model that speaks with one voice with it.
    fn written(&self) -> Option<String> {
        let takes_over = self.options.sampling.is_none() && self.text.template.supports_example();
        takes_over.then(|| exemplars::written(&self.turns)).flatten()
    }

    fn show_card(&self, danger: Option<Danger>, notes: &mut impl Write) -> io::Result<()> {
        match danger.and_then(|d| self.options.cards.card(d.kind)) {
            Some(card) => write_card(card, notes),
            None => Ok(()),
        }
    }
}

/// An answer begins with its first word: blanks before it come from the template's line ends.
fn write_piece(answer: &mut String, piece: &str, out: &mut impl Sink) -> io::Result<()> {
    let piece = if answer.is_empty() { piece.trim_start() } else { piece };
    answer.push_str(piece);
    if piece.is_empty() { Ok(()) } else { out.piece(piece) }
}

fn write_card(card: &Card, notes: &mut impl Write) -> io::Result<()> {
    writeln!(notes, "\n{}\n{}", card.title, card.text)?;
    for line in &card.lines {
        let note = if line.note.is_empty() { String::new() } else { format!(" ({})", line.note) };
        writeln!(notes, "  {}: {}, {}{note}", line.name, line.contact, line.region)?;
    }
    writeln!(notes)
}
