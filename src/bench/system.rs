//! What the system says about itself and this process. Everything here may be missing; then it is said to be unknown.

use std::fs;
use std::hint::black_box;
use std::time::Instant;

/// The processor's name.
pub fn cpu_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Cores that this process may use.
pub fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The number on the line of a `/proc` file that starts with `key`, in its own unit.
pub(super) fn number_after(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

/// Largest resident memory since [`reset_peak_rss`], in bytes; 0 where the system does not tell.
pub fn peak_rss() -> u64 {
    number_after("/proc/self/status", "VmHWM:").unwrap_or(0) << 10
}

/// Starts the peak anew, so that it is of one model and not of the one before.
pub fn reset_peak_rss() {
    // A system without it keeps the peak of the whole process: too large, never too small.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Bytes of this process that lie on huge pages.
pub fn huge_page_bytes() -> u64 {
    let of = |key| number_after("/proc/self/smaps_rollup", key).unwrap_or(0) << 10;
    of("AnonHugePages:") + of("ShmemPmdMapped:") + of("FilePmdMapped:")
}

/// Bytes that can still be had without swapping.
pub fn available_memory() -> Option<u64> {
    Some(number_after("/proc/meminfo", "MemAvailable:")? << 10)
}

/// Bytes of the largest cache of the first core.
pub fn last_level_cache() -> Option<u64> {
    let sizes = (0..8).filter_map(|i| {
        let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size")).ok()?;
        let text = text.trim();
        let (digits, shift) = match text.strip_suffix('K') {
            Some(digits) => (digits, 10),
            None => (text.strip_suffix('M')?, 20),
        };
        Some(digits.parse::<u64>().ok()? << shift)
    });
    sizes.max()
}

/// Nanoseconds that reading the clock takes: what a measurement adds to what it measures.
pub fn timer_ns() -> f64 {
    // Some ten microseconds: long against one reading, not noticed by anybody.
    const READINGS: u32 = 500;
    let start = Instant::now();
    for _ in 0..READINGS {
        black_box(Instant::now());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(READINGS)
}

/// Instruction sets that the binary was compiled for, whatever the kernels choose when it runs.
pub fn target_features() -> String {
    let features = [
        ("sse2", cfg!(target_feature = "sse2")),
        ("sse4.2", cfg!(target_feature = "sse4.2")),
        ("avx", cfg!(target_feature = "avx")),
        ("avx2", cfg!(target_feature = "avx2")),
        ("fma", cfg!(target_feature = "fma")),
        ("f16c", cfg!(target_feature = "f16c")),
        ("avx512f", cfg!(target_feature = "avx512f")),
        ("avx512vnni", cfg!(target_feature = "avx512vnni")),
        ("neon", cfg!(target_feature = "neon")),
    ];
    let present: Vec<&str> = features.iter().filter(|f| f.1).map(|f| f.0).collect();
    present.join(" ")
}
