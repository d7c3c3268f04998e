//! Where files live that are too large, or not ours to keep, for the repository.

use std::path::{Path, PathBuf};

/// The path of a fixture outside the repository, or `None` with a line saying so where it is missing.
///
/// `MOMMYGPT_FIXTURES` names the folder, else it is looked for beside the repository. Where `CI` is set a missing
/// fixture fails the test: there it would mean that nothing was tested.
#[allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests have no Config to ask, and stdout to say so"
)]
pub(crate) fn fixture(path: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    let found = std::env::var_os("MOMMYGPT_FIXTURES").map_or_else(beside, PathBuf::from).join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", found.display());
    println!("skipped: {} is missing", found.display());
    None
}
