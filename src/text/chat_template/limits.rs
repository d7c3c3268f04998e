//! How much a template may use. It comes with a model file, so it is somebody else's program.

use std::time::Duration;

/// Longest template source in bytes; the longest known one is 17 KiB.
pub const MAX_SOURCE_BYTES: usize = 256 << 10;
/// Steps of one rendering: three times what a chat of 1,000 messages takes in the one known template that looks at all
/// earlier messages for each; the others take a hundredth of that.
pub const MAX_STEPS: u64 = 16_000_000;
/// Longest rendered prompt, and longest single text on the way, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 8 << 20;
/// Bytes that one rendering may write or build in all, kept or thrown away.
pub const MAX_BUILT_BYTES: usize = 48 << 20;
/// What an item of a list counts in bytes.
pub const ITEM_BYTES: usize = 24;
/// What a list or dictionary itself counts in bytes. Lists may hold lists that hold lists, each one deeper, and taking
/// them apart again needs stack: with this, [`STACK_BYTES`] are enough for the deepest that the budget allows.
pub const CONTAINER_BYTES: usize = 2 << 10;
/// Stack of the thread that renders; only what is used of it costs memory.
pub const STACK_BYTES: usize = 64 << 20;
/// Longest time of one rendering; all but hostile ones take milliseconds.
pub const MAX_TIME: Duration = Duration::from_millis(900);
/// Deepest nesting while running: macros calling macros, blocks in loops.
pub const MAX_DEPTH: usize = 200;
/// Most words and signs in one tag, which bounds how deep an expression can nest.
pub const MAX_TAG_TOKENS: usize = 1_000;
/// Widest indentation or padding that a template may ask for.
pub const MAX_WIDTH: usize = 256;
