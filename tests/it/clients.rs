//! Programs that nobody here wrote, against the binary of this build: everything under `tests/clients`.
//!
//! Their runner fetches what it lacks. Where that cannot be done (no Python, no Node, no network), the test says "skipped";
//! in CI it fails.

use std::path::Path;
use std::process::Command;

/// The runner's exit code for "something is missing and could not be fetched".
const MISSING: i32 = 77;

#[test]
fn clients_of_others_work_by_changing_the_address() {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/run.py");
    let run = match Command::new("python3").arg(runner).arg(env!("CARGO_BIN_EXE_mommygpt")).output() {
        Ok(run) => run,
        Err(cause) => return crate::browser::missing(&format!("Python 3 is needed to run the client tests: {cause}")),
    };
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if run.status.code() == Some(MISSING) {
        return crate::browser::missing(&said);
    }
    assert!(run.status.success(), "{said}");
}
