//! The nouns of the house: ids, e-mail addresses, titles, roles, people, chats and messages.
//!
//! Everything here parses and does no I/O. A value of one of these types is valid; code below the edge never
//! validates again. Nothing here knows JSON, redb or HTTP.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp as JiffTimestamp;
use unicode_normalization::UnicodeNormalization as _;
use uuid::Uuid;

/// Longest title in characters (not bytes); longer ones are cut, as the original did.
pub const MAX_TITLE_CHARS: usize = 100;
/// Longest message in bytes: far above what anybody types, far below what would hurt the store.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Longest e-mail address in bytes (RFC 5321 path limit without the angle brackets).
pub const MAX_EMAIL_BYTES: usize = 254;
/// Longest display name in characters.
pub const MAX_NAME_CHARS: usize = 100;
/// Longest avatar URL in bytes: a small picture as a `data:` URL fits.
pub const MAX_AVATAR_BYTES: usize = 64 << 10;

/// A value that did not parse: which field, and what a person can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field's name as it stands in requests.
    pub field: &'static str,
    /// One sentence naming the limit or the form expected.
    pub problem: String,
}

impl Invalid {
    /// A refusal of `field` with one sentence.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id (UUID version 7: ordered by the time of its making).
            #[expect(clippy::new_without_default, reason = "a fresh id is not a default value")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
            /// The id as it stands in table keys: 16 bytes, big endian.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
            /// The id of 16 key bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = Invalid;
            /// Parses the hyphenated form only, so that one id has one spelling.
            fn from_str(s: &str) -> Result<Self, Invalid> {
                if s.len() != 36 {
                    return Err(Invalid::new("id", "must be a UUID of 36 characters"));
                }
                Uuid::try_parse(s).map(Self).map_err(|_| Invalid::new("id", "must be a UUID"))
            }
        }
    };
}

id! {
    /// A person with an account.
    UserId
}
id! {
    /// A stored conversation.
    ChatId
}
id! {
    /// One message in a chat. Clients may make it, so that a retry is recognised.
    MessageId
}
id! {
    /// A sign-in on one device (not the session token, which is secret).
    SessionId
}
id! {
    /// An API key's public name (not the key).
    ApiKeyId
}
id! {
    /// A fact the parent keeps.
    MemoryId
}
id! {
    /// An invitation to sign up.
    InviteId
}

/// Microseconds since 1970 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The system clock's time. It may jump; order messages by sequence, not by this.
    pub fn now() -> Self {
        Self(JiffTimestamp::now().as_microsecond())
    }
    /// From stored microseconds, clamped to what a calendar can show.
    pub fn from_micros(us: i64) -> Self {
        Self(us.clamp(JiffTimestamp::MIN.as_microsecond(), JiffTimestamp::MAX.as_microsecond()))
    }
    /// Microseconds since 1970 UTC.
    pub fn as_micros(self) -> i64 {
        self.0
    }
    /// This time moved by `seconds`, clamped.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self::from_micros(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match JiffTimestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        s.parse::<JiffTimestamp>()
            .map(|t| Self(t.as_microsecond()))
            .map_err(|_| Invalid::new("time", "must be an RFC 3339 time such as 2026-01-31T20:00:00Z"))
    }
}

/// An e-mail address in its one canonical form: NFKC, lower case, no surrounding blanks, ASCII.
///
/// ASCII only, because two addresses that look alike must not be two accounts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Email(String);

impl Email {
    /// Parses and canonicalises.
    pub fn parse(raw: &str) -> Result<Self, Invalid> {
        let bad = |why: &str| Err(Invalid::new("email", why));
        if raw.len() > 4 * MAX_EMAIL_BYTES {
            return bad("must be at most 254 characters");
        }
        let s: String = raw.trim().nfkc().collect::<String>().to_ascii_lowercase();
        if s.len() > MAX_EMAIL_BYTES {
            return bad("must be at most 254 characters");
        }
        if !s.bytes().all(|b| b.is_ascii_graphic()) {
            return bad("must be plain ASCII without blanks, such as ada@example.org");
        }
        let mut parts = s.split('@');
        let (local, host, more) = (parts.next(), parts.next(), parts.next());
        let ok_host = |h: &str| {
            !h.starts_with('.')
                && !h.ends_with('.')
                && !h.contains("..")
                && h.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
        };
        match (local, host, more) {
            (Some(l), Some(h), None) if !l.is_empty() && !h.is_empty() && ok_host(h) => Ok(Self(s)),
            _ => bad("must look like ada@example.org"),
        }
    }
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A chat's title: one line, at most [`MAX_TITLE_CHARS`] characters, never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Title(String);

impl Title {
    /// What a chat is called before anything was said in it.
    pub fn untitled() -> Self {
        Self("New chat".into())
    }
    /// Control characters and runs of blanks become one blank, the rest is cut at [`MAX_TITLE_CHARS`]
    /// characters; nothing left gives [`Title::untitled`].
    pub fn cut(raw: &str) -> Self {
        let mut out = String::new();
        let mut n_chars = 0;
        for word in raw.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()) {
            if n_chars > 0 && n_chars < MAX_TITLE_CHARS {
                out.push(' ');
                n_chars += 1;
            }
            for c in word.chars().take(MAX_TITLE_CHARS - n_chars) {
                out.push(c);
                n_chars += 1;
            }
            if n_chars >= MAX_TITLE_CHARS {
                break;
            }
        }
        let out = out.trim_end();
        if out.is_empty() { Self::untitled() } else { Self(out.to_owned()) }
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What somebody wrote: not empty, at most [`MAX_MESSAGE_BYTES`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageText(String);

impl MessageText {
    /// Refuses text that is blank or too long; keeps the rest byte for byte.
    pub fn parse(raw: String) -> Result<Self, Invalid> {
        if raw.len() > MAX_MESSAGE_BYTES {
            let problem = format!("is {} bytes long; the limit is {MAX_MESSAGE_BYTES}", raw.len());
            return Err(Invalid::new("content", problem));
        }
        if raw.trim().is_empty() {
            return Err(Invalid::new("content", "must not be empty"));
        }
        Ok(Self(raw))
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The text, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// A display name: one line, at most [`MAX_NAME_CHARS`] characters; may be empty.
pub fn parse_full_name(raw: &str) -> Result<String, Invalid> {
    let name = raw.trim().to_owned();
    if name.chars().count() > MAX_NAME_CHARS {
        return Err(Invalid::new("full_name", format!("must be at most {MAX_NAME_CHARS} characters")));
    }
    if name.chars().any(char::is_control) {
        return Err(Invalid::new("full_name", "must be one line of text"));
    }
    Ok(name)
}

/// An avatar: `color:#rrggbb`, or a small PNG, JPEG, WebP or GIF as a `data:` URL. Never SVG, never a remote address.
pub fn parse_avatar(raw: &str) -> Result<String, Invalid> {
    const KINDS: [&str; 4] = ["png", "jpeg", "webp", "gif"];
    let bad = |why: &str| Err(Invalid::new("avatar_url", why));
    if raw.len() > MAX_AVATAR_BYTES {
        return bad("must be at most 64 KiB");
    }
    if let Some(hex) = raw.strip_prefix("color:#") {
        if hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(raw.to_ascii_lowercase());
        }
        return bad("a colour looks like color:#aa3366");
    }
    let picture = KINDS.iter().find_map(|k| raw.strip_prefix(&format!("data:image/{k};base64,")));
    match picture {
        Some(b64)
            if !b64.is_empty()
                && b64.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=')) =>
        {
            Ok(raw.to_owned())
        }
        _ => bad("must be color:#rrggbb or a data: URL of a PNG, JPEG, WebP or GIF"),
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident ($field:literal) { $($(#[$vdoc:meta])* $variant:ident = $word:literal, $code:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The word used in requests and answers.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
            /// The byte used in stored records; never reused for another meaning.
            pub fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)+ }
            }
            /// The value of a stored byte.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(s: &str) -> Result<Self, Invalid> {
                match s {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Invalid::new($field, concat!("must be one of:" $(, " ", $word)+))),
                }
            }
        }
    };
}

words! {
    /// What an account may do.
    Role ("role") {
        /// Sees accounts, usage and health; no chats but their own.
        Admin = "admin", 1;
        /// An ordinary person of the household.
        Member = "member", 2;
        /// A child: fixed persona, limits on every endpoint.
        Child = "child", 3;
    }
}
words! {
    /// Which parent answers.
    Persona ("persona") {
        /// `assets/personas/mom.md`
        Mom = "mom", 1;
        /// `assets/personas/dad.md`
        Dad = "dad", 2;
        /// `assets/personas/parent.md`
        Parent = "parent", 3;
    }
}
words! {
    /// Why a generation ended.
    FinishReason ("finish_reason") {
        /// The model said it was done, or a stop string came.
        Stop = "stop", 1;
        /// The limit on tokens or the context was reached.
        Length = "length", 2;
        /// Somebody pressed Stop; the partial text is kept.
        Cancelled = "cancelled", 3;
        /// The server failed or was killed; the partial text is kept.
        Error = "error", 4;
    }
}
words! {
    /// Where an answer came from.
    Source ("source") {
        /// Taken over whole from the written collection.
        Written = "written", 1;
    }
}

/// A person's profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// Canonical address, unique.
    pub email: Email,
    /// Display name; may be empty.
    pub full_name: String,
    /// See [`parse_avatar`].
    pub avatar_url: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Which parent answers them.
    pub persona: Persona,
    /// May not sign in while true.
    pub disabled: bool,
    /// When the account was made.
    pub created_at: Timestamp,
    /// When the profile last changed.
    pub updated_at: Timestamp,
}

/// A stored conversation, without its messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chat {
    /// Which.
    pub id: ChatId,
    /// Whose.
    pub user_id: UserId,
    /// Cut from the first message until somebody renames it.
    pub title: Title,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed; the list is ordered by this.
    pub updated_at: Timestamp,
    /// Kept at the top of the list.
    pub pinned: bool,
    /// Kept out of the list's main part.
    pub archived: bool,
}

/// How fast an answer was, named as in llama.cpp; all times in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Timings {
    /// Prompt tokens taken from the prefix cache.
    pub cache_n: u32,
    /// Prompt tokens evaluated.
    pub prompt_n: u32,
    /// Time of prefill.
    pub prompt_ms: f32,
    /// Tokens generated.
    pub predicted_n: u32,
    /// Time of decode.
    pub predicted_ms: f32,
}

/// One message.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// Which.
    pub id: MessageId,
    /// In which chat.
    pub chat_id: ChatId,
    /// The message it answers or follows; `None` for a chat's first. Siblings share a parent.
    pub parent_id: Option<MessageId>,
    /// What was said.
    pub content: String,
    /// The person (true) or the parent (false).
    pub is_user: bool,
    /// When it was stored first.
    pub created_at: Timestamp,
    /// Only of answers: how it ended; `None` while it is being generated.
    pub finish_reason: Option<FinishReason>,
    /// Only of answers that ended.
    pub timings: Option<Timings>,
    /// Kind of danger seen in it; the crisis card is shown beside it.
    pub safety: Option<String>,
    /// Only of answers taken over whole.
    pub source: Option<Source>,
    /// Only of answers: older exchanges were left out of the prompt.
    pub truncated: bool,
}

/// A fact the parent keeps about a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Which.
    pub id: MemoryId,
    /// One short sentence.
    pub content: String,
    /// The chat and message it came from; `None` when the person typed it in.
    pub origin: Option<(ChatId, MessageId)>,
    /// When it was noted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}
