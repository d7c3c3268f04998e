//! Single operations of the store, on the disk under `target`; how it does with many writers is `--bench store`'s.

use criterion::Criterion;
use mommygpt::domain::{Email, MessageId, MessageText, Persona};
use mommygpt::store::{
    Admission, ChatPage, DataKey, MessagePage, NewMessage, NewUser, Parent, PasswordRecord, RecoveryCode,
    SessionToken, Store, UserStore, WrapKey,
};

fn person(store: &Store) -> UserStore {
    let (data_key, token) = (DataKey::new(), SessionToken::new());
    let user = store
        .create_user(NewUser {
            email: Email::parse("micro@example.org").expect("an address"),
            full_name: String::new(),
            persona: Persona::Mom,
            admission: Admission::Open,
            password: PasswordRecord { m_cost: 8, t_cost: 1, p_cost: 1, salt: [0; 16], verifier: [0; 32] },
            wrap_key: &WrapKey::new(),
            recovery: &RecoveryCode::new(),
            data_key: &data_key,
        })
        .expect("an account");
    store.create_session(user.id, &data_key, &token, "micro").expect("a session");
    store.as_user(&token).expect("a read").expect("a live session")
}

/// A durable message, the newest page, the list of chats.
pub(crate) fn store(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder to measure in");
    let store = Store::open(dir.path()).expect("a store");
    let me = person(&store);
    let chat = me.create_chat(None, None).expect("a chat").0.id;
    let mut group = c.benchmark_group("store");
    group.sample_size(20);
    group.bench_function("append a message", |b| {
        b.iter(|| {
            let content = MessageText::parse("I had a bad day at school.".to_owned()).expect("a text");
            let message = NewMessage { id: MessageId::new(), parent: Parent::Newest, content, safety: None };
            me.append_user_message(chat, message).expect("an acknowledged message")
        });
    });
    group.bench_function("newest page of 50", |b| {
        b.iter(|| me.messages(chat, &MessagePage { limit: 50, before: None }).expect("a page"));
    });
    group.bench_function("list of chats", |b| {
        let page = ChatPage { limit: 50, cursor: None, include_archived: false };
        b.iter(|| me.chats(&page).expect("a list"));
    });
    group.finish();
}
