//! Whether a model will fit into this machine's memory, asked before a byte of it is allocated.
//!
//! A container's limit kills the process without a word, and a home server that starts to swap is as good as dead; so
//! a model that cannot fit is refused with the sum that shows it.

use std::fs;

use super::ModelError;

/// What loading a model will take.
pub(super) struct Need {
    pub(super) weight_bytes: u64,
    /// Buffers of a step.
    pub(super) work_bytes: u64,
    pub(super) kv_bytes_per_token: u64,
    pub(super) n_ctx: u64,
    pub(super) n_sequences: u64,
}

impl Need {
    fn kv_bytes(&self) -> u64 {
        self.kv_bytes_per_token.saturating_mul(self.n_ctx).saturating_mul(self.n_sequences)
    }
}

/// Refuses a need that passes what is available. Systems that do not tell are trusted.
pub(super) fn check(need: &Need) -> Result<(), ModelError> {
    let Some((available, whose)) = available() else { return Ok(()) };
    let kv_bytes = need.kv_bytes();
    let total = need.weight_bytes.saturating_add(need.work_bytes).saturating_add(kv_bytes);
    if total <= available {
        return Ok(());
    }
    Err(ModelError::TooLarge(format!(
        "weights {} + buffers {} + KV cache {} ({} sequences x {} positions x {} bytes) = {}, and {whose} leaves {}; take a smaller \
         model, fewer sequences (-np) or a shorter context (-c)",
        mib(need.weight_bytes),
        mib(need.work_bytes),
        mib(kv_bytes),
        need.n_sequences,
        need.n_ctx,
        need.kv_bytes_per_token,
        mib(total),
        mib(available),
    )))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The tightest of the limits that this system states, in bytes, and whose it is; `None` where it states none.
pub fn available() -> Option<(u64, &'static str)> {
    let limits = [
        (machine(), "the machine"),
        (cgroup_v2(), "the container"),
        (cgroup_v1(), "the container"),
        (address_space(), "the process's address space limit"),
    ];
    limits.into_iter().filter_map(|(bytes, whose)| Some((bytes?, whose))).min()
}

/// The first number on the line that starts with `key`.
fn number_after(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn machine() -> Option<u64> {
    Some(number_after(&read("/proc/meminfo")?, "MemAvailable:")? << 10)
}

/// Inside a container its own group is mounted at the root; page cache counts as used but gives way.
fn cgroup_v2() -> Option<u64> {
    let limit: u64 = read("/sys/fs/cgroup/memory.max")?.trim().parse().ok()?;
    let used: u64 = read("/sys/fs/cgroup/memory.current")?.trim().parse().ok()?;
    let cache = number_after(&read("/sys/fs/cgroup/memory.stat")?, "file ").unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

fn cgroup_v1() -> Option<u64> {
    let limit: u64 = read("/sys/fs/cgroup/memory/memory.limit_in_bytes")?.trim().parse().ok()?;
    let used: u64 = read("/sys/fs/cgroup/memory/memory.usage_in_bytes")?.trim().parse().ok()?;
    let cache = number_after(&read("/sys/fs/cgroup/memory/memory.stat")?, "total_cache ").unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

fn address_space() -> Option<u64> {
    let limit = number_after(&read("/proc/self/limits")?, "Max address space")?;
    let used = number_after(&read("/proc/self/status")?, "VmSize:")? << 10;
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_with_the_sum_and_the_remedy() {
        let need = Need {
            weight_bytes: 1 << 60,
            work_bytes: 0,
            kv_bytes_per_token: 1024,
            n_ctx: 4096,
            n_sequences: 8,
        };
        if available().is_none() {
            return;
        }
        let text = check(&need).unwrap_err().to_string();
        assert!(text.contains("8 sequences x 4096 positions x 1024 bytes"), "{text}");
        assert!(text.contains("-np"), "{text}");
    }

    #[test]
    fn accepts_what_is_small() {
        check(&Need { weight_bytes: 1, work_bytes: 0, kv_bytes_per_token: 1, n_ctx: 1, n_sequences: 1 })
            .unwrap();
    }

    #[test]
    fn finds_numbers_by_key() {
        let text = "MemTotal:       100 kB\nMemAvailable:    42 kB\n";
        assert_eq!(number_after(text, "MemAvailable:"), Some(42));
        assert_eq!(number_after(text, "MemFree:"), None);
        assert_eq!(number_after("Max address space  unlimited  bytes", "Max address space"), None);
    }
}
