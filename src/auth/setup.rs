//! The one-time code that makes the first account when others can reach the server.
//!
//! Without it a neighbour on the network could claim the admin's place before its owner opens the page. The code is
//! printed on the console, which only the owner sees.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq as _;

use super::random;

/// How long a setup code works; a new one comes with every start while no account exists.
pub const SETUP_CODE_VALID: Duration = Duration::from_mins(30);

/// No letter looks like a digit, because this one is typed.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 16 symbols of 5 bits: 80 bits, far beyond what can be tried in half an hour, and short enough to type.
const N_SYMBOLS: usize = 16;

struct Code {
    symbols: String,
    made_at: Duration,
}

/// The code, until it is used.
pub(super) struct Setup(Mutex<Option<Code>>);

impl Setup {
    /// No code: there is an account, or only this machine reaches the server.
    pub(super) fn none() -> Self {
        Self(Mutex::new(None))
    }

    /// A new code, made at clock time `now`.
    pub(super) fn fresh(now: Duration) -> Self {
        let bytes: [u8; N_SYMBOLS] = random();
        let symbols = bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect();
        Self(Mutex::new(Some(Code { symbols, made_at: now })))
    }

    /// The code as it is printed.
    pub(super) fn code(&self) -> Option<String> {
        let symbols = &self.lock().as_ref()?.symbols.clone();
        let groups: Vec<&str> = (0..N_SYMBOLS / 4).map(|i| &symbols[4 * i..4 * i + 4]).collect();
        Some(groups.join("-"))
    }

    /// Whether `typed` is the code, at clock time `now`. Case, blanks and hyphens do not matter.
    pub(super) fn accepts(&self, typed: &str, now: Duration) -> bool {
        let typed: String =
            typed.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        self.lock().as_ref().is_some_and(|code| {
            let is_same: bool = code.symbols.as_bytes().ct_eq(typed.as_bytes()).into();
            is_same && now.saturating_sub(code.made_at) < SETUP_CODE_VALID
        })
    }

    /// There is an account now.
    pub(super) fn done(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Code>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_works_as_typed_until_it_is_too_old_or_used() {
        let setup = Setup::fresh(Duration::from_secs(5));
        let code = setup.code().unwrap();
        assert_eq!(code.len(), 19);
        let too_old = Duration::from_secs(5) + SETUP_CODE_VALID;
        let in_time = too_old.saturating_sub(Duration::from_secs(1));
        assert!(setup.accepts(&code, in_time));
        assert!(setup.accepts(&format!(" {} ", code.to_lowercase().replace('-', " ")), in_time));
        assert!(!setup.accepts(&code[..18], in_time));
        assert!(!setup.accepts("", in_time));
        assert!(!setup.accepts(&code, too_old));
        setup.done();
        assert!(!setup.accepts(&code, in_time));
        assert!(!Setup::none().accepts("", Duration::ZERO));
    }
}
