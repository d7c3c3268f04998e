//! Who somebody is: sign-up, sign-in, recovery, sessions, API keys, accounts, and limits on guessing.
//!
//! Async, because its callers are; hashing and the store run on the blocking pool. It knows the store and passwords,
//! and nothing of HTTP, chats or the engine. Every way in costs one argon2 run whether the account exists or not.

mod accounts;
mod devices;
pub mod limits;
pub mod password;
mod setup;
mod sign_in;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Email, Invalid, User};
use crate::store::{PasswordRecord, RecoveryCode, SessionToken, Store, StoreError};

pub use accounts::{Authority, NewAccount};
pub use devices::MAX_API_KEYS;
pub use limits::Clock;
pub use password::{Cost, Hasher, MAX_PASSWORD_BYTES, MIN_PASSWORD_BYTES, Password};
pub use setup::SETUP_CODE_VALID;

/// Longest label of a session or name of an API key, in characters.
pub const MAX_LABEL_CHARS: usize = 100;

/// Who may make an account, once there is an admin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignupMode {
    /// Anybody who reaches the page.
    Open,
    /// Whoever has an invitation.
    Invite,
    /// Nobody; the admin makes accounts.
    Closed,
}

impl SignupMode {
    /// The word used in flags and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Invite => "invite",
            Self::Closed => "closed",
        }
    }
}

impl std::str::FromStr for SignupMode {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let all = [Self::Open, Self::Invite, Self::Closed];
        let found = all.into_iter().find(|mode| mode.as_str() == s);
        found.ok_or_else(|| Invalid::new("signup", "must be one of: open invite closed"))
    }
}

/// Why somebody was not let in, or something was not changed.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A field past its limits.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Unknown account, wrong password, wrong recovery code or disabled account: not told apart.
    #[error("the e-mail address or the password is wrong")]
    InvalidCredentials,
    /// Too many wrong guesses.
    #[error("too many wrong tries; wait a little and try again")]
    TooManyAttempts {
        /// How long.
        retry_after: Duration,
    },
    /// Too many sign-ins at once.
    #[error("the server is busy; try again in a moment")]
    Overloaded {
        /// How long.
        retry_after: Duration,
    },
    /// The first account needs the code printed on the server's console.
    #[error("the first account needs the setup code that the server printed when it started")]
    SetupCodeRequired,
    /// The code is wrong, older than [`SETUP_CODE_VALID`], or used.
    #[error("this setup code is wrong or too old; start the server again for a new one")]
    SetupCodeInvalid,
    /// Accounts are made with an invitation only.
    #[error("an invitation is needed to sign up here")]
    InviteRequired,
    /// The invitation is unknown, used or expired.
    #[error("this invitation is unknown, used or too old")]
    InviteInvalid,
    /// Accounts are made by the admin only.
    #[error("sign-up is closed here; ask the admin for an account")]
    SignupClosed,
    /// The address has an account. Said openly: in a household everybody knows who has an account, and whoever signs
    /// up again needs to be told to sign in instead. Off loopback an invitation is needed before this can be asked.
    #[error("there is an account with this e-mail address; sign in instead")]
    EmailTaken,
    /// The last enabled admin stays.
    #[error("this is the last admin; make somebody else admin first")]
    LastAdmin,
    /// Not an admin, or an API key where a session is needed.
    #[error("not allowed")]
    Forbidden,
    /// No such account, session, key or invitation.
    #[error("not found")]
    NotFound,
    /// The store refused for a reason of its own.
    #[error(transparent)]
    Store(StoreError),
    /// A bug or a broken machine; the text is for the log.
    #[error("{0}")]
    Internal(String),
}

impl From<StoreError> for AuthError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::NotFound => Self::NotFound,
            StoreError::Invalid(invalid) => Self::Invalid(invalid),
            StoreError::Conflict("email_taken") => Self::EmailTaken,
            StoreError::Conflict("invite_invalid") => Self::InviteInvalid,
            StoreError::Conflict("setup_done") => Self::SetupCodeInvalid,
            StoreError::Conflict("last_admin") => Self::LastAdmin,
            other => Self::Store(other),
        }
    }
}

impl AuthError {
    /// The stable word for programs; `None` for what the store or the machine did.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::Invalid(_) => "invalid_field",
            Self::InvalidCredentials => "invalid_credentials",
            Self::TooManyAttempts { .. } => "too_many_attempts",
            Self::Overloaded { .. } => "overloaded",
            Self::SetupCodeRequired => "setup_code_required",
            Self::SetupCodeInvalid => "setup_code_invalid",
            Self::InviteRequired => "invite_required",
            Self::InviteInvalid => "invite_invalid",
            Self::SignupClosed => "signup_closed",
            Self::EmailTaken => "email_taken",
            Self::LastAdmin => "last_admin",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Store(_) | Self::Internal(_) => return None,
        })
    }
}

/// How a server lets people in.
#[derive(Clone, Debug)]
pub struct AuthOptions {
    /// Who may make an account.
    pub signup: SignupMode,
    /// Others than this machine can reach the server: the first account needs the setup code.
    pub exposed: bool,
    /// Time for limits and the setup code.
    pub clock: Clock,
}

/// Where a request comes from.
#[derive(Clone, Debug)]
pub struct Device {
    /// The address limits are counted for; behind a trusted proxy the client's own.
    pub peer: IpAddr,
    /// What the session is called in the list of sessions, such as the browser's name. Cut at [`MAX_LABEL_CHARS`].
    pub label: String,
    /// The session this device had until now; a new sign-in ends it.
    pub replaces: Option<SessionToken>,
}

/// Everything a sign-up form may say.
pub struct SignUp {
    /// Unique address.
    pub email: Email,
    /// As typed.
    pub password: String,
    /// Display name; may be empty.
    pub full_name: String,
    /// An invitation's code.
    pub invite: Option<String>,
    /// The code printed on the console.
    pub setup_code: Option<String>,
}

/// A person who just came in.
pub struct SignedIn {
    /// Their profile.
    pub user: User,
    /// Their new session.
    pub token: SessionToken,
}

/// A person who just came in and must keep a new recovery code.
pub struct SignedUp {
    /// Their profile.
    pub user: User,
    /// Their new session.
    pub token: SessionToken,
    /// To be shown once.
    pub recovery_code: RecoveryCode,
}

/// The service. Cloning is cheap.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    store: Store,
    signup: SignupMode,
    exposed: bool,
    clock: Clock,
    limits: limits::Limits,
    hasher: Hasher,
    setup: setup::Setup,
    /// Checked in place of the record of an account that does not exist.
    dummy: PasswordRecord,
}

impl Auth {
    /// A service over `store`. While no account exists and others can reach the server, it holds a fresh setup code.
    pub fn new(store: Store, options: AuthOptions) -> Result<Self, StoreError> {
        let needs_setup = options.exposed && store.n_users()? == 0;
        let setup =
            if needs_setup { setup::Setup::fresh(options.clock.elapsed()) } else { setup::Setup::none() };
        Ok(Self(Arc::new(Inner {
            store,
            signup: options.signup,
            exposed: options.exposed,
            limits: limits::Limits::new(&options.clock),
            clock: options.clock,
            hasher: Hasher::new(),
            setup,
            dummy: PasswordRecord {
                m_cost: Cost::CURRENT.m_kib,
                t_cost: Cost::CURRENT.t,
                p_cost: Cost::CURRENT.p,
                salt: random(),
                verifier: random(),
            },
        })))
    }

    /// The code that makes the first account; printed on the console, never sent anywhere.
    pub fn setup_code(&self) -> Option<String> {
        self.0.setup.code()
    }

    /// Who may make an account.
    pub fn signup_mode(&self) -> SignupMode {
        self.0.signup
    }

    /// Password hashing, for metrics.
    pub fn hasher(&self) -> &Hasher {
        &self.0.hasher
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Runs `f` on the blocking pool: the store waits for the disk.
    async fn stored<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let store = self.0.store.clone();
        match tokio::task::spawn_blocking(move || f(&store)).await {
            Ok(outcome) => outcome.map_err(AuthError::from),
            Err(e) => Err(AuthError::Internal(format!("a store call stopped: {e}"))),
        }
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness there are no secrets; going on would be worse than stopping.
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// One line of at most [`MAX_LABEL_CHARS`] characters.
fn label(raw: &str) -> String {
    raw.chars().filter(|c| !c.is_control()).take(MAX_LABEL_CHARS).collect::<String>().trim().to_owned()
}
