//! Operator commands, in this process or through the control socket of a running server.
//!
//! Only one process may have the database open. While the server runs, `mommygpt user add` and the like send their
//! [`Operation`] through a Unix socket in the data directory; otherwise they open the database themselves. Both do
//! [`perform`]. One line of JSON goes each way. Whoever can open the socket can read the data directory too, so the
//! file mode 0600 in a directory 0700 is the whole of the authorisation, checked once more by the peer's user id.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::models::{Chosen, ModelChooser, SwitchError};
use crate::auth::{Auth, AuthError, Authority, NewAccount};
use crate::domain::{Email, Invalid, Role, User};
use crate::store::backup::CheckReport;
use crate::store::{RecoveryCode, Store, StoreError};

/// The socket's name in the data directory.
pub const SOCKET_NAME: &str = "control.sock";
/// Longest line each way: a list of 50,000 accounts fits.
const MAX_LINE_BYTES: u64 = 32 << 20;
/// A client that connected must have asked by then.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// What an operator may ask for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Make an account.
    AddUser {
        /// E-mail address.
        email: String,
        /// First password.
        password: String,
        /// Display name.
        full_name: String,
        /// Role; `None` = member. The first account is admin regardless.
        role: Option<String>,
    },
    /// List the accounts.
    ListUsers,
    /// Set a password.
    SetPassword {
        /// Whose.
        email: String,
        /// The new one.
        password: String,
        /// Keeps the chats readable.
        recovery_code: Option<String>,
    },
    /// Change a role.
    SetRole {
        /// Whose.
        email: String,
        /// To what.
        role: String,
    },
    /// Lock or unlock an account.
    SetDisabled {
        /// Whose.
        email: String,
        /// Locked.
        disabled: bool,
    },
    /// Delete an account.
    DeleteUser {
        /// Whose.
        email: String,
    },
    /// Make an invitation.
    Invite {
        /// Role; `None` = member.
        role: Option<String>,
    },
    /// Write a backup.
    Backup {
        /// Absolute path; must not exist.
        file: PathBuf,
    },
    /// Check the database.
    Check,
    /// Let another model answer; only a running server can.
    SwitchModel {
        /// Its name in the data directory, or `builtin`.
        model: String,
    },
}

/// One account, for the list.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// E-mail address.
    pub email: String,
    /// Display name.
    pub full_name: String,
    /// Role.
    pub role: String,
    /// Locked.
    pub disabled: bool,
    /// When it was made.
    pub created_at: String,
}

/// What came of it.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The account as it is now.
    Account(Account),
    /// Every account, oldest first.
    Accounts(Vec<Account>),
    /// The account and its new recovery code, to be shown once.
    WithRecovery {
        /// The account.
        account: Account,
        /// The code.
        recovery_code: String,
    },
    /// It is gone.
    Deleted,
    /// An invitation.
    Invitation {
        /// Its code, to be shown once.
        code: String,
        /// What the invited will be.
        role: String,
        /// Until when.
        expires_at: String,
    },
    /// A backup was written.
    BackedUp {
        /// The file.
        file: PathBuf,
        /// Its size.
        bytes: u64,
        /// Rows in it.
        n_rows: u64,
    },
    /// Another model answers.
    Switched {
        /// Its name.
        name: String,
        /// Size of its files.
        size_bytes: u64,
        /// What does not go on as before.
        note: Option<String>,
    },
    /// The database was checked.
    Checked {
        /// Name and number of each kind of row.
        counts: Vec<(String, u64)>,
        /// What is wrong; empty = nothing.
        problems: Vec<String>,
    },
}

/// Why it was not done.
#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The exit code of the command: 1 failed, 3 bad data.
    pub exit_code: u8,
    /// One sentence.
    pub message: String,
}

impl Refusal {
    /// A refusal with exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit_code: 1, message: message.into() }
    }
}

impl From<StoreError> for Refusal {
    fn from(e: StoreError) -> Self {
        let is_bad_data = matches!(e, StoreError::Corrupt(_) | StoreError::Newer { .. });
        Self { exit_code: if is_bad_data { 3 } else { 1 }, message: e.to_string() }
    }
}

impl From<AuthError> for Refusal {
    fn from(e: AuthError) -> Self {
        match e {
            AuthError::Store(e) => e.into(),
            AuthError::InvalidCredentials => Self::failed("the recovery code is wrong; nothing was changed"),
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<&User> for Account {
    fn from(user: &User) -> Self {
        Self {
            email: user.email.as_str().to_owned(),
            full_name: user.full_name.clone(),
            role: user.role.to_string(),
            disabled: user.disabled,
            created_at: user.created_at.to_string(),
        }
    }
}

impl From<CheckReport> for Answer {
    fn from(report: CheckReport) -> Self {
        let counts = [
            ("accounts", report.n_users),
            ("chats", report.n_chats),
            ("messages", report.n_messages),
            ("memories", report.n_memories),
            ("sessions", report.n_sessions),
            ("API keys", report.n_api_keys),
        ];
        let counts = counts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
        Self::Checked { counts, problems: report.problems }
    }
}

/// Does what the operator asks.
///
/// # Errors
/// A sentence for the operator, and the exit code.
pub async fn perform(auth: &Auth, operation: Operation) -> Result<Answer, Refusal> {
    let console = Authority::console();
    match operation {
        Operation::AddUser { email, password, full_name, role } => {
            let new =
                NewAccount { email: parse_email(&email)?, password, full_name, role: parse_role(role)? };
            let (user, code) = auth.create_account(console, new).await?;
            Ok(Answer::WithRecovery { account: (&user).into(), recovery_code: code.reveal() })
        }
        Operation::ListUsers => {
            Ok(Answer::Accounts(auth.users(console).await?.iter().map(Account::from).collect()))
        }
        Operation::SetPassword { email, password, recovery_code } => {
            let user = find(auth, &email).await?;
            let code = recovery_code.map(|raw| RecoveryCode::parse(&raw)).transpose();
            let code = code.map_err(|e| Refusal::failed(e.to_string()))?;
            let new_code = auth.reset_password(console, user.id, password, code).await?;
            Ok(Answer::WithRecovery { account: (&user).into(), recovery_code: new_code.reveal() })
        }
        Operation::SetRole { email, role } => {
            let (user, role) = (find(auth, &email).await?, parse_role(Some(role))?);
            Ok(Answer::Account((&auth.set_role(console, user.id, role).await?).into()))
        }
        Operation::SetDisabled { email, disabled } => {
            let user = find(auth, &email).await?;
            Ok(Answer::Account((&auth.set_disabled(console, user.id, disabled).await?).into()))
        }
        Operation::DeleteUser { email } => {
            let user = find(auth, &email).await?;
            auth.delete_account(console, user.id).await?;
            Ok(Answer::Deleted)
        }
        Operation::Invite { role } => {
            let (info, code) = auth.invite(console, parse_role(role)?).await?;
            let (role, expires_at) = (info.role.to_string(), info.expires_at.to_string());
            Ok(Answer::Invitation { code: code.reveal(), role, expires_at })
        }
        Operation::Backup { file } => {
            let done = stored(auth, move |store| store.backup(&file)).await?;
            Ok(Answer::BackedUp { file: done.path, bytes: done.bytes, n_rows: done.n_rows })
        }
        Operation::Check => Ok(stored(auth, Store::check).await?.into()),
        Operation::SwitchModel { .. } => Err(Refusal::failed("no server runs that could switch its model")),
    }
}

async fn stored<T: Send + 'static>(
    auth: &Auth,
    f: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let store = auth.store().clone();
    let outcome = tokio::task::spawn_blocking(move || f(&store)).await;
    Ok(outcome.map_err(|e| Refusal::failed(e.to_string()))??)
}

fn parse_email(raw: &str) -> Result<Email, Refusal> {
    Email::parse(raw).map_err(|Invalid { problem, .. }| Refusal::failed(format!("{raw}: {problem}")))
}

fn parse_role(raw: Option<String>) -> Result<Role, Refusal> {
    let Some(raw) = raw else { return Ok(Role::Member) };
    raw.parse().map_err(|Invalid { problem, .. }| Refusal::failed(format!("{raw}: {problem}")))
}

async fn find(auth: &Auth, email: &str) -> Result<User, Refusal> {
    let email = parse_email(email)?;
    let found = auth.user_by_email(Authority::console(), email.clone()).await;
    found.map_err(|e| match e {
        AuthError::NotFound => Refusal::failed(format!(
            "{}: no account with this e-mail address; `mommygpt user list` shows them",
            email.as_str()
        )),
        other => other.into(),
    })
}

/// What a running server can do for its operator.
#[derive(Clone)]
pub struct Served {
    /// Accounts and the database behind them.
    pub auth: Auth,
    /// From which models to choose.
    pub models: Option<Arc<dyn ModelChooser>>,
}

/// Listens in `dir`. The caller holds the database open, so a socket file that is there already is a dead server's.
///
/// # Errors
/// When the socket cannot be made, for example because the path is longer than the system allows.
pub fn bind(dir: &Path) -> io::Result<UnixListener> {
    let path = dir.join(SOCKET_NAME);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers operators until `shutdown`, then removes the socket when the last is answered.
pub async fn serve(dir: &Path, listener: UnixListener, served: Served, shutdown: CancellationToken) {
    let owner = fs::metadata(dir).map(|meta| meta.uid()).ok();
    let clients = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!("control socket: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Root can read the data directory whatever its mode says.
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        if uid != Some(0) && (uid.is_none() || uid != owner) {
            tracing::warn!(?uid, "control socket: refused a client of another user");
            continue;
        }
        let served = served.clone();
        clients.spawn(async move {
            if let Err(e) = answer(stream, &served).await {
                tracing::warn!("control socket: {e}");
            }
        });
    }
    drop(listener);
    clients.close();
    clients.wait().await;
    let _ = fs::remove_file(dir.join(SOCKET_NAME));
}

async fn switch(chooser: Arc<dyn ModelChooser>, model: String) -> Result<Answer, Refusal> {
    let chosen = tokio::task::spawn_blocking(move || chooser.choose(&model)).await;
    let chosen = chosen.map_err(|e| Refusal::failed(e.to_string()))?.map_err(|e| match e {
        SwitchError::Unusable(message) => Refusal { exit_code: 3, message },
        other => Refusal::failed(other.to_string()),
    })?;
    let Chosen { model, note } = chosen;
    Ok(Answer::Switched { name: model.name, size_bytes: model.size_bytes, note })
}

async fn answer(stream: UnixStream, served: &Served) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read.take(MAX_LINE_BYTES));
    let mut line = String::new();
    match tokio::time::timeout(ASK_TIMEOUT, reader.read_line(&mut line)).await {
        Ok(asked) => asked?,
        Err(_) => return Ok(()),
    };
    // A connection that says nothing only looks whether a server runs.
    if line.is_empty() {
        return Ok(());
    }
    let outcome = match serde_json::from_str(&line) {
        Ok(operation) => match (operation, &served.models) {
            (Operation::SwitchModel { model }, Some(chooser)) => switch(Arc::clone(chooser), model).await,
            (operation, _) => perform(&served.auth, operation).await,
        },
        Err(e) => Err(Refusal::failed(format!(
            "the running server does not understand this command ({e}); are both of the same version?"
        ))),
    };
    let mut text = serde_json::to_string(&outcome)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

/// Connects to the server that runs on `dir`; `None` when none does.
pub async fn connect(dir: &Path) -> Option<UnixStream> {
    UnixStream::connect(dir.join(SOCKET_NAME)).await.ok()
}

/// Lets the server at the other end do it.
///
/// # Errors
/// The server's refusal, or that the connection broke.
pub async fn ask(stream: UnixStream, operation: &Operation) -> Result<Answer, Refusal> {
    let broken =
        |e: &dyn std::fmt::Display| Refusal::failed(format!("the running server did not answer: {e}"));
    let mut text = serde_json::to_string(operation).map_err(|e| broken(&e))?;
    text.push('\n');
    let (read, mut write) = stream.into_split();
    write.write_all(text.as_bytes()).await.map_err(|e| broken(&e))?;
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(MAX_LINE_BYTES));
    reader.read_line(&mut line).await.map_err(|e| broken(&e))?;
    if line.is_empty() {
        return Err(broken(&"it closed the connection"));
    }
    serde_json::from_str::<Result<Answer, Refusal>>(&line).map_err(|e| broken(&e))?
}
