//! Kernels by block type and instruction set.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use mommygpt::kernels::activations::{Activations, quantize_row};
use mommygpt::kernels::attention::{PAGE_LEN, RowState, Slabs, Visible};
use mommygpt::kernels::blocks::BlockType;
use mommygpt::kernels::dispatch::{Isa, Kernels};
use mommygpt::kernels::pack::{PANEL_ROWS, PanelLayout, pack_panel};

/// Row length: that of a model of one billion weights, and a multiple of every block.
const K: usize = 2048;
/// Rows of activations: decoding one sequence, a family, and a piece of a prompt.
const ROWS: [usize; 3] = [1, 4, 64];

fn classes() -> Vec<Kernels> {
    Isa::ALL.into_iter().filter_map(Kernels::of).collect()
}

/// Rows that are the same on every machine, all values small and finite.
fn weights(ty: BlockType) -> Vec<u8> {
    let n_bytes = ty.row_bytes(K).unwrap_or_default();
    // Bytes below 64 are small numbers in every format, scales of 16 bits included.
    (0..n_bytes).map(|i| (i as u8).wrapping_mul(37) & 0x3f).collect()
}

fn activations(n_rows: usize) -> Activations {
    let mut a = Activations::default();
    a.resize(n_rows, K);
    let x: Vec<f32> = (0..K).map(|i| (i as f32 * 0.37).sin()).collect();
    for m in 0..n_rows {
        let (codes, scales, sums) = a.row_mut(m);
        quantize_row(&x, codes, scales, sums);
    }
    a
}

/// One packed panel of every quantized type against 1, 4 and 64 rows; bytes of weights a second.
pub(crate) fn panels(c: &mut Criterion) {
    for ty in BlockType::ALL.into_iter().filter(|ty| ty.is_quantized()) {
        let Some(layout) = PanelLayout::of(ty) else { continue };
        let row = weights(ty);
        let mut panel = vec![0; layout.panel_bytes(K)];
        pack_panel(&layout, K, &[row.as_slice(); PANEL_ROWS], &mut panel);
        let mut group = c.benchmark_group(format!("panel/{ty:?}"));
        group.throughput(Throughput::Bytes(panel.len() as u64));
        for kernels in classes() {
            for n_rows in ROWS {
                let a = activations(n_rows);
                let mut out = vec![[0.0; PANEL_ROWS]; n_rows];
                group.bench_function(BenchmarkId::new(kernels.isa().as_str(), n_rows), |b| {
                    b.iter(|| kernels.panel(&layout, black_box(&panel), black_box(&a), &mut out));
                });
            }
        }
        group.finish();
    }
}

/// Width of an attention head, as in most models.
const HEAD_DIM: usize = 128;

/// Query rows against one page of 32 positions; positions a second. One row is a head of its own in decoding, four are a
/// group of heads or a piece of a prompt.
pub(crate) fn attention(c: &mut Criterion) {
    let wave = |n: usize| -> Vec<f32> { (0..n).map(|i| (i as f32 * 0.37).sin()).collect() };
    let (k, v) = (wave(PAGE_LEN * HEAD_DIM), wave(PAGE_LEN * HEAD_DIM));
    let mut group = c.benchmark_group("attention");
    for kernels in classes() {
        let isa = kernels.isa().as_str();
        // Halves as they lie in the cache.
        let mut halves = vec![0; 2 * k.len()];
        kernels.narrow(&k, &mut halves);
        // Codes of any size take as long.
        let words = vec![1; 2 * k.len() + 4 * PAGE_LEN];
        for n_rows in ROWS {
            let q = wave(n_rows * HEAD_DIM);
            let visible = vec![Visible { from: 0, to: PAGE_LEN }; n_rows];
            let mut states = vec![RowState::default(); n_rows];
            let mut out = vec![0.0; n_rows * HEAD_DIM];
            group.throughput(Throughput::Elements((n_rows * PAGE_LEN) as u64));
            group.bench_function(BenchmarkId::new(isa, n_rows), |b| {
                b.iter(|| {
                    // A sequence of its own each time, so that sums do not grow without end.
                    states.fill(RowState::default());
                    kernels.attention_page(black_box(&q), &k, &v, &visible, 0.0, &mut states, &mut out);
                });
            });
            if kernels.reads_halves() {
                group.bench_function(BenchmarkId::new(format!("{isa}-halves"), n_rows), |b| {
                    b.iter(|| {
                        states.fill(RowState::default());
                        let slabs = Slabs { keys: &halves, values: &halves, next: &[] };
                        kernels.attention_halves(black_box(&q), slabs, &visible, 0.0, &mut states, &mut out);
                    });
                });
            }
            let (mut codes, mut scales) = (vec![0; q.len()], vec![0.0; n_rows]);
            kernels.words(&q, HEAD_DIM, f32::INFINITY, &mut codes, &mut scales);
            group.bench_function(BenchmarkId::new(format!("{isa}-i16"), n_rows), |b| {
                b.iter(|| {
                    states.fill(RowState::default());
                    let slabs = Slabs { keys: &words, values: &words, next: &[] };
                    kernels.attention_words(
                        black_box(&codes),
                        &scales,
                        slabs,
                        &visible,
                        0.0,
                        &mut states,
                        &mut out,
                    );
                });
            });
        }
    }
    group.finish();
}

/// What runs between the products, by instruction set.
pub(crate) fn others(c: &mut Criterion) {
    let x: Vec<f32> = (0..K).map(|i| (i as f32 * 0.37).sin()).collect();
    let ones = vec![1.0; K];
    let mut group = c.benchmark_group("elementwise");
    group.throughput(Throughput::Elements(K as u64));
    for kernels in classes() {
        let isa = kernels.isa().as_str();
        let mut out = vec![0.0; K];
        group.bench_function(BenchmarkId::new("rms_norm", isa), |b| {
            b.iter(|| kernels.rms_norm(black_box(&x), &ones, 1e-5, &mut out));
        });
        // In place, so that each round starts from the same values.
        group.bench_function(BenchmarkId::new("silu_mul", isa), |b| {
            b.iter(|| {
                out.copy_from_slice(black_box(&x));
                kernels.silu_mul(&mut out, &ones);
            });
        });
        let (mut codes, mut scales, mut sums) = (vec![0; K], vec![0.0; K / 32], vec![0.0; K / 16]);
        group.bench_function(BenchmarkId::new("quantize_row", isa), |b| {
            b.iter(|| kernels.quantize_row(black_box(&x), &mut codes, &mut scales, &mut sums));
        });
    }
    group.finish();
}
