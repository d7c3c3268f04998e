//! Queries, keys and values of new rows, side by side in one row of the input, made ready: normed and rotated, keys and values
//! written to their pages, a KV head per unit of work, so that no two threads write one slab.

use super::attention::PAGE_LEN;
use super::kv::{Heads, Pages, write_position};
use super::rows::Norm;
use super::team::{Parts, Shares, Team};

/// Where the keys and values of a row go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which page.
    pub page: u32,
    /// Which of its positions.
    pub slot: u32,
}

/// How queries and keys are turned.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// `(n_rows, n_pairs)`.
    pub cos: &'a [f32],
    /// The same.
    pub sin: &'a [f32],
    /// Pairs per head.
    pub n_pairs: usize,
    /// Element `i` belongs with `i + n_pairs` instead of with its neighbour.
    pub neox: bool,
}

/// What a layer does to queries and keys before they meet.
#[derive(Clone, Copy, Debug)]
pub struct HeadSteps<'a> {
    /// Norm of every query head.
    pub query_norm: Option<Norm<'a>>,
    /// Norm of every key head.
    pub key_norm: Option<Norm<'a>>,
    /// Rotation by position.
    pub rotation: Option<Rotation<'a>>,
    /// Factor on queries.
    pub query_scale: f32,
}

/// Prepares the queries of `qkv` in place and writes its keys and values to their places.
///
/// # Panics
/// If `qkv` is shorter than the rows, or a place lies outside the pages.
pub fn place_rows(
    team: &Team,
    pages: &mut Pages,
    layer: usize,
    qkv: &mut [f32],
    places: &[Place],
    steps: &HeadSteps<'_>,
) {
    let layout = pages.layout;
    let Heads { n_head, n_head_kv, head_dim } = layout.heads;
    let (group, width) = (layout.heads.group(), layout.heads.qkv_width());
    assert!(places.iter().all(|p| (p.page as usize) < pages.n_pages() && (p.slot as usize) < PAGE_LEN));
    let (qkv, arena) = (Parts::new(&mut qkv[..places.len() * width]), Parts::new(pages.arena.bytes_mut()));
    let kernels = &team.kernels;
    let turn = |head: &mut [f32], norm: Option<Norm<'_>>, m: usize| {
        if let Some(norm) = norm {
            kernels.rms_norm_in_place(head, norm.weight, norm.eps);
        }
        if let Some(Rotation { cos, sin, n_pairs, neox }) = steps.rotation {
            let row = m * n_pairs..(m + 1) * n_pairs;
            kernels.rope(head, &cos[row.clone()], &sin[row], neox);
        }
    };
    let shares = Shares::one_by_one(&team.cursors, n_head_kv);
    let work = |head: usize| {
        for (m, place) in places.iter().enumerate() {
            let at = |column: usize| m * width + column * head_dim..m * width + (column + 1) * head_dim;
            // SAFETY: the columns of a KV head and of its group of query heads belong to the head's unit, and so do its
            // slabs in every page.
            let (queries, key, value, slabs) = unsafe {
                let start = m * width + head * group * head_dim;
                let slab = layout.slab_at(place.page, layer, head);
                (
                    qkv.part(start..start + group * head_dim),
                    qkv.part(at(n_head + head)),
                    qkv.part(at(n_head + n_head_kv + head)),
                    arena.part(slab..slab + 2 * layout.slab_bytes()),
                )
            };
            for query in queries.chunks_exact_mut(head_dim) {
                turn(query, steps.query_norm, m);
                for q in query.iter_mut() {
                    *q *= steps.query_scale;
                }
            }
            turn(key, steps.key_norm, m);
            write_position(layout.kv, kernels, key, value, place.slot as usize, slabs);
        }
    };
    if places.len() * width < super::rows::FORK_FROM {
        (0..n_head_kv).for_each(work);
    } else {
        team.pool.run(&|thread_idx| shares.each(thread_idx, |heads| heads.for_each(work)));
    }
}
