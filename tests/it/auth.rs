//! Accounts through `Auth` on a real store in memory: who gets in, what it costs, and what ends when.

use std::net::IpAddr;
use std::time::Duration;

use mommygpt::auth::limits::{PAIR_BURST, PAIR_REFILL};
use mommygpt::auth::{
    Auth, AuthError, AuthOptions, Authority, Clock, Cost, Device, NewAccount, SETUP_CODE_VALID, SignUp,
    SignedUp, SignupMode,
};
use mommygpt::domain::{Email, Persona, Role, Title, UserId};
use mommygpt::store::{Admission, DataKey, NewUser, PasswordRecord, RecoveryCode, Store, UserStore, WrapKey};

const PASSWORD: &str = "a quiet blue kettle";

struct House {
    auth: Auth,
    store: Store,
    clock: Clock,
}

fn house(signup: SignupMode, exposed: bool) -> House {
    let (store, clock) = (Store::in_memory().unwrap(), Clock::manual());
    let auth = Auth::new(store.clone(), AuthOptions { signup, exposed, clock: clock.clone() }).unwrap();
    House { auth, store, clock }
}

fn email(raw: &str) -> Email {
    Email::parse(raw).unwrap()
}

fn from(peer: &str) -> Device {
    Device { peer: peer.parse::<IpAddr>().unwrap(), label: "a browser".into(), replaces: None }
}

fn form(who: &str) -> SignUp {
    SignUp {
        email: email(who),
        password: PASSWORD.into(),
        full_name: "Ada".into(),
        invite: None,
        setup_code: None,
    }
}

impl House {
    async fn join(&self, who: &str) -> SignedUp {
        self.auth.sign_up(form(who), &from("192.0.2.1")).await.unwrap_or_else(|e| panic!("{who}: {e}"))
    }
    async fn sign_in(&self, who: &str, password: &str, peer: &str) -> Result<UserStore, AuthError> {
        let signed_in = self.auth.sign_in(&email(who), password.to_owned(), &from(peer)).await?;
        Ok(self.auth.authenticate(signed_in.token).await?.expect("a fresh session works"))
    }
    fn n_hashes(&self) -> u64 {
        self.auth.hasher().n_runs()
    }
}

/// A chat whose title only its owner's key can read.
fn write_something(me: &UserStore) {
    me.create_chat(None, Some(Title::cut("what the kettle said"))).unwrap();
}

fn reads_it(me: &UserStore) -> bool {
    let page = mommygpt::store::ChatPage { limit: 10, cursor: None, include_archived: true };
    me.chats(&page).unwrap().0.iter().any(|chat| chat.title.as_str() == "what the kettle said")
}

#[tokio::test]
async fn the_first_account_is_the_admin_and_addresses_are_one_whatever_their_spelling() {
    let house = house(SignupMode::Open, false);
    assert!(house.auth.setup_code().is_none());
    assert_eq!(house.join("Ada@Example.org").await.user.role, Role::Admin);
    assert_eq!(house.join("bob@example.org").await.user.role, Role::Member);
    for spelling in ["ada@example.org", " ADA@example.ORG ", "ada@example\u{ff0e}org"] {
        let again = house.auth.sign_up(form(spelling), &from("192.0.2.1")).await;
        assert!(matches!(again, Err(AuthError::EmailTaken)), "{spelling}");
    }
    assert!(house.sign_in("ADA@example.org", PASSWORD, "192.0.2.1").await.is_ok());
}

#[tokio::test]
async fn unknown_disabled_and_wrong_are_one_answer_and_each_costs_one_hash() {
    let house = house(SignupMode::Open, false);
    house.join("ada@example.org").await;
    let bob = house.join("bob@example.org").await.user.id;
    house.auth.set_disabled(Authority::console(), bob, true).await.unwrap();
    let mut answers = Vec::new();
    for (who, password) in [
        ("nobody@example.org", PASSWORD),
        ("ada@example.org", "a quiet red kettle"),
        ("ada@example.org", "short"),
        ("bob@example.org", PASSWORD),
        ("bob@example.org", "a quiet red kettle"),
    ] {
        let before = house.n_hashes();
        let Err(refusal) = house.sign_in(who, password, "192.0.2.1").await else { panic!("{who} got in") };
        assert_eq!(house.n_hashes() - before, 1, "{who} {password}");
        answers.push((refusal.code(), refusal.to_string()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");

    // Recovery and sign-up cost the same whether the account exists.
    let code = RecoveryCode::new().reveal();
    for who in ["nobody@example.org", "ada@example.org", "bob@example.org"] {
        let before = house.n_hashes();
        let device = from("192.0.2.9");
        let refusal = house.auth.recover(&email(who), &code, "another kettle".into(), &device).await;
        assert!(matches!(refusal, Err(AuthError::InvalidCredentials)), "{who}");
        assert_eq!(house.n_hashes() - before, 1, "{who}");
    }
    for who in ["ada@example.org", "eve@example.org"] {
        let before = house.n_hashes();
        let _ = house.auth.sign_up(form(who), &from("192.0.2.9")).await;
        assert_eq!(house.n_hashes() - before, 1, "{who}");
    }
}

#[tokio::test]
async fn guessing_is_slowed_before_it_is_hashed_and_nobody_is_shut_out_for_good() {
    let house = house(SignupMode::Open, false);
    house.join("ada@example.org").await;
    for _ in 0..PAIR_BURST {
        assert!(house.sign_in("ada@example.org", "wrong wrong", "192.0.2.66").await.is_err());
    }
    let before = house.n_hashes();
    for _ in 0..200 {
        let refusal = house.sign_in("ada@example.org", PASSWORD, "192.0.2.66").await.err();
        let Some(AuthError::TooManyAttempts { retry_after }) = refusal else { panic!("{refusal:?}") };
        assert!(retry_after <= PAIR_REFILL && retry_after > Duration::ZERO);
    }
    assert_eq!(house.n_hashes(), before);
    assert!(house.sign_in("ada@example.org", PASSWORD, "192.0.2.1").await.is_ok());
    house.clock.advance(PAIR_REFILL);
    assert!(house.sign_in("ada@example.org", PASSWORD, "192.0.2.66").await.is_ok());
    for _ in 0..3 * PAIR_BURST {
        assert!(house.sign_in("ada@example.org", PASSWORD, "192.0.2.66").await.is_ok());
    }
}

#[tokio::test]
async fn whoever_is_reached_from_elsewhere_gives_the_first_account_for_the_setup_code_only() {
    let house = house(SignupMode::Open, true);
    let code = house.auth.setup_code().unwrap();
    let with = |code: Option<&str>| SignUp { setup_code: code.map(str::to_owned), ..form("ada@example.org") };
    let device = from("192.0.2.1");
    let refusal = house.auth.sign_up(with(None), &device).await.err();
    assert!(matches!(refusal, Some(AuthError::SetupCodeRequired)), "{refusal:?}");
    let refusal = house.auth.sign_up(with(Some("0000-0000-0000-0000")), &device).await.err();
    assert!(matches!(refusal, Some(AuthError::SetupCodeInvalid)), "{refusal:?}");
    assert_eq!(house.n_hashes(), 0);
    let user = house.auth.sign_up(with(Some(&code.to_lowercase())), &device).await.unwrap().user;
    assert_eq!(user.role, Role::Admin);
    assert!(house.auth.setup_code().is_none());

    let late = self::house(SignupMode::Open, true);
    let code = late.auth.setup_code().unwrap();
    late.clock.advance(SETUP_CODE_VALID);
    let refusal = late.auth.sign_up(with(Some(&code)), &device).await.err();
    assert!(matches!(refusal, Some(AuthError::SetupCodeInvalid)), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_race_for_the_setup_code_and_one_is_admin() {
    let house = house(SignupMode::Invite, true);
    let code = house.auth.setup_code().unwrap();
    let racers: Vec<_> = (0..50)
        .map(|i| {
            let (auth, code) = (house.auth.clone(), code.clone());
            tokio::spawn(async move {
                let form = SignUp { setup_code: Some(code), ..form(&format!("racer{i}@example.org")) };
                auth.sign_up(form, &from("192.0.2.1")).await.map(|signed_up| signed_up.user.role)
            })
        })
        .collect();
    let mut n_admins = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(Role::Admin) => n_admins += 1,
            Err(AuthError::SetupCodeInvalid | AuthError::Overloaded { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(n_admins, 1);
    assert_eq!(house.store.n_users().unwrap(), 1);
}

#[tokio::test]
async fn an_invitation_lets_one_person_in_as_what_it_says() {
    let house = house(SignupMode::Invite, false);
    let admin = house.join("ada@example.org").await;
    let me = house.auth.authenticate(admin.token).await.unwrap().unwrap();
    let refusal = house.auth.sign_up(form("kid@example.org"), &from("192.0.2.1")).await.err();
    assert!(matches!(refusal, Some(AuthError::InviteRequired)), "{refusal:?}");
    let (_, code) = house.auth.invite(Authority::of(&me).unwrap(), Role::Child).await.unwrap();
    let invited = |who: &str| SignUp { invite: Some(code.reveal()), ..form(who) };
    let kid = house.auth.sign_up(invited("kid@example.org"), &from("192.0.2.1")).await.unwrap();
    assert_eq!(kid.user.role, Role::Child);
    let refusal = house.auth.sign_up(invited("two@example.org"), &from("192.0.2.1")).await.err();
    assert!(matches!(refusal, Some(AuthError::InviteInvalid)), "{refusal:?}");
    let kid = house.auth.authenticate(kid.token).await.unwrap().unwrap();
    assert!(matches!(Authority::of(&kid), Err(AuthError::Forbidden)));
}

#[tokio::test]
async fn closed_means_that_only_the_admin_makes_accounts() {
    let house = house(SignupMode::Closed, false);
    house.join("ada@example.org").await;
    let refusal = house.auth.sign_up(form("bob@example.org"), &from("192.0.2.1")).await.err();
    assert!(matches!(refusal, Some(AuthError::SignupClosed)), "{refusal:?}");
    let new = NewAccount {
        email: email("bob@example.org"),
        password: PASSWORD.into(),
        full_name: String::new(),
        role: Role::Member,
    };
    house.auth.create_account(Authority::console(), new).await.unwrap();
    assert!(house.sign_in("bob@example.org", PASSWORD, "192.0.2.1").await.is_ok());
}

#[tokio::test]
async fn every_sign_in_is_a_new_session_and_takes_the_place_of_the_devices_old_one() {
    let house = house(SignupMode::Open, false);
    let first = house.join("ada@example.org").await.token;
    let other = house.auth.sign_in(&email("ada@example.org"), PASSWORD.into(), &from("192.0.2.2")).await;
    let other = other.unwrap().token;
    let device = Device { replaces: Some(first.clone()), ..from("192.0.2.1") };
    let second = house.auth.sign_in(&email("ada@example.org"), PASSWORD.into(), &device).await.unwrap().token;
    assert_ne!(first.reveal(), second.reveal());
    assert!(house.auth.authenticate(first).await.unwrap().is_none());
    assert!(house.auth.authenticate(other.clone()).await.unwrap().is_some());
    let me = house.auth.authenticate(second.clone()).await.unwrap().unwrap();
    assert_eq!(house.auth.sessions(&me).await.unwrap().len(), 2);
    house.auth.sign_out(&me).await.unwrap();
    assert!(house.auth.authenticate(second).await.unwrap().is_none());
    assert!(house.auth.authenticate(other).await.unwrap().is_some());
}

#[tokio::test]
async fn a_new_password_ends_every_other_session_and_keeps_the_chats() {
    let house = house(SignupMode::Open, false);
    let signed_up = house.join("ada@example.org").await;
    let (old, peer) = (signed_up.token, "192.0.2.1".parse().unwrap());
    let me = house.sign_in("ada@example.org", PASSWORD, "192.0.2.1").await.unwrap();
    write_something(&me);
    let new = "a loud green kettle";
    let wrong = house.auth.change_password(&me, "not it at all".into(), new.into(), peer).await;
    assert!(matches!(wrong, Err(AuthError::InvalidCredentials)));
    let weak = house.auth.change_password(&me, PASSWORD.into(), "12345678".into(), peer).await;
    assert!(matches!(weak, Err(AuthError::Invalid(_))));
    assert!(house.auth.authenticate(old.clone()).await.unwrap().is_some());
    house.auth.change_password(&me, PASSWORD.into(), new.into(), peer).await.unwrap();
    assert!(house.auth.authenticate(old).await.unwrap().is_none());
    assert_eq!(house.auth.sessions(&me).await.unwrap().len(), 1);
    assert!(house.sign_in("ada@example.org", PASSWORD, "192.0.2.1").await.is_err());
    assert!(reads_it(&house.sign_in("ada@example.org", new, "192.0.2.1").await.unwrap()));
}

#[tokio::test]
async fn the_recovery_code_brings_the_chats_back_once() {
    let house = house(SignupMode::Open, false);
    let signed_up = house.join("ada@example.org").await;
    let me = house.auth.authenticate(signed_up.token.clone()).await.unwrap().unwrap();
    write_something(&me);
    let (who, code) = (email("ada@example.org"), signed_up.recovery_code.reveal());
    let new = "a forgotten kettle";
    // As somebody types it from paper.
    let typed = code.to_lowercase().replace('-', " ");
    let back = house.auth.recover(&who, &typed, new.into(), &from("192.0.2.1")).await.unwrap();
    assert!(house.auth.authenticate(signed_up.token).await.unwrap().is_none());
    assert!(reads_it(&house.auth.authenticate(back.token).await.unwrap().unwrap()));
    assert!(reads_it(&house.sign_in("ada@example.org", new, "192.0.2.1").await.unwrap()));
    let again = house.auth.recover(&who, &code, "yet another one".into(), &from("192.0.2.1")).await;
    assert!(matches!(again, Err(AuthError::InvalidCredentials)));
    let second = back.recovery_code.reveal();
    assert!(house.auth.recover(&who, &second, "yet another one".into(), &from("192.0.2.1")).await.is_ok());
}

#[tokio::test]
async fn an_admin_resets_a_password_and_only_the_code_keeps_the_chats() {
    let house = house(SignupMode::Open, false);
    let signed_up = house.join("ada@example.org").await;
    let id = signed_up.user.id;
    write_something(&house.auth.authenticate(signed_up.token.clone()).await.unwrap().unwrap());
    let console = Authority::console();
    let wrong = house.auth.reset_password(console, id, "kettle two".into(), Some(RecoveryCode::new())).await;
    assert!(matches!(wrong, Err(AuthError::InvalidCredentials)));
    assert!(house.auth.authenticate(signed_up.token.clone()).await.unwrap().is_some());
    let right = Some(signed_up.recovery_code);
    house.auth.reset_password(console, id, "kettle two".into(), right).await.unwrap();
    assert!(house.auth.authenticate(signed_up.token).await.unwrap().is_none());
    assert!(reads_it(&house.sign_in("ada@example.org", "kettle two", "192.0.2.1").await.unwrap()));
    house.auth.reset_password(console, id, "kettle three".into(), None).await.unwrap();
    let me = house.sign_in("ada@example.org", "kettle three", "192.0.2.1").await.unwrap();
    assert!(!reads_it(&me));
    write_something(&me);
    assert!(reads_it(&me));
}

#[tokio::test]
async fn the_last_admin_stays_and_what_changes_about_somebody_ends_their_sessions() {
    let house = house(SignupMode::Open, false);
    let ada = house.join("ada@example.org").await.user.id;
    let bob = house.join("bob@example.org").await;
    let console = Authority::console();
    assert!(matches!(house.auth.set_role(console, ada, Role::Member).await, Err(AuthError::LastAdmin)));
    assert!(matches!(house.auth.set_disabled(console, ada, true).await, Err(AuthError::LastAdmin)));
    assert!(matches!(house.auth.delete_account(console, ada).await, Err(AuthError::LastAdmin)));
    house.auth.set_role(console, bob.user.id, Role::Admin).await.unwrap();
    assert!(house.auth.authenticate(bob.token).await.unwrap().is_none());
    house.auth.delete_account(console, ada).await.unwrap();
    assert!(house.sign_in("ada@example.org", PASSWORD, "192.0.2.1").await.is_err());
    let gone = house.auth.set_role(console, ada, Role::Admin).await;
    assert!(matches!(gone, Err(AuthError::NotFound)));
}

#[tokio::test]
async fn an_api_key_is_its_owner_but_manages_nothing() {
    let house = house(SignupMode::Open, false);
    house.join("ada@example.org").await;
    let me = house.sign_in("ada@example.org", PASSWORD, "192.0.2.1").await.unwrap();
    write_something(&me);
    let (info, key) = house.auth.create_api_key(&me, "my script").await.unwrap();
    let program = house.auth.authenticate_key(key.clone()).await.unwrap().unwrap();
    assert_eq!(program.user_id(), me.user_id());
    assert!(reads_it(&program));
    let peer = "192.0.2.1".parse().unwrap();
    assert!(matches!(house.auth.create_api_key(&program, "another").await, Err(AuthError::Forbidden)));
    assert!(matches!(house.auth.sessions(&program).await, Err(AuthError::Forbidden)));
    assert!(matches!(Authority::of(&program), Err(AuthError::Forbidden)));
    let change = house.auth.change_password(&program, PASSWORD.into(), "kettle two".into(), peer).await;
    assert!(matches!(change, Err(AuthError::Forbidden)));
    for name in ["", "  ", &"x".repeat(101)] {
        assert!(matches!(house.auth.create_api_key(&me, name).await, Err(AuthError::Invalid(_))), "{name}");
    }
    house.auth.delete_api_key(&me, info.id).await.unwrap();
    assert!(house.auth.authenticate_key(key).await.unwrap().is_none());
}

/// An account whose stored password record is as given; what a restored database may hold.
fn plant(store: &Store, who: &str, cost: Cost, verifier: [u8; 32], wrap_key: &WrapKey) -> UserId {
    let new = NewUser {
        email: email(who),
        full_name: String::new(),
        persona: Persona::Mom,
        admission: Admission::Granted(Role::Member),
        password: PasswordRecord {
            m_cost: cost.m_kib,
            t_cost: cost.t,
            p_cost: cost.p,
            salt: [3; 16],
            verifier,
        },
        wrap_key,
        recovery: &RecoveryCode::new(),
        data_key: &DataKey::new(),
    };
    store.create_user(new).unwrap().id
}

#[tokio::test]
async fn a_stored_record_that_asks_for_gigabytes_is_refused_and_the_process_lives() {
    let house = house(SignupMode::Open, false);
    for (i, cost) in [
        Cost { m_kib: 4 << 20, t: 2, p: 1 },
        Cost { m_kib: 19_456, t: 1_000, p: 1 },
        Cost { m_kib: 0, t: 0, p: 0 },
        Cost { m_kib: u32::MAX, t: u32::MAX, p: u32::MAX },
    ]
    .into_iter()
    .enumerate()
    {
        let who = format!("hostile{i}@example.org");
        plant(&house.store, &who, cost, [0; 32], &WrapKey::from_bytes([0; 32]));
        let before = house.n_hashes();
        let refusal = house.sign_in(&who, PASSWORD, "192.0.2.1").await.err();
        assert!(matches!(refusal, Some(AuthError::InvalidCredentials)), "{cost:?}: {refusal:?}");
        assert_eq!(house.n_hashes() - before, 1);
    }
}

#[tokio::test]
async fn an_older_hash_is_made_anew_at_the_next_sign_in() {
    let house = house(SignupMode::Open, false);
    let old = Cost { m_kib: 64, t: 1, p: 1 };
    let password = mommygpt::auth::Password::to_try(PASSWORD.into()).unwrap();
    let derived = mommygpt::auth::Hasher::new().derive(password, [3; 16], old).await.unwrap();
    let wrap_key = WrapKey::from_bytes(*derived.wrapping_key);
    let id = plant(&house.store, "ada@example.org", old, *derived.verifier, &wrap_key);
    write_something(&house.sign_in("ada@example.org", PASSWORD, "192.0.2.1").await.unwrap());
    let record = house.store.credentials(id).unwrap().unwrap().password;
    assert_eq!((record.m_cost, record.t_cost), (Cost::CURRENT.m_kib, Cost::CURRENT.t));
    assert!(reads_it(&house.sign_in("ada@example.org", PASSWORD, "192.0.2.1").await.unwrap()));
}
