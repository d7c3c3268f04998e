//! Somebody wants the measuring to end: after the step that runs, with what was measured so far.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether the end was asked for; clones are of one wish.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Asks for it.
    pub fn ask(&self) {
        *self.asked() = true;
        self.0.1.notify_all();
    }

    /// Whether somebody did.
    pub fn is_asked(&self) -> bool {
        *self.asked()
    }

    /// Rests until somebody asks, at most for `limit`.
    pub fn rest(&self, limit: Duration) {
        let waited = self.0.1.wait_timeout_while(self.asked(), limit, |asked| !*asked);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn asked(&self) -> MutexGuard<'_, bool> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
