//! Parses, sets up tracing, matches the command, turns an error into an exit code.

fn main() {}
