//! Metrics of this process as Linux counts them, read at every scrape.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

/// The unit of times in /proc/PID/stat. It is part of the kernel's interface (USER_HZ), whatever the
/// rate of its timer, and 100 on every architecture that Rust's Linux targets run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Collects the `process_*` metrics that Prometheus' own client libraries agree on.
#[derive(Debug)]
pub struct Collector {
    started_at_s: Option<f64>,
}

impl Collector {
    pub fn new() -> Self {
        Self { started_at_s: started_at_s() }
    }
}

impl collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // A value that cannot be read is left out: a scrape must not fail for it.
        if let Some(bytes) = resident_bytes() {
            let help = "Resident memory size in bytes";
            gauge(&mut encoder, "process_resident_memory_bytes", help, bytes)?;
        }
        if let Some(stat) = Stat::read() {
            let cpu = ConstCounter::new(stat.cpu_s);
            let metric = encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system CPU time in seconds",
                None,
                cpu.metric_type(),
            )?;
            cpu.encode(metric)?;
        }
        if let Some(count) = open_fds() {
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", count)?;
        }
        if let Some(count) = max_fds() {
            gauge(&mut encoder, "process_max_fds", "Limit of open file descriptors", count)?;
        }
        if let Some(at) = self.started_at_s {
            let help = "Start of the process in seconds since the epoch";
            gauge(&mut encoder, "process_start_time_seconds", help, at)?;
        }
        Ok(())
    }
}

fn gauge<N>(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: N) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let gauge = ConstGauge::new(value);
    let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(metric)
}

/// The two of the fields of /proc/self/stat that are used, in seconds.
struct Stat {
    cpu_s: f64,
    /// Since the machine started.
    start_s: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may itself hold spaces and
        // parentheses; the third follows the last one.
        let (_, rest) = text.rsplit_once(')')?;
        let field = |number: usize| -> Option<f64> {
            let ticks: u32 =
                rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()?;
            Some(f64::from(ticks) / TICKS_PER_SECOND)
        };
        Some(Self { cpu_s: field(14)? + field(15)?, start_s: field(22)? })
    }
}

fn started_at_s() -> Option<f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    // The machine's uptime by a system call: a hardened unit sees only its own process in /proc.
    let uptime = u32::try_from(rustix::system::sysinfo().uptime).ok().map(f64::from)?;
    Some(now - uptime + Stat::read()?.start_s)
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn open_fds() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // Less the one that reads the directory.
    u64::try_from(count).ok()?.checked_sub(1)
}

fn max_fds() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_strange_program_name() {
        let tail = " S 1 2 3 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 12345 1 1";
        let stat = Stat::parse(&format!("77 (a ) b (c){tail}")).unwrap();
        assert!((stat.cpu_s - 3.0).abs() < 1e-9);
        assert!((stat.start_s - 123.45).abs() < 1e-9);
        assert!(Stat::parse("77 (x").is_none());
    }

    #[test]
    fn the_process_started_in_the_last_hour() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = started_at_s().unwrap();
        assert!(started <= now + 2.0 && started > now - 3600.0, "{started} {now}");
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(open_fds().unwrap() >= 3);
    }
}
