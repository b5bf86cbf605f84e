//! How much of the machine processes use.

use std::path::Path;
use std::time::Duration;

use super::process::{TICKS_PER_S, children_of_all, cpu_s};

/// Processes and all that they have started, as far as it runs now.
pub(crate) fn with_descendants(roots: &[u32]) -> Vec<u32> {
    let mut all: Vec<u32> = Vec::new();
    let mut next = roots.to_vec();
    let mut children = children_of_all();
    while let Some(pid) = next.pop() {
        if !all.contains(&pid) {
            next.extend(children.remove(&pid).unwrap_or_default());
            all.push(pid);
        }
    }
    all
}

/// The most memory that a process ever had resident, in KiB, what it shares included.
pub(crate) fn peak_rss_kib(pid: u32) -> u64 {
    field_kib(pid, "status", "VmHWM:")
}

/// A process's memory in KiB, what it shares divided among those that share it.
pub(crate) fn pss_kib(pid: u32) -> u64 {
    field_kib(pid, "smaps_rollup", "Pss:")
}

fn field_kib(pid: u32, file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Seconds of processor time so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Of the processes that are watched.
    pub(crate) watched_s: f64,
    /// Of this process.
    pub(crate) own_s: f64,
    /// Of the whole machine, idle time and waiting left out.
    all_s: f64,
}

impl Usage {
    /// Now.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let watched_s = pids.iter().map(|pid| cpu_s(&pid.to_string())).sum();
        Self { watched_s, own_s: cpu_s("self"), all_s: machine_s() }
    }

    /// What was used since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            watched_s: self.watched_s - before.watched_s,
            own_s: self.own_s - before.own_s,
            all_s: self.all_s - before.all_s,
        }
    }

    /// What neither this process nor those that are watched used, as a share of all processors over this time.
    pub(crate) fn foreign_share(self, elapsed: Duration) -> f64 {
        let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
        ((self.all_s - self.watched_s - self.own_s) / (elapsed.as_secs_f64() * processors)).max(0.0)
    }
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; guests are in the first two.
fn machine_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let ticks = fields.map(|field| field.parse::<u64>().unwrap_or_default()).enumerate();
    let used: u64 = ticks.filter(|(number, _)| !matches!(number, 3 | 4)).map(|(_, ticks)| ticks).sum();
    used as f64 / TICKS_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        assert!(with_descendants(&[own]).contains(&own));
        assert!(pss_kib(own) > 0 && peak_rss_kib(own) >= pss_kib(own) / 2);
        let before = Usage::of(&[own]);
        let mut sum = 0_u64;
        // The machine's own count may be told later than the process's.
        let is_seen = |used: Usage| used.watched_s > 0.0 && used.all_s > 0.0;
        while !is_seen(Usage::of(&[own]).since(before)) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
