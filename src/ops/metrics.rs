//! The registry of metrics, its two text forms, and the buckets that all histograms share.
//!
//! Families are registered where they are used, into the registry that the role owns. Names follow
//! Prometheus: base units, the encoder puts `_total` behind every counter.

use std::fmt;

use prometheus_client::metrics::info::Info;
pub use prometheus_client::registry::Registry;

use super::{COMMIT, VERSION, hangup, process};

/// What `encode` writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What `encode_text` writes.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A registry that already carries `kalshi_build_info`, the process metrics, and what became of the last
/// wish to read the configuration again.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register(
        "kalshi_build",
        "Version and commit that this process was built from",
        Info::new([("version", VERSION), ("commit", COMMIT)]),
    );
    registry.register_collector(Box::new(process::Collector::new()));
    hangup::register(&mut registry);
    registry
}

/// The registry as OpenMetrics text.
pub fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

/// The registry in Prometheus' older text form, which every tool reads (promtool's lint reads no other).
pub fn encode_text(registry: &Registry) -> Result<String, fmt::Error> {
    encode(registry).map(|open| older(&open))
}

/// OpenMetrics as the older form: there a family is called as its samples are, so counters and infos
/// carry their ending, infos are gauges, and nothing marks the end.
fn older(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '));
        if let Some((name, help)) = help {
            // The type stands on the next line.
            let (ending, _) =
                lines.peek().and_then(|next| family(next)).map_or(("", ""), |(_, of)| of);
            text.extend(["# HELP ", name, ending, " ", help, "\n"]);
        } else if let Some((name, (ending, kind))) = family(line) {
            text.extend(["# TYPE ", name, ending, " ", kind, "\n"]);
        } else if line != "# EOF" && !line.starts_with("# UNIT ") {
            text.extend([line, "\n"]);
        }
    }
    text
}

/// The name of the family that a line gives the type of, the ending that its name has in the older
/// form, and its type there.
fn family(line: &str) -> Option<(&str, (&'static str, &str))> {
    let (name, kind) = line.strip_prefix("# TYPE ")?.rsplit_once(' ')?;
    let of = match kind {
        "counter" => ("_total", kind),
        "info" => ("_info", "gauge"),
        "unknown" => ("", "untyped"),
        _ => ("", kind),
    };
    Some((name, of))
}

/// Seconds, 0.5 ms to 10 min: for latencies of frames, commits and requests. Every alert's threshold
/// on a latency or a lag lies inside.
pub fn latency_seconds() -> impl Iterator<Item = f64> {
    [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        60.0, 300.0, 600.0,
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn the_text_is_open_metrics() {
        let mut registry = registry();
        let frames: Counter = Counter::default();
        registry.register("gatherer_frames", "Frames received", frames.clone());
        frames.inc_by(3);
        let text = encode(&registry).unwrap();
        assert!(text.contains("gatherer_frames_total 3\n"), "{text}");
        assert!(
            text.contains(&format!("kalshi_build_info{{version=\"{VERSION}\",commit=")),
            "{text}"
        );
        for name in [
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
            "process_open_fds ",
            "process_max_fds ",
            "process_start_time_seconds ",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_older_form_calls_families_as_their_samples() {
        let mut registry = registry();
        let frames: Counter = Counter::default();
        registry.register("gatherer_frames", "Frames received", frames.clone());
        frames.inc_by(3);
        let text = encode_text(&registry).unwrap();
        for line in [
            "# HELP gatherer_frames_total Frames received.\n# TYPE gatherer_frames_total counter\n\
             gatherer_frames_total 3\n",
            "# TYPE kalshi_build_info gauge\nkalshi_build_info{version=",
            "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total ",
            "# TYPE process_open_fds gauge\nprocess_open_fds ",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("EOF"), "{text}");
        let open = "# HELP a_seconds Text.\n# TYPE a_seconds unknown\n# UNIT a_seconds seconds\n\
                    a_seconds 1\n# EOF\n";
        assert_eq!(older(open), "# HELP a_seconds Text.\n# TYPE a_seconds untyped\na_seconds 1\n");
    }

    #[test]
    fn buckets_rise() {
        assert!(latency_seconds().is_sorted_by(|a, b| a < b));
    }
}
