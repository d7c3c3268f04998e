//! Secrets and what they lock: tokens, keys, codes, and a person's data key.
//!
//! Nothing here prints: `Debug` of a secret shows its kind only, and its bytes are wiped when it goes.

use std::fmt;

use zeroize::Zeroize;

use crate::domain::Invalid;

/// Crockford's base 32: no letter looks like a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut acc, mut n_bits) = (0u32, 0u32);
    for &b in bytes {
        acc = (acc << 8) | u32::from(b);
        n_bits += 8;
        while n_bits >= 5 {
            n_bits -= 5;
            out.push(char::from(ALPHABET[(acc >> n_bits) as usize & 31]));
        }
        acc &= (1 << n_bits) - 1;
    }
    if n_bits > 0 {
        out.push(char::from(ALPHABET[(acc << (5 - n_bits)) as usize & 31]));
    }
    out
}

/// Fills `out` from exactly as many symbols as it needs; bits left over must be zero, so that a secret has one spelling.
fn from_base32(symbols: impl Iterator<Item = u8>, out: &mut [u8]) -> Option<()> {
    let (mut acc, mut n_bits, mut at, mut n_symbols) = (0u32, 0u32, 0, 0);
    for s in symbols {
        let v = ALPHABET.iter().position(|&a| a == s)?;
        n_symbols += 1;
        acc = (acc << 5) | v as u32;
        n_bits += 5;
        if n_bits >= 8 {
            n_bits -= 8;
            *out.get_mut(at)? = (acc >> n_bits) as u8;
            at += 1;
            acc &= (1 << n_bits) - 1;
        }
    }
    (at == out.len() && acc == 0 && n_symbols == (out.len() * 8).div_ceil(5)).then_some(())
}

fn random(out: &mut [u8]) {
    // Without randomness there are no secrets; going on would be worse than stopping.
    getrandom::fill(out).expect("the operating system gives random bytes");
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident: $n:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name([u8; $n]);

        impl $name {
            /// A fresh one from the operating system's randomness.
            #[expect(clippy::new_without_default, reason = "a fresh secret is not a default value")]
            pub fn new() -> Self {
                let mut bytes = [0; $n];
                random(&mut bytes);
                Self(bytes)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }
    };
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $field:literal) => {
        secret! { $(#[$doc])* $name: 32 }

        impl $name {
            /// The text form, safe in URLs, cookies and headers. This shows the secret.
            pub fn reveal(&self) -> String {
                format!(concat!($prefix, "{}"), base32(&self.0))
            }
            /// Reads the text form; exactly one spelling is accepted.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                let bad = || Invalid::new($field, concat!("must start with ", $prefix, " and be copied whole"));
                let mut secret = Self([0; 32]);
                let symbols = text.strip_prefix($prefix).ok_or_else(bad)?;
                from_base32(symbols.bytes(), &mut secret.0).ok_or_else(bad)?;
                Ok(secret)
            }
        }
    };
}

token! {
    /// What a signed-in device holds; stored only as its SHA-256.
    SessionToken, "mgs_", "session_token"
}
token! {
    /// What a program holds; shown once, stored only as its SHA-256.
    ApiKey, "mgk_", "key"
}
token! {
    /// What lets one person sign up; shown once, stored only as its SHA-256.
    InviteCode, "mgi_", "invite"
}
secret! {
    /// Encrypts everything one person wrote. Stored only wrapped by something the server does not keep.
    DataKey: 32
}
secret! {
    /// Derived from a password by the slow hash; wraps the data key and is never stored.
    WrapKey: 32
}
secret! {
    /// Printed once for the person; opens the data key when the password is forgotten. 160 bits.
    RecoveryCode: 20
}

impl WrapKey {
    /// From the output of the password hash.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl RecoveryCode {
    /// Eight groups of four, to be printed or written down. This shows the secret.
    pub fn reveal(&self) -> String {
        let text = base32(&self.0).to_ascii_uppercase();
        let groups: Vec<&str> = (0..8).map(|i| &text[i * 4..i * 4 + 4]).collect();
        groups.join("-")
    }
    /// Forgives what hands do: case, blanks, hyphens, O for 0, I and L for 1.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("recovery_code", "must be the eight groups of four that were shown once");
        let symbols = text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'-').map(|b| {
            match b.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other => other,
            }
        });
        let mut code = Self([0; 20]);
        from_base32(symbols, &mut code.0).ok_or_else(bad)?;
        Ok(code)
    }
}
