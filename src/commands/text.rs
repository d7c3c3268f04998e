//! `tokenize`, `prompt`, `safety`: stdin through one part of the house to stdout.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::Path;

use mommygpt::chat::safety;
use mommygpt::cli::{PromptArgs, TokenizeArgs};
use mommygpt::config::Environment;
use mommygpt::hub::Models;
use mommygpt::text::{ChatTemplate, RenderOptions, Tokenizer};

use super::{Failure, Out};

/// Most text read from stdin: more than any context, and a bound on memory.
const MAX_STDIN_BYTES: u64 = 64 << 20;
/// A larger file is not a template; the template's own limits are lower still.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// `tokenize`.
pub(super) fn tokenize(dir: &Path, args: &TokenizeArgs, out: &mut Out) -> Result<(), Failure> {
    let file = Models::of(dir).resolve(Some(&args.model))?;
    let tokenizer = Tokenizer::from_gguf(&file.open()?).map_err(|e| Failure::from(e).of(&file))?;
    let text = stdin_text()?;
    let ids = tokenizer.encode_plain(&text, !args.no_special)?;
    let line: Vec<String> = ids.iter().map(ToString::to_string).collect();
    writeln!(out, "{}", line.join(" "))?;
    Ok(())
}

/// `safety`: flushed per line, so that a person can try it by hand.
pub(super) fn safety(out: &mut Out) -> Result<(), Failure> {
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut stdin).take(MAX_STDIN_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        match safety::check(text.trim_end_matches(['\n', '\r'])) {
            Some(danger) => writeln!(out, "card\t{}", danger.kind.as_str())?,
            None => writeln!(out, "none")?,
        }
        out.flush()?;
    }
}

fn stdin_text() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_STDIN_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_STDIN_BYTES {
        return Err(Failure::failed("stdin holds more than 64 MiB of text; send it in parts"));
    }
    String::from_utf8(bytes).map_err(|e| {
        Failure::failed(format!("stdin is not UTF-8 text: byte {} is wrong", e.utf8_error().valid_up_to()))
    })
}

/// `prompt`: nothing but the prompt, so that it can be compared byte for byte.
pub(super) fn prompt(
    dir: &Path,
    args: &PromptArgs,
    environment: &Environment,
    out: &mut Out,
) -> Result<(), Failure> {
    let template = if let Some(path) = &args.template {
        let source = template_source(path)?;
        let bos = args.bos.as_deref().unwrap_or_default();
        let eos = args.eos.as_deref().unwrap_or_default();
        ChatTemplate::from_source(&source, bos, eos)?
    } else {
        let file = Models::of(dir).resolve(args.model.as_deref())?;
        ChatTemplate::from_gguf(&file.open()?).map_err(|e| Failure::from(e).of(&file))?
    };
    let messages = serde_json::from_str(&stdin_text()?)
        .map_err(|e| Failure::failed(format!("stdin is not a JSON list of messages: {e}")))?;
    let options = RenderOptions {
        add_generation_prompt: !args.no_generation_prompt,
        bos: args.bos.as_deref(),
        eos: args.eos.as_deref(),
        now_s: environment.source_date_epoch,
    };
    out.write_all(template.render_json(&messages, &options)?.as_bytes())?;
    Ok(())
}

fn template_source(path: &Path) -> Result<String, Failure> {
    let file = |e: io::Error| Failure::failed(format!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    let opened = File::open(path).map_err(file)?;
    opened.take(MAX_TEMPLATE_BYTES + 1).read_to_end(&mut bytes).map_err(file)?;
    if bytes.len() as u64 > MAX_TEMPLATE_BYTES {
        return Err(Failure::failed(format!(
            "{}: is larger than 1 MiB; that is no template",
            path.display()
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::bad_data(format!("{}: is not UTF-8 text; that is no template", path.display())))
}
