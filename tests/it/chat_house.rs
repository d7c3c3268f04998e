//! A house with a chat service, a real store, the real engine and a scripted model, for tests of what happens in it.

use std::sync::OnceLock;

use mommygpt::chat::live::{LiveEvent, LiveStream};
use mommygpt::chat::safety::Cards;
use mommygpt::chat::{ChatEvent, ChatOptions, ChatService, ChatStream, NewMessage};
use mommygpt::domain::{ChatId, Message, MessageText};
use mommygpt::engine::{Engine, Limits};
use mommygpt::model::TokenId;
use mommygpt::store::{MessagePage, Parent, Store, UserStore};

use crate::scripted_model::{self, Next, PATIENCE, Remote};
use crate::store_people::{Person, person};

pub(crate) const LIMITS: Limits =
    Limits { max_running: 2, max_sequences: 4, queue_total: 8, speculative: false, ..Limits::FAMILY };
/// Tokens of a scripted reply that ends.
pub(crate) const REPLY_TOKENS: usize = 10;

pub(crate) struct Words {
    start: TokenId,
    end: TokenId,
    pub(crate) letter: TokenId,
    pub(crate) other_letter: TokenId,
}

pub(crate) fn words() -> &'static Words {
    static WORDS: OnceLock<Words> = OnceLock::new();
    WORDS.get_or_init(|| {
        let text = scripted_model::builtin_text();
        let control = |name: &str| {
            let ids = 0..u32::try_from(text.tokenizer.n_vocab()).unwrap();
            let turn =
                text.template.render(&[mommygpt::text::Turn::new(mommygpt::text::Speaker::User, "x")], false);
            let prompt = text.tokenizer.encode_template(&turn.unwrap()).unwrap();
            let wanted = ids.into_iter().filter(|id| text.tokenizer.is_control(*id) && prompt.contains(id));
            let mut wanted: Vec<TokenId> = wanted.collect();
            wanted.sort_by_key(|id| prompt.iter().position(|p| p == id));
            if name == "start" { wanted[0] } else { wanted[1] }
        };
        let token = |word| *text.tokenizer.encode_plain(word, false).unwrap().last().unwrap();
        Words { start: control("start"), end: control("end"), letter: token(" a"), other_letter: token(" b") }
    })
}

/// Ten words, then the end of the turn.
pub(crate) fn short(held: &[TokenId]) -> TokenId {
    let words = words();
    let said =
        held.iter().rev().take_while(|id| **id != words.start).filter(|id| **id == words.letter).count();
    if said < REPLY_TOKENS { words.letter } else { words.end }
}

/// Never ends and never goes round in circles, which would end it: the Thue-Morse sequence says nothing three times in
/// a row.
pub(crate) fn endless(held: &[TokenId]) -> TokenId {
    if held.len().count_ones().is_multiple_of(2) { words().letter } else { words().other_letter }
}

pub(crate) struct House {
    pub(crate) store: Store,
    pub(crate) remote: Remote,
    pub(crate) chat: ChatService,
}

impl House {
    pub(crate) async fn new(next: Next) -> Self {
        Self::with(next, 512, LIMITS).await
    }
    pub(crate) async fn with(next: Next, n_ctx: usize, limits: Limits) -> Self {
        let remote = Remote::default();
        let loader = remote.clone();
        let engine = Engine::start_with(limits, move || scripted_model::load(&loader, n_ctx, next));
        engine.ready().await.unwrap();
        let store = Store::in_memory().unwrap();
        let options = ChatOptions {
            sampling: None,
            max_reply_tokens: None,
            cards: Cards::built_in(),
            take_over_written: false,
        };
        let chat = ChatService::new(store.clone(), engine, options);
        Self { store, remote, chat }
    }
    /// A person and an empty chat of theirs.
    pub(crate) fn somebody(&self, name: &str) -> (Person, UserStore, ChatId) {
        let person = person(&self.store, name);
        let me = person.at(&self.store);
        let chat = me.create_chat(None, None).unwrap().0.id;
        (person, me, chat)
    }
    pub(crate) async fn send(&self, me: &UserStore, chat: ChatId, text: &str) -> ChatStream {
        self.chat.send(me, chat, new(text)).await.unwrap()
    }
    pub(crate) async fn exchange(&self, me: &UserStore, chat: ChatId, text: &str) -> (Message, Message) {
        let events = all(self.send(me, chat, text).await).await;
        (asked(&events), done(&events))
    }
}

pub(crate) fn text(text: &str) -> MessageText {
    MessageText::parse(text.to_owned()).unwrap()
}

pub(crate) fn new(content: &str) -> NewMessage {
    NewMessage { id: None, content: text(content), parent: Parent::Newest }
}

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens in time")
}

pub(crate) async fn next(stream: &mut ChatStream) -> (u64, ChatEvent) {
    soon(stream.next()).await.expect("the story goes on")
}

/// The rest of a generation.
pub(crate) async fn all(mut stream: ChatStream) -> Vec<ChatEvent> {
    let mut out = Vec::new();
    while let Some((_, event)) = soon(stream.next()).await {
        out.push(event);
    }
    out
}

/// Reads until so many pieces of text have come.
pub(crate) async fn deltas(stream: &mut ChatStream, n: usize) -> String {
    let mut out = String::new();
    let mut seen = 0;
    while seen < n {
        if let ChatEvent::Delta { text, .. } = next(stream).await.1 {
            out.push_str(&text);
            seen += 1;
        }
    }
    out
}

pub(crate) fn asked(events: &[ChatEvent]) -> Message {
    let ChatEvent::Message(message) = &events[0] else { panic!("first {:?}", events[0]) };
    message.clone()
}

pub(crate) fn done(events: &[ChatEvent]) -> Message {
    let Some(ChatEvent::Done(message)) = events.last() else { panic!("last {:?}", events.last()) };
    message.clone()
}

pub(crate) fn spoken(events: &[ChatEvent]) -> String {
    events
        .iter()
        .filter_map(|e| if let ChatEvent::Delta { text, .. } = e { Some(text.as_str()) } else { None })
        .collect()
}

pub(crate) fn stored(me: &UserStore, chat: ChatId) -> Vec<Message> {
    me.messages(chat, &MessagePage { limit: 100, before: None }).unwrap().0
}

/// Every token the model was given, as text.
pub(crate) fn read_by_the_model(house: &House) -> String {
    let text = scripted_model::builtin_text();
    let tokens =
        house.remote.see(|s| s.steps.iter().flatten().flat_map(|r| r.tokens.clone()).collect::<Vec<_>>());
    let bytes: Vec<u8> = tokens.iter().flat_map(|id| text.tokenizer.token_bytes(*id).to_vec()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) async fn live_until_done(device: &mut LiveStream) -> Vec<LiveEvent> {
    let mut out = Vec::new();
    loop {
        let (_, event) = soon(device.next()).await;
        let last = matches!(event, LiveEvent::Done(_));
        out.push(event);
        if last {
            return out;
        }
    }
}
