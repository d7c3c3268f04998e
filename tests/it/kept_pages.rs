//! A chat of yesterday goes on at once: what the built-in model made of it is on disk when the server starts again.

use std::path::Path;

use mommygpt::chat::safety::Cards;
use mommygpt::chat::{ChatOptions, ChatService};
use mommygpt::domain::{ChatId, Message};
use mommygpt::engine::{Engine, EngineOptions, Limits, ModelSource, SamplingParams};
use mommygpt::model::{Device, KvType, LoadOptions};
use mommygpt::store::{KvForm, Store, UserStore};

use crate::chat_house::{all, done, new, soon};
use crate::scripted_model::{PATIENCE, builtin_path};
use crate::store_people::person;

const TALK: [&str; 3] = [
    "I had a really bad day at school, the others laughed at my drawing of a horse.",
    "It was the one with the blue mane that I made for my grandmother's birthday.",
    "Maybe I could give it to her anyway, she likes horses more than anything.",
];
const LATER: &str = "She hung it on the wall of her kitchen!";

struct House {
    store: Store,
    engine: Engine,
    chat: ChatService,
}

async fn open(dir: &Path, kept_bytes: u64, kv: KvType) -> House {
    let store = Store::open(dir).unwrap();
    store.keep_kv(kept_bytes).unwrap();
    let load =
        LoadOptions { n_threads: 1, device: Device::Cpu, max_sequences: 2, kv, ..LoadOptions::default() };
    let gguf = ModelSource::File(builtin_path());
    let limits = Limits { speculative: false, ..Limits::FAMILY };
    let engine = Engine::start(EngineOptions { gguf, load, limits });
    engine.ready().await.unwrap();
    let options = ChatOptions {
        sampling: Some(SamplingParams::greedy()),
        max_reply_tokens: Some(20),
        cards: Cards::built_in(),
        take_over_written: false,
    };
    let chat = ChatService::new(store.clone(), engine.clone(), options);
    House { store, engine, chat }
}

impl House {
    async fn say(&self, me: &UserStore, chat: ChatId, text: &str) -> Message {
        done(&all(self.chat.send(me, chat, new(text)).await.unwrap()).await)
    }
    fn form(&self) -> KvForm {
        let form = self.engine.kv_form().unwrap();
        KvForm { page_len: form.page_len, page_bytes: form.page_bytes, fingerprint: form.fingerprint }
    }
    async fn close(self) {
        self.chat.shutdown().await;
        self.engine.shutdown();
        self.store.close().unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_goes_on_after_a_restart_without_being_read_again() {
    const ROOM: u64 = 64 << 20;
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let house = open(dir.path(), ROOM, KvType::I16).await;
    let ada = person(&house.store, "ada");
    let me = ada.at(&house.store);
    let chat = me.create_chat(None, None).unwrap().0.id;
    let mut n_tokens = 0;
    for text in TALK {
        let timings = house.say(&me, chat, text).await.timings.unwrap();
        n_tokens = (timings.cache_n + timings.prompt_n) as usize;
    }
    // Of the last prompt at least all whole pages are put away, behind the answer.
    let form = house.form();
    let n_whole = n_tokens / form.page_len * form.page_len;
    assert!(n_whole > form.page_len, "the talk is too short: {n_tokens} tokens");
    let waiting = std::time::Instant::now();
    while me.kept_tokens(chat, &form).len() < n_whole {
        assert!(waiting.elapsed() < PATIENCE, "{} of {n_whole} tokens", me.kept_tokens(chat, &form).len());
        tokio::task::yield_now().await;
    }
    drop(me);
    house.close().await;
    copy(dir.path(), elsewhere.path());

    let without = open(elsewhere.path(), 0, KvType::I16).await;
    let plain = soon(without.say(&ada.at(&without.store), chat, LATER)).await;
    assert_eq!(plain.timings.unwrap().cache_n, 0);
    assert!(!elsewhere.path().join("kv").exists());
    without.close().await;

    // Other numbers for keys and values: what was kept is of no use.
    copy(&dir.path().join("kv"), &elsewhere.path().join("kv"));
    let other = open(elsewhere.path(), ROOM, KvType::Q8).await;
    let read = soon(other.say(&ada.at(&other.store), chat, "And now?")).await;
    assert_eq!(read.timings.unwrap().cache_n, 0);
    other.close().await;

    let again = open(dir.path(), ROOM, KvType::I16).await;
    let bob = person(&again.store, "bob");
    let same_words = bob.at(&again.store).create_chat(None, None).unwrap().0.id;
    let of_bob = soon(again.say(&bob.at(&again.store), same_words, TALK[0])).await;
    assert_eq!(of_bob.timings.unwrap().cache_n, 0, "another person's words are his own");
    let reply = soon(again.say(&ada.at(&again.store), chat, LATER)).await;
    assert!(reply.timings.unwrap().cache_n as usize >= n_whole, "{:?}", reply.timings);
    assert_eq!(reply.content, plain.content);
    again.close().await;
}
