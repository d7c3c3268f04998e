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
    /// Write the model of one -m shape: to a file, for other engines, and measure nothing
    #[arg(long, value_name = "FILE.gguf")]
    pub save_shape: Option<PathBuf>,
}

/// What can be measured besides the engine.
#[derive(Subcommand, Clone, Debug)]
pub enum BenchCommand {
    /// This machine: memory by threads and page size, arithmetic by instruction set
    Machine {
        /// md or json
        #[arg(short, long, value_name = "FORMAT", default_value = "md")]
        output: String,
        /// Measure again, whatever is kept from an earlier call
        #[arg(long)]
        fresh: bool,
    },
}
