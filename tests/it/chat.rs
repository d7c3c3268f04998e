//! What happens when somebody writes to their parent: the chat service on a real store and the real engine, with a
//! scripted model whose steps the test can hold.

use mommygpt::chat::live::LiveEvent;
use mommygpt::chat::safety::Cards;
use mommygpt::chat::{ChatError, ChatEvent, ChatOptions, ChatService, ChatStream, NewMessage};
use mommygpt::domain::{ChatId, FinishReason, MessageId, Source};
use mommygpt::engine::{Engine, EngineError, EngineOptions, Limits, ModelSource};
use mommygpt::model::{Device, LoadOptions};
use mommygpt::store::{Store, StoreError, UserStore};

use crate::chat_house::{
    House, LIMITS, REPLY_TOKENS, all, asked, deltas, done, endless, live_until_done, new, next,
    read_by_the_model, short, soon, spoken, stored, text, words,
};
use crate::store_people::person;

#[tokio::test(flavor = "multi_thread")]
async fn the_message_is_durable_before_anything_is_answered() {
    let house = House::new(short).await;
    let (_, me, chat) = house.somebody("ada");
    house.remote.hold();
    let mut stream = house.send(&me, chat, "I had a bad day").await;
    let kept = stored(&me, chat);
    assert_eq!(kept[0].content, "I had a bad day");
    assert!(kept[0].is_user);
    assert_eq!(me.chat(chat).unwrap().title.as_str(), "I had a bad day");
    let (number, first) = next(&mut stream).await;
    assert_eq!((number, first), (0, ChatEvent::Message(kept[0].clone())));
    house.remote.release();
    let events = all(stream).await;
    let reply = done(&events);
    assert_eq!(reply.content, spoken(&events));
    assert_eq!(reply.content.split(' ').count(), REPLY_TOKENS);
    assert_eq!(reply.finish_reason, Some(FinishReason::Stop));
    assert_eq!(reply.parent_id, Some(kept[0].id));
    assert!(reply.timings.is_some() && !reply.truncated && !reply.is_user);
    assert_eq!(stored(&me, chat), [kept[0].clone(), reply]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_hears_it_and_nobody_else() {
    let house = House::new(short).await;
    let (ada, me, chat) = house.somebody("ada");
    let (bob, ..) = house.somebody("bob");
    let mut phone = house.chat.live().subscribe(ada.user.id, None);
    let mut laptop = house.chat.live().subscribe(ada.user.id, None);
    let mut stranger = house.chat.live().subscribe(bob.user.id, None);
    let (question, reply) = house.exchange(&me, chat, "hello").await;
    let heard = live_until_done(&mut phone).await;
    assert_eq!(heard, live_until_done(&mut laptop).await);
    assert_eq!(heard[0], LiveEvent::Message(question));
    let text: String = heard
        .iter()
        .filter_map(|e| {
            if let LiveEvent::Delta { text, id, .. } = e {
                (*id == reply.id).then_some(text.as_str())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(text, reply.content);
    assert_eq!(heard.last(), Some(&LiveEvent::Done(reply)));
    assert!(stranger.try_next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_keeps_what_came() {
    let house = House::new(endless).await;
    let (_, me, chat) = house.somebody("ada");
    let mut stream = house.send(&me, chat, "tell me everything").await;
    let mut said = deltas(&mut stream, 5).await;
    soon(house.chat.stop(&me, chat)).await.unwrap();
    let reply = stored(&me, chat).pop().unwrap();
    assert_eq!(reply.finish_reason, Some(FinishReason::Cancelled));
    let rest = all(stream).await;
    said.push_str(&spoken(&rest));
    assert_eq!(reply.content, said);
    assert_eq!(done(&rest), reply);
    // Nothing runs now; stopping again is fine, and so is the next message.
    soon(house.chat.stop(&me, chat)).await.unwrap();
    assert!(house.chat.resume(&me, chat, 0).is_none());
    let mut stream = house.send(&me, chat, "go on").await;
    deltas(&mut stream, 1).await;
    soon(house.chat.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_changes_nothing_and_may_come_back() {
    let house = House::new(short).await;
    let (_, me, chat) = house.somebody("ada");
    house.remote.hold();
    let mut first = house.send(&me, chat, "hello").await;
    let (seen, _) = next(&mut first).await;
    drop(first);
    let again = house.chat.resume(&me, chat, seen + 1).expect("it runs");
    let whole = house.chat.resume(&me, chat, 0).expect("it runs");
    house.remote.release();
    let whole = all(whole).await;
    assert_eq!(all(again).await, whole[1..]);
    let late = house.chat.resume(&me, chat, 3).expect("it ended just now");
    assert_eq!(all(late).await, whole[3..]);
    assert!(
        house.chat.resume(&me, chat, whole.len() as u64).is_none(),
        "who has seen all is told that nothing runs"
    );
    assert_eq!(stored(&me, chat)[1], done(&whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_the_same_message() {
    let house = House::new(short).await;
    let (_, me, chat) = house.somebody("ada");
    let id = MessageId::new();
    let mine = || NewMessage { id: Some(id), ..new("hello") };
    house.remote.hold();
    let first = house.chat.send(&me, chat, mine()).await.unwrap();
    let second = house.chat.send(&me, chat, mine()).await.unwrap();
    let other = house.chat.send(&me, chat, NewMessage { id: Some(id), ..new("bye") }).await;
    assert!(matches!(other, Err(ChatError::Conflict("id_taken"))), "{:?}", other.err());
    let busy = house.chat.send(&me, chat, new("and another thing")).await;
    assert!(matches!(busy, Err(ChatError::Conflict("generation_running"))), "{:?}", busy.err());
    house.remote.release();
    let events = all(first).await;
    assert_eq!(all(second).await, events);
    let third = all(house.chat.send(&me, chat, mine()).await.unwrap()).await;
    assert_eq!(third, [events[0].clone(), events.last().unwrap().clone()]);
    let taken = house.chat.send(&me, chat, NewMessage { id: Some(id), ..new("bye") }).await;
    assert!(matches!(taken, Err(ChatError::Conflict("id_taken"))));
    assert_eq!(stored(&me, chat).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_replies_and_changed_messages_are_siblings() {
    let house = House::new(short).await;
    let (_, me, chat) = house.somebody("ada");
    let (question, reply) = house.exchange(&me, chat, "hello").await;
    let events = all(house.chat.regenerate(&me, chat, reply.id).await.unwrap()).await;
    let other = done(&events);
    assert_eq!(asked(&events).id, question.id);
    assert_eq!(other.parent_id, reply.parent_id);
    assert_ne!(other.id, reply.id);
    let events = all(house.chat.edit(&me, chat, question.id, text("good evening")).await.unwrap()).await;
    let changed = asked(&events);
    assert_eq!((changed.parent_id, changed.content.as_str()), (None, "good evening"));
    assert_eq!(done(&events).parent_id, Some(changed.id));
    let refused = house.chat.edit(&me, chat, reply.id, text("I said something else")).await;
    assert!(matches!(refused, Err(ChatError::Invalid(_))));
    let unknown = house.chat.regenerate(&me, chat, MessageId::new()).await;
    assert!(matches!(unknown, Err(ChatError::NotFound)));
    let followed = all(house.send(&me, chat, "next").await).await;
    assert_eq!(asked(&followed).parent_id, Some(done(&events).id), "the newest branch goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_exchanges_are_left_out_whole_and_it_is_said() {
    let house = House::with(short, 192, LIMITS).await;
    let (_, me, chat) = house.somebody("ada");
    let long = |word: &str| format!("{word}{}", " and then we went on".repeat(8));
    assert!(!house.exchange(&me, chat, &long("zebra")).await.1.truncated);
    house.exchange(&me, chat, &long("yak")).await;
    house.remote.set(|s| s.steps.clear());
    let (_, reply) = house.exchange(&me, chat, "what now").await;
    assert!(reply.truncated);
    assert!(stored(&me, chat).pop().unwrap().truncated);
    house.exchange(&me, chat, "hm").await;
    // What the model read since then, warm prefix or not, has no piece of the first exchange.
    let read = read_by_the_model(&house);
    assert!(!read.contains("zebra"), "{read}");
    assert!(read.contains("what now"), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_long_is_refused_with_its_length_and_not_stored() {
    let house = House::with(short, 128, LIMITS).await;
    let (_, me, chat) = house.somebody("ada");
    let refused = house.chat.send(&me, chat, new(&"word ".repeat(500))).await;
    let Err(ChatError::TooLong { n_tokens, limit }) = refused else { panic!("it was taken") };
    assert!(n_tokens >= 500 && limit < 128 && limit > 32, "{n_tokens} {limit}");
    assert!(stored(&me, chat).is_empty());
    house.exchange(&me, chat, "shorter then").await;
}

/// A house whose one place and one waiting place are taken by the same person, who has another, empty chat.
async fn busy_house() -> (House, UserStore, ChatId, [ChatStream; 2]) {
    let limits = Limits {
        max_running: 1,
        max_sequences: 1,
        queue_per_owner: 1,
        queue_total: 8,
        speculative: false,
        ..Limits::FAMILY
    };
    let house = House::with(short, 512, limits).await;
    let (_, me, a) = house.somebody("ada");
    let (b, c) = (me.create_chat(None, None).unwrap().0.id, me.create_chat(None, None).unwrap().0.id);
    house.remote.hold();
    let first = house.send(&me, a, "one").await;
    house.remote.wait_steps(1);
    let second = house.send(&me, b, "two").await;
    (house, me, c, [first, second])
}

#[tokio::test(flavor = "multi_thread")]
async fn when_everybody_is_busy_nothing_is_stored() {
    let (house, me, c, [first, second]) = busy_house().await;
    let third = house.chat.send(&me, c, new("three")).await;
    assert!(matches!(third, Err(ChatError::Busy { retry_after_s: 1.. })), "{:?}", third.err());
    assert!(stored(&me, c).is_empty());
    house.remote.release();
    done(&all(first).await);
    let waited = all(second).await;
    assert!(waited.iter().any(|e| matches!(e, ChatEvent::Queue { position: 1, .. })), "{waited:?}");
    house.exchange(&me, c, "three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_said_in_danger_are_stored_and_seen_even_when_everybody_is_busy() {
    let (house, me, c, [first, second]) = busy_house().await;
    let cry = NewMessage { id: Some(MessageId::new()), ..new("I want to kill myself") };
    let heard = all(house.chat.send(&me, c, cry.clone()).await.unwrap()).await;
    let [ChatEvent::Message(message), ChatEvent::Error { code: "busy", .. }] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(message.safety.as_deref(), Some("suicide"));
    assert_eq!(stored(&me, c), std::slice::from_ref(message));
    house.remote.release();
    all(first).await;
    all(second).await;
    // The same message again, as a client that saw the error sends it, is answered and stands there once.
    let again = all(house.chat.send(&me, c, cry).await.unwrap()).await;
    assert_eq!(asked(&again), *message);
    assert_eq!(done(&again).parent_id, Some(message.id));
    assert_eq!(stored(&me, c).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_chat_stays_deleted() {
    let house = House::new(endless).await;
    let (ada, me, chat) = house.somebody("ada");
    let mut device = house.chat.live().subscribe(ada.user.id, None);
    let mut stream = house.send(&me, chat, "hello").await;
    deltas(&mut stream, 2).await;
    soon(house.chat.delete_chat(&me, chat)).await.unwrap();
    all(stream).await;
    assert_eq!(me.chat(chat), Err(StoreError::NotFound));
    assert_eq!(house.chat.n_running(), 0);
    assert!(house.chat.resume(&me, chat, 0).is_none());
    loop {
        if soon(device.next()).await.1 == LiveEvent::ChatDeleted(chat) {
            break;
        }
    }
    assert!(device.try_next().is_none(), "nothing comes after the deletion");
    assert!(matches!(house.chat.send(&me, chat, new("hello")).await, Err(ChatError::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_deleted_behind_its_back_leaves_no_rows() {
    let house = House::new(endless).await;
    let (_, me, chat) = house.somebody("ada");
    let mut stream = house.send(&me, chat, "hello").await;
    deltas(&mut stream, 2).await;
    me.delete_chat(chat).unwrap();
    soon(house.chat.stop(&me, chat)).await.unwrap();
    let events = all(stream).await;
    assert!(matches!(events.last(), Some(ChatEvent::Error { code: "not_found", .. })), "{:?}", events.last());
    assert_eq!(
        me.chats(&mommygpt::store::ChatPage { limit: 10, cursor: None, include_archived: true }).unwrap().0,
        []
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_what_the_session_began_and_keeps_it() {
    // Room for more than the model says until a slow machine has noticed.
    let house = House::with(endless, 1 << 16, LIMITS).await;
    let (ada, me, chat) = house.somebody("ada");
    let (_, other, elsewhere) = house.somebody("bob");
    let mut device = house.chat.live().subscribe(ada.user.id, None);
    let mut stream = house.send(&me, chat, "hello").await;
    let mut undisturbed = house.send(&other, elsewhere, "hi").await;
    deltas(&mut stream, 2).await;
    house.store.end_session(ada.user.id, me.session_id().unwrap()).unwrap();
    let reply = done(&all(stream).await);
    assert_eq!(reply.finish_reason, Some(FinishReason::Cancelled));
    loop {
        if let LiveEvent::SessionEnded(session) = soon(device.next()).await.1 {
            assert!(session.is_none_or(|s| Some(s) == me.session_id()));
            break;
        }
    }
    deltas(&mut undisturbed, 2).await;
    soon(house.chat.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_keeps_partial_replies_and_takes_nothing_more() {
    let house = House::new(endless).await;
    let (_, me, chat) = house.somebody("ada");
    let mut stream = house.send(&me, chat, "hello").await;
    deltas(&mut stream, 3).await;
    soon(house.chat.shutdown()).await;
    let reply = stored(&me, chat).pop().unwrap();
    assert_eq!(reply.finish_reason, Some(FinishReason::Cancelled));
    assert!(!reply.content.is_empty());
    assert!(matches!(house.chat.send(&me, chat, new("more")).await, Err(ChatError::NotReady)));
    assert_eq!(stored(&me, chat).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_remembered_in_other_chats_and_can_be_forgotten() {
    let house = House::new(short).await;
    let (ada, me, chat) = house.somebody("ada");
    let mut device = house.chat.live().subscribe(ada.user.id, None);
    let (question, _) = house.exchange(&me, chat, "my cat is called Biscuit").await;
    let memories = me.memories().unwrap();
    assert_eq!(memories.len(), 1);
    assert_eq!(
        (memories[0].content.as_str(), memories[0].origin),
        ("cat Biscuit", Some((chat, question.id)))
    );
    let heard = live_until_done(&mut device).await;
    assert!(heard.contains(&LiveEvent::Memory(memories[0].clone())));
    let second = me.create_chat(None, None).unwrap().0.id;
    house.remote.set(|s| s.steps.clear());
    house.exchange(&me, second, "good evening").await;
    assert!(read_by_the_model(&house).contains("cat Biscuit"));
    house.exchange(&me, second, "forget my cat").await;
    assert!(me.memories().unwrap().is_empty());
    house.remote.set(|s| s.steps.clear());
    let third = me.create_chat(None, None).unwrap().0.id;
    house.exchange(&me, third, "good night").await;
    assert!(!read_by_the_model(&house).contains("Biscuit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn danger_is_noted_with_the_message_and_nothing_else_is() {
    let house = House::new(short).await;
    let (_, me, chat) = house.somebody("ada");
    let (question, _) =
        house.exchange(&me, chat, "im ada. my dog is called Max and i want to kill myself tonight").await;
    assert_eq!(question.safety.as_deref(), Some("suicide"));
    assert_eq!(stored(&me, chat)[0].safety.as_deref(), Some("suicide"));
    assert!(me.memories().unwrap().is_empty());
    assert_eq!(house.exchange(&me, chat, "my homework is killing me").await.0.safety, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_breaks_off_leaves_what_came_and_an_error() {
    let house = House::new(endless).await;
    let (ada, me, chat) = house.somebody("ada");
    let mut device = house.chat.live().subscribe(ada.user.id, None);
    let mut stream = house.send(&me, chat, "hello").await;
    deltas(&mut stream, 3).await;
    house.remote.set(|s| s.error_at = Some(words().letter));
    let events = all(stream).await;
    assert!(
        matches!(events.last(), Some(ChatEvent::Error { code: "generation_failed", .. })),
        "{:?}",
        events.last()
    );
    let reply = stored(&me, chat).pop().unwrap();
    assert_eq!(reply.finish_reason, Some(FinishReason::Error));
    assert!(!reply.content.is_empty());
    assert_eq!(live_until_done(&mut device).await.pop(), Some(LiveEvent::Done(reply)));
    house.remote.set(|s| s.error_at = None);
    let mut stream = house.send(&me, chat, "again").await;
    deltas(&mut stream, 1).await;
    soon(house.chat.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_nothing_is_stored() {
    let engine = Engine::start_with(LIMITS, || {
        Err(mommygpt::model::ModelError::Unsupported("architecture 'abacus'".into()).into())
    });
    assert!(matches!(engine.ready().await, Err(EngineError::Load(_))));
    let store = Store::in_memory().unwrap();
    let options = ChatOptions {
        sampling: None,
        max_reply_tokens: None,
        cards: Cards::built_in(),
        take_over_written: true,
    };
    let service = ChatService::new(store.clone(), engine, options);
    let me = person(&store, "ada").at(&store);
    let chat = me.create_chat(None, None).unwrap().0.id;
    let refused = service.send(&me, chat, new("hello")).await;
    let Err(ChatError::Broken(why)) = refused else { panic!("it was taken") };
    assert!(why.contains("abacus"), "{why}");
    assert!(stored(&me, chat).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_persons_chat_is_not_there() {
    let house = House::new(endless).await;
    let (_, me, chat) = house.somebody("ada");
    let (_, other, _) = house.somebody("bob");
    let mut stream = house.send(&me, chat, "hello").await;
    deltas(&mut stream, 1).await;
    let message = stored(&me, chat)[0].id;
    assert!(matches!(house.chat.send(&other, chat, new("hi")).await, Err(ChatError::NotFound)));
    assert!(matches!(house.chat.regenerate(&other, chat, message).await, Err(ChatError::NotFound)));
    assert!(matches!(house.chat.edit(&other, chat, message, text("x")).await, Err(ChatError::NotFound)));
    assert!(matches!(house.chat.stop(&other, chat).await, Err(ChatError::NotFound)));
    assert!(matches!(house.chat.delete_chat(&other, chat).await, Err(ChatError::NotFound)));
    assert!(house.chat.resume(&other, chat, 0).is_none());
    deltas(&mut stream, 1).await;
    soon(house.chat.shutdown()).await;
}

/// A common opening is answered from the written collection, and says so; asked again, the model answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_common_opening_gets_a_written_answer_once() {
    let model = include_bytes!("../../models/mommy.gguf");
    let engine = Engine::start(EngineOptions {
        gguf: ModelSource::Builtin(model),
        load: LoadOptions {
            n_ctx: None,
            n_threads: 1,
            device: Device::Cpu,
            max_sequences: 1,
            ..LoadOptions::default()
        },
        limits: Limits { max_running: 1, queue_total: 8, speculative: false, ..Limits::FAMILY },
    });
    let store = Store::in_memory().unwrap();
    let options = ChatOptions {
        sampling: None,
        max_reply_tokens: Some(8),
        cards: Cards::built_in(),
        take_over_written: true,
    };
    let service = ChatService::new(store.clone(), engine, options);
    let me = person(&store, "ada").at(&store);
    let chat = me.create_chat(None, None).unwrap().0.id;
    let first = done(&all(service.send(&me, chat, new("I had a bad day")).await.unwrap()).await);
    assert_eq!((first.source, first.timings), (Some(Source::Written), None));
    assert_eq!(first.finish_reason, Some(FinishReason::Stop));
    let again = done(&all(service.regenerate(&me, chat, first.id).await.unwrap()).await);
    assert!(again.source.is_none() && again.timings.is_some() && again.parent_id == first.parent_id);
    service.shutdown().await;
}
