//! Who comes next.
//!
//! One lane per owner. The lane whose owner has the fewest generations running is served, and of equals the one that
//! waited longest for its turn; so an owner with many requests delays others by one generation at most, and takes the
//! whole machine when nobody else wants it. What nobody waits for stands behind all of them, and makes way at once.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::embed::{EmbedJob, MAX_EMBEDS_WAITING};
use super::kept::{MAX_PAGE_JOBS, PageJob};
use super::request::{CancelHandle, Event, GenerateRequest, Owner, Urgency};
use super::{EngineError, Limits};

/// Longest advice in `retry_after_s`: nobody's page should look dead for longer.
const MAX_RETRY_AFTER_S: f64 = 120.0;
/// What nobody waits for and still is to be done: a few messages of everybody in a family.
const MAX_BACKGROUND: usize = 16;
/// Length of a generation that is assumed before one has ended.
const FIRST_GUESS_S: f64 = 5.0;
/// Weight of the newest generation in the running mean.
const MEAN_WEIGHT: f64 = 0.2;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: GenerateRequest,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) cancel: CancelHandle,
    pub(super) submitted_at: Instant,
    /// As last reported; 0 when not yet.
    pub(super) position: usize,
}

impl Waiting {
    /// Whether somebody waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        self.request.urgency == Urgency::Awaited
    }

    fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.events.is_closed()
    }
}

/// Everything that waits, and how many run for whom.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    /// In the order of turns; none is empty.
    lanes: VecDeque<Lane>,
    n_running_of: HashMap<Owner, usize>,
    n_running: usize,
    mean_generation_s: f64,
    closed: bool,
    paused: bool,
    /// Texts of which only a vector is wanted.
    embeds: VecDeque<EmbedJob>,
    /// Pages of warm sequences that are to be handed out or brought back.
    page_jobs: VecDeque<PageJob>,
    /// What nobody waits for; one at a time, and alone.
    background: VecDeque<Waiting>,
    background_runs: bool,
}

#[derive(Debug)]
struct Lane {
    owner: Owner,
    waiting: VecDeque<Waiting>,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: VecDeque::new(),
            n_running_of: HashMap::new(),
            n_running: 0,
            mean_generation_s: FIRST_GUESS_S,
            closed: false,
            paused: false,
            embeds: VecDeque::new(),
            page_jobs: VecDeque::new(),
            background: VecDeque::new(),
            background_runs: false,
        }
    }

    pub(super) fn n_running(&self) -> usize {
        self.n_running
    }

    pub(super) fn n_waiting(&self) -> usize {
        self.lanes.iter().map(|l| l.waiting.len()).sum()
    }

    /// Whether new requests are refused until [`Self::resume`], while those that wait are served.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn pause(&mut self) {
        self.paused = true;
        // Another model would not understand it, and waits.
        self.background.clear();
    }

    pub(super) fn resume(&mut self) {
        self.paused = false;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Nothing more is taken or served.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes a text for its vector.
    pub(super) fn push_embed(&mut self, job: EmbedJob) -> Result<(), EngineError> {
        if self.closed || self.paused {
            return Err(EngineError::NotReady);
        }
        if self.embeds.len() >= MAX_EMBEDS_WAITING {
            return Err(EngineError::Busy { retry_after_s: self.retry_after_s() });
        }
        self.embeds.push_back(job);
        Ok(())
    }

    pub(super) fn pop_embed(&mut self) -> Option<EmbedJob> {
        self.embeds.pop_front()
    }

    /// Takes a job about pages; `None` where too many wait, or nothing is served any more.
    pub(super) fn push_page_job(&mut self, job: PageJob) -> Option<()> {
        let is_served = !self.closed && !self.paused && self.page_jobs.len() < MAX_PAGE_JOBS;
        is_served.then(|| self.page_jobs.push_back(job))
    }

    pub(super) fn pop_page_job(&mut self) -> Option<PageJob> {
        self.page_jobs.pop_front()
    }

    /// Whether there is anything to do.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_wanted() && self.background.is_empty() && self.page_jobs.is_empty()
    }

    /// Whether what nobody waits for has to make way.
    pub(super) fn wants_the_place(&self) -> bool {
        self.background_runs && (self.is_wanted() || self.paused)
    }

    fn is_wanted(&self) -> bool {
        let awaited = |job: &PageJob| job.is_awaited();
        !self.lanes.is_empty() || !self.embeds.is_empty() || self.page_jobs.iter().any(awaited)
    }

    /// Takes a request. Free places count as room, because what waits for them waits for a moment only.
    pub(super) fn push(&mut self, waiting: Waiting) -> Result<(), EngineError> {
        if self.closed || self.paused {
            return Err(EngineError::NotReady);
        }
        if !waiting.is_awaited() {
            if self.background.len() >= MAX_BACKGROUND {
                return Err(EngineError::Busy { retry_after_s: self.retry_after_s() });
            }
            self.background.push_back(waiting);
            return Ok(());
        }
        let n_taken = self.n_running - usize::from(self.background_runs);
        let n_free = self.limits.max_running - n_taken.min(self.limits.max_running);
        let live = |lane: &Lane| lane.waiting.iter().filter(|w| !w.is_over()).count();
        let owner = waiting.request.owner;
        let n_of_owner = self.lanes.iter().find(|l| l.owner == owner).map_or(0, live);
        let n_total: usize = self.lanes.iter().map(live).sum();
        if n_of_owner >= self.limits.queue_per_owner + n_free || n_total >= self.limits.queue_total + n_free {
            return Err(EngineError::Busy { retry_after_s: self.retry_after_s() });
        }
        match self.lanes.iter_mut().find(|l| l.owner == owner) {
            Some(lane) => lane.waiting.push_back(waiting),
            None => self.lanes.push_back(Lane { owner, waiting: [waiting].into() }),
        }
        Ok(())
    }

    /// The next to run, counted as running from now on; `None` when all places are taken or nobody waits.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        if self.n_running >= self.limits.max_running {
            return None;
        }
        if !self.is_wanted() && self.n_running == 0 {
            let waiting = self.background.pop_front()?;
            self.n_running = 1;
            self.background_runs = true;
            return Some(waiting);
        }
        let turns: Vec<(Owner, usize)> =
            self.lanes.iter().map(|l| (l.owner, self.n_running_for(l.owner))).collect();
        let i = next_lane(&turns)?;
        let mut lane = self.lanes.remove(i)?;
        let waiting = lane.waiting.pop_front();
        let owner = lane.owner;
        if !lane.waiting.is_empty() {
            self.lanes.push_back(lane);
        }
        self.n_running += 1;
        *self.n_running_of.entry(owner).or_default() += 1;
        waiting
    }

    /// Gives a place back that [`Queue::pop`] had given to a request, which goes back to where it was.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        debug_assert!(waiting.is_awaited(), "it runs alone, so there is nothing to wait for");
        let owner = waiting.request.owner;
        self.leave(owner);
        let i = self.lanes.iter().position(|l| l.owner == owner);
        let mut lane =
            i.and_then(|i| self.lanes.remove(i)).unwrap_or(Lane { owner, waiting: VecDeque::new() });
        lane.waiting.push_front(waiting);
        self.lanes.push_front(lane);
    }

    /// A generation of this owner ended after `took`.
    pub(super) fn end(&mut self, owner: Owner, took: Duration) {
        self.leave(owner);
        self.mean_generation_s += MEAN_WEIGHT * (took.as_secs_f64() - self.mean_generation_s);
    }

    /// What nobody waits for ended.
    pub(super) fn end_background(&mut self) {
        self.n_running = self.n_running.saturating_sub(1);
        self.background_runs = false;
    }

    /// Nothing runs any more.
    pub(super) fn end_everybody(&mut self) {
        self.n_running = 0;
        self.background_runs = false;
        self.n_running_of.clear();
    }

    /// Takes out what was cancelled or abandoned while it waited.
    pub(super) fn take_over(&mut self) -> Vec<Waiting> {
        self.take_where(Waiting::is_over)
    }

    /// Takes out everything.
    pub(super) fn take_all(&mut self) -> Vec<Waiting> {
        // Who waits for a vector or a page hears of it by the channel's end.
        self.embeds.clear();
        self.page_jobs.clear();
        self.take_where(|_| true)
    }

    /// Tells everybody whose position changed.
    pub(super) fn report_positions(&mut self) {
        let mut turns: Vec<(Owner, usize)> = Vec::new();
        for lane in &self.lanes {
            turns.push((lane.owner, self.n_running_for(lane.owner)));
        }
        let mut n_served: HashMap<Owner, usize> = HashMap::new();
        for position in 1..=self.n_waiting() {
            let wait = self.estimated_wait(position);
            let Some(i) = next_lane(&turns) else { return };
            let (owner, n_running) = turns.remove(i);
            let nth = n_served.entry(owner).or_default();
            let Some(lane) = self.lanes.iter_mut().find(|l| l.owner == owner) else { return };
            let waiting = &mut lane.waiting[*nth];
            *nth += 1;
            if waiting.position != position {
                waiting.position = position;
                // A reader that went away is found by `take_over`.
                let _ = waiting.events.send(Event::Queued { position, wait });
            }
            if *nth < lane.waiting.len() {
                turns.push((owner, n_running + 1));
            }
        }
    }

    /// When the request at this position may begin: each place is free once per generation.
    fn estimated_wait(&self, position: usize) -> Duration {
        let n_rounds = position.div_ceil(self.limits.max_running) as f64;
        Duration::from_secs_f64(n_rounds * self.mean_generation_s)
    }

    fn n_running_for(&self, owner: Owner) -> usize {
        self.n_running_of.get(&owner).copied().unwrap_or(0)
    }

    fn leave(&mut self, owner: Owner) {
        self.n_running = self.n_running.saturating_sub(1);
        if let Some(n) = self.n_running_of.get_mut(&owner) {
            *n -= 1;
            if *n == 0 {
                self.n_running_of.remove(&owner);
            }
        }
    }

    fn take_where(&mut self, wanted: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut taken = Vec::new();
        for lane in &mut self.lanes {
            let (out, stay): (VecDeque<_>, VecDeque<_>) = lane.waiting.drain(..).partition(|w| wanted(w));
            lane.waiting = stay;
            taken.extend(out);
        }
        self.lanes.retain(|l| !l.waiting.is_empty());
        let (out, stay): (VecDeque<_>, VecDeque<_>) = self.background.drain(..).partition(|w| wanted(w));
        self.background = stay;
        taken.extend(out);
        taken
    }

    fn retry_after_s(&self) -> u64 {
        let n_rounds = self.n_waiting() as f64 / self.limits.max_running as f64 + 1.0;
        (n_rounds * self.mean_generation_s).clamp(1.0, MAX_RETRY_AFTER_S).ceil() as u64
    }
}

/// The first of those with the fewest running.
fn next_lane(turns: &[(Owner, usize)]) -> Option<usize> {
    (0..turns.len()).min_by_key(|&i| turns[i].1)
}
