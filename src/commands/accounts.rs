//! `user`: accounts, with the server running or not.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use mommygpt::auth::{Auth, AuthOptions, Clock, MAX_PASSWORD_BYTES, SignupMode};
use mommygpt::cli::UserCommand;
use mommygpt::domain::Email;
use mommygpt::store::Store;
use mommygpt::web::control::{self, Account, Answer, Operation};

use super::{Failure, Out};

/// Longest line read as a password or a recovery code; one past the limit tells a long line from a cut one.
const MAX_SECRET_LINE: u64 = MAX_PASSWORD_BYTES as u64 + 16;

/// Lets the running server do it, or opens the database and does it here.
pub(super) fn operate(dir: &Path, operation: Operation) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(server) = control::connect(dir).await {
            return Ok(control::ask(server, &operation).await?);
        }
        let store = Store::open(dir)?;
        // Only the console reaches this service, so sign-up is shut and no setup code is made.
        let options = AuthOptions { signup: SignupMode::Closed, exposed: false, clock: Clock::monotonic() };
        let auth = Auth::new(store.clone(), options)?;
        let outcome = control::perform(&auth, operation).await;
        store.close()?;
        Ok(outcome?)
    })
}

/// `user ...`.
pub(super) fn user(dir: &Path, command: UserCommand, out: &mut Out) -> Result<(), Failure> {
    match command {
        UserCommand::Add { email, name, role } => {
            let password = Secrets::new().ask_new_password()?;
            let role = role.map(|role| role.to_string());
            let operation = Operation::AddUser { email: text(&email), password, full_name: name, role };
            let answer = operate(dir, operation)?;
            let Answer::WithRecovery { account, recovery_code } = answer else { return Err(odd(&answer)) };
            writeln!(out, "{} is now {}.", account.email, account.role)?;
            recovery(out, &recovery_code)
        }
        UserCommand::List => list(dir, out),
        UserCommand::Passwd { email, recovery_code, yes } => passwd(dir, &email, recovery_code, yes, out),
        UserCommand::Role { email, role } => {
            let operation = Operation::SetRole { email: text(&email), role: role.to_string() };
            changed(operate(dir, operation)?, out)
        }
        UserCommand::Disable { email, undo } => {
            changed(operate(dir, Operation::SetDisabled { email: text(&email), disabled: !undo })?, out)
        }
        UserCommand::Rm { email, yes } => {
            let what = format!("Delete {} with every chat and memory?", email.as_str());
            confirm(&what, yes)?;
            operate(dir, Operation::DeleteUser { email: text(&email) })?;
            writeln!(out, "{} is deleted.", email.as_str())?;
            Ok(())
        }
        UserCommand::Invite { role } => {
            let answer = operate(dir, Operation::Invite { role: role.map(|role| role.to_string()) })?;
            let Answer::Invitation { code, role, expires_at } = answer else { return Err(odd(&answer)) };
            writeln!(out, "{code}")?;
            writeln!(out, "Lets one person sign up as {role} until {expires_at}. It is not shown again.")?;
            Ok(())
        }
    }
}

fn list(dir: &Path, out: &mut Out) -> Result<(), Failure> {
    let answer = operate(dir, Operation::ListUsers)?;
    let Answer::Accounts(accounts) = answer else { return Err(odd(&answer)) };
    let width = accounts.iter().map(|a| a.email.len()).max().unwrap_or(0).max("EMAIL".len());
    writeln!(out, "{:width$}  ROLE    STATE     CREATED                      NAME", "EMAIL")?;
    for Account { email, full_name, role, disabled, created_at } in accounts {
        let state = if disabled { "disabled" } else { "active" };
        let line = format!("{email:width$}  {role:6}  {state:8}  {created_at}  {full_name}");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn passwd(dir: &Path, email: &Email, with_code: bool, yes: bool, out: &mut Out) -> Result<(), Failure> {
    if !with_code {
        let what = format!(
            "Without the recovery code the chats and memories of {} are deleted, because nobody can read them \
             without it (--recovery-code keeps them). Go on?",
            email.as_str()
        );
        confirm(&what, yes)?;
    }
    let mut secrets = Secrets::new();
    let password = secrets.ask_new_password()?;
    let recovery_code = if with_code { Some(secrets.ask("Recovery code: ")?) } else { None };
    let answer = operate(dir, Operation::SetPassword { email: text(email), password, recovery_code })?;
    let Answer::WithRecovery { account, recovery_code } = answer else { return Err(odd(&answer)) };
    writeln!(out, "{} has a new password; every session has ended.", account.email)?;
    recovery(out, &recovery_code)
}

fn changed(answer: Answer, out: &mut Out) -> Result<(), Failure> {
    let Answer::Account(account) = answer else { return Err(odd(&answer)) };
    let state = if account.disabled { ", disabled" } else { "" };
    writeln!(out, "{} is now {}{state}.", account.email, account.role)?;
    Ok(())
}

fn recovery(out: &mut Out, code: &str) -> Result<(), Failure> {
    writeln!(out, "Recovery code: {code}")?;
    writeln!(
        out,
        "Print it or write it down: it is not shown again, and without it a forgotten password loses the chats."
    )?;
    Ok(())
}

fn text(email: &Email) -> String {
    email.as_str().to_owned()
}

fn odd(answer: &Answer) -> Failure {
    Failure::failed(format!("the running server answered something else ({answer:?}); restart it"))
}

/// Asks on the terminal before something is lost; without one only `--yes` goes on.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody can be asked here; say --yes.")));
    }
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut line = String::new();
    io::stdin().lock().take(16).read_line(&mut line)?;
    if line.trim().eq_ignore_ascii_case("y") || line.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    Err(Failure::failed("nothing was changed"))
}

/// Secrets from the terminal, without echo, or line by line from stdin.
struct Secrets {
    is_terminal: bool,
}

impl Secrets {
    fn new() -> Self {
        Self { is_terminal: io::stdin().is_terminal() }
    }

    fn ask_new_password(&mut self) -> Result<String, Failure> {
        let password = self.ask("New password: ")?;
        if self.is_terminal && password != self.ask("The same again: ")? {
            return Err(Failure::failed("the two passwords differ; nothing was changed"));
        }
        Ok(password)
    }

    fn ask(&mut self, prompt: &str) -> Result<String, Failure> {
        if self.is_terminal {
            return rpassword::prompt_password(prompt).map_err(|e| Failure::failed(format!("terminal: {e}")));
        }
        let mut line = Vec::new();
        io::stdin().lock().take(MAX_SECRET_LINE).read_until(b'\n', &mut line)?;
        if line.ends_with(b"\n") {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
        }
        if line.is_empty() {
            return Err(Failure::usage("the password must be the first line of stdin; it was empty"));
        }
        String::from_utf8(line).map_err(|_| Failure::usage("the password on stdin is not UTF-8 text"))
    }
}
