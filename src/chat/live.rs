//! What happens to a person's data, told to all their devices.
//!
//! Each person has one numbered list of events, the newest of which are kept for a while, so that a phone that was
//! locked or a laptop that changed its network asks for what it missed. A device that asks for more than is kept, or
//! that reads too slowly, is told to load everything anew ([`LiveEvent::Resync`]); it never misses an event unaware.
//! Lists are apart per person: nobody can see that another one is writing, not even by gaps in the numbers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::domain::{Chat, ChatId, Memory, MemoryId, Message, MessageId, SessionId, Timestamp, UserId};

/// Events kept per person: a reply of a thousand deltas and what stands around it.
const MAX_KEPT_EVENTS: usize = 2048;
/// Text kept per person, whatever the number of events.
const MAX_KEPT_BYTES: usize = 256 << 10;
/// A list that nobody listens to is dropped after this time without an event.
const KEPT_UNHEARD: Duration = Duration::from_mins(10);
/// Publications between two looks for lists to drop.
const SWEEP_EVERY: u32 = 256;

/// One change, as all devices of the person hear it.
#[derive(Clone, PartialEq, Debug)]
pub enum LiveEvent {
    /// A chat was made or changed.
    Chat(Chat),
    /// A chat is gone with its messages.
    ChatDeleted(ChatId),
    /// A message was stored: the person's, or a reply that begins (its `finish_reason` is `None`).
    Message(Message),
    /// Text to append to a reply.
    Delta {
        /// In which chat.
        chat_id: ChatId,
        /// Which reply.
        id: MessageId,
        /// Whole characters.
        text: String,
    },
    /// A reply ended and is stored.
    Done(Message),
    /// A fact was noted or changed.
    Memory(Memory),
    /// A fact was forgotten.
    MemoryDeleted(MemoryId),
    /// Something was missed: load everything anew, then go on listening.
    Resync,
    /// Sign-in over: of one session, or (`None`) of all. Streams that belong to it must close.
    SessionEnded(Option<SessionId>),
}

impl LiveEvent {
    /// Rough size in memory, to bound what is kept.
    fn n_bytes(&self) -> usize {
        let text = match self {
            Self::Message(m) | Self::Done(m) => m.content.len(),
            Self::Delta { text, .. } => text.len(),
            Self::Memory(m) => m.content.len(),
            Self::Chat(c) => c.title.as_str().len(),
            Self::ChatDeleted(_) | Self::MemoryDeleted(_) | Self::Resync | Self::SessionEnded(_) => 0,
        };
        size_of::<Self>() + text
    }
}

/// The newest events of one person.
struct Kept {
    events: VecDeque<(u64, Arc<LiveEvent>)>,
    n_bytes: usize,
    /// Id of the newest event, kept or not.
    head: u64,
    /// Newest id that is no longer kept.
    floor: u64,
    last_use: Instant,
}

struct Person {
    kept: Mutex<Kept>,
    /// Carries `head`; its receivers are the devices.
    head: watch::Sender<u64>,
}

impl Person {
    fn new() -> Self {
        // Ids go on rising over a restart of the server, so that an old id is known to be too old.
        let start = u64::try_from(Timestamp::now().as_micros()).unwrap_or(0);
        let kept =
            Kept { events: VecDeque::new(), n_bytes: 0, head: start, floor: start, last_use: Instant::now() };
        Self { kept: Mutex::new(kept), head: watch::Sender::new(start) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here can panic half way through a change.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, event: LiveEvent) {
        let mut kept = self.lock();
        kept.head += 1;
        kept.last_use = Instant::now();
        kept.n_bytes += event.n_bytes();
        let id = kept.head;
        kept.events.push_back((id, Arc::new(event)));
        while kept.events.len() > MAX_KEPT_EVENTS || (kept.n_bytes > MAX_KEPT_BYTES && kept.events.len() > 1)
        {
            if let Some((id, old)) = kept.events.pop_front() {
                kept.floor = id;
                kept.n_bytes -= old.n_bytes();
            }
        }
        self.head.send_replace(id);
    }
}

/// The bus. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Live {
    persons: Arc<Mutex<Persons>>,
}

struct Persons {
    by_id: HashMap<UserId, Arc<Person>>,
    n_published: u32,
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Live {
    /// A bus that nobody listens to yet.
    pub fn new() -> Self {
        Self { persons: Arc::new(Mutex::new(Persons { by_id: HashMap::new(), n_published: 0 })) }
    }

    /// Tells all of a person's devices. Never waits.
    pub fn publish(&self, user: UserId, event: LiveEvent) {
        let person = {
            let mut persons = self.lock();
            persons.n_published = persons.n_published.wrapping_add(1);
            if persons.n_published.is_multiple_of(SWEEP_EVERY) {
                persons.sweep();
            }
            persons.person(user)
        };
        person.publish(event);
    }

    /// Listens to a person's events: those after `last_event_id`, or from now on.
    pub fn subscribe(&self, user: UserId, last_event_id: Option<u64>) -> LiveStream {
        // The map stays locked until the receiver exists, or a sweep could drop the list in between.
        let mut persons = self.lock();
        let person = persons.person(user);
        let head = person.head.subscribe();
        let (after, resync) = {
            let kept = person.lock();
            match last_event_id {
                None => (kept.head, false),
                Some(id) if id < kept.floor || id > kept.head => (kept.head, true),
                Some(id) => (id, false),
            }
        };
        LiveStream { person, head, after, resync }
    }

    /// How many devices listen, of all persons.
    pub fn n_listeners(&self) -> usize {
        self.lock().by_id.values().map(|p| p.head.receiver_count()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Persons> {
        self.persons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Persons {
    fn person(&mut self, user: UserId) -> Arc<Person> {
        Arc::clone(self.by_id.entry(user).or_insert_with(|| Arc::new(Person::new())))
    }

    fn sweep(&mut self) {
        self.by_id.retain(|_, p| p.head.receiver_count() > 0 || p.lock().last_use.elapsed() < KEPT_UNHEARD);
    }
}

/// One device's view of the bus.
pub struct LiveStream {
    person: Arc<Person>,
    head: watch::Receiver<u64>,
    /// Id of the last event handed out.
    after: u64,
    resync: bool,
}

impl LiveStream {
    /// The next event and its id; waits for one. Safe to drop while waiting: nothing is lost.
    pub async fn next(&mut self) -> (u64, LiveEvent) {
        loop {
            if let Some(found) = self.try_next() {
                return found;
            }
            // The sender lives in `person`, which this stream holds.
            let after = self.after;
            let _ = self.head.wait_for(|head| *head > after).await;
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<(u64, LiveEvent)> {
        let kept = self.person.lock();
        if self.resync || self.after < kept.floor {
            self.resync = false;
            self.after = kept.head;
            return Some((kept.head, LiveEvent::Resync));
        }
        // Ids are consecutive, so the place of the next one is its distance from the floor.
        let index = usize::try_from(self.after - kept.floor).ok()?;
        let (id, event) = kept.events.get(index)?;
        self.after = *id;
        Some((*id, LiveEvent::clone(event)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(text: &str) -> LiveEvent {
        let id = MessageId::from_bytes([1; 16]);
        LiveEvent::Delta { chat_id: ChatId::from_bytes([2; 16]), id, text: text.into() }
    }

    #[tokio::test]
    async fn two_devices_hear_the_same_and_another_person_nothing() {
        let live = Live::new();
        let (me, other) = (UserId::new(), UserId::new());
        let mut phone = live.subscribe(me, None);
        let mut laptop = live.subscribe(me, None);
        let mut stranger = live.subscribe(other, None);
        live.publish(me, delta("a"));
        live.publish(me, delta("b"));
        for device in [&mut phone, &mut laptop] {
            assert_eq!(device.next().await.1, delta("a"));
            assert_eq!(device.next().await.1, delta("b"));
            assert!(device.try_next().is_none());
        }
        assert!(stranger.try_next().is_none());
        live.publish(other, delta("c"));
        assert_eq!(stranger.next().await.1, delta("c"));
        assert!(phone.try_next().is_none());
    }

    #[tokio::test]
    async fn a_device_resumes_after_the_last_id_it_saw() {
        let live = Live::new();
        let me = UserId::new();
        let mut phone = live.subscribe(me, None);
        live.publish(me, delta("a"));
        let (seen, _) = phone.next().await;
        drop(phone);
        live.publish(me, delta("b"));
        live.publish(me, delta("c"));
        let mut phone = live.subscribe(me, Some(seen));
        assert_eq!(phone.next().await, (seen + 1, delta("b")));
        assert_eq!(phone.next().await, (seen + 2, delta("c")));
        assert!(live.subscribe(me, Some(seen + 2)).try_next().is_none());
    }

    #[tokio::test]
    async fn too_old_or_unknown_ids_and_slow_readers_are_told_to_load_anew() {
        let live = Live::new();
        let me = UserId::new();
        let mut slow = live.subscribe(me, None);
        live.publish(me, delta("first"));
        let first = live.subscribe(me, None).after;
        for _ in 0..MAX_KEPT_EVENTS + 10 {
            live.publish(me, delta("x"));
        }
        assert_eq!(slow.next().await.1, LiveEvent::Resync);
        assert!(slow.try_next().is_none(), "after a resync only what is new");
        assert_eq!(live.subscribe(me, Some(first)).next().await.1, LiveEvent::Resync);
        assert_eq!(live.subscribe(me, Some(u64::MAX)).next().await.1, LiveEvent::Resync);
        assert_eq!(live.subscribe(me, Some(5)).next().await.1, LiveEvent::Resync, "an id of an earlier run");
        live.publish(me, delta("new"));
        assert_eq!(slow.next().await.1, delta("new"));
    }

    #[test]
    fn kept_text_is_bounded() {
        let live = Live::new();
        let me = UserId::new();
        let _device = live.subscribe(me, None);
        for _ in 0..100 {
            live.publish(me, delta(&"y".repeat(10_000)));
        }
        let person = live.lock().person(me);
        let kept = person.lock();
        assert!(kept.n_bytes <= MAX_KEPT_BYTES);
        assert_eq!(kept.n_bytes, kept.events.iter().map(|(_, e)| e.n_bytes()).sum::<usize>());
    }
}
