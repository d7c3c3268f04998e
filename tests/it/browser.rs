//! The page in a real Chromium: everything under `tests/browser`, against the binary of this build.
//!
//! Its own runner fetches what it lacks. Where that cannot be done (no Node, no network and no Chromium), the test says
//! "skipped"; in CI it fails.

use std::path::Path;
use std::process::Command;

/// The runner's exit code for "something is missing and could not be fetched".
const MISSING: i32 = 77;

#[test]
fn the_page_does_its_job_in_a_real_browser() {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/run.mjs");
    let run = match Command::new("node").arg(runner).arg(env!("CARGO_BIN_EXE_mommygpt")).output() {
        Ok(run) => run,
        Err(cause) => {
            return missing(&format!("Node 20 or newer is needed to run the browser tests: {cause}"));
        }
    };
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if run.status.code() == Some(MISSING) {
        return missing(&said);
    }
    assert!(run.status.success(), "{said}");
    println!("{said}");
}

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test asks whether it may skip, and says that it did"
)]
pub(crate) fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what}");
    println!("skipped: {what}");
}
