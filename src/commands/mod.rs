//! What each verb does, and what it prints.
//!
//! A command ends well, or with a [`Failure`]: one sentence naming the thing, the value and the remedy, and the exit
//! code. A reader of stdout who goes away (`| head`) is no failure.

mod accounts;
mod bench;
mod completions;
mod data;
mod doctor;
mod local_tls;
mod models;
mod perplexity;
mod preflight;
mod replay;
mod serve;
mod switch;
mod text;

use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::PathBuf;

use mommygpt::auth::AuthError;
use mommygpt::cli::{Cli, Command};
use mommygpt::config::{self, ConfigError, Environment};
use mommygpt::hub::{HubError, ModelFile};
use mommygpt::model::ModelError;
use mommygpt::store::StoreError;
use mommygpt::text::TextError;
use mommygpt::web::control::Refusal;

/// Why a command ends with another exit code than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 1 failed, 2 wrong usage, 3 bad data; 0 when whoever read stdout went away.
    pub(crate) exit_code: u8,
    /// One sentence; empty when there is nothing to say.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { exit_code: 1, message: message.into() }
    }
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit_code: 2, message: message.into() }
    }
    pub(crate) fn bad_data(message: impl Into<String>) -> Self {
        Self { exit_code: 3, message: message.into() }
    }
    /// The same failure, saying of which model it is.
    pub(crate) fn of(self, model: &ModelFile) -> Self {
        Self { message: format!("{model}: {}", self.message), ..self }
    }
}

impl From<io::Error> for Failure {
    /// For reading stdin and writing stdout; errors of files are named where they happen.
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            return Self { exit_code: 0, message: String::new() };
        }
        Self::failed(e.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Self::usage(e.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { exit_code: refusal.exit_code, message: refusal.message }
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        Refusal::from(e).into()
    }
}

impl From<AuthError> for Failure {
    fn from(e: AuthError) -> Self {
        Refusal::from(e).into()
    }
}

impl From<HubError> for Failure {
    fn from(e: HubError) -> Self {
        match e {
            HubError::Model { .. }
            | HubError::Changed { .. }
            | HubError::Broke { .. }
            | HubError::Damaged { .. } => Self::bad_data(e.to_string()),
            _ => Self::failed(e.to_string()),
        }
    }
}

impl From<TextError> for Failure {
    fn from(e: TextError) -> Self {
        match e {
            TextError::Malformed(_) | TextError::Unsupported(_) => Self::bad_data(e.to_string()),
            _ => Self::failed(e.to_string()),
        }
    }
}

impl From<ModelError> for Failure {
    fn from(e: ModelError) -> Self {
        match e {
            ModelError::Malformed(_) | ModelError::Unsupported(_) => Self::bad_data(e.to_string()),
            _ => Self::failed(e.to_string()),
        }
    }
}

/// What commands print to: buffered, and the one place that owns stdout.
pub(crate) type Out = BufWriter<StdoutLock<'static>>;

/// Does what was typed.
pub(crate) fn run(cli: Cli, environment: &Environment) -> Result<(), Failure> {
    let dir = cli.dir;
    if let Command::Run(args) = cli.command {
        // A conversation prints by itself, from where the answers come.
        return models::run(dir, args);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    dispatch(cli.command, dir, environment, &mut out)?;
    out.flush()?;
    Ok(())
}

fn dispatch(
    command: Command,
    dir: Option<PathBuf>,
    environment: &Environment,
    out: &mut Out,
) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::serve(dir, args, environment, out),
        Command::Run(args) => models::run(dir, args),
        #[cfg(feature = "hub")]
        Command::Pull { repo } => models::pull(&config::data_dir(dir)?, &repo, &environment.hub, out),
        Command::Switch { model } => switch::switch(&config::data_dir(dir)?, model, out),
        Command::Preflight(args) => preflight::preflight(&args, out),
        Command::Import { file } => models::import(&config::data_dir(dir)?, &file, out),
        Command::List => models::list(&config::data_dir(dir)?, out),
        Command::Show { model } => models::show(&config::data_dir(dir)?, &model, out),
        Command::Verify { model } => models::verify(&config::data_dir(dir)?, &model, out),
        Command::Rm { model } => models::remove(&config::data_dir(dir)?, &model, out),
        Command::Tokenize(args) => text::tokenize(&config::data_dir(dir)?, &args, out),
        Command::Prompt(args) => text::prompt(&config::data_dir(dir)?, &args, environment, out),
        Command::Replay(args) => replay::replay(dir, args, out),
        Command::Perplexity(args) => perplexity::perplexity(dir, &args, out),
        Command::Bench(args) => bench::bench(dir, *args, out),
        Command::Safety => text::safety(out),
        Command::User(command) => accounts::user(&config::data_dir(dir)?, command, out),
        Command::Backup { file } => data::backup(&config::data_dir(dir)?, &file, out),
        Command::Restore { file, yes } => data::restore(&config::data_dir(dir)?, &file, yes, out),
        Command::Check => data::check(&config::data_dir(dir)?, out),
        Command::Tls { names } => local_tls::make(&config::data_dir(dir)?, &names, out),
        Command::Doctor(args) => doctor::doctor(dir, args, environment, out),
        Command::Completions { shell } => completions::print(shell, out),
        Command::Version => writeln!(out, "mommygpt {}", env!("CARGO_PKG_VERSION")).map_err(Failure::from),
    }
}
