//! Single operations of the store, on the disk under `target`; how it does with many writers is `--bench store`'s.

use criterion::Criterion;
use mommygpt::domain::{MessageId, MessageText};
use mommygpt::store::{ChatPage, MessagePage, NewMessage, Parent, Store};

use crate::person::person;

/// A durable message, the newest page, the list of chats.
pub(crate) fn store(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder to measure in");
    let store = Store::open(dir.path()).expect("a store");
    let me = person(&store, 0).1;
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
