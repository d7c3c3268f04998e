//! A linear classifier over [`super::features`]: one weight per slot says danger or not, and ten smaller tables say
//! which kind. Trained by `cargo bench --bench safety -- --write`.

use super::Kind;
use super::features::{self, N_SLOTS};

/// Slots of the tables that tell kinds apart: coarser, because the danger is certain by then.
pub const N_KIND_SLOTS: usize = 1 << 14;
const MAGIC: &[u8; 8] = b"MGSAFE01";
const N_KINDS: usize = Kind::ALL.len();
const HEADER_BYTES: usize = 8 + 4 * 4;
/// Length of a weights file.
pub const FILE_BYTES: usize = HEADER_BYTES + N_SLOTS + N_KINDS * N_KIND_SLOTS;

/// Weights as trained.
#[derive(Clone, Debug)]
pub struct Weights {
    /// One per slot.
    pub danger: Vec<f32>,
    /// Added to every score.
    pub bias: f32,
    /// At or above it the card is shown.
    pub threshold: f32,
    /// One table per kind, in the order of [`Kind::ALL`].
    pub kinds: Vec<Vec<f32>>,
}

impl Weights {
    /// The score of a message: that of its most dangerous window, and which window that is.
    pub fn score(&self, windows: &[Vec<u32>]) -> (f32, usize) {
        let mut best = (f32::NEG_INFINITY, 0);
        for (i, window) in windows.iter().enumerate() {
            let score = self.bias + mean(window, |slot| self.danger[slot as usize]);
            if score > best.0 {
                best = (score, i);
            }
        }
        best
    }

    /// The likeliest kind of a window.
    pub fn kind(&self, window: &[u32]) -> Kind {
        let score = |table: &[f32]| mean(window, |slot| table[slot as usize & (N_KIND_SLOTS - 1)]);
        let best = (0..N_KINDS).max_by(|&a, &b| score(&self.kinds[a]).total_cmp(&score(&self.kinds[b])));
        Kind::ALL[best.unwrap_or(0)]
    }

    /// What the check says of a text that must be `margin` over the threshold.
    pub fn check(&self, text: &str, margin: f32) -> Option<Kind> {
        let windows = features::windows(text);
        let (score, at) = self.score(&windows);
        // Where nothing could be read nothing was said, whatever the bias is.
        (!windows[at].is_empty() && score >= self.threshold + margin).then(|| self.kind(&windows[at]))
    }

    /// The file's bytes: every weight as one signed byte times the table's scale.
    pub fn to_bytes(&self) -> Vec<u8> {
        let scale = |table: &[f32]| table.iter().fold(1e-9f32, |m, w| m.max(w.abs())) / 127.0;
        let danger = scale(&self.danger);
        let kinds = self.kinds.iter().map(|t| scale(t)).fold(0.0, f32::max);
        let mut out = MAGIC.to_vec();
        for number in [self.bias, self.threshold, danger, kinds] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.danger.iter().map(|w| (w / danger).round() as i8 as u8));
        out.extend(self.kinds.iter().flatten().map(|w| (w / kinds).round() as i8 as u8));
        out
    }

    /// Reads what [`Weights::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != FILE_BYTES || !bytes.starts_with(MAGIC) {
            return None;
        }
        let number = |i: usize| {
            let at = MAGIC.len() + 4 * i;
            f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let table = |bytes: &[u8], scale: f32| {
            bytes.iter().map(|&b| f32::from(i8::from_le_bytes([b])) * scale).collect::<Vec<f32>>()
        };
        let (danger, kinds) = bytes[HEADER_BYTES..].split_at(N_SLOTS);
        Some(Self {
            danger: table(danger, number(2)),
            bias: number(0),
            threshold: number(1),
            kinds: kinds.chunks_exact(N_KIND_SLOTS).map(|t| table(t, number(3))).collect(),
        })
    }
}

/// Sum over a window's slots, tempered by its length: a longer window has more of everything.
fn mean(window: &[u32], weight: impl Fn(u32) -> f32) -> f32 {
    window.iter().map(|&slot| weight(slot)).sum::<f32>() / (window.len() as f32).sqrt().max(1.0)
}
