//! `backup`, `restore`, `check`: the database as a whole.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use mommygpt::store::backup;
use mommygpt::web::control::{self, Answer, Operation};

use super::accounts::{confirm, operate};
use super::{Failure, Out};

/// The database's presence decides whether a restore must ask.
const DATABASE: &str = "mommygpt.redb";

/// `backup FILE`.
pub(super) fn backup(dir: &Path, file: &Path, out: &mut Out) -> Result<(), Failure> {
    must_exist(dir)?;
    // The server's working directory is another.
    let file = std::path::absolute(file).map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
    let answer = operate(dir, Operation::Backup { file })?;
    let Answer::BackedUp { file, bytes, n_rows } = answer else {
        return Err(Failure::failed(format!("the running server answered something else ({answer:?})")));
    };
    writeln!(out, "{}: {n_rows} rows, {bytes} bytes", file.display())?;
    writeln!(out, "Bring it back with `mommygpt restore {}`.", file.display())?;
    Ok(())
}

/// `restore FILE`.
pub(super) fn restore(dir: &Path, file: &Path, yes: bool, out: &mut Out) -> Result<(), Failure> {
    if is_served(dir)? {
        return Err(Failure::failed(format!(
            "a server is running on {}; stop it first, then restore",
            dir.display()
        )));
    }
    if dir.join(DATABASE).exists() {
        confirm(&format!("Replace the database in {}? The old one is kept beside it.", dir.display()), yes)?;
    }
    let report = backup::restore(dir, file)?;
    writeln!(out, "{} rows are back from {}.", report.n_rows, file.display())?;
    if let Some(kept) = report.kept {
        writeln!(out, "The database that was there is kept as {}.", kept.display())?;
    }
    writeln!(out, "Every session and API key of the backup is void: sign in again.")?;
    Ok(())
}

/// `check`.
pub(super) fn check(dir: &Path, out: &mut Out) -> Result<(), Failure> {
    must_exist(dir)?;
    let answer =
        if is_served(dir)? { operate(dir, Operation::Check)? } else { Answer::from(backup::check(dir)?) };
    let Answer::Checked { counts, problems } = answer else {
        return Err(Failure::failed(format!("the running server answered something else ({answer:?})")));
    };
    for (name, n) in counts {
        writeln!(out, "{name:10} {n}")?;
    }
    for problem in &problems {
        writeln!(out, "problem: {problem}")?;
    }
    if problems.is_empty() {
        writeln!(out, "The database is good.")?;
        return Ok(());
    }
    out.flush()?;
    let n = problems.len();
    Err(Failure::bad_data(format!(
        "the database in {} has {n} problems; bring back a backup with `mommygpt restore FILE`",
        dir.display()
    )))
}

/// Without this, looking at a mistyped directory would make a database in it.
fn must_exist(dir: &Path) -> Result<(), Failure> {
    let database: PathBuf = dir.join(DATABASE);
    if database.exists() {
        return Ok(());
    }
    Err(Failure::failed(format!("{}: there is no database; is --dir right?", database.display())))
}

fn is_served(dir: &Path) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(control::connect(dir)).is_some())
}
