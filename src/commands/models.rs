//! `run`, `pull`, `import`, `list`, `show`, `verify`, `rm`: models.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mommygpt::chat::persona;
use mommygpt::chat::safety::Cards;
use mommygpt::cli::{RunArgs, ServeArgs};
use mommygpt::config::Config;
use mommygpt::domain::{Persona, Timestamp};
use mommygpt::engine::{Engine, EngineError};
use mommygpt::hub::preflight::{Preflight, Tried};
use mommygpt::hub::{BUILTIN, BUILTIN_NAME, Entry, ModelFile, Models, Untried};
use mommygpt::model;
use mommygpt::model::config::ModelConfig;
use mommygpt::terminal;
use mommygpt::text::ChatTemplate;

use super::serve::{engine_options, load_failure};
use super::{Failure, Out};

/// A larger file takes so long to try that somebody would wonder what the program does.
const NOTICED_BYTES: u64 = 64 << 20;

/// `run`.
pub(super) fn run(dir: Option<PathBuf>, args: RunArgs) -> Result<(), Failure> {
    let typed = ServeArgs { engine: args.engine, parallel: Some(1), ..ServeArgs::default() };
    let config = Config::resolve(dir, typed)?;
    let models = Models::of(&config.dir);
    let model = models.resolve(config.model.as_deref())?;
    try_first(&models, &model)?;
    model.open_runnable()?;
    let options = terminal::Options {
        prompt: args.prompt,
        persona: persona::of(Persona::Mom).to_owned(),
        cards: Cards::load(Some(&config.dir)).map_err(|e| Failure::usage(e.to_string()))?,
        sampling: None,
    };
    let engine = Engine::start(engine_options(&config, &model));
    let outcome = terminal::run(&engine, options);
    engine.shutdown();
    outcome.map_err(|e| match e.downcast::<EngineError>() {
        Ok(e) => load_failure(&e).of(&model),
        Err(e) => Failure::failed(format!("{e:#}")),
    })
}

/// `pull REPO[:QUANT]`.
#[cfg(feature = "hub")]
pub(super) fn pull(
    dir: &Path,
    repo: &str,
    options: &mommygpt::hub::pull::PullOptions,
    out: &mut Out,
) -> Result<(), Failure> {
    let pulled = mommygpt::hub::pull::pull(&Models::of(dir), &preflight()?, repo, options)?;
    if let Some(licence) = &pulled.licence {
        let licence: String = licence.chars().filter(|c| !c.is_control()).collect();
        writeln!(out, "licence: {licence}")?;
    }
    match pulled.tried {
        Some(tried) => taken_in(&pulled.entry, &tried, out),
        None => writeln!(out, "{} is here already.", pulled.entry.name).map_err(Failure::from),
    }
}

/// `import FILE`.
pub(super) fn import(dir: &Path, file: &Path, out: &mut Out) -> Result<(), Failure> {
    let (entry, tried) = Models::of(dir).import(file, &preflight()?)?;
    taken_in(&entry, &tried, out)
}

/// Tries a file that is new here in a process of its own, before one that has something to lose loads it. What was found
/// good is remembered where there is a data directory; a caller that is about to make one does it again then.
pub(super) fn try_first(models: &Models, model: &ModelFile) -> Result<Option<Untried>, Failure> {
    let Some(untried) = models.untried(model) else { return Ok(None) };
    if untried.bytes() >= NOTICED_BYTES {
        // Whoever waits should know for what. A closed stderr is no reason to stop.
        let _ = writeln!(io::stderr(), "{model}: new here, so it is tried first, in a process of its own");
    }
    match untried.check(&preflight()?)? {
        Tried::Works => {
            remember(&untried);
            Ok(Some(untried))
        }
        // What loads it now says so itself, and by how much.
        Tried::TooLargeToLoad(_) => Ok(None),
    }
}

/// Not being able to remember costs a try at the next start, and nothing else.
pub(super) fn remember(untried: &Untried) {
    if let Err(e) = untried.remember() {
        tracing::warn!("{e}; the model is tried again at the next start");
    }
}

fn preflight() -> Result<Preflight, Failure> {
    Preflight::of_this_program().map_err(|e| Failure::failed(format!("this program's own file: {e}")))
}

fn taken_in(entry: &Entry, tried: &Tried, out: &mut Out) -> Result<(), Failure> {
    writeln!(out, "{}: {}", entry.name, size(entry.bytes))?;
    match tried {
        Tried::Works => writeln!(
            out,
            "It is the newest now, so `mommygpt serve` and `mommygpt run` take it when -m is left out."
        )?,
        Tried::TooLargeToLoad(sum) => {
            writeln!(out, "It is well-formed, but does not fit into this machine's memory: {sum}.")?;
        }
    }
    Ok(())
}

/// `list`: newest first; the first line is what is used when `-m` is left out.
pub(super) fn list(dir: &Path, out: &mut Out) -> Result<(), Failure> {
    let entries = Models::of(dir).list()?;
    let width = entries.iter().map(|e| e.name.len()).max().unwrap_or(0).max(BUILTIN_NAME.len());
    writeln!(out, "{:width$}  {:>10}  ADDED", "NAME", "SIZE")?;
    for entry in entries {
        writeln!(out, "{:width$}  {:>10}  {}", entry.name, size(entry.bytes), time(entry.added))?;
    }
    writeln!(out, "{BUILTIN_NAME:width$}  {:>10}  -", size(BUILTIN.len() as u64))?;
    Ok(())
}

/// `show MODEL`.
pub(super) fn show(dir: &Path, model: &str, out: &mut Out) -> Result<(), Failure> {
    let file = Models::of(dir).resolve(Some(model))?;
    let gguf = file.open_runnable()?;
    let config = ModelConfig::from_gguf(&gguf, None).map_err(|e| Failure::from(e).of(&file))?;
    let template = ChatTemplate::from_gguf(&gguf).map_or_else(|e| e.to_string(), |t| t.origin().to_owned());
    let template_is_own = if gguf.str("tokenizer.chat_template").is_some() { "yes" } else { "no" };
    let kv = config.kv_bytes_per_token() as u64;
    let (weights, conversation) = (model::resident_bytes(&gguf), kv * config.n_ctx as u64);
    let room = match model::available_memory() {
        Some((free, whose)) if weights + conversation > free => {
            format!("{whose} leaves {}: too little", size(free))
        }
        Some((free, whose)) => format!("{whose} leaves {}", size(free)),
        None => "how much there is, this system does not tell".to_owned(),
    };
    let needed = format!(
        "{}: weights {}, a conversation of {} tokens {}; {room}",
        size(weights + conversation),
        size(weights),
        config.n_ctx,
        size(conversation)
    );
    let rows = [
        ("file", file.to_string()),
        ("name", config.name.clone()),
        ("architecture", config.architecture.clone()),
        ("quantization", config.quantization.clone()),
        ("size", size(gguf.size_bytes())),
        ("parameters", millions(config.n_params)),
        ("context", format!("{} tokens", config.n_ctx_train)),
        ("vocabulary", format!("{} tokens", config.n_vocab)),
        ("layers", config.n_layer.to_string()),
        ("width", config.n_embd.to_string()),
        ("heads", format!("{} (keys and values {})", config.n_head, config.n_head_kv)),
        ("KV cache", format!("{} a token", size(kv))),
        ("memory here", needed),
        ("own template", template_is_own.to_owned()),
        ("chat template", template),
        ("licence", gguf.str("general.license").unwrap_or("not said in the file").to_owned()),
        ("tensors", format!("{} in {} file(s)", gguf.tensors().len(), gguf.n_parts())),
    ];
    for (name, value) in rows {
        // Text from the file must not move the cursor.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        writeln!(out, "{name:14} {value}")?;
    }
    Ok(())
}

/// `verify MODEL`.
pub(super) fn verify(dir: &Path, model: &str, out: &mut Out) -> Result<(), Failure> {
    let models = Models::of(dir);
    let file = models.resolve(Some(model))?;
    for verified in models.verify(&file)? {
        writeln!(out, "{}  {}", verified.sha256, verified.file)?;
        let compared = if verified.was_recorded {
            "It is what was imported."
        } else {
            "No checksum was recorded for it; compare it with the one where you got it."
        };
        writeln!(out, "{compared}")?;
    }
    Ok(())
}

/// `rm MODEL`.
pub(super) fn remove(dir: &Path, model: &str, out: &mut Out) -> Result<(), Failure> {
    if model == BUILTIN_NAME {
        return Err(Failure::failed("builtin: this model is part of the program and cannot be removed"));
    }
    let entry = Models::of(dir).remove(model)?;
    writeln!(out, "{} is removed.", entry.name)?;
    Ok(())
}

/// Bytes as a person reads them.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn millions(n: u64) -> String {
    if n >= 1_000_000_000 { format!("{:.2} B", n as f64 / 1e9) } else { format!("{:.1} M", n as f64 / 1e6) }
}

fn time(at: SystemTime) -> String {
    let micros = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros());
    let text = Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX)).to_string();
    text.get(..16).unwrap_or(&text).replace('T', " ")
}
