//! An account to measure with, made as quickly as the store makes one.

use mommygpt::domain::{Email, Persona};
use mommygpt::store::{
    Admission, DataKey, NewUser, PasswordRecord, RecoveryCode, SessionToken, Store, UserStore, WrapKey,
};

/// The `n`th person, signed in.
pub(crate) fn person(store: &Store, n: usize) -> (SessionToken, UserStore) {
    let (data_key, token) = (DataKey::new(), SessionToken::new());
    let user = store
        .create_user(NewUser {
            email: Email::parse(&format!("p{n}@example.org")).expect("an address"),
            full_name: String::new(),
            persona: Persona::Mom,
            admission: Admission::Open,
            password: PasswordRecord { m_cost: 8, t_cost: 1, p_cost: 1, salt: [0; 16], verifier: [0; 32] },
            wrap_key: &WrapKey::new(),
            recovery: &RecoveryCode::new(),
            data_key: &data_key,
        })
        .expect("an account");
    store.create_session(user.id, &data_key, &token, "bench").expect("a session");
    let me = store.as_user(&token).expect("a read").expect("a live session");
    (token, me)
}
