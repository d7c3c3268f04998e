//! One generation as it is told: numbered events that any number of devices read, from any number on, also some time
//! after its end. The log is written by the generation alone and never waits for a reader.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::{Message, MessageId};

/// What happens to an answer, in order: the message, progress, text, then one of `Done` and `Error`.
#[derive(Clone, PartialEq, Debug)]
pub enum ChatEvent {
    /// The person's message, durable.
    Message(Message),
    /// The answer waits for others.
    Queue {
        /// 1 is the next to run.
        position: usize,
        /// How long that may take.
        wait: Duration,
    },
    /// The prompt is being read.
    Prefill {
        /// Length of the prompt.
        prompt_tokens: usize,
        /// How many of them were known from before.
        cached_tokens: usize,
        /// How many are done, those known from before included.
        processed_tokens: usize,
    },
    /// Text to append to the reply.
    Delta {
        /// Which reply.
        id: MessageId,
        /// Whole characters.
        text: String,
    },
    /// The reply as it is stored.
    Done(Message),
    /// The answer broke off; what had come of it is stored if that was possible.
    Error {
        /// A stable word, such as `generation_failed`.
        code: &'static str,
        /// One sentence for a person.
        message: String,
    },
}

#[derive(Clone, Copy)]
struct Written {
    n_events: usize,
    ended: bool,
}

pub(super) struct GenerationLog {
    events: Mutex<Vec<ChatEvent>>,
    written: watch::Sender<Written>,
}

impl GenerationLog {
    pub(super) fn new() -> Arc<Self> {
        let written = watch::Sender::new(Written { n_events: 0, ended: false });
        Arc::new(Self { events: Mutex::new(Vec::new()), written })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ChatEvent>> {
        // A push is the only change, and it is done or not.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends; `Done` and `Error` end the log, and what comes after its end is dropped.
    pub(super) fn push(&self, event: ChatEvent) {
        if self.has_ended() {
            return;
        }
        let ended = matches!(event, ChatEvent::Done(_) | ChatEvent::Error { .. });
        let n_events = {
            let mut events = self.lock();
            events.push(event);
            events.len()
        };
        self.written.send_replace(Written { n_events, ended });
    }

    pub(super) fn has_ended(&self) -> bool {
        self.written.borrow().ended
    }

    pub(super) fn n_events(&self) -> u64 {
        self.written.borrow().n_events as u64
    }

    /// Waits for the last event to be written.
    pub(super) async fn ended(&self) {
        // The sender lives in `self`.
        let _ = self.written.subscribe().wait_for(|w| w.ended).await;
    }

    pub(super) fn read(self: &Arc<Self>, from: u64) -> ChatStream {
        let next = usize::try_from(from).unwrap_or(usize::MAX);
        ChatStream { written: self.written.subscribe(), log: Arc::clone(self), next }
    }
}

/// One reader of a generation. Dropping it does not stop the generation.
pub struct ChatStream {
    log: Arc<GenerationLog>,
    written: watch::Receiver<Written>,
    next: usize,
}

impl ChatStream {
    /// The next event and its number (from 0 on); waits for it. `None` after the last. Safe to drop while waiting.
    pub async fn next(&mut self) -> Option<(u64, ChatEvent)> {
        let next = self.next;
        let written = *self.written.wait_for(|w| w.n_events > next || w.ended).await.ok()?;
        if next >= written.n_events {
            return None;
        }
        let event = self.log.lock().get(next)?.clone();
        self.next += 1;
        Some((next as u64, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(text: &str) -> ChatEvent {
        ChatEvent::Delta { id: MessageId::from_bytes([1; 16]), text: text.into() }
    }

    async fn rest(mut stream: ChatStream) -> Vec<(u64, ChatEvent)> {
        let mut out = Vec::new();
        while let Some(event) = stream.next().await {
            out.push(event);
        }
        out
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_reads_the_same_as_one_that_stayed() {
        let log = GenerationLog::new();
        let stayed = tokio::spawn(rest(log.read(0)));
        let early = log.read(0);
        for i in 0..20 {
            log.push(delta(&i.to_string()));
            tokio::task::yield_now().await;
        }
        log.push(ChatEvent::Error { code: "generation_failed", message: String::new() });
        log.push(delta("after the end"));
        let all = stayed.await.unwrap();
        assert_eq!(all.len(), 21);
        assert_eq!(all, rest(early).await);
        for from in 0..=21 {
            assert_eq!(rest(log.read(from)).await, all[from as usize..]);
        }
        assert!(rest(log.read(u64::MAX)).await.is_empty());
    }
}
