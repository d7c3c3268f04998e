//! Secrets and what they lock: tokens, keys, codes, and a person's data key.
//!
//! Nothing here prints: `Debug` of a secret shows its kind only, and its bytes are wiped when it goes.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::StoreError;
use super::codec::corrupt;
use crate::domain::{Invalid, UserId};

/// Bytes of the random nonce before every ciphertext; 192 bits never repeat by chance.
const NONCE_BYTES: usize = 24;
/// Bytes of the tag that authenticates a ciphertext.
const TAG_BYTES: usize = 16;
/// Bytes that something sealed is longer than before.
pub(super) const SEALED_EXTRA_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// Bytes of a wrapped data key.
pub(super) const WRAPPED_BYTES: usize = NONCE_BYTES + 32 + TAG_BYTES;

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

/// What wraps a data key: a secret, and the word that keeps its uses apart.
pub(super) trait Lock {
    /// Distinct for every kind of secret, so that one is never good for another.
    const INFO: &'static [u8];
    fn secret(&self) -> &[u8];
}

macro_rules! lock {
    ($($name:ident: $info:literal),+) => {
        $(impl Lock for $name {
            const INFO: &'static [u8] = $info;
            fn secret(&self) -> &[u8] {
                &self.0
            }
        })+
    };
}
lock!(
    SessionToken: b"mommygpt data key by session v1",
    ApiKey: b"mommygpt data key by api key v1",
    WrapKey: b"mommygpt data key by password v1",
    RecoveryCode: b"mommygpt data key by recovery code v1"
);

macro_rules! hashed {
    ($($name:ident),+) => {
        $(impl $name {
            /// What is stored of it and looked up by. A plain hash is enough for 256 random bits.
            pub(super) fn hash(&self) -> [u8; 32] {
                Sha256::digest(self.0).into()
            }
        })+
    };
}
hashed!(SessionToken, ApiKey, InviteCode);

fn cipher_of<L: Lock>(lock: &L) -> XChaCha20Poly1305 {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, lock.secret())
        .expand(L::INFO, key.as_mut())
        .expect("32 bytes are a valid length");
    XChaCha20Poly1305::new((&*key).into())
}

fn encrypt(cipher: &XChaCha20Poly1305, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce);
    let sealed = cipher
        .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad })
        .expect("a message far below the cipher's limit encrypts");
    let mut out = Vec::with_capacity(NONCE_BYTES + sealed.len());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&sealed);
    out
}

fn decrypt(cipher: &XChaCha20Poly1305, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
    cipher.decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad }).ok()
}

/// The data key, locked for one person by one secret.
pub(super) fn wrap<L: Lock>(lock: &L, user: UserId, key: &DataKey) -> [u8; WRAPPED_BYTES] {
    let mut out = [0; WRAPPED_BYTES];
    out.copy_from_slice(&encrypt(&cipher_of(lock), user.as_bytes(), &key.0));
    out
}

/// The data key again, if the secret is the one that locked it.
pub(super) fn unwrap<L: Lock>(
    lock: &L,
    user: UserId,
    wrapped: &[u8; WRAPPED_BYTES],
) -> Result<DataKey, StoreError> {
    let plain =
        decrypt(&cipher_of(lock), user.as_bytes(), wrapped).map(Zeroizing::new).ok_or(StoreError::Locked)?;
    let mut key = DataKey([0; 32]);
    key.0.copy_from_slice(&plain);
    Ok(key)
}

impl DataKey {
    /// Encrypts one field of one row. The row's table and key are bound to it, so a ciphertext moved elsewhere is
    /// refused.
    pub(super) fn seal(&self, table: &str, row_key: &[u8], plain: &[u8]) -> Vec<u8> {
        encrypt(&XChaCha20Poly1305::new((&self.0).into()), &associated(table, row_key), plain)
    }
    /// Decrypts what [`DataKey::seal`] made for the same row.
    pub(super) fn open(&self, table: &str, row_key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        decrypt(&XChaCha20Poly1305::new((&self.0).into()), &associated(table, row_key), sealed)
            .ok_or_else(|| corrupt(table, "cannot be decrypted"))
    }
}

fn associated(table: &str, row_key: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(table.len() + 1 + row_key.len());
    aad.extend_from_slice(table.as_bytes());
    aad.push(0);
    aad.extend_from_slice(row_key);
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_back_as_written_and_in_one_spelling_only() {
        let token = SessionToken::new();
        let text = token.reveal();
        assert_eq!(SessionToken::parse(&text).unwrap().0, token.0);
        assert_eq!(text.len(), 56);
        assert!(SessionToken::parse(&text[..55]).is_err());
        assert!(SessionToken::parse(&format!("{text}0")).is_err());
        assert!(SessionToken::parse(&text.to_ascii_uppercase()).is_err());
        assert!(ApiKey::parse(&text).is_err(), "a session token is not an API key");
        // 256 bits leave 4 in the last of 52 symbols; others there would be a second spelling.
        let mut last = text.clone().into_bytes();
        let v = ALPHABET.iter().position(|&a| a == last[55]).unwrap();
        last[55] = ALPHABET[v ^ 1];
        assert!(SessionToken::parse(std::str::from_utf8(&last).unwrap()).is_err());
    }

    #[test]
    fn a_recovery_code_survives_being_copied_by_hand() {
        let code = RecoveryCode::new();
        let text = code.reveal();
        assert_eq!(text.len(), 8 * 4 + 7);
        let by_hand = text.to_lowercase().replace('-', " ").replace('0', "O").replace('1', "l");
        assert_eq!(RecoveryCode::parse(&by_hand).unwrap().0, code.0);
        assert!(RecoveryCode::parse("").is_err());
        assert!(RecoveryCode::parse("U").is_err());
    }

    #[test]
    fn a_data_key_opens_only_to_the_secret_the_kind_and_the_person_it_was_wrapped_for() {
        let (user, key, token) = (UserId::new(), DataKey::new(), SessionToken::new());
        let wrapped = wrap(&token, user, &key);
        assert_eq!(unwrap(&token, user, &wrapped).unwrap().0, key.0);
        let refused = [
            unwrap(&SessionToken::new(), user, &wrapped),
            unwrap(&token, UserId::new(), &wrapped),
            unwrap(&WrapKey::from_bytes(token.0), user, &wrapped),
        ];
        assert!(refused.into_iter().all(|r| matches!(r, Err(StoreError::Locked))));
    }

    #[test]
    fn a_ciphertext_is_bound_to_its_row() {
        let key = DataKey::new();
        let sealed = key.seal("messages", b"row 1", b"I had a bad day");
        assert_eq!(key.open("messages", b"row 1", &sealed).unwrap(), b"I had a bad day");
        assert!(key.open("messages", b"row 2", &sealed).is_err());
        assert!(key.open("memories", b"row 1", &sealed).is_err());
        assert!(DataKey::new().open("messages", b"row 1", &sealed).is_err());
        assert!(key.open("messages", b"row 1", &sealed[..10]).is_err());
        assert_ne!(sealed, key.seal("messages", b"row 1", b"I had a bad day"), "no nonce is used twice");
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", DataKey::new()), "DataKey(..)");
        assert_eq!(format!("{:?}", SessionToken::new()), "SessionToken(..)");
    }
}
