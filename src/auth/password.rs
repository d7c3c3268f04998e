//! Passwords: what may be one, and argon2id behind a gate.
//!
//! One run of argon2id gives 32 bytes, from which HKDF makes two keys: the verifier, which is stored, and the wrapping
//! key, which is not and opens the person's data key. Knowing the stored verifier gives nothing towards the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use sha2::Sha256;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::auth::AuthError;
use crate::domain::{Email, Invalid};

/// Shortest password in bytes (ASVS 6.2.1).
pub const MIN_PASSWORD_BYTES: usize = 8;
/// Longest password in bytes: beyond any sentence somebody remembers, and a bound on hashing's input.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// argon2id memory in KiB; with [`ARGON2_T`] and [`ARGON2_P`] OWASP's first recommendation.
pub const ARGON2_M_KIB: u32 = 19_456;
/// argon2id passes.
pub const ARGON2_T: u32 = 2;
/// argon2id lanes.
pub const ARGON2_P: u32 = 1;
/// A stored record that asks for more memory than this (128 MiB) is refused: a hostile restored database must not
/// take the machine's memory at the first sign-in.
pub const MAX_ARGON2_M_KIB: u32 = 128 << 10;
/// A stored record that asks for more passes than this is refused.
pub const MAX_ARGON2_T: u32 = 10;
/// A stored record that asks for more lanes than this is refused.
pub const MAX_ARGON2_P: u32 = 16;
/// Fewest and most hashes at once. Each takes 19 MiB and a core; two keep a family's sign-ins below a second, and
/// more than four would take the cores from a running answer.
pub const PERMITS: std::ops::RangeInclusive<usize> = 2..=4;
/// How long a sign-in waits for its turn to hash before the answer is "busy".
pub const MAX_WAIT: Duration = Duration::from_secs(2);

/// Passwords that guessers try first. Short ones are refused by their length.
const COMMON: &str = include_str!("../../assets/common_passwords.txt");

/// A password somebody typed: bytes as they came, not normalised, wiped after use, never printed.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// A password to try: only its length is checked, because older accounts may have what is refused today.
    pub fn to_try(raw: String) -> Result<Self, Invalid> {
        let raw = Zeroizing::new(raw);
        if raw.len() > MAX_PASSWORD_BYTES {
            return Err(Invalid::new("password", format!("must be at most {MAX_PASSWORD_BYTES} bytes long")));
        }
        Ok(Self(raw))
    }

    /// A password to set for the account of `email`.
    pub fn to_set(raw: String, email: &Email) -> Result<Self, Invalid> {
        let password = Self::to_try(raw)?;
        let bad = |why: String| Err(Invalid::new("password", why));
        if password.0.len() < MIN_PASSWORD_BYTES {
            return bad(format!("must be at least {MIN_PASSWORD_BYTES} characters long"));
        }
        let lower = Zeroizing::new(password.0.to_lowercase());
        let (name, _) = email.as_str().split_once('@').unwrap_or((email.as_str(), ""));
        if *lower == email.as_str() || *lower == name {
            return bad("must not be the e-mail address".to_owned());
        }
        if COMMON.lines().any(|common| common == *lower) {
            return bad("is one of the passwords that everybody tries first; take another".to_owned());
        }
        Ok(password)
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

/// argon2id's parameters as they are stored beside a verifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Memory in KiB.
    pub m_kib: u32,
    /// Passes.
    pub t: u32,
    /// Lanes.
    pub p: u32,
}

impl Cost {
    /// What new passwords are hashed with.
    pub const CURRENT: Self = Self { m_kib: ARGON2_M_KIB, t: ARGON2_T, p: ARGON2_P };

    /// Whether a stored record's cost may be paid.
    pub fn is_payable(self) -> bool {
        self.m_kib <= MAX_ARGON2_M_KIB
            && self.t <= MAX_ARGON2_T
            && self.p <= MAX_ARGON2_P
            && self.params().is_some()
    }

    fn params(self) -> Option<Params> {
        Params::new(self.m_kib, self.t, self.p, Some(32)).ok()
    }
}

/// What a password becomes.
pub struct Derived {
    /// Stored, and compared in constant time.
    pub verifier: Zeroizing<[u8; 32]>,
    /// Wraps the person's data key; never stored.
    pub wrapping_key: Zeroizing<[u8; 32]>,
}

/// Hashes passwords, a few at a time.
pub struct Hasher {
    permits: Arc<Semaphore>,
    n_permits: usize,
    n_runs: Arc<AtomicU64>,
}

impl Hasher {
    /// A gate for this machine's cores.
    pub fn new() -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let n_permits = n_cores.clamp(*PERMITS.start(), *PERMITS.end());
        Self { permits: Arc::new(Semaphore::new(n_permits)), n_permits, n_runs: Arc::default() }
    }

    /// Runs argon2id on the blocking pool.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when no turn came within [`MAX_WAIT`]; [`AuthError::Internal`] when the cost is not
    /// payable or the hash failed.
    pub async fn derive(&self, password: Password, salt: [u8; 16], cost: Cost) -> Result<Derived, AuthError> {
        let turn = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = turn else {
            return Err(AuthError::Overloaded { retry_after: MAX_WAIT });
        };
        let n_runs = Arc::clone(&self.n_runs);
        let run = tokio::task::spawn_blocking(move || {
            // The permit lives as long as the hash: a client that hangs up cannot free its place while the memory is
            // still in use.
            let _permit = permit;
            n_runs.fetch_add(1, Ordering::Relaxed);
            derive_now(&password, &salt, cost)
        });
        match run.await {
            Ok(Some(derived)) => Ok(derived),
            Ok(None) => Err(AuthError::Internal(format!("argon2id refused its parameters ({cost:?})"))),
            Err(e) => Err(AuthError::Internal(format!("hashing stopped: {e}"))),
        }
    }

    /// How many hashes were begun since the start.
    pub fn n_runs(&self) -> u64 {
        self.n_runs.load(Ordering::Relaxed)
    }

    /// How many hashes run now.
    pub fn n_running(&self) -> usize {
        self.n_permits - self.permits.available_permits()
    }

    /// How many hashes may run at once.
    pub fn n_permits(&self) -> usize {
        self.n_permits
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

fn derive_now(password: &Password, salt: &[u8; 16], cost: Cost) -> Option<Derived> {
    if !cost.is_payable() {
        return None;
    }
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.params()?);
    let mut root = Zeroizing::new([0; 32]);
    argon2.hash_password_into(password.0.as_bytes(), salt, root.as_mut_slice()).ok()?;
    let keys = Hkdf::<Sha256>::new(None, root.as_slice());
    let mut derived = Derived { verifier: Zeroizing::default(), wrapping_key: Zeroizing::default() };
    keys.expand(b"mommygpt password verify v1", derived.verifier.as_mut_slice()).ok()?;
    keys.expand(b"mommygpt password wrap v1", derived.wrapping_key.as_mut_slice()).ok()?;
    Some(derived)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email() -> Email {
        Email::parse("ada.lovelace@example.org").unwrap()
    }
    fn may_be_set(raw: &str) -> bool {
        Password::to_set(raw.to_owned(), &email()).is_ok()
    }

    #[test]
    fn lengths_are_bytes_and_common_ones_and_the_address_itself_are_refused() {
        assert!(!may_be_set("seven77"));
        assert!(may_be_set("eight888"));
        assert!(may_be_set("\u{1f9d1}\u{1f9d2}")); // eight bytes
        assert!(may_be_set(&"x".repeat(MAX_PASSWORD_BYTES)));
        assert!(!may_be_set(&"x".repeat(MAX_PASSWORD_BYTES + 1)));
        assert!(!may_be_set("password1"));
        assert!(!may_be_set("PassWord1"));
        assert!(!may_be_set("ADA.lovelace@example.org"));
        assert!(!may_be_set("ada.lovelace"));
        assert!(may_be_set("password1 of ada.lovelace"));
    }

    #[test]
    fn every_common_password_is_long_enough_to_need_listing_and_lower_case() {
        for line in COMMON.lines() {
            assert!(line.len() >= MIN_PASSWORD_BYTES && line == line.to_lowercase(), "{line}");
        }
        assert!(COMMON.lines().count() >= 100);
    }

    #[test]
    fn every_byte_matters_and_the_two_keys_differ() {
        let cheap = Cost { m_kib: 8, t: 1, p: 1 };
        let derive =
            |raw: &str| derive_now(&Password::to_try(raw.to_owned()).unwrap(), &[7; 16], cheap).unwrap();
        let (a, b) = (derive(&"a".repeat(73)), derive(&format!("{}b", "a".repeat(72))));
        assert_ne!(*a.verifier, *b.verifier);
        assert_ne!(*a.verifier, *a.wrapping_key);
        assert_eq!(*a.verifier, *derive(&"a".repeat(73)).verifier);
        // Composed and decomposed letters are different passwords: nothing is normalised.
        assert_ne!(*derive("caf\u{e9}").verifier, *derive("cafe\u{301}").verifier);
    }

    #[test]
    fn a_hostile_cost_is_not_paid() {
        let password = || Password::to_try("whatever".to_owned()).unwrap();
        for cost in [
            Cost { m_kib: 4 << 20, t: 2, p: 1 },
            Cost { m_kib: 19_456, t: 11, p: 1 },
            Cost { m_kib: 0, t: 2, p: 1 },
            Cost { m_kib: 19_456, t: 0, p: 1 },
            Cost { m_kib: 19_456, t: 2, p: u32::MAX },
        ] {
            assert!(!cost.is_payable(), "{cost:?}");
            assert!(derive_now(&password(), &[0; 16], cost).is_none());
        }
        assert!(Cost::CURRENT.is_payable());
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_does_not_free_its_place_while_the_hash_runs() {
        let hasher = Arc::new(Hasher::new());
        // The dearest cost allowed, so that the hash still runs when the waiting is given up.
        let cost = Cost { m_kib: MAX_ARGON2_M_KIB, t: MAX_ARGON2_T, p: 1 };
        let task = {
            let hasher = Arc::clone(&hasher);
            let password = Password::to_try("a long wait".to_owned()).unwrap();
            tokio::spawn(async move { hasher.derive(password, [1; 16], cost).await.is_ok() })
        };
        while hasher.n_runs() == 0 {
            tokio::task::yield_now().await;
        }
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(hasher.n_running(), 1);
        while hasher.n_running() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
