//! What the benchmarks share: what the kernel says of a process, and how figures are printed.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Kernel ticks a second of the times under /proc; Linux shows them so on every architecture that
/// PostgreSQL packages exist for.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of a process in seconds, by the name of its threads; a trailing number is not part of
/// a name, so that the threads of a pool count together.
pub fn cpu_by_thread(process: u32) -> BTreeMap<String, f64> {
    let mut sum = BTreeMap::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return sum };
    for task in tasks.flatten() {
        let Some((name, seconds)) = cpu_of(&task.path()) else { continue };
        *sum.entry(name).or_insert(0.0) += seconds;
    }
    sum
}

/// CPU time of a process in seconds, threads that ended included.
pub fn cpu(process: u32) -> f64 {
    cpu_of(&PathBuf::from(format!("/proc/{process}"))).map_or(0.0, |(_, seconds)| seconds)
}

fn cpu_of(path: &std::path::Path) -> Option<(String, f64)> {
    // The name stands in brackets and may itself hold any character (proc(5)).
    let stat = fs::read_to_string(path.join("stat")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    let seconds = (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
    Some((name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned(), seconds))
}

/// Times of all processors together, in kernel ticks since the start of the machine.
#[derive(Debug, Clone, Copy)]
pub struct MachineTicks {
    pub all: f64,
    /// Spent on any process.
    pub busy: f64,
    /// Taken by the host of a virtual machine while something wanted to run.
    pub stolen: f64,
}

/// What the kernel says of the processors (proc_stat(5)).
pub fn machine_ticks() -> MachineTicks {
    let stat = fs::read_to_string("/proc/stat").expect("read /proc/stat");
    let line = stat.lines().next().expect("the line of all processors");
    let ticks: Vec<f64> = line.split_whitespace().skip(1).flat_map(str::parse).take(8).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already.
    let [user, nice, system, _, _, irq, softirq, stolen] = ticks.as_slice() else {
        panic!("unknown form of /proc/stat: {line}")
    };
    MachineTicks {
        all: ticks.iter().sum(),
        busy: user + nice + system + irq + softirq,
        stolen: *stolen,
    }
}

/// A part of a whole in percent, with one digit.
pub fn percent(part: f64, whole: f64) -> f64 {
    (1000.0 * part / whole).round() / 10.0
}

/// An option of the command line as `--name value`, or its default.
pub fn option<T: std::str::FromStr>(name: &str, default: T) -> T {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    let value = arguments.nth(1);
    value.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} cannot be used"))
    })
}
