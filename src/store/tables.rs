//! Which tables there are, and the one place that makes their keys and ranges.
//!
//! Every key is bytes compared as bytes, so numbers in keys are big endian. Rows of one person start with the 16 bytes
//! of their [`UserId`]; the width never varies, so no range over one person reaches the next.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::StoreError;
use crate::domain::{ChatId, MessageId, Timestamp, UserId};

/// The one type of table: bytes to bytes. Meaning is given by `codec`, so that it survives the database library.
pub(super) type Def = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// A table in a write transaction.
pub(super) type RwTable<'t> = Table<'t, &'static [u8], &'static [u8]>;
/// A table in a snapshot.
pub(super) type RoTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// What reads need of either kind of table.
pub(super) trait Rows: ReadableTable<&'static [u8], &'static [u8]> {}
impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows for T {}

macro_rules! tables {
    ($($(#[$doc:meta])* $field:ident: $name:literal,)+) => {
        /// Every table's name: what a backup copies and a check expects.
        pub(super) const TABLE_NAMES: &[&str] = &[$($name,)+];

        /// All tables in one write transaction.
        pub(super) struct Tables<'t> { $($(#[$doc])* pub(super) $field: RwTable<'t>,)+ }

        impl<'t> Tables<'t> {
            pub(super) fn open(txn: &'t WriteTransaction) -> Result<Self, StoreError> {
                Ok(Self { $($field: txn.open_table(Def::new($name))?,)+ })
            }
        }

        /// All tables as they were at one moment.
        pub(super) struct Snapshot { pub(super) txn: ReadTransaction }

        impl Snapshot {
            $($(#[$doc])* pub(super) fn $field(&self) -> Result<RoTable, StoreError> {
                Ok(self.txn.open_table(Def::new($name))?)
            })+
        }
    };
}

tables! {
    /// name -> value: schema version, what a backup holds
    meta: "meta",
    /// user -> profile
    users: "users",
    /// canonical address -> user
    emails: "emails",
    /// user -> password record and wrapped data keys
    credentials: "credentials",
    /// user, chat -> chat
    chats: "chats",
    /// user, inverted `updated_at`, chat -> flags
    chats_by_updated: "chats_by_updated",
    /// user, chat, seq -> message
    messages: "messages",
    /// user, message -> chat, seq
    message_index: "message_index",
    /// number -> messages of one commit that are not in their places yet; empty at rest
    arrivals: "arrivals",
    /// user, chat, message -> seq: replies in progress
    generating: "generating",
    /// user, memory -> fact
    memories: "memories",
    /// hash of token -> session
    sessions: "sessions",
    /// user, session -> hash of token
    sessions_by_user: "sessions_by_user",
    /// hash of key -> API key
    api_keys: "api_keys",
    /// user, API key -> hash of key
    api_keys_by_user: "api_keys_by_user",
    /// hash of code -> invitation
    invites: "invites",
    /// prefix of keys whose rows are being deleted, chunk by chunk
    doomed: "doomed",
}

/// Two ids in a row: the key of most rows of a person.
pub(super) fn key2(user: UserId, id: &[u8; 16]) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(user.as_bytes());
    key[16..].copy_from_slice(id);
    key
}

/// A message's place.
pub(super) fn message_key(user: UserId, chat: ChatId, seq: u64) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(&key2(user, chat.as_bytes()));
    key[32..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// A reply in progress.
pub(super) fn generating_key(user: UserId, chat: ChatId, message: MessageId) -> [u8; 48] {
    let mut key = [0; 48];
    key[..32].copy_from_slice(&key2(user, chat.as_bytes()));
    key[32..].copy_from_slice(message.as_bytes());
    key
}

/// A chat's place in the list: the newest comes first, so the time is inverted.
pub(super) fn updated_key(user: UserId, updated_at: Timestamp, chat: ChatId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..16].copy_from_slice(user.as_bytes());
    key[16..24].copy_from_slice(&inverted(updated_at).to_be_bytes());
    key[24..].copy_from_slice(chat.as_bytes());
    key
}

/// Maps later times to smaller numbers, over the whole range of `i64`.
fn inverted(t: Timestamp) -> u64 {
    !(t.as_micros().cast_unsigned() ^ (1 << 63))
}

/// The first key after every key that starts with `prefix`; `None` = there is no such key (all bytes are FF).
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The bounds of all keys that start with a prefix.
pub(super) struct Prefix {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl Prefix {
    pub(super) fn of(prefix: &[u8]) -> Self {
        Self { start: prefix.to_vec(), end: prefix_end(prefix) }
    }
    /// From the prefix itself to its end.
    pub(super) fn all(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Included(&self.start), self.upper())
    }
    /// Only after `key`, which must lie within the prefix, else nothing.
    pub(super) fn after<'a>(&'a self, key: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        if key.starts_with(&self.start) { (Bound::Excluded(key), self.upper()) } else { self.none() }
    }
    /// Only before `key`, which must lie within the prefix, else nothing.
    pub(super) fn before<'a>(&'a self, key: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        if key.starts_with(&self.start) {
            (Bound::Included(&self.start), Bound::Excluded(key))
        } else {
            self.none()
        }
    }
    fn upper(&self) -> Bound<&[u8]> {
        self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
    }
    fn none(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Included(&self.start), Bound::Excluded(&self.start))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use proptest::prelude::*;

    use super::*;

    fn inside(prefix: &[u8], key: &[u8]) -> bool {
        let p = Prefix::of(prefix);
        let (lo, hi) = p.all();
        RangeBounds::<[u8]>::contains(&(lo, hi), key)
    }

    #[test]
    fn the_range_of_the_highest_prefix_has_no_end() {
        assert_eq!(prefix_end(&[0xFF; 16]), None);
        assert_eq!(prefix_end(&[1, 0xFF]), Some(vec![2]));
        assert!(inside(&[0xFF; 16], &[0xFF; 40]));
        assert!(!inside(&[0xFF; 16], &[0xFE; 40]));
        assert!(!inside(&[0; 16], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
    }

    proptest! {
        #[test]
        fn a_range_over_a_person_holds_that_person_only(
            user in prop_oneof![any::<[u8; 16]>(), Just([0; 16]), Just([0xFF; 16])],
            step in prop_oneof![Just(1i128), Just(-1), Just(0), any::<i64>().prop_map(i128::from)],
            rest in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let neighbour = (u128::from_be_bytes(user)).wrapping_add(step.cast_unsigned()).to_be_bytes();
            let key: Vec<u8> = neighbour.iter().chain(&rest).copied().collect();
            prop_assert_eq!(inside(&user, &key), neighbour == user);
            let p = Prefix::of(&user);
            for other in [p.after(&key), p.before(&key)] {
                if neighbour != user {
                    let mine: Vec<u8> = user.iter().chain(&[0x80]).copied().collect();
                    prop_assert!(!RangeBounds::<[u8]>::contains(&other, mine.as_slice()), "a foreign key opens nothing");
                }
            }
        }

        #[test]
        fn keys_sort_as_their_parts(a in any::<(i64, u64)>(), b in any::<(i64, u64)>()) {
            let (user, chat) = (UserId::new(), ChatId::new());
            let by_seq = |seq| message_key(user, chat, seq);
            prop_assert_eq!(by_seq(a.1).cmp(&by_seq(b.1)), a.1.cmp(&b.1));
            let (ta, tb) = (Timestamp::from_micros(a.0), Timestamp::from_micros(b.0));
            let newest_first = updated_key(user, ta, chat).cmp(&updated_key(user, tb, chat));
            prop_assert_eq!(newest_first, tb.cmp(&ta));
        }
    }
}
