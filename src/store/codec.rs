//! How rows stand in the file: a version byte, then fields in a fixed order, little endian.
//!
//! Reading believes nothing: a row that is too short, too long, of an unknown version, or that holds an impossible
//! value is [`StoreError::Corrupt`], never a panic. Keys are made in `tables`, not here.

use super::StoreError;
use crate::domain::{
    ApiKeyId, ChatId, Email, FinishReason, InviteId, MessageId, Persona, Role, SessionId, Source, Timestamp,
    Timings, User, UserId,
};

/// Version byte of every row written by this program.
const V1: u8 = 1;

/// Writes fields one after another.
pub(super) struct Enc(Vec<u8>);

impl Enc {
    pub(super) fn v1() -> Self {
        Self(vec![V1])
    }
    pub(super) fn u8(mut self, v: u8) -> Self {
        self.0.push(v);
        self
    }
    pub(super) fn u32(mut self, v: u32) -> Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    pub(super) fn u64(mut self, v: u64) -> Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    pub(super) fn time(self, t: Timestamp) -> Self {
        self.u64(t.as_micros().cast_unsigned())
    }
    pub(super) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.push_bytes(bytes);
        self
    }
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        let n = u32::try_from(bytes.len()).unwrap_or(u32::MAX); // limits of the domain keep every field far below
        self.0.extend_from_slice(&n.to_le_bytes());
        self.0.extend_from_slice(bytes);
    }
    pub(super) fn opt(self, value: Option<&[u8]>) -> Self {
        match value {
            Some(bytes) => self.u8(1).bytes(bytes),
            None => self.u8(0),
        }
    }
    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields one after another.
pub(super) struct Dec<'a> {
    rest: &'a [u8],
    table: &'static str,
}

type Decoded<T> = Result<T, StoreError>;

/// A row of `table` cannot be what this program wrote.
pub(super) fn corrupt(table: &str, what: &str) -> StoreError {
    StoreError::Corrupt(format!("a row of {table} {what}"))
}

impl<'a> Dec<'a> {
    pub(super) fn v1(table: &'static str, row: &'a [u8]) -> Decoded<Self> {
        match row {
            [V1, rest @ ..] => Ok(Self { rest, table }),
            [v, ..] => Err(corrupt(table, &format!("has the unknown version {v}"))),
            [] => Err(corrupt(table, "is empty")),
        }
    }
    pub(super) fn bad(&self, what: &str) -> StoreError {
        corrupt(self.table, what)
    }
    pub(super) fn take(&mut self, n: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.bad("is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }
    pub(super) fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
    pub(super) fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }
    pub(super) fn flag(&mut self) -> Decoded<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad("has a flag that is neither 0 nor 1")),
        }
    }
    pub(super) fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub(super) fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub(super) fn time(&mut self) -> Decoded<Timestamp> {
        Ok(Timestamp::from_micros(self.u64()?.cast_signed()))
    }
    pub(super) fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let n = self.u32()? as usize;
        self.take(n)
    }
    pub(super) fn text(&mut self) -> Decoded<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.bad("holds text that is not UTF-8"))
    }
    pub(super) fn opt(&mut self) -> Decoded<Option<&'a [u8]>> {
        if self.flag()? { self.bytes().map(Some) } else { Ok(None) }
    }
    pub(super) fn code<T>(&mut self, from: impl FnOnce(u8) -> Option<T>) -> Decoded<T> {
        let code = self.u8()?;
        from(code).ok_or_else(|| self.bad("has an unknown code"))
    }
    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
    pub(super) fn done(self) -> Decoded<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.bad("is too long")) }
    }
}

/// The 16 bytes of an id at the end of a key or as a whole value.
pub(super) fn id16(table: &'static str, bytes: &[u8]) -> Decoded<[u8; 16]> {
    bytes.try_into().map_err(|_| corrupt(table, "has an id of the wrong length"))
}

/// The 32 bytes of a hash.
pub(super) fn hash32(table: &'static str, bytes: &[u8]) -> Decoded<[u8; 32]> {
    bytes.try_into().map_err(|_| corrupt(table, "has a hash of the wrong length"))
}

pub(super) fn encode_user(u: &User) -> Vec<u8> {
    Enc::v1()
        .bytes(u.email.as_str().as_bytes())
        .bytes(u.full_name.as_bytes())
        .opt(u.avatar_url.as_deref().map(str::as_bytes))
        .u8(u.role.code())
        .u8(u.persona.code())
        .u8(u8::from(u.disabled))
        .time(u.created_at)
        .time(u.updated_at)
        .done()
}

pub(super) fn decode_user(id: UserId, row: &[u8]) -> Decoded<User> {
    let mut d = Dec::v1("users", row)?;
    let email = d.text()?;
    let user = User {
        id,
        email: Email::parse(&email).map_err(|_| d.bad("has a bad address"))?,
        full_name: d.text()?,
        avatar_url: match d.opt()? {
            Some(b) => Some(String::from_utf8(b.to_vec()).map_err(|_| d.bad("has a bad avatar"))?),
            None => None,
        },
        role: d.code(Role::from_code)?,
        persona: d.code(Persona::from_code)?,
        disabled: d.flag()?,
        created_at: d.time()?,
        updated_at: d.time()?,
    };
    d.done()?;
    Ok(user)
}

/// A chat as stored; the title is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ChatRow {
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) pinned: bool,
    pub(super) archived: bool,
    /// Somebody or something gave it a title; the first message no longer does.
    pub(super) titled: bool,
    /// Place of the next message.
    pub(super) next_seq: u64,
    pub(super) title: Vec<u8>,
}

impl ChatRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        Enc::v1()
            .time(self.created_at)
            .time(self.updated_at)
            .u8(u8::from(self.pinned))
            .u8(u8::from(self.archived))
            .u8(u8::from(self.titled))
            .u64(self.next_seq)
            .bytes(&self.title)
            .done()
    }
    pub(super) fn decode(row: &[u8]) -> Decoded<Self> {
        let mut d = Dec::v1("chats", row)?;
        let chat = Self {
            created_at: d.time()?,
            updated_at: d.time()?,
            pinned: d.flag()?,
            archived: d.flag()?,
            titled: d.flag()?,
            next_seq: d.u64()?,
            title: d.bytes()?.to_vec(),
        };
        d.done()?;
        Ok(chat)
    }
}

/// A message as stored; what was said, and what danger was seen in it, is sealed in `body`.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct MessageRow {
    pub(super) id: MessageId,
    pub(super) parent_id: Option<MessageId>,
    pub(super) is_user: bool,
    pub(super) truncated: bool,
    pub(super) created_at: Timestamp,
    pub(super) finish_reason: Option<FinishReason>,
    pub(super) source: Option<Source>,
    pub(super) timings: Option<Timings>,
    pub(super) body: Vec<u8>,
}

impl MessageRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut e = Enc::v1()
            .fixed(self.id.as_bytes())
            .opt(self.parent_id.as_ref().map(|p| p.as_bytes().as_slice()))
            .u8(u8::from(self.is_user))
            .u8(u8::from(self.truncated))
            .time(self.created_at)
            .u8(self.finish_reason.map_or(0, FinishReason::code))
            .u8(self.source.map_or(0, Source::code))
            .u8(u8::from(self.timings.is_some()));
        if let Some(t) = &self.timings {
            e = e
                .u32(t.cache_n)
                .u32(t.prompt_n)
                .u32(t.prompt_ms.to_bits())
                .u32(t.predicted_n)
                .u32(t.predicted_ms.to_bits());
        }
        e.bytes(&self.body).done()
    }
    pub(super) fn decode(row: &[u8]) -> Decoded<Self> {
        let mut d = Dec::v1("messages", row)?;
        let message = Self {
            id: MessageId::from_bytes(d.array()?),
            parent_id: match d.opt()? {
                Some(b) => Some(MessageId::from_bytes(id16("messages", b)?)),
                None => None,
            },
            is_user: d.flag()?,
            truncated: d.flag()?,
            created_at: d.time()?,
            finish_reason: d
                .code(|c| if c == 0 { Some(None) } else { FinishReason::from_code(c).map(Some) })?,
            source: d.code(|c| if c == 0 { Some(None) } else { Source::from_code(c).map(Some) })?,
            timings: if d.flag()? {
                Some(Timings {
                    cache_n: d.u32()?,
                    prompt_n: d.u32()?,
                    prompt_ms: f32::from_bits(d.u32()?),
                    predicted_n: d.u32()?,
                    predicted_ms: f32::from_bits(d.u32()?),
                })
            } else {
                None
            },
            body: d.bytes()?.to_vec(),
        };
        d.done()?;
        Ok(message)
    }
}

/// Where a message stands: the value of the message index.
pub(super) fn encode_place(chat: ChatId, seq: u64) -> [u8; 24] {
    let mut v = [0; 24];
    v[..16].copy_from_slice(chat.as_bytes());
    v[16..].copy_from_slice(&seq.to_le_bytes());
    v
}

pub(super) fn decode_place(row: &[u8]) -> Decoded<(ChatId, u64)> {
    let row: &[u8; 24] = row.try_into().map_err(|_| corrupt("message_index", "has the wrong length"))?;
    let mut seq = [0; 8];
    seq.copy_from_slice(&row[16..]);
    Ok((ChatId::from_bytes(id16("message_index", &row[..16])?), u64::from_le_bytes(seq)))
}

/// A fact as stored; its text is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MemoryRow {
    pub(super) origin: Option<(ChatId, MessageId)>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) body: Vec<u8>,
}

impl MemoryRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut e = Enc::v1().u8(u8::from(self.origin.is_some()));
        if let Some((chat, message)) = &self.origin {
            e = e.fixed(chat.as_bytes()).fixed(message.as_bytes());
        }
        e.time(self.created_at).time(self.updated_at).bytes(&self.body).done()
    }
    pub(super) fn decode(row: &[u8]) -> Decoded<Self> {
        let mut d = Dec::v1("memories", row)?;
        let memory = Self {
            origin: if d.flag()? {
                Some((ChatId::from_bytes(d.array()?), MessageId::from_bytes(d.array()?)))
            } else {
                None
            },
            created_at: d.time()?,
            updated_at: d.time()?,
            body: d.bytes()?.to_vec(),
        };
        d.done()?;
        Ok(memory)
    }
}

/// A session or an API key as stored, under the hash of its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct GrantRow {
    pub(super) user: UserId,
    /// Of the session or the API key.
    pub(super) id: [u8; 16],
    /// Which life of the data directory it belongs to; a restore begins another.
    pub(super) epoch: u64,
    pub(super) label: String,
    pub(super) created_at: Timestamp,
    /// Of a key that was never used: its `created_at` and `used` false.
    pub(super) last_used_at: Timestamp,
    pub(super) used: bool,
    pub(super) wrapped: [u8; super::vault::WRAPPED_BYTES],
}

impl GrantRow {
    pub(super) fn session_id(&self) -> SessionId {
        SessionId::from_bytes(self.id)
    }
    pub(super) fn api_key_id(&self) -> ApiKeyId {
        ApiKeyId::from_bytes(self.id)
    }
    pub(super) fn encode(&self) -> Vec<u8> {
        Enc::v1()
            .fixed(self.user.as_bytes())
            .fixed(&self.id)
            .u64(self.epoch)
            .bytes(self.label.as_bytes())
            .time(self.created_at)
            .time(self.last_used_at)
            .u8(u8::from(self.used))
            .fixed(&self.wrapped)
            .done()
    }
    pub(super) fn decode(table: &'static str, row: &[u8]) -> Decoded<Self> {
        let mut d = Dec::v1(table, row)?;
        let grant = Self {
            user: UserId::from_bytes(d.array()?),
            id: d.array()?,
            epoch: d.u64()?,
            label: d.text()?,
            created_at: d.time()?,
            last_used_at: d.time()?,
            used: d.flag()?,
            wrapped: d.array()?,
        };
        d.done()?;
        Ok(grant)
    }
}

/// An invitation as stored, under the hash of its code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct InviteRow {
    pub(super) id: InviteId,
    pub(super) role: Role,
    pub(super) created_by: Option<UserId>,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl InviteRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        Enc::v1()
            .fixed(self.id.as_bytes())
            .u8(self.role.code())
            .opt(self.created_by.as_ref().map(|u| u.as_bytes().as_slice()))
            .time(self.created_at)
            .time(self.expires_at)
            .done()
    }
    pub(super) fn decode(row: &[u8]) -> Decoded<Self> {
        let mut d = Dec::v1("invites", row)?;
        let invite = Self {
            id: InviteId::from_bytes(d.array()?),
            role: d.code(Role::from_code)?,
            created_by: match d.opt()? {
                Some(b) => Some(UserId::from_bytes(id16("invites", b)?)),
                None => None,
            },
            created_at: d.time()?,
            expires_at: d.time()?,
        };
        d.done()?;
        Ok(invite)
    }
}

#[cfg(test)]
mod tests;
