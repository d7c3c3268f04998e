//! What may be typed: clap types only. The help text is the documentation of every verb and flag.
//!
//! Values that can also stand in the environment or in `config.toml` are kept raw here (`Option`s); `config` turns
//! them into one checked [`crate::config::Config`].

mod bench;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgGroup, Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::domain::{Email, Invalid, Role};

pub use bench::{BenchArgs, BenchCommand, BenchCompareArgs, BenchServeArgs};

/// A private, self-contained chat engine: a caring parent to write to, on your own machine.
#[derive(Parser, Debug)]
#[command(name = "mommygpt", version, propagate_version = true, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// Data directory: accounts, chats, models, certificates, config.toml [default: `$XDG_DATA_HOME/mommygpt`]
    #[arg(long, global = true, env = "MOMMYGPT_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Every flag with an [env: ...] may stand there instead. Those of serve may stand in config.toml in the
data directory too, named like the flag with _ for -: `port = 4467`.
A flag wins over the environment, and the environment over the file.

Also honoured:
  RUST_LOG            what is logged, such as info or mommygpt=debug
  NO_COLOR            no colours in the log
  XDG_DATA_HOME       where data directories lie
  HF_TOKEN            for `pull` from repositories that want one
  HF_HOME             where the hub's cache lies, whose files `pull` takes
  HF_ENDPOINT         another hub for `pull`
  HF_HUB_OFFLINE      `pull` takes only what the cache has
  SOURCE_DATE_EPOCH   the time that `prompt` gives to templates
  MOMMYGPT_FORCE_ISA  scalar|avx2|avxvnni|avx512|amx|neon: kernels, for tests

Exit codes: 0 good, 1 failed, 2 wrong usage, 3 bad data (database, model, backup).";

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start the server and its page
    Serve(ServeArgs),
    /// Chat in the terminal: no server, nothing stored
    Run(RunArgs),
    /// Fetch a model from the hub into the data directory
    #[cfg(feature = "hub")]
    Pull {
        /// OWNER/NAME or OWNER/NAME:QUANT (such as `Q4_K_M`), or a name that `doctor` lists
        #[arg(value_name = "REPO[:QUANT]")]
        repo: String,
    },
    /// Take a model file into the data directory
    Import {
        /// A GGUF file
        file: PathBuf,
    },
    /// List the models in the data directory
    List,
    /// Show what a model is
    Show {
        /// Name in the data directory, path, or `builtin`
        model: String,
    },
    /// Check that a model file is whole and readable
    Verify {
        /// Name in the data directory, path, or `builtin`
        model: String,
    },
    /// Remove a model from the data directory
    Rm {
        /// Name in the data directory
        model: String,
    },
    /// Let another model answer in the running server, until it starts anew
    Switch {
        /// Name in the data directory, or `builtin`
        model: String,
    },
    /// Try model files in this process, within limits
    #[command(hide = true)]
    Preflight(PreflightArgs),
    /// Text on stdin to token ids on one line
    Tokenize(TokenizeArgs),
    /// A JSON list of messages on stdin to the rendered prompt, byte for byte
    Prompt(PromptArgs),
    /// How well a model foretells a text
    Perplexity(PerplexityArgs),
    /// Measure the engine, this machine or a server
    Bench(Box<BenchArgs>),
    /// Generate a saved answer again and say whether the same tokens come
    Replay(ReplayArgs),
    /// What the crisis check says: one message a line on stdin; `card<TAB>kind` or `none` per line on stdout
    Safety,
    /// Accounts
    #[command(subcommand)]
    User(UserCommand),
    /// Write a copy of the database to FILE, while the server runs or not
    Backup {
        /// Where to; must not exist
        file: PathBuf,
    },
    /// Put a backup in the database's place; the server must not run
    Restore {
        /// A file made by `backup`
        file: PathBuf,
        /// Do not ask before replacing a database
        #[arg(long)]
        yes: bool,
    },
    /// Check the database
    Check,
    /// Make a local certificate authority and a certificate, for `serve --tls`
    Tls {
        /// Further names or addresses that browsers will use for this machine
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// What this machine is, and whether `serve` with the same flags can do its work here
    Doctor(ServeArgs),
    /// Completions for a shell, on stdout
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// The version
    Version,
}

/// Which model, and how it runs.
#[derive(Args, Clone, Debug, Default)]
pub struct EngineArgs {
    /// Name in the data directory, path, or `builtin` [default: the newest in the data directory, else builtin]
    #[arg(short, long, env = "MOMMYGPT_MODEL")]
    pub model: Option<String>,
    /// Context length in tokens [default: the model's own, as far as memory allows]
    #[arg(short, long, env = "MOMMYGPT_CTX_SIZE", value_name = "N_CTX")]
    pub ctx_size: Option<usize>,
    /// Threads for inference [default: the machine's cores]
    #[arg(short, long, env = "MOMMYGPT_THREADS")]
    pub threads: Option<usize>,
    /// Where the model runs: cpu, cuda or metal [default: cpu]
    #[arg(long, env = "MOMMYGPT_DEVICE")]
    pub device: Option<String>,
    /// How past tokens are remembered: i16, f16, or q8 in half the memory [default: i16]
    #[arg(long, env = "MOMMYGPT_KV", value_name = "TYPE")]
    pub kv: Option<String>,
}

/// `serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// The model
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "MOMMYGPT_HOST")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 4467]
    #[arg(long, env = "MOMMYGPT_PORT")]
    pub port: Option<u16>,
    /// Answers generated at the same time (also -np) [default: 4]
    #[arg(long, env = "MOMMYGPT_PARALLEL")]
    pub parallel: Option<usize>,
    /// Longest pause in milliseconds that reading somebody's long message may put between another's words [default: 100]
    #[arg(long, env = "MOMMYGPT_ITL_BUDGET_MS", value_name = "MS")]
    pub itl_budget_ms: Option<usize>,
    /// Give the model's memory back when nobody wrote for so many minutes; the next message loads it again
    #[arg(long, env = "MOMMYGPT_IDLE_UNLOAD", value_name = "MINUTES")]
    pub idle_unload: Option<usize>,
    /// Keep up to so many MiB of what the model made of chats on disk, encrypted: a chat then goes on at once after a restart
    #[arg(long, env = "MOMMYGPT_KV_DISK", value_name = "MIB")]
    pub kv_disk: Option<usize>,
    /// Guess words from what was said before, and check several at once where that pays [default: true]
    #[arg(long, env = "MOMMYGPT_SPECULATIVE", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub speculative: Option<bool>,
    /// A smaller model of the same vocabulary that guesses ahead; the text is the same, and comes faster where it guesses well
    #[arg(long, env = "MOMMYGPT_DRAFT", value_name = "MODEL")]
    pub draft: Option<String>,
    /// The same seed gives the same tokens whatever else runs: one answer at a time, nothing reused; slower
    #[arg(long, env = "MOMMYGPT_DETERMINISTIC", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub deterministic: Option<bool>,
    /// Speak Ollama's API too (/api/chat, /api/generate, /api/tags, /api/show, /api/version), with an API key as bearer
    #[arg(long, env = "MOMMYGPT_OLLAMA", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub ollama: Option<bool>,
    /// Who may make an account: open, invite or closed [default: open on loopback, else invite]
    #[arg(long, env = "MOMMYGPT_SIGNUP")]
    pub signup: Option<String>,
    /// Certificate chain for HTTPS, PEM
    #[arg(long, env = "MOMMYGPT_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "MOMMYGPT_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// HTTPS with the certificate made by `mommygpt tls`
    #[arg(long, env = "MOMMYGPT_TLS", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub tls: Option<bool>,
    /// A reverse proxy's address or network, whose X-Forwarded-For is believed; may be repeated
    #[arg(long, env = "MOMMYGPT_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',')]
    pub trusted_proxy: Vec<String>,
    /// A name that browsers may use for this server beside its addresses; may be repeated
    #[arg(long, env = "MOMMYGPT_ALLOW_HOST", value_name = "NAME", value_delimiter = ',')]
    pub allow_host: Vec<String>,
    /// Open the page in a browser
    #[arg(long)]
    pub open: bool,
}

/// `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The model
    #[command(flatten)]
    pub engine: EngineArgs,
    /// One message: its answer goes to stdout
    pub prompt: Option<String>,
}

/// `preflight`.
#[derive(Args, Clone, Debug)]
pub struct PreflightArgs {
    /// Bytes of memory it may take
    #[arg(long)]
    pub memory: u64,
    /// Seconds it may compute
    #[arg(long)]
    pub seconds: u64,
    /// GGUF files; of a split model the first
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// `tokenize`.
#[derive(Args, Clone, Debug)]
pub struct TokenizeArgs {
    /// Name in the data directory, path, or `builtin`; may hold a vocabulary only
    #[arg(short, long)]
    pub model: String,
    /// Leave BOS and EOS out
    #[arg(long)]
    pub no_special: bool,
}

/// `prompt`.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("source").required(true)))]
pub struct PromptArgs {
    /// The model whose template is used
    #[arg(short, long, group = "source")]
    pub model: Option<String>,
    /// A template file instead
    #[arg(long, value_name = "FILE", group = "source")]
    pub template: Option<PathBuf>,
    /// Do not ask for a reply at the end
    #[arg(long)]
    pub no_generation_prompt: bool,
    /// Text of the beginning-of-sequence token [default: the model's]
    #[arg(long, value_name = "TEXT")]
    pub bos: Option<String>,
    /// Text of the end-of-sequence token [default: the model's]
    #[arg(long, value_name = "TEXT")]
    pub eos: Option<String>,
}

/// `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// An answer of /v1/chat/completions or /v1/completions, asked for with `return_token_ids` and saved as it came
    pub file: PathBuf,
    /// The model
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `perplexity`.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("input").required(true)))]
pub struct PerplexityArgs {
    /// Name in the data directory, path, or `builtin`
    #[arg(short, long)]
    pub model: String,
    /// A text
    #[arg(group = "input")]
    pub file: Option<PathBuf>,
    /// Read token ids from stdin instead
    #[arg(long, group = "input")]
    pub ids: bool,
    /// Tokens per window
    #[arg(short, long, value_name = "N_CTX", default_value_t = 512)]
    pub ctx_size: usize,
    /// Threads for inference [default: the machine's cores]
    #[arg(short, long)]
    pub threads: Option<usize>,
    /// Write the logits of every token to a .npy file: f32, (tokens, vocabulary)
    #[arg(long, value_name = "OUT.npy")]
    pub logits: Option<PathBuf>,
}

/// `user`. The password is asked on the terminal, or is the first line of stdin.
#[derive(Subcommand, Debug)]
pub enum UserCommand {
    /// Make an account; prints its recovery code
    Add {
        /// E-mail address
        #[arg(value_parser = email)]
        email: Email,
        /// Display name
        #[arg(long, default_value = "")]
        name: String,
        /// admin, member or child [default: admin for the first account, else member]
        #[arg(long, value_parser = role)]
        role: Option<Role>,
    },
    /// List the accounts
    List,
    /// Set a new password; without the recovery code the old chats cannot be read again
    Passwd {
        /// E-mail address
        #[arg(value_parser = email)]
        email: Email,
        /// The recovery code is the second line of stdin, or asked for: keeps the old chats
        #[arg(long)]
        recovery_code: bool,
        /// Do not ask before the old chats become unreadable
        #[arg(long)]
        yes: bool,
    },
    /// Change what somebody may do
    Role {
        /// E-mail address
        #[arg(value_parser = email)]
        email: Email,
        /// admin, member or child
        #[arg(value_parser = role)]
        role: Role,
    },
    /// Lock an account and end its sessions
    Disable {
        /// E-mail address
        #[arg(value_parser = email)]
        email: Email,
        /// Unlock it again
        #[arg(long)]
        undo: bool,
    },
    /// Delete an account and everything in it
    Rm {
        /// E-mail address
        #[arg(value_parser = email)]
        email: Email,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Make an invitation that can be used once; prints its code
    Invite {
        /// admin, member or child [default: member]
        #[arg(long, value_parser = role)]
        role: Option<Role>,
    },
}

fn email(raw: &str) -> Result<Email, String> {
    Email::parse(raw).map_err(|Invalid { problem, .. }| problem)
}

fn role(raw: &str) -> Result<Role, String> {
    raw.parse().map_err(|Invalid { problem, .. }| problem)
}

/// Parses a command line, with the two-letter flags that people know from llama.cpp.
///
/// # Errors
/// clap's own, which holds the help text or the complaint and knows its exit code.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(spell_out(args))
}

/// Flags of two letters, which clap does not have, and what they stand for.
const SHORT: &[(&str, &str)] = &[
    ("-np", "--parallel"),
    ("-pg", "--prompt-gen"),
    ("-ub", "--ubatch-size"),
    ("-ngl", "--n-gpu-layers"),
    ("-oe", "--output-err"),
];

/// They become the long flag wherever a flag may stand.
fn spell_out(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut only_values = false;
    args.into_iter()
        .map(|arg| {
            only_values |= arg == "--";
            let long = SHORT.iter().find(|(short, _)| !only_values && arg == *short);
            long.map_or(arg, |(_, long)| (*long).into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse(std::iter::once("mommygpt").chain(line.split(' ')).map(OsString::from))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_known_from_llama_cpp_work() {
        let Command::Serve(args) = parsed("serve -m builtin -c 512 -t 2 -np 3").unwrap().command else {
            panic!()
        };
        assert_eq!((args.engine.ctx_size, args.engine.threads, args.parallel), (Some(512), Some(2), Some(3)));
        let Command::Bench(args) =
            parsed("bench -m builtin -pg 64,16 -ub 8 -ngl -1 -np 1,4 -oe jsonl").unwrap().command
        else {
            panic!()
        };
        assert_eq!((args.prompt_gen, args.parallel), (vec!["64,16".to_owned()], vec!["1,4".to_owned()]));
        let Command::Run(args) = parsed("run -- -np").unwrap().command else { panic!() };
        assert_eq!(args.prompt.as_deref(), Some("-np"));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "",
            "fly",
            "serve --port 70000",
            "serve --port",
            "user role ada@example.org king",
            "user add not-an-address",
            "prompt",
            "prompt -m builtin --template x.jinja",
            "tokenize",
            "completions tcsh",
            "serve extra",
        ] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
