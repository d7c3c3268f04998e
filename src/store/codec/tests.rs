//! Rows come back as they were written, and nothing else comes back as a row.

use proptest::prelude::*;

use super::*;

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

fn id() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![any::<[u8; 16]>(), Just([0; 16]), Just([0xFF; 16])]
}

fn message_row() -> impl Strategy<Value = MessageRow> {
    let finish = prop::option::of(prop::sample::select(FinishReason::ALL));
    let timings = prop::option::of((any::<u32>(), any::<u32>(), 0f32..1e9, any::<u32>(), 0f32..1e9));
    let ids = (id(), prop::option::of(id()));
    (ids, any::<(bool, bool, bool)>(), time(), finish, timings, bytes()).prop_map(
        |((id, parent), (is_user, truncated, written), created_at, finish_reason, timings, body)| {
            MessageRow {
                id: MessageId::from_bytes(id),
                parent_id: parent.map(MessageId::from_bytes),
                is_user,
                truncated,
                created_at,
                finish_reason,
                source: written.then_some(Source::Written),
                timings: timings.map(|(cache_n, prompt_n, prompt_ms, predicted_n, predicted_ms)| Timings {
                    cache_n,
                    prompt_n,
                    prompt_ms,
                    predicted_n,
                    predicted_ms,
                }),
                body,
            }
        },
    )
}

fn chat_row() -> impl Strategy<Value = ChatRow> {
    (time(), time(), any::<(bool, bool, bool)>(), any::<u64>(), bytes()).prop_map(
        |(created_at, updated_at, (pinned, archived, titled), next_seq, title)| ChatRow {
            created_at,
            updated_at,
            pinned,
            archived,
            titled,
            next_seq,
            title,
        },
    )
}

fn grant_row() -> impl Strategy<Value = GrantRow> {
    (id(), id(), any::<u64>(), ".{0,40}", time(), time(), any::<bool>(), any::<u8>()).prop_map(
        |(user, id, epoch, label, created_at, last_used_at, used, byte)| GrantRow {
            user: UserId::from_bytes(user),
            id,
            epoch,
            label,
            created_at,
            last_used_at,
            used,
            wrapped: [byte; super::super::vault::WRAPPED_BYTES],
        },
    )
}

fn user() -> impl Strategy<Value = User> {
    let avatar = prop::option::of("color:#[0-9a-f]{6}");
    let role = (prop::sample::select(Role::ALL), prop::sample::select(Persona::ALL), any::<bool>());
    (id(), "[a-z0-9.]{1,20}@[a-z]{1,10}", ".{0,40}", avatar, role, time(), time()).prop_map(
        |(id, email, full_name, avatar_url, (role, persona, disabled), created_at, updated_at)| User {
            id: UserId::from_bytes(id),
            email: Email::parse(&email).expect("an address"),
            full_name,
            avatar_url,
            role,
            persona,
            disabled,
            created_at,
            updated_at,
        },
    )
}

/// Every kind of row; the answer says whether it decoded.
fn decode_any(kind: u8, row: &[u8]) -> Result<(), StoreError> {
    match kind {
        0 => MessageRow::decode(row).map(drop),
        1 => ChatRow::decode(row).map(drop),
        2 => GrantRow::decode("sessions", row).map(drop),
        3 => InviteRow::decode(row).map(drop),
        4 => MemoryRow::decode(row).map(drop),
        5 => decode_place(row).map(drop),
        _ => decode_user(UserId::from_bytes([0; 16]), row).map(drop),
    }
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were_written(
        message in message_row(), chat in chat_row(), grant in grant_row(), user in user(),
        facts in (prop::option::of((id(), id())), time(), time(), bytes()),
        invite in (id(), prop::option::of(id()), time(), time()),
        place in (id(), any::<u64>()),
    ) {
        prop_assert_eq!(&MessageRow::decode(&message.encode()).unwrap(), &message);
        prop_assert_eq!(&ChatRow::decode(&chat.encode()).unwrap(), &chat);
        prop_assert_eq!(&GrantRow::decode("sessions", &grant.encode()).unwrap(), &grant);
        prop_assert_eq!(&decode_user(user.id, &encode_user(&user)).unwrap(), &user);
        let (origin, created_at, updated_at, body) = facts;
        let origin = origin.map(|(c, m)| (ChatId::from_bytes(c), MessageId::from_bytes(m)));
        let memory = MemoryRow { origin, created_at, updated_at, body };
        prop_assert_eq!(&MemoryRow::decode(&memory.encode()).unwrap(), &memory);
        let (id, by, created_at, expires_at) = invite;
        let created_by = by.map(UserId::from_bytes);
        let invite = InviteRow { id: InviteId::from_bytes(id), role: Role::Child, created_by, created_at, expires_at };
        prop_assert_eq!(&InviteRow::decode(&invite.encode()).unwrap(), &invite);
        let (chat, seq) = (ChatId::from_bytes(place.0), place.1);
        prop_assert_eq!(decode_place(&encode_place(chat, seq)).unwrap(), (chat, seq));
    }

    #[test]
    fn a_row_cut_or_lengthened_is_corrupt(message in message_row(), cut in any::<prop::sample::Index>()) {
        let row = message.encode();
        let at = cut.index(row.len());
        prop_assert!(matches!(MessageRow::decode(&row[..at]), Err(StoreError::Corrupt(_))));
        let longer = [row.as_slice(), &[0]].concat();
        prop_assert!(matches!(MessageRow::decode(&longer), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn any_bytes_decode_or_are_corrupt_and_never_panic(kind in 0u8..7, mut row in bytes(), versioned in any::<bool>()) {
        if versioned && !row.is_empty() {
            row[0] = V1;
        }
        if let Err(e) = decode_any(kind, &row) {
            prop_assert!(matches!(e, StoreError::Corrupt(_)));
        }
    }
}
