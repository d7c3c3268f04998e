//! What the store promises to the rooms above: accounts, sessions, chats, isolation, deletion, transfer.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use mommygpt::domain::{ChatId, Email, FinishReason, MessageId, Role, Title};
use mommygpt::store::{
    Admission, ApiKey, ChatPage, ChatPatch, DataKey, ExportItem, ImportChat, ImportMessage, ImportTree,
    InviteCode, MessagePage, NewMessage, Parent, RecoveryCode, ReplyEnd, SessionToken, Store, StoreError,
    UserStore, WrapKey,
};

use crate::store_people::{Person, admit, assert_sound, chat_with, memory, person, record, said};

fn all_chats(limit: usize) -> ChatPage {
    ChatPage { limit, cursor: None, include_archived: true }
}

fn ended(content: &str) -> ReplyEnd {
    ReplyEnd {
        content: content.to_owned(),
        finish_reason: FinishReason::Stop,
        timings: None,
        safety: None,
        source: None,
        truncated: false,
    }
}

#[test]
fn fifty_sign_ups_at_once_make_exactly_one_admin_and_one_account_per_address() {
    let store = Store::in_memory().unwrap();
    let made: Vec<Result<Person, StoreError>> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..50)
            .map(|n| {
                let store = store.clone();
                s.spawn(move || admit(&store, &format!("p{}", n % 25), Admission::Open))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let admins = made.iter().flatten().filter(|p| p.user.role == Role::Admin).count();
    assert_eq!((admins, made.iter().flatten().count()), (1, 25));
    let refused = made.iter().filter(|r| matches!(r, Err(StoreError::Conflict("email_taken")))).count();
    assert_eq!(refused, 25);
    assert_sound(&store);
}

#[test]
fn fifty_setups_at_once_make_one_admin_and_refuse_the_rest() {
    let store = Store::in_memory().unwrap();
    let n_made = std::thread::scope(|s| {
        let threads: Vec<_> = (0..50)
            .map(|n| {
                let store = store.clone();
                s.spawn(move || admit(&store, &format!("p{n}"), Admission::Setup).is_ok())
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).filter(|made| *made).count()
    });
    assert_eq!(n_made, 1);
    assert_eq!(store.n_users().unwrap(), 1);
}

#[test]
fn an_invitation_lets_one_person_in_with_its_role() {
    let store = Store::in_memory().unwrap();
    let admin = person(&store, "admin");
    let code = InviteCode::new();
    store.create_invite(&code, Role::Child, Some(admin.user.id)).unwrap();
    let again = || Admission::Invite(InviteCode::parse(&code.reveal()).unwrap());
    assert!(matches!(
        admit(&store, "x", Admission::Invite(InviteCode::new())),
        Err(StoreError::Conflict("invite_invalid"))
    ));
    assert!(matches!(admit(&store, "admin", again()), Err(StoreError::Conflict("email_taken"))));
    assert_eq!(admit(&store, "kid", again()).unwrap().user.role, Role::Child);
    assert!(matches!(admit(&store, "kid2", again()), Err(StoreError::Conflict("invite_invalid"))));
    assert!(store.invites().unwrap().is_empty());
}

#[test]
fn what_one_person_holds_looks_to_another_like_nothing() {
    let store = Store::in_memory().unwrap();
    let (a, b) = (person(&store, "a"), person(&store, "b"));
    let (a, b) = (a.at(&store), b.at(&store));
    let chat = chat_with(&a, &["my secret"]);
    let message = a.newest_message(chat).unwrap().unwrap().id;
    let memory = a.add_memory("likes tea", None).unwrap().id;
    let not_found = [
        b.chat(chat).err(),
        b.update_chat(chat, ChatPatch::default()).err(),
        b.delete_chat(chat).err(),
        b.messages(chat, &MessagePage { limit: 5, before: None }).err(),
        b.message(chat, message).err(),
        b.path(chat, message, 5).err(),
        b.append_user_message(chat, said("hi")).err(),
        b.begin_reply(chat, MessageId::new(), message).err(),
        b.checkpoint_reply(chat, message, "x").err(),
        b.finish_reply(chat, message, ended("x")).err(),
        b.update_memory(memory, "x").err(),
        b.delete_memory(memory).err(),
    ];
    assert!(not_found.iter().all(|e| *e == Some(StoreError::NotFound)), "{not_found:?}");
    assert!(b.search("secret", 10).unwrap().is_empty());
    assert!(b.chats(&all_chats(10)).unwrap().0.is_empty());
    // The same ids are free for b: ids are per person, and a's rows do not move.
    let mine = chat_with(&b, &["hello"]);
    let foreign_parent = NewMessage { parent: Parent::Of(message), ..said("x") };
    assert_eq!(b.append_user_message(mine, foreign_parent).err(), Some(StoreError::NotFound));
    assert!(b.create_chat(Some(chat), None).unwrap().1);
    assert_eq!(a.message(chat, message).unwrap().content, "my secret");
    assert_sound(&store);
}

#[test]
fn a_retry_stores_a_message_once_and_another_text_under_its_id_is_refused() {
    let store = Store::in_memory().unwrap();
    let me = person(&store, "a").at(&store);
    let chat = me.create_chat(None, None).unwrap().0;
    assert_eq!(chat.title, Title::untitled());
    let first = said("I had a bad day");
    let stored = me.append_user_message(chat.id, first.clone()).unwrap();
    assert!(stored.created);
    assert_eq!(stored.chat.title.as_str(), "I had a bad day");
    let reply = me.begin_reply(chat.id, MessageId::new(), first.id).unwrap();
    me.finish_reply(chat.id, reply.id, ended("Tell me.")).unwrap();
    let again = me.append_user_message(chat.id, first.clone()).unwrap();
    assert!(!again.created);
    assert_eq!(again.message, stored.message);
    let other = NewMessage { content: said("another").content, ..first.clone() };
    assert_eq!(me.append_user_message(chat.id, other).err(), Some(StoreError::Conflict("id_taken")));
    let elsewhere = chat_with(&me, &[]);
    assert_eq!(me.append_user_message(elsewhere, first).err(), Some(StoreError::Conflict("id_taken")));
    assert_eq!(me.messages(chat.id, &MessagePage { limit: 9, before: None }).unwrap().0.len(), 2);
    assert_sound(&store);
}

#[test]
fn an_edit_is_a_sibling_and_the_path_follows_the_parents() {
    let store = Store::in_memory().unwrap();
    let me = person(&store, "a").at(&store);
    let chat = chat_with(&me, &["one"]);
    let one = me.newest_message(chat).unwrap().unwrap();
    let reply = me.begin_reply(chat, MessageId::new(), one.id).unwrap();
    me.finish_reply(chat, reply.id, ended("first answer")).unwrap();
    let other = me.begin_reply(chat, MessageId::new(), one.id).unwrap();
    me.finish_reply(chat, other.id, ended("second answer")).unwrap();
    let edited =
        me.append_user_message(chat, NewMessage { parent: Parent::Root, ..said("uno") }).unwrap().message;
    assert_eq!(edited.parent_id, None);
    let two = NewMessage { parent: Parent::Of(reply.id), ..said("two") };
    let two = me.append_user_message(chat, two).unwrap().message;
    let path: Vec<String> = me.path(chat, two.id, 99).unwrap().into_iter().map(|m| m.content).collect();
    assert_eq!(path, ["one", "first answer", "two"]);
    assert_eq!(me.path(chat, two.id, 2).unwrap().len(), 2);
    assert_eq!(me.path(chat, edited.id, 99).unwrap().len(), 1);
}

#[test]
fn a_reply_in_progress_survives_a_crash_with_its_last_checkpoint() {
    let disk = memory();
    let store = Store::open_on(disk.clone()).unwrap();
    let someone = person(&store, "a");
    let me = someone.at(&store);
    let chat = chat_with(&me, &["hello"]);
    let parent = me.newest_message(chat).unwrap().unwrap().id;
    let (reply, silent) = (MessageId::new(), MessageId::new());
    me.begin_reply(chat, reply, parent).unwrap();
    me.checkpoint_reply(chat, reply, "My dear, I").unwrap();
    me.begin_reply(chat, silent, parent).unwrap();
    // What lies on the disk at this moment is what a kill leaves.
    let left = memory();
    copy(&*disk, &*left);
    let store = Store::open_on(left).unwrap();
    let me = someone.at(&store);
    let ended_reply = me.message(chat, reply).unwrap();
    assert_eq!(
        (ended_reply.content.as_str(), ended_reply.finish_reason),
        ("My dear, I", Some(FinishReason::Error))
    );
    let empty = me.message(chat, silent).unwrap();
    assert_eq!((empty.content.as_str(), empty.finish_reason), ("", Some(FinishReason::Error)));
    assert_eq!(me.finish_reply(chat, reply, ended("late")).err(), Some(StoreError::Conflict("reply_ended")));
    assert_sound(&store);
}

fn copy(from: &impl redb::StorageBackend, to: &impl redb::StorageBackend) {
    let mut bytes = vec![0; from.len().unwrap() as usize];
    from.read(0, &mut bytes).unwrap();
    to.set_len(bytes.len() as u64).unwrap();
    to.write(0, &bytes).unwrap();
}

#[test]
fn lists_are_cut_into_pages_without_gaps_or_repeats() {
    let store = Store::in_memory().unwrap();
    let me = person(&store, "a").at(&store);
    let chats: Vec<ChatId> = (0..23).map(|n| chat_with(&me, &[&format!("chat {n}")])).collect();
    me.update_chat(chats[5], ChatPatch { archived: Some(true), ..ChatPatch::default() }).unwrap();
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = ChatPage { limit: 5, cursor, include_archived: false };
        let (page, next) = me.chats(&page).unwrap();
        seen.extend(page.iter().map(|c| c.id));
        cursor = next;
        if cursor.is_none() {
            break;
        }
        cursor = Some(cursor.unwrap().to_string().parse().unwrap());
    }
    let expected: Vec<ChatId> = chats.iter().rev().filter(|c| **c != chats[5]).copied().collect();
    assert_eq!(seen, expected);
    for n in 0..17 {
        me.append_user_message(chats[0], said(&n.to_string())).unwrap();
    }
    let (page, next) = me.messages(chats[0], &MessagePage { limit: 10, before: None }).unwrap();
    assert_eq!(page.last().unwrap().content, "16");
    let (older, next) = me.messages(chats[0], &MessagePage { limit: 10, before: next }).unwrap();
    assert_eq!((older.len(), older[0].content.as_str(), next), (8, "chat 0", None));
    assert_eq!(me.chats(&all_chats(1)).unwrap().0[0].id, chats[0], "a message moves its chat to the top");
}

#[test]
fn a_session_ends_at_once_for_every_reason_and_watchers_hear_of_it() {
    let store = Store::in_memory().unwrap();
    let (admin, a) = (person(&store, "admin"), person(&store, "a"));
    let id = a.user.id;
    let sign_in = || {
        let token = SessionToken::new();
        store.create_session(id, &a.data_key, &token, "phone").unwrap();
        token
    };
    let mut watch = store.session_watch();
    let is_dead = |token: &SessionToken| store.as_user(token).unwrap().is_none();

    let (keep, gone) = (sign_in(), sign_in());
    let kept = store.as_user(&keep).unwrap().unwrap().session_id();
    store.set_password(id, record(), &a.wrap_key, None, &a.data_key, kept).unwrap();
    assert!(is_dead(&gone) && !is_dead(&keep));
    assert_eq!(watch.try_recv().unwrap().user, id);
    store.set_role(id, Role::Child).unwrap();
    assert!(is_dead(&keep));
    let key = ApiKey::new();
    store.create_api_key(id, &a.data_key, &key, "laptop").unwrap();
    let token = sign_in();
    store.set_disabled(id, true).unwrap();
    assert!(is_dead(&token) && store.as_user_by_key(&key).unwrap().is_none());
    assert_eq!(
        store.create_session(id, &a.data_key, &SessionToken::new(), "x").err(),
        Some(StoreError::NotFound)
    );
    store.set_disabled(id, false).unwrap();
    assert!(is_dead(&token), "an account that comes back does not bring its sessions");
    assert!(store.as_user_by_key(&key).unwrap().is_some());
    assert!(store.api_keys(id).unwrap()[0].usable);
    let token = sign_in();
    store.delete_user(id).unwrap();
    assert!(is_dead(&token) && store.as_user_by_key(&key).unwrap().is_none());
    let last = admin.user.id;
    assert_eq!(store.set_role(last, Role::Member).err(), Some(StoreError::Conflict("last_admin")));
    assert_sound(&store);
}

#[test]
fn sessions_per_person_are_bounded_and_the_oldest_makes_room() {
    let store = Store::in_memory().unwrap();
    let a = person(&store, "a");
    for _ in 0..60 {
        store.create_session(a.user.id, &a.data_key, &SessionToken::new(), &"x".repeat(1000)).unwrap();
    }
    let sessions = store.sessions(a.user.id).unwrap();
    assert_eq!(sessions.len(), 50);
    assert!(sessions.iter().all(|s| s.label.len() == 200));
    assert!(store.as_user(&a.token).unwrap().is_none());
}

#[test]
fn the_data_key_opens_by_password_and_by_recovery_code_and_by_nothing_else() {
    let store = Store::in_memory().unwrap();
    let a = person(&store, "a");
    chat_with(&a.at(&store), &["keep me"]);
    let id = a.user.id;
    let by_password = store.unlock_with_password(id, &a.wrap_key).unwrap();
    let by_recovery = store.unlock_with_recovery(id, &a.recovery).unwrap();
    for key in [by_password, by_recovery] {
        let token = SessionToken::new();
        store.create_session(id, &key, &token, "x").unwrap();
        let me = store.as_user(&token).unwrap().unwrap();
        assert_eq!(me.search("keep", 5).unwrap().len(), 2, "in the title and in the message");
    }
    assert!(matches!(store.unlock_with_password(id, &WrapKey::new()), Err(StoreError::Locked)));
    assert!(matches!(store.unlock_with_recovery(id, &RecoveryCode::new()), Err(StoreError::Locked)));
    let (new_pass, new_code) = (WrapKey::new(), RecoveryCode::new());
    store.set_password(id, record(), &new_pass, Some(&new_code), &a.data_key, None).unwrap();
    assert!(matches!(store.unlock_with_password(id, &a.wrap_key), Err(StoreError::Locked)));
    assert!(matches!(store.unlock_with_recovery(id, &a.recovery), Err(StoreError::Locked)));
    assert!(store.unlock_with_recovery(id, &new_code).is_ok());
}

#[test]
fn a_reset_without_the_key_deletes_what_it_locked_and_the_account_goes_on() {
    let store = Store::in_memory().unwrap();
    let a = person(&store, "a");
    let me = a.at(&store);
    chat_with(&me, &["old words"]);
    me.add_memory("old fact", None).unwrap();
    let (fresh, pass, code, token) =
        (DataKey::new(), WrapKey::new(), RecoveryCode::new(), SessionToken::new());
    store.reset_password(a.user.id, record(), &pass, &code, &fresh).unwrap();
    assert!(store.as_user(&a.token).unwrap().is_none());
    store.create_session(a.user.id, &fresh, &token, "x").unwrap();
    let me = store.as_user(&token).unwrap().unwrap();
    assert!(me.chats(&all_chats(9)).unwrap().0.is_empty() && me.memories().unwrap().is_empty());
    chat_with(&me, &["new words"]);
    assert_eq!(me.search("words", 9).unwrap().len(), 2);
    until(|| store.check().unwrap().n_messages == 1);
    assert_sound(&store);
}

/// Polls for what the writer does in the background.
fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "not done in 20 s");
        std::thread::yield_now();
    }
}

fn long_chat(me: &UserStore, n: usize) -> ImportChat {
    let now = me.user().unwrap().created_at;
    let message = |n: usize| ImportMessage {
        id: None,
        parent: n.checked_sub(1),
        content: format!("message {n}"),
        is_user: n.is_multiple_of(2),
        created_at: now,
        finish_reason: None,
    };
    ImportChat {
        id: None,
        title: Title::cut("long"),
        created_at: now,
        updated_at: now,
        pinned: false,
        archived: false,
        messages: (0..n).map(message).collect(),
    }
}

#[test]
fn a_long_chat_and_a_full_account_are_gone_at_once_and_cleared_in_the_background() {
    let store = Store::in_memory().unwrap();
    let (a, b) = (person(&store, "a"), person(&store, "b"));
    let (me, other) = (a.at(&store), b.at(&store));
    chat_with(&other, &["stays"]);
    let chats = (0..3).map(|_| long_chat(&me, 5000)).collect();
    me.import(ImportTree { chats, memories: vec!["fact".into()] }).unwrap();
    let ids: Vec<ChatId> = me.chats(&all_chats(9)).unwrap().0.iter().map(|c| c.id).collect();
    me.delete_chat(ids[0]).unwrap();
    assert_eq!(me.chat(ids[0]).err(), Some(StoreError::NotFound));
    assert_eq!(me.delete_chat(ids[0]).err(), Some(StoreError::NotFound));
    assert_sound(&store);
    let bob = store.user_by_email(&Email::parse("b@example.org").unwrap()).unwrap().unwrap();
    store.set_role(bob.id, Role::Admin).unwrap();
    store.delete_user(a.user.id).unwrap();
    assert_eq!(me.chat(ids[1]).err(), Some(StoreError::NotFound));
    assert_eq!(me.create_chat(None, None).err(), Some(StoreError::NotFound));
    assert_sound(&store);
    until(|| {
        let me_gone = me.messages(ids[1], &MessagePage { limit: 1, before: None });
        me_gone.is_err() && store.check().unwrap().n_messages == 1
    });
}

#[test]
fn an_export_comes_back_by_import_as_the_same_tree() {
    let store = Store::in_memory().unwrap();
    let (a, b) = (person(&store, "a"), person(&store, "b"));
    let (a, b) = (a.at(&store), b.at(&store));
    let chat = chat_with(&a, &["one", "two"]);
    let one = a.messages(chat, &MessagePage { limit: 9, before: None }).unwrap().0.remove(0);
    a.append_user_message(chat, NewMessage { parent: Parent::Of(one.id), ..said("zwei") }).unwrap();
    a.add_memory("likes tea", Some((chat, one.id))).unwrap();
    let items: Vec<ExportItem> = a.export().unwrap().collect::<Result<_, _>>().unwrap();
    let mut tree = ImportTree::default();
    let mut places = Vec::new();
    for item in items {
        match item {
            ExportItem::User(u) => assert_eq!(u.id, a.user_id()),
            ExportItem::Memory(m) => tree.memories.push(m.content),
            ExportItem::Chat(c) => tree.chats.push(ImportChat {
                id: Some(c.id),
                title: c.title,
                created_at: c.created_at,
                updated_at: c.updated_at,
                pinned: c.pinned,
                archived: c.archived,
                messages: Vec::new(),
            }),
            ExportItem::Message(m) => {
                let parent = m.parent_id.map(|p| places.iter().position(|q| *q == p).unwrap());
                places.push(m.id);
                tree.chats.last_mut().unwrap().messages.push(ImportMessage {
                    id: Some(m.id),
                    parent,
                    content: m.content,
                    is_user: m.is_user,
                    created_at: m.created_at,
                    finish_reason: m.finish_reason,
                });
            }
        }
    }
    let again = a.import(ImportTree { memories: vec![], ..tree.clone() }).unwrap();
    assert_eq!((again.n_chats, again.n_skipped), (0, 1), "what is here already stays as it is");
    let fresh = b.import(tree.clone()).unwrap();
    assert_eq!((fresh.n_chats, fresh.n_messages, fresh.n_memories), (1, 3, 1));
    let page = MessagePage { limit: 9, before: None };
    let shape = |me: &UserStore| -> Vec<_> {
        let all = me.messages(chat, &page).unwrap().0;
        all.into_iter().map(|m| (m.id, m.parent_id, m.content, m.is_user, m.created_at)).collect()
    };
    assert_eq!(shape(&a), shape(&b));
    // The same messages under another chat: every id is taken, so all are fresh, and the tree keeps its form.
    tree.chats[0].id = None;
    b.import(tree).unwrap();
    assert_eq!(b.chats(&all_chats(9)).unwrap().0.len(), 2);
    assert_sound(&store);
}

#[test]
fn an_import_past_a_limit_brings_in_nothing() {
    let store = Store::in_memory().unwrap();
    let me = person(&store, "a").at(&store);
    let mut orphan = long_chat(&me, 2);
    orphan.messages[0].parent = Some(1);
    let mut huge = long_chat(&me, 1);
    huge.messages[0].content = "x".repeat((1 << 20) + 1);
    let facts = ImportTree { chats: vec![long_chat(&me, 1)], memories: vec!["f".into(); 501] };
    let bad = [
        ImportTree { chats: vec![long_chat(&me, 1), orphan], memories: vec![] },
        ImportTree { chats: vec![long_chat(&me, 1), huge], memories: vec![] },
        facts,
    ];
    for tree in bad {
        assert!(matches!(me.import(tree), Err(StoreError::Invalid(_))));
    }
    assert!(me.chats(&all_chats(9)).unwrap().0.is_empty());
    assert_sound(&store);
}

#[test]
fn nothing_that_was_said_stands_on_the_disk_in_clear() {
    let disk = memory();
    let store = Store::open_on(disk.clone()).unwrap();
    let a = person(&store, "a");
    let me = a.at(&store);
    let chat = chat_with(&me, &["my-canary-message"]);
    me.update_chat(chat, ChatPatch { title: Some(Title::cut("my-canary-title")), ..ChatPatch::default() })
        .unwrap();
    me.add_memory("my-canary-fact", None).unwrap();
    let parent = me.newest_message(chat).unwrap().unwrap().id;
    let reply = me.begin_reply(chat, MessageId::new(), parent).unwrap().id;
    me.checkpoint_reply(chat, reply, "my-canary-draft").unwrap();
    let end = ReplyEnd { safety: Some("my-canary-kind".into()), ..ended("my-canary-reply") };
    me.finish_reply(chat, reply, end).unwrap();
    assert_eq!(me.message(chat, reply).unwrap().safety.as_deref(), Some("my-canary-kind"));
    store.close().unwrap();
    let mut bytes = vec![0; redb::StorageBackend::len(&*disk).unwrap() as usize];
    redb::StorageBackend::read(&*disk, 0, &mut bytes).unwrap();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    assert!(!holds(b"my-canary"));
    assert!(!holds(a.token.reveal().as_bytes()));
    assert!(holds(b"a@example.org"), "the search itself works");
}

#[test]
fn concurrent_writers_share_commits_and_none_is_lost() {
    let store = Store::in_memory().unwrap();
    let me = person(&store, "a").at(&store);
    let chats: Vec<ChatId> = (0..16).map(|_| chat_with(&me, &[])).collect();
    std::thread::scope(|s| {
        for chat in &chats {
            let me = me.clone();
            s.spawn(move || {
                (0..50).for_each(|n| drop(me.append_user_message(*chat, said(&n.to_string())).unwrap()));
            });
        }
    });
    let mut ids = HashSet::new();
    for chat in chats {
        let (page, _) = me.messages(chat, &MessagePage { limit: 200, before: None }).unwrap();
        let texts: Vec<String> = page.iter().map(|m| m.content.clone()).collect();
        assert_eq!(texts, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
        ids.extend(page.iter().map(|m| m.id));
    }
    assert_eq!(ids.len(), 800);
    assert_sound(&store);
}
