//! Reads what the roles say of themselves: `/health` as JSON, `/metrics` as text.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// A role that does not answer within this is away.
const ANSWER_SECONDS_MAX: u64 = 2;
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Asks roles over loopback.
#[derive(Debug, Clone)]
pub struct Scraper {
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Scraper {
    pub fn new() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// The role's metrics.
    ///
    /// # Errors
    /// When it does not answer within 2 s.
    pub async fn metrics(&self, at: SocketAddr) -> Result<Metrics> {
        Ok(Metrics::parse(&self.get(at, "/metrics").await?))
    }

    /// The role's health, whatever the status code.
    ///
    /// # Errors
    /// When it does not answer within 2 s, or not with JSON.
    pub async fn health(&self, at: SocketAddr) -> Result<serde_json::Value> {
        let body = self.get(at, "/health").await?;
        serde_json::from_str(&body).context("parse health")
    }

    async fn get(&self, at: SocketAddr, path: &str) -> Result<String> {
        let uri = format!("http://{at}{path}").parse().context("form address")?;
        let answer = async {
            let response = self.client.get(uri).await.context("ask")?;
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            body.map_err(|error| anyhow::anyhow!("read body: {error}"))
        };
        let body = timeout(Duration::from_secs(ANSWER_SECONDS_MAX), answer)
            .await
            .context("no answer within 2 s")??;
        String::from_utf8(body.to_bytes().to_vec()).context("read body as UTF-8")
    }
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What one scrape brought.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<Sample>);

impl Metrics {
    /// Reads Prometheus' text, in either of its forms; lines that are not samples are passed over.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(parse_line).collect())
    }

    /// The sum over all samples of that name that carry these labels; none when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// The greatest of all samples of that name.
    pub fn max(&self, name: &str) -> Option<f64> {
        self.matching(name, &[]).map(|sample| sample.value).reduce(f64::max)
    }

    /// The histogram of that name, all series that carry these labels added up.
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        let mut histogram = Histogram::default();
        for sample in self.matching(&format!("{name}_bucket"), labels) {
            let Some(bound) = sample.labels.get("le").and_then(|le| parse_value(le)) else {
                continue;
            };
            histogram.add(bound, sample.value);
        }
        histogram
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        })
    }
}

/// `name{key="value",..} 1.5 [timestamp] [# exemplar]`.
fn parse_line(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    let rest = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest, &mut labels)?,
        None => rest,
    };
    let value = parse_value(rest.split_whitespace().next()?)?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Reads labels up to the closing brace and gives what follows it.
fn parse_labels<'a>(mut rest: &'a str, labels: &mut BTreeMap<String, String>) -> Option<&'a str> {
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some(rest);
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut escaped = false;
        let mut end = None;
        for (at, char) in after.char_indices() {
            match (escaped, char) {
                (true, 'n') => value.push('\n'),
                (true, other) => value.push(other),
                (false, '\\') => {
                    escaped = true;
                    continue;
                }
                (false, '"') => {
                    end = Some(at + 1);
                    break;
                }
                (false, other) => value.push(other),
            }
            escaped = false;
        }
        labels.insert(key.to_owned(), value);
        rest = after.get(end?..)?;
    }
}

fn parse_value(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

/// Cumulative counts by upper bound.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    fn add(&mut self, bound: f64, count: f64) {
        match self.0.iter().position(|(existing, _)| *existing >= bound) {
            Some(at) => match self.0.get_mut(at) {
                Some(bucket) if bucket.0 == bound => bucket.1 += count,
                _ => self.0.insert(at, (bound, count)),
            },
            None => self.0.push((bound, count)),
        }
    }

    /// Adds another of the same bounds, for instance of the process before a restart.
    pub fn merge(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            self.add(*bound, *count);
        }
    }

    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The value below which the share `q` of all lies, interpolated within its bucket as
    /// Prometheus does; the greatest finite bound when it lies beyond; none when empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.count();
        if total <= 0.0 {
            return None;
        }
        let rank = q * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= rank && count > below {
                if bound.is_infinite() {
                    return Some(lower);
                }
                return Some(lower + (bound - lower) * ((rank - below) / (count - below)));
            }
            (lower, below) = (bound, count);
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP dedup_records_written Rows written.
# TYPE dedup_records_written counter
# UNIT x seconds
dedup_records_written_total{table=\"trades\"} 7
dedup_records_written_total{table=\"orderbook_deltas\",note=\"a \\\"b\\\\c\\nd}\"} 35.5 1700000000 # {x=\"1\"} 2
up 1
bad_line
lat_seconds_bucket{le=\"0.1\",table=\"t\"} 50
lat_seconds_bucket{le=\"0.5\",table=\"t\"} 90
lat_seconds_bucket{le=\"+Inf\",table=\"t\"} 100
lat_seconds_bucket{le=\"0.1\",table=\"other\"} 1
lat_seconds_count{table=\"t\"} 100
# EOF
";

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("dedup_records_written_total", &[]), Some(42.5));
        assert_eq!(metrics.sum("dedup_records_written_total", &[("table", "trades")]), Some(7.0));
        assert_eq!(metrics.sum("dedup_records_written_total", &[("table", "none")]), None);
        assert_eq!(metrics.sum("up", &[]), Some(1.0));
        assert_eq!(metrics.max("dedup_records_written_total"), Some(35.5));
        let escaped = "a \"b\\c\nd}";
        assert_eq!(metrics.sum("dedup_records_written_total", &[("note", escaped)]), Some(35.5));
        assert_eq!(metrics.sum("bad_line", &[]), None);
    }

    #[test]
    fn quantiles_are_interpolated_within_a_bucket() {
        let histogram = Metrics::parse(TEXT).histogram("lat_seconds", &[("table", "t")]);
        let quantile = |q| histogram.quantile(q).unwrap();
        assert!((quantile(0.5) - 0.1).abs() < 1e-9);
        assert!((quantile(0.25) - 0.05).abs() < 1e-9);
        assert!((quantile(0.7) - 0.3).abs() < 1e-9);
        assert!((quantile(0.99) - 0.5).abs() < 1e-9, "beyond the last bound that is finite");
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn histograms_add_up_over_restarts_and_series() {
        let mut sum = Metrics::parse(TEXT).histogram("lat_seconds", &[("table", "t")]);
        let other = sum.clone();
        sum.merge(&other);
        assert!((sum.count() - 200.0).abs() < 1e-9);
        assert_eq!(sum.quantile(0.7), other.quantile(0.7));
    }
}
