//! `preflight`, the hidden verb: tries model files in this process, which limits itself first.

use std::io::Write as _;
use std::path::Path;

use mommygpt::cli::PreflightArgs;
use mommygpt::hub::preflight::{Refusal, Tried, Verdict};
use mommygpt::model::{self, Chunk, Gguf, LoadOptions, LogitsFor, ModelError, TokenId};
use mommygpt::text::chat_template::{Speaker, Turn};
use mommygpt::text::{TextError, TextModel};
use nix::sys::resource::{Resource, setrlimit};

use super::{Failure, Out};

/// A context for a few tokens: what is tried is the file, not the machine.
const N_CTX: usize = 64;
/// How many tokens of the rendered conversation are evaluated.
const N_TOKENS: usize = 8;

/// `preflight`: a line for each file.
pub(super) fn preflight(args: &PreflightArgs, out: &mut Out) -> Result<(), Failure> {
    limit(args).map_err(|e| Failure::failed(format!("the limits cannot be set: {e}")))?;
    for file in &args.files {
        let verdict = match try_file(file) {
            Ok(tried) => Verdict::Good(tried),
            Err((refusal, why)) => Verdict::Refused(refusal, why),
        };
        writeln!(out, "{}", verdict.to_line())?;
        out.flush()?;
    }
    Ok(())
}

/// Memory, time, no files written, no core left behind.
fn limit(args: &PreflightArgs) -> nix::Result<()> {
    // Counts memory that can be written to: address space alone is reserved by the gigabyte and costs nothing.
    setrlimit(Resource::RLIMIT_DATA, args.memory, args.memory)?;
    setrlimit(Resource::RLIMIT_CPU, args.seconds, args.seconds)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}

type Refused = (Refusal, String);

fn try_file(path: &Path) -> Result<Tried, Refused> {
    let gguf = Gguf::open(path).map_err(of_model)?;
    model::ModelConfig::from_gguf(&gguf, Some(N_CTX)).map_err(of_model)?;
    let text = TextModel::from_gguf(&gguf).map_err(of_text)?;
    let tokens = text.encode_chat(&[Turn::new(Speaker::User, "Hello, how are you?")]).map_err(of_text)?;
    let options = LoadOptions { n_ctx: Some(N_CTX), ..LoadOptions::default() };
    let mut model = match model::load(&gguf, &options) {
        Err(ModelError::TooLarge(sum)) => return Ok(Tried::TooLargeToLoad(sum)),
        loaded => loaded.map_err(of_model)?,
    };
    let tokens: Vec<TokenId> = tokens.into_iter().take(N_TOKENS).collect();
    let seq = model.new_sequence().map_err(of_model)?;
    let chunk = Chunk { seq, tokens: &tokens, logits: LogitsFor::Last };
    let logits = model.step(&[chunk]).map_err(of_model)?;
    if logits.data.iter().any(|x| x.is_nan()) {
        return Err((
            Refusal::Malformed,
            "its first answer is not made of numbers: weights are damaged".into(),
        ));
    }
    Ok(Tried::Works)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn of_model(e: ModelError) -> Refused {
    match e {
        // The reason alone: whoever reads the line says the rest.
        ModelError::Malformed(why) => (Refusal::Malformed, why),
        ModelError::Unsupported(why) => (Refusal::Unsupported, why),
        ModelError::Io { .. } => (Refusal::Unreadable, e.to_string()),
        other => (Refusal::Malformed, other.to_string()),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn of_text(e: TextError) -> Refused {
    match e {
        TextError::Unsupported(why) => (Refusal::Unsupported, why),
        TextError::Malformed(why) => (Refusal::Malformed, why),
        other => (Refusal::Malformed, other.to_string()),
    }
}
