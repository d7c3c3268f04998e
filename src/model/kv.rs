//! What is remembered per sequence: the keys and values of its past positions.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{DType, Device, Error, Result, Tensor};

use super::{KvUsage, ModelConfig, ModelError, SeqId};
use crate::kernels::attention::PAGE_LEN;

/// Positions that a sequence gets room for first; then the room doubles, up to `n_ctx`.
const FIRST_CAPACITY: usize = 256;

/// Inputs of short convolutions that are kept per layer, in positions: as far back as a sequence can be cut, which is
/// where a reply begins to differ from what was generated, a few tokens from its end.
const RECENT_POSITIONS: usize = 64;
/// Positions before a row that any short convolution may see: its limit of taps less its own.
const MIN_RECENT: usize = super::config::MAX_TAPS - 1;

/// Keys and values of one sequence.
#[derive(Debug)]
pub(super) struct KvCache {
    /// One per layer once the first position is written; `None` for layers without keys and values.
    layers: Vec<Option<Layer>>,
    /// Newest inputs of layers that are short convolutions, `(n, n_embd)`: of positions `len - n` to `len`.
    recent: BTreeMap<usize, Tensor>,
    /// The same with the rows of the running step, which count when the step has succeeded.
    next_recent: RefCell<BTreeMap<usize, Tensor>>,
    capacity: usize,
    len: usize,
}

/// Both `(n_head_kv, capacity, head_dim)`: a head's positions lie together, so that attention reads memory in order.
#[derive(Debug)]
struct Layer {
    keys: Tensor,
    values: Tensor,
}

impl KvCache {
    fn new() -> Self {
        Self {
            layers: Vec::new(),
            recent: BTreeMap::new(),
            next_recent: RefCell::default(),
            capacity: 0,
            len: 0,
        }
    }

    /// Positions held.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Forgets positions from `len` on, where what is left of them suffices to go on; else nothing changes.
    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.len
            && let Ok(recent) = self.recent_at(len)
        {
            (self.recent, self.len) = (recent, len);
        }
    }

    /// The newest inputs as they were when the sequence had `len` positions.
    fn recent_at(&self, len: usize) -> Result<BTreeMap<usize, Tensor>> {
        if len == 0 {
            return Ok(BTreeMap::new());
        }
        let dropped = self.len - len;
        let cut = self.recent.iter().map(|(&layer, rows)| {
            let n = rows.dim(0)?;
            // Fewer than the convolution sees are as good as none, unless they begin with the sequence.
            let left = n.checked_sub(dropped).filter(|&left| left >= MIN_RECENT || left == len);
            let left = left.ok_or_else(|| Error::Msg(format!("no state is kept for {len} positions")))?;
            Ok((layer, rows.narrow(0, 0, left)?))
        });
        cut.collect()
    }

    /// The `n` newest inputs of a layer, zeros before the beginning; of the width of `like`.
    pub(super) fn recent(&self, layer: usize, n: usize, like: &Tensor) -> Result<Tensor> {
        let width = like.dim(1)?;
        let zeros = |n: usize| Tensor::zeros((n, width), like.dtype(), like.device());
        let Some(rows) = self.recent.get(&layer) else { return zeros(n) };
        match rows.dim(0)? {
            held if held >= n => rows.narrow(0, held - n, n),
            held => Tensor::cat(&[&zeros(n - held)?, rows], 0),
        }
    }

    /// Keeps the inputs of a layer, `(n, n_embd)`, for when the step has succeeded.
    pub(super) fn remember(&self, layer: usize, rows: &Tensor) -> Result<()> {
        let all = match self.recent.get(&layer) {
            Some(held) => Tensor::cat(&[held, rows], 0)?,
            None => rows.clone(),
        };
        let n = all.dim(0)?;
        let kept = n.min(RECENT_POSITIONS + MIN_RECENT);
        let newest = all.narrow(0, n - kept, kept)?.force_contiguous()?;
        self.next_recent.borrow_mut().insert(layer, newest);
        Ok(())
    }

    /// Makes room for `n` more positions. The caller has checked that they stay within `n_ctx`.
    pub(super) fn reserve(&mut self, n: usize, config: &ModelConfig, device: &Device) -> Result<()> {
        self.next_recent.borrow_mut().clear();
        let wanted = self.len + n;
        if wanted <= self.capacity {
            return Ok(());
        }
        let capacity = wanted.next_power_of_two().max(FIRST_CAPACITY).min(config.n_ctx).max(wanted);
        let shape = (config.n_head_kv, capacity, config.head_dim);
        let grown = |old: Option<&Tensor>| -> Result<Tensor> {
            let new = Tensor::zeros(shape, DType::F32, device)?;
            if let Some(old) = old.filter(|_| self.len > 0) {
                new.slice_set(&old.narrow(1, 0, self.len)?.contiguous()?, 1, 0)?;
            }
            Ok(new)
        };
        let layers: Result<Vec<Option<Layer>>> = (0..config.n_layer)
            .map(|i| {
                if config.is_short_conv(i) {
                    return Ok(None);
                }
                let old = self.layers.get(i).and_then(Option::as_ref);
                Ok(Some(Layer {
                    keys: grown(old.map(|layer| &layer.keys))?,
                    values: grown(old.map(|layer| &layer.values))?,
                }))
            })
            .collect();
        self.layers = layers?;
        self.capacity = capacity;
        Ok(())
    }

    /// Writes the new positions of one layer, `(n_head_kv, n, head_dim)` each, behind those held.
    pub(super) fn write(&self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        let layer = self.layer(layer)?;
        layer.keys.slice_set(&keys.contiguous()?, 1, self.len)?;
        layer.values.slice_set(&values.contiguous()?, 1, self.len)
    }

    /// Keys and values of one layer at `positions`, written ones included.
    pub(super) fn read(&self, layer: usize, positions: std::ops::Range<usize>) -> Result<(Tensor, Tensor)> {
        let layer = self.layer(layer)?;
        let n = positions.len();
        Ok((layer.keys.narrow(1, positions.start, n)?, layer.values.narrow(1, positions.start, n)?))
    }

    fn layer(&self, layer: usize) -> Result<&Layer> {
        let found = self.layers.get(layer).and_then(Option::as_ref);
        found.ok_or_else(|| Error::Msg(format!("layer {layer} keeps no keys and values")))
    }

    /// A cache of its own with the first `len` positions of this one.
    fn copy(&self, len: usize) -> Result<Self> {
        let copied = |t: &Tensor| t.narrow(1, 0, len)?.force_contiguous();
        let layers: Result<Vec<Option<Layer>>> = if len == 0 {
            Ok(Vec::new())
        } else {
            let copy = |l: &Layer| Ok(Layer { keys: copied(&l.keys)?, values: copied(&l.values)? });
            self.layers.iter().map(|layer| layer.as_ref().map(copy).transpose()).collect()
        };
        let recent = self.recent_at(len)?;
        Ok(Self { layers: layers?, recent, next_recent: RefCell::default(), capacity: len, len })
    }

    /// Counts `n` written positions as held.
    pub(super) fn advance(&mut self, n: usize) {
        self.recent.append(&mut self.next_recent.borrow_mut());
        self.len += n;
    }
}

/// The live sequences of a model.
#[derive(Debug)]
pub(super) struct Sequences {
    by_id: BTreeMap<SeqId, KvCache>,
    next: u32,
    max: usize,
}

impl Sequences {
    pub(super) fn new(max: usize) -> Self {
        Self { by_id: BTreeMap::new(), next: 0, max }
    }

    pub(super) fn create(&mut self) -> std::result::Result<SeqId, ModelError> {
        if self.by_id.len() >= self.max {
            return Err(ModelError::TooLarge(format!(
                "{} sequences are alive, as many as memory was set aside for",
                self.max
            )));
        }
        let mut id = SeqId(self.next);
        while self.by_id.contains_key(&id) {
            id = SeqId(id.0.wrapping_add(1));
        }
        self.next = id.0.wrapping_add(1);
        self.by_id.insert(id, KvCache::new());
        Ok(id)
    }

    /// A new sequence with a copy of the first `len` positions of `id`.
    pub(super) fn fork(&mut self, id: SeqId, len: usize) -> std::result::Result<SeqId, ModelError> {
        let Some(cache) = self.by_id.get(&id) else {
            return Err(ModelError::Backend(format!("sequence {} does not exist", id.0)));
        };
        if len > cache.len {
            return Err(ModelError::Backend(format!(
                "{len} positions of sequence {}, it has {}",
                id.0, cache.len
            )));
        }
        let copy = cache.copy(len).map_err(|e| ModelError::Backend(e.to_string()))?;
        let fork = self.create()?;
        self.by_id.insert(fork, copy);
        Ok(fork)
    }

    /// Pages taken, of those that all sequences may take.
    pub(super) fn usage(&self, config: &ModelConfig) -> KvUsage {
        let pages = |len: usize| len.div_ceil(PAGE_LEN);
        KvUsage {
            pages_used: self.by_id.values().map(|cache| pages(cache.len)).sum(),
            pages_total: self.max * pages(config.n_ctx),
            bytes_per_page: 2 * PAGE_LEN * config.kv_bytes_per_token(), // 32-bit floats
        }
    }

    pub(super) fn free(&mut self, id: SeqId) {
        self.by_id.remove(&id);
    }

    pub(super) fn get(&self, id: SeqId) -> Option<&KvCache> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SeqId) -> Option<&mut KvCache> {
        self.by_id.get_mut(&id)
    }
}
