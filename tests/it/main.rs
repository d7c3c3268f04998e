//! The one integration binary; this file is its table of contents.

#![allow(clippy::unwrap_used, reason = "what a test calls may panic as the test itself may")]

mod engine; // the engine on a scripted model: fairness, bounds, cancelling, faults, warm sequences
mod scripted_model; // a fake at the Model trait, whose steps the test can hold
mod tidy; // the house rules: imports, sizes, unsafe, names
