//! Looks at processes, and signals them.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;

/// Linux counts processor time in hundredths of a second, whatever the kernel's own clock.
pub(super) const TICKS_PER_S: f64 = 100.0;

/// Sends a signal to a process; `false` if there is none.
pub(crate) async fn signal(name: &str, pid: u32) -> anyhow::Result<bool> {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).arg(pid.to_string()).stderr(Stdio::null());
    Ok(command.status().await.context("running kill")?.success())
}

/// Processes that a process has as children now.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    children_of_all().remove(&pid).unwrap_or_default()
}

/// The children of each process that has any, by one look at all.
pub(crate) fn children_of_all() -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name in brackets may hold anything; the state and the parent come after it.
        let parent = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(child);
        }
    }
    children
}

/// The command line of a process, as it shows itself.
pub(crate) fn command_line(pid: u32) -> Option<String> {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&command).into_owned())
}

/// Seconds of processor time that a process has used, its ended children not counted.
pub(crate) fn cpu_s(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    // The name in brackets may hold anything; utime and stime are fields 14 and 15, the first after it is field 3.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS_PER_S
}

/// Seconds of processor time of a process and the processes that it has as children now.
pub(crate) fn cpu_with_children_s(pid: u32) -> f64 {
    let children: f64 = children(pid).into_iter().map(|child| cpu_s(&child.to_string())).sum();
    cpu_s(&pid.to_string()) + children
}
