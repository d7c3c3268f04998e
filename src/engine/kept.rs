//! Pages of warm sequences, handed out to be kept beyond this process and brought back when their owner goes on.
//!
//! The engine does not know where they are kept. It answers between two steps, a page at a time, so that nobody who
//! listens to an answer feels it.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::scheduler::Scheduler;
use super::{Engine, Owner, lock};
use crate::model::{KvForm, ModelError, SeqId, TokenId};

/// Jobs that may wait: some for everybody in a family, each one a copy of a page.
pub(super) const MAX_PAGE_JOBS: usize = 64;
/// How long a step of others is held up for them.
const TIME_BESIDE_STEPS: Duration = Duration::from_millis(10);

/// Something about an owner's warm sequences; dropped without an answer where it cannot be done.
#[derive(Debug)]
pub(super) struct PageJob {
    /// Of the model that is meant; `None` where any will do.
    form: Option<KvForm>,
    owner: Owner,
    tokens: Vec<TokenId>,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    /// How many of the tokens a warm sequence begins with.
    Warm(oneshot::Sender<usize>),
    /// All tokens of a warm sequence that begins with these.
    Whole(oneshot::Sender<Vec<TokenId>>),
    /// The last page of these tokens.
    Page(oneshot::Sender<Vec<u8>>),
    /// A warm sequence of these tokens, of which all but this last page are warm.
    Bring(Vec<u8>, oneshot::Sender<()>),
}

impl PageJob {
    /// Whether a person waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.wanted, Wanted::Warm(_) | Wanted::Bring(..))
    }

    fn is_over(&self) -> bool {
        match &self.wanted {
            Wanted::Warm(answer) => answer.is_closed(),
            Wanted::Whole(answer) => answer.is_closed(),
            Wanted::Page(answer) => answer.is_closed(),
            Wanted::Bring(_, answer) => answer.is_closed(),
        }
    }
}

impl Engine {
    /// Whether sequences stay warm for their owners' next messages.
    pub fn keeps_warm(&self) -> bool {
        !self.shared.limits.deterministic
    }

    /// What pages of keys and values of the loaded model are; `None` where it has none to hand out, or keeps nothing
    /// warm.
    pub fn kv_form(&self) -> Option<KvForm> {
        let form = self.model_info()?.kv_form;
        form.filter(|_| self.keeps_warm())
    }

    /// How many of `tokens`, from the first on, a warm sequence of the owner's holds.
    pub async fn n_warm(&self, owner: Owner, tokens: &[TokenId]) -> Option<usize> {
        self.ask(None, owner, tokens, Wanted::Warm).await
    }

    /// All tokens of the owner's newest warm sequence that begins with `tokens`.
    pub async fn warm_tokens(&self, form: KvForm, owner: Owner, tokens: &[TokenId]) -> Option<Vec<TokenId>> {
        self.ask(Some(form), owner, tokens, Wanted::Whole).await
    }

    /// The last page of `tokens`, whole pages with which a warm sequence of the owner's begins.
    pub async fn warm_page(&self, form: KvForm, owner: Owner, tokens: &[TokenId]) -> Option<Vec<u8>> {
        self.ask(Some(form), owner, tokens, Wanted::Page).await
    }

    /// Makes `tokens`, whole pages of which all but the last are warm, warm for their owner: `page` is their last one.
    /// `None` where that could not be done.
    pub async fn bring_page(
        &self,
        form: KvForm,
        owner: Owner,
        tokens: &[TokenId],
        page: Vec<u8>,
    ) -> Option<()> {
        self.ask(Some(form), owner, tokens, |answer| Wanted::Bring(page, answer)).await
    }

    async fn ask<T>(
        &self,
        form: Option<KvForm>,
        owner: Owner,
        tokens: &[TokenId],
        wanted: impl FnOnce(oneshot::Sender<T>) -> Wanted,
    ) -> Option<T> {
        let (answer, heard) = oneshot::channel();
        let job = PageJob { form, owner, tokens: tokens.to_vec(), wanted: wanted(answer) };
        lock(&self.shared.queue).push_page_job(job)?;
        self.shared.work.notify_one();
        heard.await.ok()
    }
}

impl Scheduler<'_> {
    /// Does what is asked about pages: all of it while nothing runs, else for a moment.
    pub(super) fn serve_pages(&mut self) {
        let began = Instant::now();
        while self.running.is_empty() || began.elapsed() < TIME_BESIDE_STEPS {
            let Some(job) = lock(&self.shared.queue).pop_page_job() else { return };
            let is_of_this_model = job.form.is_none_or(|form| self.model.kv_form() == Some(form));
            if is_of_this_model && !job.is_over() {
                self.serve(job);
            }
        }
    }

    fn serve(&mut self, PageJob { form, owner, tokens, wanted }: PageJob) {
        let hit = self.cache.find(owner, &tokens);
        let n_warm = hit.map_or(0, |hit| hit.n_common);
        let whole = hit.filter(|hit| hit.n_common == tokens.len()).map(|hit| hit.seq);
        let page_len = form.map_or(1, |form| form.page_len);
        // Who asked may have gone away.
        match wanted {
            Wanted::Warm(answer) => drop(answer.send(n_warm)),
            Wanted::Whole(answer) => {
                if let Some(seq) = whole {
                    drop(answer.send(self.cache.tokens_of(owner, seq)));
                }
            }
            Wanted::Page(answer) => {
                let i = (tokens.len() / page_len).checked_sub(1);
                let page = whole.zip(i).and_then(|(seq, i)| self.model.kv_page(seq, i));
                if let Some(page) = page {
                    drop(answer.send(page));
                }
            }
            Wanted::Bring(..) if tokens.is_empty() || !tokens.len().is_multiple_of(page_len) => {}
            Wanted::Bring(page, answer) => match self.bring(page_len, owner, &tokens, &page) {
                Ok(()) => drop(answer.send(())),
                Err(error) => tracing::debug!(%error, "a page was not brought back"),
            },
        }
    }

    fn bring(
        &mut self,
        page_len: usize,
        owner: Owner,
        tokens: &[TokenId],
        page: &[u8],
    ) -> Result<(), ModelError> {
        let n_before = tokens.len() - page_len;
        let hit = self.cache.find(owner, tokens);
        if hit.is_some_and(|hit| hit.n_common == tokens.len()) {
            return Ok(());
        }
        let seq = match hit {
            _ if n_before == 0 => self.empty_sequence()?,
            Some(hit) if hit.n_common < n_before => return Err(missing(n_before)),
            None => return Err(missing(n_before)),
            Some(hit) if hit.n_held == n_before => {
                self.cache.take(owner, hit.seq);
                hit.seq
            }
            Some(hit) => self.with_room(Some(hit.seq), |model| model.fork(hit.seq, n_before))?,
        };
        match self.append(seq, page) {
            Ok(()) => {
                for superfluous in self.cache.put(owner, seq, tokens) {
                    self.model.free_sequence(superfluous);
                }
                Ok(())
            }
            Err(error) => {
                self.model.free_sequence(seq);
                Err(error)
            }
        }
    }

    fn append(&mut self, seq: SeqId, page: &[u8]) -> Result<(), ModelError> {
        loop {
            match self.model.append_kv_page(seq, page) {
                Err(ModelError::TooLarge(why)) => match self.cache.evict(None) {
                    Some(oldest) => self.model.free_sequence(oldest),
                    None => return Err(ModelError::TooLarge(why)),
                },
                done => return done,
            }
        }
    }
}

fn missing(n_before: usize) -> ModelError {
    ModelError::Backend(format!("the {n_before} positions before it are not warm"))
}
