//! Plain functions on slices: the arithmetic of quantized inference, chosen once for the CPU at hand.
//!
//! `blocks` reads GGML's formats, `pack` lays weights out for the vector units, `activations` quantizes what is
//! multiplied with them, `scalar` is the reference, `avx2`, `avx512`, `amx` and `neon` are the fast dot products, `lanes`
//! and `attention` are loops that the compiler vectorises for each class, `dispatch` chooses. `pool` and `team` run them
//! on all cores: `linear`, `rows`, `place` and `attend` are the steps of a layer, over weights in an `arena` and keys and values in
//! `kv`, which `words` keeps and compares as 16-bit integers. `reached` notes which kernels really ran, `probe` and `pages` measure what the machine itself can do. Nothing
//! here knows models, tokens or tensors, and nothing in a hot function allocates.
#![allow(unsafe_code, reason = "vector intrinsics read raw pointers; every block says why it may")]
#![allow(clippy::inline_always, reason = "a body must be compiled with the instruction set of its caller")]
#![allow(clippy::needless_range_loop, reason = "lanes and rows are indexed side by side, as in the formulas")]

pub mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod arena;
pub mod attend;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod attention_x86;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod blocks;
pub mod dispatch;
#[cfg(target_arch = "aarch64")]
mod expand;
mod halves;
pub mod kv;
mod lanes;
pub mod linear;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod pack;
pub mod pages;
pub mod place;
pub mod pool;
pub mod probe;
#[cfg(target_arch = "x86_64")]
mod quantize_x86;
pub mod reached;
pub mod rows;
pub mod scalar;
pub mod team;
mod words;

#[cfg(test)]
mod tests;
