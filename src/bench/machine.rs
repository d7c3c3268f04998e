//! What this machine can do: bytes a second read from memory, by threads and page size, and operations a second, by
//! kind of arithmetic and instruction set. Every measurement of the engine is set against these.
//!
//! The best of several passes counts, because whatever disturbs a pass can only make it slower.

use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::row::Limits;
use super::system;
use crate::kernels::dispatch::Isa;
use crate::kernels::pages::{PageSize, Pages};
use crate::kernels::probe::{self, Arithmetic};

/// Bytes read in one pass, at least: larger than most last-level caches.
const LEAST_BYTES: u64 = 256 << 20;
/// Bytes read in one pass by a debug build, whose figures say nothing, but which must end.
const DEBUG_BYTES: u64 = 8 << 20;
/// Bytes read in one pass, at most: a pass of a slow machine stays short.
const MOST_BYTES: u64 = 1 << 30;
/// So many times the last-level cache must be read, so that little of a pass comes from it.
const CACHES: u64 = 4;
/// Share of the free memory that may be used.
const MEMORY_SHARE: u64 = 4;
/// Passes of one bandwidth measurement, of which the best counts.
const PASSES: usize = 6;
/// A bandwidth measurement takes at most so long, however slow the machine is; two passes are made in any case.
const PASSES_LIMIT: Duration = Duration::from_millis(700);
/// How long one run of arithmetic is; shorter ones see the clock rise, longer ones make the whole slow.
const ARITHMETIC_RUN: Duration = Duration::from_millis(25);
/// Runs of arithmetic, of which the best counts.
const ARITHMETIC_RUNS: usize = 3;
/// The cached file's layout; another number is measured anew.
const FORMAT: u32 = 1;

/// Everything measured about a machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Layout of this record.
    pub format: u32,
    /// What was measured: processor, cores, memory, page setting.
    pub fingerprint: String,
    /// When: RFC 3339.
    pub measured_at: String,
    /// Reading, by threads and page size.
    pub bandwidth: Vec<Bandwidth>,
    /// Arithmetic, by kind, instruction set and threads.
    pub arithmetic: Vec<Peak>,
}

/// Reading from memory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Threads that read at once.
    pub n_threads: usize,
    /// `4K` or `2M`.
    pub pages: String,
    /// Whether the system gave pages of that size.
    pub granted: bool,
    /// Billions of bytes a second.
    pub gbps: f64,
}

/// Arithmetic on registers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Peak {
    /// `int8`, `bf16` or `f32`.
    pub kind: String,
    /// `scalar`, `avx2`, `avxvnni`, `avx512`.
    pub isa: String,
    /// Threads that computed at once.
    pub n_threads: usize,
    /// Billions of additions and multiplications a second.
    pub gops: f64,
}

/// What makes two machines the same for these measurements.
pub fn fingerprint() -> String {
    let memory = system::number_after("/proc/meminfo", "MemTotal:").unwrap_or(0) >> 20;
    let pages = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = pages.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("?", |(w, _)| w);
    format!(
        "{}; {} cores; {memory} GiB; huge pages {chosen}; {}",
        system::cpu_name(),
        system::n_cores(),
        Isa::best().as_str()
    )
}

impl Machine {
    /// Measures everything; some seconds. `progress` hears what comes next.
    ///
    /// # Errors
    /// When the memory for it is not there.
    pub fn measure(progress: &mut dyn FnMut(&str)) -> std::io::Result<Self> {
        let (mut bandwidth, mut arithmetic) = (Vec::new(), Vec::new());
        for size in PageSize::ALL {
            for n_threads in thread_counts(system::n_cores()) {
                progress(&format!("read bandwidth, {n_threads} threads, {} pages", size.as_str()));
                let (bytes_per_s, granted) = read_bandwidth_of(n_threads, size)?;
                let pages = size.as_str().to_owned();
                bandwidth.push(Bandwidth { n_threads, pages, granted, gbps: bytes_per_s / 1e9 });
            }
        }
        let mut counts = vec![1, system::n_cores()];
        counts.dedup();
        for kind in Arithmetic::ALL {
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                progress(&format!("{} arithmetic, {}", kind.as_str(), isa.as_str()));
                for &n_threads in &counts {
                    let Some(ops_per_s) = arithmetic_of(isa, kind, n_threads) else { continue };
                    let (kind, isa) = (kind.as_str().to_owned(), isa.as_str().to_owned());
                    arithmetic.push(Peak { kind, isa, n_threads, gops: ops_per_s / 1e9 });
                }
            }
        }
        let measured_at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Ok(Self { format: FORMAT, fingerprint: fingerprint(), measured_at, bandwidth, arithmetic })
    }

    /// What was measured on this machine earlier; `None` where it was another one, or nothing readable is there.
    pub fn load(path: &Path) -> Option<Self> {
        let machine: Self = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        (machine.format == FORMAT && machine.fingerprint == fingerprint()).then_some(machine)
    }

    /// Keeps it for later calls.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        // Renamed into place, so that a reader never sees half of it.
        let part = path.with_extension("part");
        std::fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&part, path)
    }

    /// Bytes a second that the best number of threads reads.
    pub fn best_bandwidth(&self) -> f64 {
        self.bandwidth.iter().map(|b| b.gbps * 1e9).fold(0.0, f64::max)
    }

    /// The limits of `n_threads` threads; `None` where that number was not measured.
    pub fn limits(&self, n_threads: usize, is_quantized: bool) -> Option<Limits> {
        let kind = kind_of(is_quantized).as_str();
        let read = self.bandwidth.iter().filter(|b| b.n_threads == n_threads).map(|b| b.gbps * 1e9);
        let peaks = self.arithmetic.iter().filter(|p| p.n_threads == n_threads && p.kind == kind);
        let limits = Limits {
            read_bandwidth: read.fold(0.0, f64::max),
            arithmetic: peaks.map(|p| p.gops * 1e9).fold(0.0, f64::max),
        };
        (limits.read_bandwidth > 0.0 && limits.arithmetic > 0.0).then_some(limits)
    }
}

/// 1, 2, 4 and so on, and all cores.
fn thread_counts(n_cores: usize) -> Vec<usize> {
    let mut counts: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < n_cores).collect();
    counts.push(n_cores);
    counts
}

/// Measures the limits of `n_threads` threads alone: about a second.
///
/// # Errors
/// When the memory for it is not there.
pub fn measure_limits(n_threads: usize, is_quantized: bool) -> std::io::Result<Limits> {
    let (read_bandwidth, _) = read_bandwidth_of(n_threads, PageSize::Huge)?;
    let kind = kind_of(is_quantized);
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let arithmetic = isas.filter_map(|isa| arithmetic_of(isa, kind, n_threads)).fold(0.0, f64::max);
    Ok(Limits { read_bandwidth, arithmetic })
}

/// Bytes a second that all cores read from memory together: about half a second.
///
/// # Errors
/// When the memory for it is not there.
pub fn read_bandwidth() -> std::io::Result<f64> {
    Ok(read_bandwidth_of(system::n_cores(), PageSize::Huge)?.0)
}

fn kind_of(is_quantized: bool) -> Arithmetic {
    if is_quantized { Arithmetic::Int8 } else { Arithmetic::F32 }
}

fn buffer_bytes() -> u64 {
    if cfg!(debug_assertions) {
        return DEBUG_BYTES;
    }
    let cache = system::last_level_cache().unwrap_or(0);
    let wanted = (cache * CACHES).clamp(LEAST_BYTES, MOST_BYTES);
    match system::available_memory() {
        Some(free) => wanted.min(free / MEMORY_SHARE),
        None => wanted,
    }
}

/// Bytes a second, and whether the pages have the size that was asked for.
fn read_bandwidth_of(n_threads: usize, size: PageSize) -> std::io::Result<(f64, bool)> {
    let n_words = (buffer_bytes() / 8) as usize;
    let huge_before = system::huge_page_bytes();
    let mut pages = Pages::new(n_words, size)?;
    let share = n_words.div_ceil(n_threads.max(1)).max(1);
    std::thread::scope(|scope| {
        for part in pages.words_mut().chunks_mut(share) {
            // Pages belong to whom writes them first, and unwritten ones are all the same zeroes.
            scope.spawn(move || part.fill(1));
        }
    });
    let n_huge = system::huge_page_bytes().saturating_sub(huge_before);
    let granted = (n_huge * 2 > n_words as u64 * 8) == (size == PageSize::Huge);
    let start = Instant::now();
    let mut best = Duration::MAX;
    for pass in 0..PASSES {
        if pass >= 2 && start.elapsed() > PASSES_LIMIT {
            break;
        }
        let parts: Vec<&[u64]> = pages.words().chunks(share).collect();
        best = best.min(together(parts.len(), |i| {
            black_box(probe::read(Isa::best(), black_box(parts[i])));
        }));
    }
    Ok((n_words as f64 * 8.0 / best.as_secs_f64(), granted))
}

/// Operations a second; `None` where the class has no instruction for the kind.
fn arithmetic_of(isa: Isa, kind: Arithmetic, n_threads: usize) -> Option<f64> {
    // Long enough to be timed, short enough not to be noticed.
    let mut n = 10_000;
    loop {
        let start = Instant::now();
        probe::compute(isa, kind, n)?;
        let took = start.elapsed();
        if took * 4 > ARITHMETIC_RUN {
            n = (n as f64 * ARITHMETIC_RUN.as_secs_f64() / took.as_secs_f64()).max(1.0) as u64;
            break;
        }
        n *= 4;
    }
    let n_operations = probe::compute(isa, kind, n)? * n_threads as u64;
    let runs = (0..ARITHMETIC_RUNS).map(|_| {
        together(n_threads, |_| {
            black_box(probe::compute(isa, kind, n));
        })
    });
    Some(n_operations as f64 / runs.min()?.as_secs_f64())
}

/// Runs `work(i)` on `n` threads that start together; the time until the last is done.
fn together(n: usize, work: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(n + 1);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..n)
            .map(|i| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    work(i);
                    (start, Instant::now())
                })
            })
            .collect();
        barrier.wait();
        let times: Vec<(Instant, Instant)> = handles.into_iter().filter_map(|h| h.join().ok()).collect();
        match (times.iter().map(|t| t.0).min(), times.iter().map(|t| t.1).max()) {
            (Some(first), Some(last)) => last - first,
            _ => Duration::MAX,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let bandwidth =
            |n_threads, pages: &str, gbps| Bandwidth { n_threads, pages: pages.into(), granted: true, gbps };
        let peak =
            |kind: &str, isa: &str, gops| Peak { kind: kind.into(), isa: isa.into(), n_threads: 2, gops };
        Machine {
            format: FORMAT,
            fingerprint: fingerprint(),
            measured_at: "2026-01-01T00:00:00Z".into(),
            bandwidth: vec![bandwidth(1, "4K", 10.0), bandwidth(2, "4K", 15.0), bandwidth(2, "2M", 18.0)],
            arithmetic: vec![
                peak("int8", "scalar", 5.0),
                peak("int8", "avx2", 90.0),
                peak("f32", "avx2", 40.0),
            ],
        }
    }

    #[test]
    fn limits_are_the_best_of_as_many_threads() {
        let integers = Limits { read_bandwidth: 18e9, arithmetic: 90e9 };
        assert_eq!(machine().limits(2, true), Some(integers));
        let floats = Limits { read_bandwidth: 18e9, arithmetic: 40e9 };
        assert_eq!(machine().limits(2, false), Some(floats));
        assert_eq!(machine().limits(1, true), None, "arithmetic of one thread was not measured");
        assert!((machine().best_bandwidth() - 18e9).abs() < 1.0);
    }

    #[test]
    fn a_kept_measurement_counts_on_its_own_machine_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache/machine.json");
        machine().save(&path).unwrap();
        assert_eq!(Machine::load(&path), Some(machine()));
        Machine { fingerprint: "another".into(), ..machine() }.save(&path).unwrap();
        assert_eq!(Machine::load(&path), None);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Machine::load(&path), None);
    }

    #[test]
    fn every_number_of_threads_up_to_the_cores_is_doubled() {
        assert_eq!(thread_counts(1), [1]);
        assert_eq!(thread_counts(2), [1, 2]);
        assert_eq!(thread_counts(6), [1, 2, 4, 6]);
    }
}
