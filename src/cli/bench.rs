//! `bench`: flags with llama-bench's names; lists stay text here and are parsed where they are multiplied.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `bench`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// Measure something else than the engine
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// Name in the data directory, path, `builtin`, or `shape:NAME:QUANT` for random weights of a published model's shape;
    /// may be repeated [default: builtin]
    #[arg(short, long)]
    pub model: Vec<String>,
    /// Prompt tokens; this and the lists below are comma lists or ranges: 128,512 or 128-512+128 or 1-16*2 [default: 512]
    #[arg(short = 'p', long, value_name = "LIST")]
    pub n_prompt: Vec<String>,
    /// Generated tokens [default: 128]
    #[arg(short = 'n', long, value_name = "LIST")]
    pub n_gen: Vec<String>,
    /// Prompt and generated tokens in one test (also -pg); may be repeated
    #[arg(long, value_name = "P,N")]
    pub prompt_gen: Vec<String>,
    /// Positions filled before the time is taken [default: 0]
    #[arg(short = 'd', long, value_name = "LIST")]
    pub n_depth: Vec<String>,
    /// Logical batch size [default: 2048]
    #[arg(short, long, value_name = "LIST")]
    pub batch_size: Vec<String>,
    /// Rows of one step (also -ub) [default: 512]
    #[arg(long, value_name = "LIST")]
    pub ubatch_size: Vec<String>,
    /// Threads [default: the machine's cores]
    #[arg(short, long, value_name = "LIST")]
    pub threads: Vec<String>,
    /// Sequences at once (also -np) [default: 1]
    #[arg(long, value_name = "LIST")]
    pub parallel: Vec<String>,
    /// Layers on the GPU (also -ngl): 0 computes on the CPU, anything else where --device says
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = -1)]
    pub n_gpu_layers: i64,
    /// Where the model runs: cpu, cuda or metal [default: cpu]
    #[arg(long)]
    pub device: Option<String>,
    /// How past tokens are remembered: f16 or q8 [default: f16]
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<String>,
    /// How often each test is repeated
    #[arg(short, long, value_name = "N", default_value_t = crate::bench::DEFAULT_REPETITIONS)]
    pub repetitions: usize,
    /// Seconds of rest before each test
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub delay: u64,
    /// No repetition beforehand
    #[arg(long)]
    pub no_warmup: bool,
    /// Say on stderr which test runs, also where that is no terminal
    #[arg(long)]
    pub progress: bool,
    /// Results on stdout: md, csv, json, jsonl, sql, html or svg
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    pub output: String,
    /// Results on stderr too (also -oe): one of the same
    #[arg(long, value_name = "FORMAT")]
    pub output_err: Option<String>,
    /// Results in JSON whose tokens are right, of other kernels or another build: a row with other tokens is invalid
    #[arg(long, value_name = "FILE.json")]
    pub reference: Option<PathBuf>,
    /// Do not measure what the machine can do; `% of limit` is left out
    #[arg(long)]
    pub no_limits: bool,
    /// Write the model of one -m shape: to a file, for other engines, and measure nothing
    #[arg(long, value_name = "FILE.gguf")]
    pub save_shape: Option<PathBuf>,
}

/// What can be measured besides the engine.
#[derive(Subcommand, Clone, Debug)]
pub enum BenchCommand {
    /// This machine: memory by threads and page size, arithmetic by instruction set
    Machine {
        /// md, json, html or svg
        #[arg(short, long, value_name = "FORMAT", default_value = "md")]
        output: String,
        /// Measure again, whatever is kept from an earlier call
        #[arg(long)]
        fresh: bool,
    },
    /// A server: this program's, or any that speaks OpenAI's API
    Serve(Box<BenchServeArgs>),
    /// Whether results B are better than results A
    Compare(BenchCompareArgs),
}

/// `bench serve`.
#[derive(Args, Clone, Debug)]
pub struct BenchServeArgs {
    /// Of another server, such as `http://127.0.0.1:8080` [default: a server of this program is started]
    #[arg(long)]
    pub url: Option<String>,
    /// Key for --url
    #[arg(long, env = "MOMMYGPT_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// The model: of the own server as in `bench`; with --url the name it is asked for there [default: its first]
    #[arg(short, long)]
    pub model: Option<String>,
    /// Requests at once, one measurement each: a list as in `bench` [default: 1]; with --rate the most at once
    #[arg(long, value_name = "LIST", visible_alias = "max-concurrency")]
    pub concurrency: Option<String>,
    /// Requests a second, arriving at random times, whatever the server does with them; a comma list
    #[arg(long, visible_alias = "request-rate", value_delimiter = ',')]
    pub rate: Vec<String>,
    /// Requests (with --multi-turn conversations) of each measurement
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub num_prompts: usize,
    /// Of the arrivals
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A file of prompts instead of the built-in ones: one a line, as text or as JSON
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Words of every prompt [default: as they are]
    #[arg(long, value_name = "WORDS")]
    pub input_len: Option<usize>,
    /// Most tokens of an answer
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub output_len: usize,
    /// Turns of each conversation; each turn sends all before it
    #[arg(long, value_name = "TURNS", default_value_t = 1)]
    pub multi_turn: usize,
    /// Ask for answers of the full length, where the server can
    #[arg(long)]
    pub ignore_eos: bool,
    /// What a good request keeps, in milliseconds: ttft:200 tpot:50 e2el:5000
    #[arg(long, value_name = "NAME:MS", num_args = 1..)]
    pub goodput: Vec<String>,
    /// Seconds after which a request has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// No request beforehand
    #[arg(long)]
    pub no_warmup: bool,
    /// Answers generated at once by the own server (also -np) [default: the largest --concurrency]
    #[arg(long, value_name = "N")]
    pub parallel: Option<usize>,
    /// Threads of the own server [default: the machine's cores]
    #[arg(short, long)]
    pub threads: Option<usize>,
    /// Context of the own server
    #[arg(short, long, value_name = "N_CTX")]
    pub ctx_size: Option<usize>,
    /// Where the own server's model runs: cpu, cuda or metal
    #[arg(long)]
    pub device: Option<String>,
    /// Results on stdout: md, json, jsonl, html or svg
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    pub output: String,
}

/// `bench compare`.
#[derive(Args, Clone, Debug)]
pub struct BenchCompareArgs {
    /// Results that `bench` wrote with -o json or jsonl
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// Results to be compared with them
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
    /// Runs of A and B after each other, where both can still be made
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub pairs: usize,
    /// Compare what was recorded, and run nothing
    #[arg(long)]
    pub no_rerun: bool,
    /// The program that makes A's rows again [default: this one, where it wrote them]
    #[arg(long, value_name = "FILE")]
    pub program_a: Option<PathBuf>,
    /// The program that makes B's rows again
    #[arg(long, value_name = "FILE")]
    pub program_b: Option<PathBuf>,
    /// md or json
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    pub output: String,
}
