//! Plain functions on slices: the arithmetic of quantized inference, chosen once for the CPU at hand.
//!
//! `blocks` reads GGML's formats, `pack` lays weights out for the vector units, `activations` quantizes what is
//! multiplied with them, `scalar` is the reference that every other kernel is tested against. Nothing here knows models,
//! tokens or tensors, and nothing in a hot function allocates.
#![allow(unsafe_code, reason = "vector intrinsics read raw pointers; every block says why it may")]

pub mod activations;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod blocks;
pub mod pack;
pub mod scalar;

#[cfg(test)]
mod tests;
