//! The store against a plain map: four people, random steps, reopened now and then as after a kill, and after every
//! step each sees exactly their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use mommygpt::domain::{ChatId, FinishReason, MessageId, Title};
use mommygpt::store::{
    ChatPage, ChatPatch, Cursor, MessagePage, NewMessage, Parent, ReplyEnd, Store, StoreError, UserStore,
};
use proptest::prelude::*;
use redb::StorageBackend as _;
use redb::backends::InMemoryBackend;

use crate::store_people::{Person, assert_sound, memory, person, said};

const N_PEOPLE: usize = 4;
/// Few words, so that searches find some of them.
const WORDS: [&str; 5] = ["tea", "School", "rain", "NIGHT", "größe"];

#[derive(Debug, Clone)]
enum Step {
    NewChat,
    Say { chat: usize, word: usize, under: Option<usize> },
    Retry { chat: usize, message: usize },
    Reply { chat: usize, under: usize, word: usize },
    Rename { chat: usize, word: usize },
    Archive { chat: usize, archived: bool },
    Delete { chat: usize },
    Search { word: usize },
    List { limit: usize, archived: bool },
    Pages { chat: usize, limit: usize },
    Pry { other: usize, chat: usize },
    Remember { word: usize },
    Forget { idx: usize },
    Reopen { clean: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let (chat, word, idx) = (0usize..8, 0..WORDS.len(), 0usize..12);
    prop_oneof![
        2 => Just(Step::NewChat),
        6 => (chat.clone(), word.clone(), prop::option::of(idx.clone()))
            .prop_map(|(chat, word, under)| Step::Say { chat, word, under }),
        2 => (chat.clone(), idx.clone()).prop_map(|(chat, message)| Step::Retry { chat, message }),
        4 => (chat.clone(), idx.clone(), word.clone()).prop_map(|(chat, under, word)| Step::Reply { chat, under, word }),
        1 => (chat.clone(), word.clone()).prop_map(|(chat, word)| Step::Rename { chat, word }),
        1 => (chat.clone(), any::<bool>()).prop_map(|(chat, archived)| Step::Archive { chat, archived }),
        1 => chat.clone().prop_map(|chat| Step::Delete { chat }),
        2 => word.clone().prop_map(|word| Step::Search { word }),
        2 => (1usize..4, any::<bool>()).prop_map(|(limit, archived)| Step::List { limit, archived }),
        2 => (chat.clone(), 1usize..4).prop_map(|(chat, limit)| Step::Pages { chat, limit }),
        2 => (0..N_PEOPLE, chat).prop_map(|(other, chat)| Step::Pry { other, chat }),
        1 => word.prop_map(|word| Step::Remember { word }),
        1 => idx.prop_map(|idx| Step::Forget { idx }),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Said {
    id: MessageId,
    parent: Option<MessageId>,
    text: String,
    is_user: bool,
}

#[derive(Debug, Default)]
struct ModelChat {
    title: Option<String>,
    archived: bool,
    said: Vec<Said>,
    /// When it last moved to the top.
    moved: u64,
}

#[derive(Debug, Default)]
struct Model {
    chats: BTreeMap<ChatId, ModelChat>,
    /// In the order of their making.
    order: Vec<ChatId>,
    memories: Vec<String>,
}

impl Model {
    fn nth(&self, n: usize) -> Option<ChatId> {
        self.order.get(n % self.order.len().max(1)).copied()
    }
    fn newest_first(&self, archived: bool) -> Vec<ChatId> {
        let mut all: Vec<_> = self.chats.iter().filter(|(_, c)| archived || !c.archived).collect();
        all.sort_by_key(|(_, c)| std::cmp::Reverse(c.moved));
        all.into_iter().map(|(id, _)| *id).collect()
    }
}

struct House {
    disk: Arc<InMemoryBackend>,
    store: Store,
    people: Vec<Person>,
    models: Vec<Model>,
    clock: u64,
}

impl House {
    fn new() -> Self {
        let disk = memory();
        let store = Store::open_on(disk.clone()).unwrap();
        let people = (0..N_PEOPLE).map(|n| person(&store, &format!("p{n}"))).collect();
        let models = (0..N_PEOPLE).map(|_| Model::default()).collect();
        Self { disk, store, people, models, clock: 0 }
    }
    fn me(&self, who: usize) -> UserStore {
        self.people[who].at(&self.store)
    }
    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn run(&mut self, who: usize, step: Step) {
        let me = self.me(who);
        let now = self.now();
        let model = &mut self.models[who];
        match step {
            Step::NewChat => {
                let (chat, created) = me.create_chat(None, None).unwrap();
                assert!(created);
                model.order.push(chat.id);
                model.chats.insert(chat.id, ModelChat { moved: now, ..ModelChat::default() });
            }
            Step::Say { chat, word, under } => {
                let Some(id) = model.nth(chat) else { return };
                let chat = model.chats.get_mut(&id).unwrap();
                let text = format!("{} {}", WORDS[word], chat.said.len());
                let (parent, expected) = match under.and_then(|n| chat.said.get(n)) {
                    Some(said) => (Parent::Of(said.id), Some(said.id)),
                    None if under.is_some() => (Parent::Root, None),
                    None => (Parent::Newest, chat.said.last().map(|s| s.id)),
                };
                let stored = me.append_user_message(id, NewMessage { parent, ..said(&text) }).unwrap();
                assert_eq!(stored.message.parent_id, expected);
                chat.title.get_or_insert_with(|| text.clone());
                chat.moved = now;
                chat.said.push(Said { id: stored.message.id, parent: expected, text, is_user: true });
            }
            Step::Retry { chat, message } => {
                let Some(id) = model.nth(chat) else { return };
                let Some(old) = model.chats[&id].said.get(message).cloned() else { return };
                let again = NewMessage { id: old.id, ..said(&old.text) };
                match me.append_user_message(id, again) {
                    Ok(stored) => assert!(old.is_user && !stored.created && stored.message.id == old.id),
                    Err(e) => assert!(!old.is_user && e == StoreError::Conflict("id_taken"), "{e}"),
                }
            }
            Step::Reply { chat, under, word } => {
                let Some(id) = model.nth(chat) else { return };
                let chat = model.chats.get_mut(&id).unwrap();
                let Some(parent) = chat.said.get(under).map(|s| s.id) else { return };
                let reply = me.begin_reply(id, MessageId::new(), parent).unwrap();
                me.checkpoint_reply(id, reply.id, "half").unwrap();
                let text = WORDS[word].repeat(2);
                let end = ReplyEnd {
                    content: text.clone(),
                    finish_reason: FinishReason::Stop,
                    timings: None,
                    safety: None,
                    source: None,
                    truncated: false,
                };
                me.finish_reply(id, reply.id, end).unwrap();
                chat.moved = now;
                chat.said.push(Said { id: reply.id, parent: Some(parent), text, is_user: false });
            }
            Step::Reopen { clean } => self.reopen(clean),
            other => self.run_small(who, &me, other),
        }
    }

    /// Steps that change one row.
    fn run_small(&mut self, who: usize, me: &UserStore, step: Step) {
        let now = self.now();
        let model = &mut self.models[who];
        match step {
            Step::Rename { chat, word } => {
                let Some(id) = model.nth(chat) else { return };
                let chat = model.chats.get_mut(&id).unwrap();
                let patch = ChatPatch { title: Some(Title::cut(WORDS[word])), ..ChatPatch::default() };
                me.update_chat(id, patch).unwrap();
                chat.title = Some(WORDS[word].to_owned());
                chat.moved = now;
            }
            Step::Archive { chat, archived } => {
                let Some(id) = model.nth(chat) else { return };
                me.update_chat(id, ChatPatch { archived: Some(archived), ..ChatPatch::default() }).unwrap();
                model.chats.get_mut(&id).unwrap().archived = archived;
            }
            Step::Delete { chat } => {
                let Some(id) = model.nth(chat) else { return };
                me.delete_chat(id).unwrap();
                model.chats.remove(&id);
                model.order.retain(|c| *c != id);
            }
            Step::Remember { word } => {
                me.add_memory(WORDS[word], None).unwrap();
                model.memories.push(WORDS[word].to_owned());
            }
            Step::Forget { idx } => {
                let Some(memory) = me.memories().unwrap().get(idx).cloned() else { return };
                me.delete_memory(memory.id).unwrap();
                model.memories.remove(idx);
            }
            other => self.look(who, me, &other),
        }
    }

    /// Steps that change nothing.
    fn look(&self, who: usize, me: &UserStore, step: &Step) {
        let model = &self.models[who];
        match *step {
            Step::Search { word } => {
                let needle = WORDS[word].to_lowercase();
                let holds = |text: &str| text.to_lowercase().contains(&needle);
                let mut expected = Vec::new();
                for (id, chat) in &model.chats {
                    expected.extend(chat.title.iter().filter(|t| holds(t)).map(|_| (*id, None)));
                    expected.extend(chat.said.iter().filter(|s| holds(&s.text)).map(|s| (*id, Some(s.id))));
                }
                let hits = me.search(&needle.to_uppercase(), 100).unwrap();
                let mut found: Vec<_> = hits.iter().map(|h| (h.chat_id, h.message_id)).collect();
                expected.sort();
                found.sort();
                assert!(expected.len() > 100 || found == expected, "{found:?} != {expected:?}");
            }
            Step::List { limit, archived } => {
                let (mut listed, mut cursor): (Vec<ChatId>, Option<Cursor>) = (Vec::new(), None);
                loop {
                    let page = ChatPage { limit, cursor: cursor.take(), include_archived: archived };
                    let (page, next) = me.chats(&page).unwrap();
                    assert!(page.len() <= limit);
                    listed.extend(page.iter().map(|c| c.id));
                    cursor = next;
                    if cursor.is_none() {
                        break;
                    }
                }
                assert_eq!(listed, model.newest_first(archived));
            }
            Step::Pages { chat, limit } => {
                let Some(id) = model.nth(chat) else { return };
                let (mut read, mut before): (Vec<Said>, Option<Cursor>) = (Vec::new(), None);
                loop {
                    let (page, next) =
                        me.messages(id, &MessagePage { limit, before: before.take() }).unwrap();
                    let page = page.into_iter().map(|m| Said {
                        id: m.id,
                        parent: m.parent_id,
                        text: m.content,
                        is_user: m.is_user,
                    });
                    read.splice(0..0, page);
                    before = next;
                    if before.is_none() {
                        break;
                    }
                }
                assert_eq!(read, model.chats[&id].said);
            }
            Step::Pry { other, chat } => {
                let Some(id) = self.models[other].nth(chat).filter(|_| other != who) else { return };
                assert_eq!(me.chat(id).err(), Some(StoreError::NotFound));
                assert_eq!(me.append_user_message(id, said("x")).err(), Some(StoreError::NotFound));
                assert_eq!(me.delete_chat(id).err(), Some(StoreError::NotFound));
                if let Some(said) = self.models[other].chats[&id].said.first() {
                    assert_eq!(me.message(id, said.id).err(), Some(StoreError::NotFound));
                    assert_eq!(me.path(id, said.id, 9).err(), Some(StoreError::NotFound));
                }
            }
            _ => unreachable!("steps that write are run elsewhere"),
        }
    }

    fn reopen(&mut self, clean: bool) {
        let mut bytes = vec![0; self.disk.len().unwrap() as usize];
        if clean {
            self.store.close().unwrap();
            bytes.resize(self.disk.len().unwrap() as usize, 0);
        }
        self.disk.read(0, &mut bytes).unwrap();
        let next = memory();
        next.set_len(bytes.len() as u64).unwrap();
        next.write(0, &bytes).unwrap();
        self.store = Store::open_on(next.clone()).unwrap();
        self.disk = next;
    }

    fn look_at_everything(&self) {
        assert_sound(&self.store);
        for who in 0..N_PEOPLE {
            let (me, model) = (self.me(who), &self.models[who]);
            self.look(who, &me, &Step::List { limit: 3, archived: true });
            (0..model.order.len()).for_each(|chat| self.look(who, &me, &Step::Pages { chat, limit: 3 }));
            (0..WORDS.len()).for_each(|word| self.look(who, &me, &Step::Search { word }));
            let memories: Vec<String> = me.memories().unwrap().into_iter().map(|m| m.content).collect();
            assert_eq!(memories, model.memories);
            for (id, chat) in &model.chats {
                let title = chat.title.clone().unwrap_or_else(|| Title::untitled().as_str().to_owned());
                assert_eq!(me.chat(*id).unwrap().title.as_str(), title);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, ..ProptestConfig::default() })]
    #[test]
    fn four_people_see_exactly_what_four_maps_hold(steps in prop::collection::vec((0..N_PEOPLE, step()), 50..150)) {
        let mut house = House::new();
        for (who, step) in steps {
            house.run(who, step);
        }
        house.look_at_everything();
        house.reopen(true);
        house.look_at_everything();
    }
}
