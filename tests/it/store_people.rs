//! People for tests of the store: accounts with real keys and sessions, without the slow password hash.

use std::sync::Arc;

use mommygpt::domain::{ChatId, Email, MessageId, MessageText, Persona, User};
use mommygpt::store::{
    Admission, DataKey, NewMessage, NewUser, Parent, PasswordRecord, RecoveryCode, SessionToken, Store,
    StoreError, UserStore, WrapKey,
};

/// An account and its secrets.
pub(crate) struct Person {
    pub(crate) user: User,
    pub(crate) data_key: DataKey,
    pub(crate) wrap_key: WrapKey,
    pub(crate) recovery: RecoveryCode,
    pub(crate) token: SessionToken,
}

impl Person {
    /// Their view, through the session.
    pub(crate) fn at(&self, store: &Store) -> UserStore {
        store.as_user(&self.token).unwrap().expect("the session is live")
    }
}

pub(crate) fn record() -> PasswordRecord {
    PasswordRecord { m_cost: 8, t_cost: 1, p_cost: 1, salt: [1; 16], verifier: [2; 32] }
}

/// Makes an account the given way.
pub(crate) fn admit(store: &Store, name: &str, admission: Admission) -> Result<Person, StoreError> {
    let (data_key, wrap_key) = (DataKey::new(), WrapKey::new());
    let (recovery, token) = (RecoveryCode::new(), SessionToken::new());
    let user = store.create_user(NewUser {
        email: Email::parse(&format!("{name}@example.org")).unwrap(),
        full_name: name.to_owned(),
        persona: Persona::Mom,
        admission,
        password: record(),
        wrap_key: &wrap_key,
        recovery: &recovery,
        data_key: &data_key,
    })?;
    store.create_session(user.id, &data_key, &token, "test")?;
    Ok(Person { user, data_key, wrap_key, recovery, token })
}

/// Makes an account.
pub(crate) fn person(store: &Store, name: &str) -> Person {
    admit(store, name, Admission::Open).unwrap()
}

/// A message of a person at the end of a chat.
pub(crate) fn said(text: &str) -> NewMessage {
    NewMessage {
        id: MessageId::new(),
        parent: Parent::Newest,
        content: MessageText::parse(text.to_owned()).unwrap(),
        safety: None,
    }
}

/// Says something in a new chat.
pub(crate) fn chat_with(me: &UserStore, texts: &[&str]) -> ChatId {
    let id = me.create_chat(None, None).unwrap().0.id;
    for text in texts {
        me.append_user_message(id, said(text)).unwrap();
    }
    id
}

/// Fails with the list of what does not fit together.
pub(crate) fn assert_sound(store: &Store) {
    let report = store.check().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

/// A disk in memory that outlives the store on it.
pub(crate) fn memory() -> Arc<redb::backends::InMemoryBackend> {
    Arc::new(redb::backends::InMemoryBackend::new())
}
