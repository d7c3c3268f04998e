#!/usr/bin/env bash
# Runs the kernels' tests for ARM on another machine: in a crate of their own, since they import nothing of ours, under
# qemu, once with `smmla` and once with dot products alone.
#
# Needs: rustup target add aarch64-unknown-linux-gnu, and (Debian) apt install qemu-user gcc-aarch64-linux-gnu
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
crate=$root/target/neon
mkdir -p "$crate/src"
cp "$root/Cargo.lock" "$crate/"
echo "#[path = \"$root/src/kernels/mod.rs\"] pub mod kernels;" > "$crate/src/lib.rs"
cat > "$crate/Cargo.toml" <<'END'
[package]
name = "neon"
edition = "2024"
[dependencies]
libc = "0.2"
memmap2 = "0.9"
tracing = "0.1"
[profile.test]
opt-level = 2
[workspace]
END
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
for cpu in max cortex-a76; do
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $cpu"
    (cd "$crate" && cargo test --lib --target aarch64-unknown-linux-gnu)
done
