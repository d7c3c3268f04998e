//! A template as a program with limits.
//!
//! The template engine counts steps, but one step may join, repeat or cut texts of any size. So after compiling, every
//! instruction that can build something is followed by one that counts it, and those that can multiply are replaced.

use std::sync::Arc;

use minijinja::machinery::make_string_output;
use minijinja::machinery::{
    CompiledTemplate, Instruction, Instructions, TemplateConfig, Token, eval, tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Error, ErrorKind, Value};

use super::super::TextError;
use super::limits::{
    MAX_BUILT_BYTES, MAX_OUTPUT_BYTES, MAX_SOURCE_BYTES, MAX_STEPS, MAX_TAG_TOKENS, STACK_BYTES,
};
use super::python::{self, ADD_UP, CONCAT, MULTIPLY, REMAINDER, Raised};

/// A template that parses and keeps the limits on its source.
#[derive(Debug)]
pub(super) struct Program {
    source: String,
}

const NAME: &str = "chat_template";

impl Program {
    pub(super) fn compile(source: &str) -> Result<Self, TextError> {
        if source.len() > MAX_SOURCE_BYTES {
            let n = source.len();
            return Err(template(format!("the source is {n} bytes long; the limit is {MAX_SOURCE_BYTES}")));
        }
        let program = Self { source: without_generation_tags(source) };
        check_tags(&program.source)?;
        program.compiled().map_err(|e| explained(&e))?;
        Ok(program)
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Runs the template over its variables. `now` is what `strftime_now` says.
    pub(super) fn run(&self, variables: Value, now: jiff::civil::DateTime) -> Result<String, TextError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK_BYTES);
            let running = thread
                .spawn_scoped(scope, || self.run_here(variables, now))
                .map_err(|e| template(format!("no thread to render it: {e}")))?;
            running.join().unwrap_or_else(|_| Err(template("the engine failed while rendering it")))
        })
    }

    fn run_here(&self, variables: Value, now: jiff::civil::DateTime) -> Result<String, TextError> {
        let environment = python::environment(now);
        let mut compiled = self.compiled().map_err(|e| explained(&e))?;
        let instructions = counted(&mut compiled.instructions);
        let blocks = compiled.blocks.iter_mut().map(|(name, block)| (*name, counted(block))).collect();
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        eval(&environment, &instructions, variables, &blocks, &mut out, AutoEscape::None)
            .map_err(|e| explained(&e))?;
        if text.len() > MAX_OUTPUT_BYTES {
            return Err(template(too_large()));
        }
        Ok(text)
    }

    fn compiled(&self) -> Result<CompiledTemplate<'_>, Error> {
        let config = TemplateConfig {
            syntax_config: syntax()?,
            default_auto_escape: Arc::new(|_: &str| AutoEscape::None),
        };
        CompiledTemplate::new(NAME, &self.source, &config)
    }
}

/// Blocks stand on lines of their own, as the templates' makers set it.
fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// `{% generation %}` marks what was generated, for training; the marked text is part of the prompt as it stands.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let word = tag[..end].trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        match word {
            "generation" => out.push_str(&tag[..end].replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag[..end].replace("endgeneration", "endif")),
            _ => out.push_str(&tag[..end]),
        }
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}

/// Refuses what would already cost too much to compile: endless expressions, and constants that repeat into large ones.
fn check_tags(source: &str) -> Result<(), TextError> {
    let mut n_tokens = 0;
    let mut repeats = false;
    let mut literal_bytes: usize = 0;
    let mut factor: u64 = 1;
    for token in tokenize(source, false, syntax().map_err(|e| explained(&e))?) {
        let (token, span) = token.map_err(|e| explained(&e))?;
        n_tokens += 1;
        let line = span.start_line;
        match token {
            Token::BlockStart | Token::VariableStart => {
                (n_tokens, repeats, literal_bytes, factor) = (0, false, 0, 1);
            }
            Token::Str(text) => literal_bytes += text.len(),
            Token::String(text) => literal_bytes += text.len(),
            Token::BracketOpen => literal_bytes += 1,
            Token::Int(n) => factor = factor.saturating_mul(n.max(1)),
            Token::Int128(_) => factor = u64::MAX,
            Token::Mul => repeats = true,
            Token::Pow if repeats || literal_bytes > 0 => factor = u64::MAX,
            _ => {}
        }
        if n_tokens > MAX_TAG_TOKENS {
            return Err(template(format!(
                "line {line}: a tag has more than {MAX_TAG_TOKENS} words and signs"
            )));
        }
        if repeats && factor.saturating_mul(literal_bytes as u64) > MAX_SOURCE_BYTES as u64 {
            return Err(template(format!(
                "line {line}: a constant is repeated into more than {MAX_SOURCE_BYTES} bytes"
            )));
        }
    }
    Ok(())
}

/// The instructions with every one that builds something counted.
fn counted<'s>(old: &mut Instructions<'s>) -> Instructions<'s> {
    let n_old = (0..u32::MAX).take_while(|&i| old.get(i).is_some()).count() as u32;
    // Where each old instruction comes to stand, and the end.
    let mut places = Vec::with_capacity(n_old as usize + 1);
    let mut place = 0;
    for i in 0..n_old {
        places.push(place);
        place += old.get(i).map_or(1, n_instructions);
    }
    places.push(place);
    let moved = |target: u32| places.get(target as usize).copied().unwrap_or(place);
    let mut new = Instructions::new(NAME, old.source());
    for i in 0..n_old {
        let line = old.get_line(i).unwrap_or(0) as u16;
        let Some(slot) = old.get_mut(i) else { break };
        let instruction = std::mem::replace(slot, Instruction::Return);
        let is_counted = n_instructions(&instruction) == 2;
        let mut add = |instruction| new.add_with_line(instruction, line);
        match instruction {
            Instruction::EmitRaw(text) => {
                add(Instruction::LoadConst(Value::from(text)));
                add(Instruction::Emit);
                continue;
            }
            Instruction::Mul => add(Instruction::CallFunction(MULTIPLY, Some(2))),
            Instruction::Rem => add(Instruction::CallFunction(REMAINDER, Some(2))),
            Instruction::StringConcat => add(Instruction::CallFunction(CONCAT, Some(2))),
            Instruction::Iterate(target) => add(Instruction::Iterate(moved(target))),
            Instruction::Jump(target) => add(Instruction::Jump(moved(target))),
            Instruction::JumpIfFalse(target) => add(Instruction::JumpIfFalse(moved(target))),
            Instruction::JumpIfFalseOrPop(target) => add(Instruction::JumpIfFalseOrPop(moved(target))),
            Instruction::JumpIfTrueOrPop(target) => add(Instruction::JumpIfTrueOrPop(moved(target))),
            Instruction::BuildMacro(name, start, flags) => {
                add(Instruction::BuildMacro(name, moved(start), flags))
            }
            other => add(other),
        };
        if is_counted {
            add(Instruction::CallFunction(ADD_UP, Some(1)));
        }
    }
    new
}

/// How many instructions become of one.
fn n_instructions(instruction: &Instruction<'_>) -> u32 {
    match instruction {
        Instruction::EmitRaw(_)
        | Instruction::Add
        | Instruction::Mul
        | Instruction::Rem
        | Instruction::StringConcat
        | Instruction::Slice
        | Instruction::BuildList(_)
        | Instruction::BuildTuple(_)
        | Instruction::BuildMap(_)
        | Instruction::In
        | Instruction::Eq
        | Instruction::Ne
        | Instruction::ApplyFilter(..)
        | Instruction::CallFunction(..)
        | Instruction::CallMethod(..)
        | Instruction::CallObject(_)
        | Instruction::EndCapture => 2,
        _ => 1,
    }
}

pub(super) fn template(problem: impl Into<String>) -> TextError {
    TextError::Template(problem.into())
}

pub(super) fn too_large() -> String {
    format!("builds more than {MAX_OUTPUT_BYTES} bytes at once or {MAX_BUILT_BYTES} in all")
}

/// What went wrong, in one line; what the template itself says stands alone.
fn explained(error: &Error) -> TextError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return template(message.clone());
        }
        source = cause.source();
    }
    let what = match error.kind() {
        ErrorKind::OutOfFuel => format!("takes more than {MAX_STEPS} steps"),
        kind => error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    template(
        error.line().filter(|&line| line > 0).map_or(what.clone(), |line| format!("line {line}: {what}")),
    )
}
