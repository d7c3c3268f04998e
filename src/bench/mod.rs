//! Measures: what the engine does on this machine, what the machine could do, and whether a change helped.
//!
//! `plan` turns lists into tests, `runner` runs them on a loaded model, `row` and `report` hold and write the results
//! under llama-bench's names, `description` computes what does not depend on an engine, `shape` makes models without a
//! file, `machine` measures memory and arithmetic, `load` puts a load on a server, `compare` says whether a change
//! helped and `environment` what disturbed, `page` and `plot` draw, `system` asks the system, `stats` computes,
//! `stop` ends it early.
//!
//! Every claim carries its check: the share of the machine's own limit, and a hash of the tokens that were generated.

pub mod compare;
pub mod description;
pub mod environment;
pub mod load;
pub mod machine;
pub mod page;
pub mod plan;
pub mod plot;
pub mod report;
pub mod row;
pub mod runner;
pub mod shape;
pub mod stats;
pub mod stop;
pub mod system;

/// llama-bench's `-p`.
pub const DEFAULT_PROMPT: usize = 512;
/// llama-bench's `-n`.
pub const DEFAULT_GEN: usize = 128;
/// llama-bench's `-b`.
pub const DEFAULT_BATCH: usize = 2048;
/// llama-bench's `-ub`.
pub const DEFAULT_UBATCH: usize = 512;
/// llama-bench's `-r`.
pub const DEFAULT_REPETITIONS: usize = 5;
