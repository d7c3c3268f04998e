//! What disturbs a measurement on this machine: clocks that move, other work, heat, swapping, a host that takes time away.

use std::fs;
use std::time::Instant;

use super::system::number_after;

/// Share of the cores that others may use before it is said.
const BUSY_SHARE: f64 = 0.25;
/// Share of the time that a host may take away before it is said.
const STEAL_SHARE: f64 = 0.01;
/// Degrees from which processors begin to slow down.
const HOT_CELSIUS: f64 = 90.0;

/// The counters of the system at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    at: Instant,
    /// Ticks of all cores: everything, idle ones, those taken by the host.
    all_ticks: f64,
    idle_ticks: f64,
    steal_ticks: f64,
    /// Ticks of this process and of the children it has waited for.
    own_ticks: f64,
    swapped_pages: u64,
    throttled: u64,
    celsius: Option<f64>,
}

impl Snapshot {
    /// Reads them; what the system does not tell counts as 0.
    pub fn take() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        let tick = |i: usize| ticks.get(i).copied().unwrap_or(0.0);
        let swapped = |key| number_after("/proc/vmstat", key).unwrap_or(0);
        Self {
            at: Instant::now(),
            // The columns behind the eighth are counted in the first two already.
            all_ticks: ticks.iter().take(8).sum(),
            idle_ticks: tick(3) + tick(4),
            steal_ticks: tick(7),
            own_ticks: own_ticks(),
            swapped_pages: swapped("pswpin ") + swapped("pswpout "),
            throttled: throttled(),
            celsius: hottest(),
        }
    }

    /// What disturbed between `self` and now, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let now = Self::take();
        let mut warnings: Vec<String> = governor().into_iter().collect();
        let all = now.all_ticks - self.all_ticks;
        if all > 0.0 {
            let busy = all - (now.idle_ticks - self.idle_ticks);
            let steal = (now.steal_ticks - self.steal_ticks) / all;
            let others = (busy - (now.own_ticks - self.own_ticks)) / all - steal;
            if others > BUSY_SHARE {
                warnings.push(format!("other programs used {:.0}% of the processor", others * 100.0));
            }
            if steal > STEAL_SHARE {
                warnings
                    .push(format!("the host of this virtual machine took {:.1}% of the time", steal * 100.0));
            }
        }
        if now.swapped_pages > self.swapped_pages {
            warnings.push(format!("{} pages were swapped", now.swapped_pages - self.swapped_pages));
        }
        if now.throttled > self.throttled {
            warnings.push("the processor slowed down because of heat".into());
        } else if let Some(celsius) = now.celsius.filter(|c| *c >= HOT_CELSIUS) {
            warnings.push(format!("the processor has {celsius:.0} °C"));
        }
        tracing::debug!(seconds = self.at.elapsed().as_secs_f64(), ?warnings, "the environment");
        warnings
    }
}

/// User and system ticks of this process and its children.
fn own_ticks() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold blanks.
    let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    behind.split_whitespace().skip(11).take(4).filter_map(|word| word.parse::<f64>().ok()).sum()
}

/// A frequency governor that lets clocks move with the load.
fn governor() -> Option<String> {
    let path = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    let governor = fs::read_to_string(path).ok()?;
    let governor = governor.trim();
    (governor != "performance")
        .then(|| format!("the frequency governor is {governor}; `performance` holds the clock still"))
}

fn cpu_dirs() -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn throttled() -> u64 {
    cpu_dirs()
        .filter_map(|dir| {
            fs::read_to_string(dir.join("thermal_throttle/core_throttle_count"))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .sum()
}

fn hottest() -> Option<f64> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?.flatten();
    let degrees = zones.filter_map(|zone| {
        let text = fs::read_to_string(zone.path().join("temp")).ok()?;
        Some(text.trim().parse::<f64>().ok()? / 1000.0)
    });
    degrees.reduce(f64::max)
}
