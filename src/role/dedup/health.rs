//! What `/health` says of the deduplicator, and the gauges that follow the same facts.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::gatherer::Heads;
use super::metrics::{Metrics, OfLog, OfTable};
use super::progress::Progress;
use super::{markets, table};
use crate::model::Micros;
use crate::ops::duration::seconds;
use crate::ops::health::{Report, Status};

/// How often the report is made anew.
const INTERVAL: Duration = Duration::from_millis(250);
const PING_HEALTHY: Duration = Duration::from_millis(50);
const PING_DEGRADED_MAX: Duration = Duration::from_millis(200);
const LAG_HEALTHY_SECONDS: f64 = 5.0;
const LAG_DEGRADED_SECONDS_MAX: f64 = 30.0;

/// The facts of one moment.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Answer time of production; none while it is away.
    pub ping: Option<Duration>,
    /// Why it is away.
    pub production_trouble: Option<String>,
    /// Why gatherers that are not connected are not, by name.
    pub gatherer_troubles: Vec<(String, String)>,
    /// Name and whether it is connected.
    pub gatherers: Vec<(String, bool)>,
    /// Of the connected gatherers.
    pub lag_seconds_max: f64,
    pub tables_syncing: usize,
    /// Logs that broke a law and are not read further.
    pub refused: Vec<String>,
    /// What the market sync says of itself; none when it is off.
    pub market_sync: Option<(Status, Value)>,
    /// What another task of this process says of itself, under its name.
    pub beside: Option<(&'static str, Status, Value)>,
}

/// The verdict and the body of `/health`.
pub fn report(facts: &Facts) -> Report {
    let production = match facts.ping {
        Some(ping) if ping < PING_HEALTHY => Status::Healthy,
        Some(ping) if ping <= PING_DEGRADED_MAX => Status::Degraded,
        _ => Status::Unhealthy,
    };
    let connected = facts.gatherers.iter().filter(|(_, connected)| *connected).count();
    let gatherers = match connected {
        0 => Status::Unhealthy,
        some if some < facts.gatherers.len() => Status::Degraded,
        _ => Status::Healthy,
    };
    let lag = match facts.lag_seconds_max {
        lag if lag < LAG_HEALTHY_SECONDS => Status::Healthy,
        lag if lag <= LAG_DEGRADED_SECONDS_MAX => Status::Degraded,
        _ => Status::Unhealthy,
    };
    let refused = if facts.refused.is_empty() { Status::Healthy } else { Status::Degraded };

    let named = |connected: bool| if connected { "connected" } else { "disconnected" };
    let states: Map<String, Value> = facts
        .gatherers
        .iter()
        .map(|(name, connected)| (name.clone(), json!(named(*connected))))
        .collect();
    let mut components = json!({
        "production_rds": named(facts.ping.is_some()),
        "gatherers": states,
        "sync": {
            "max_lag_seconds": (facts.lag_seconds_max * 1000.0).round() / 1000.0,
            "tables_syncing": facts.tables_syncing,
        },
    });
    if let Value::Object(members) = &mut components {
        if let Some(ping) = facts.ping {
            members.insert("production_ping_ms".to_owned(), json!(millis(ping)));
        } else if let Some(trouble) = &facts.production_trouble {
            members.insert("production_error".to_owned(), json!(trouble));
        }
        if !facts.gatherer_troubles.is_empty() {
            let errors = facts.gatherer_troubles.iter().cloned();
            let errors: Map<_, _> = errors.map(|(name, error)| (name, json!(error))).collect();
            members.insert("gatherer_errors".to_owned(), Value::Object(errors));
        }
        let market_sync =
            facts.market_sync.as_ref().map_or(json!("off"), |(_, shown)| shown.clone());
        members.insert("market_sync".to_owned(), market_sync);
        if let Some((name, _, shown)) = &facts.beside {
            members.insert((*name).to_owned(), shown.clone());
        }
        if !facts.refused.is_empty() {
            members.insert("refused".to_owned(), json!(facts.refused));
        }
    }
    let markets = facts.market_sync.as_ref().map_or(Status::Healthy, |(status, _)| *status);
    // It may be late or broken: merging goes on, and that is what this process is for.
    let beside = facts.beside.as_ref().map_or(Status::Healthy, |(_, status, _)| *status);
    let beside = beside.min(Status::Degraded);
    Report::new(Status::worst([production, gatherers, lag, refused, markets, beside]), components)
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The task that looks at the facts and publishes them.
#[derive(Debug)]
pub struct Monitor {
    pub gatherers: Vec<(String, watch::Receiver<Heads>)>,
    pub ping: watch::Receiver<Option<Duration>>,
    pub trouble: watch::Receiver<Option<String>>,
    pub progress: Arc<Progress>,
    pub markets: watch::Receiver<Option<markets::Report>>,
    pub beside: Option<(&'static str, watch::Receiver<(Status, Value)>)>,
    pub metrics: Metrics,
    pub reports: watch::Sender<Report>,
}

impl Monitor {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {
                    self.reports.send_replace(report(&self.look(Micros::now())));
                }
            }
        }
    }

    fn look(&self, now: Micros) -> Facts {
        let heads: Vec<Heads> =
            self.gatherers.iter().map(|(_, heads)| heads.borrow().clone()).collect();
        let mut lag_seconds_max = 0.0_f64;
        for (index, table) in table::ALL.iter().enumerate() {
            let mut lag_seconds = 0.0_f64;
            for (gatherer, ((name, _), heads)) in self.gatherers.iter().zip(&heads).enumerate() {
                let Some(head) = heads.readable(index) else { continue };
                let lag = self.progress.lag(index, gatherer, head, now);
                let log = OfLog { gatherer: name.clone(), table: table.name() };
                self.metrics.sync_lag_rows.get_or_create_owned(&log).set(lag.rows);
                lag_seconds = lag_seconds.max(seconds(lag.micros));
            }
            let label = OfTable { table: table.name() };
            self.metrics.sync_lag_seconds.get_or_create_owned(&label).set(lag_seconds);
            lag_seconds_max = lag_seconds_max.max(lag_seconds);
        }
        let name = |gatherer: usize| self.gatherers.get(gatherer).map_or("", |(name, _)| name);
        let refused = self.progress.refused();
        let refused = refused.into_iter().map(|(index, gatherer, reason)| {
            let table = table::ALL.get(index).map_or("", |table| table.name());
            format!("{table} of {}: {reason}", name(gatherer))
        });
        Facts {
            ping: *self.ping.borrow(),
            production_trouble: self.trouble.borrow().clone(),
            gatherer_troubles: self
                .gatherers
                .iter()
                .zip(&heads)
                .filter(|(_, heads)| !heads.connected)
                .filter_map(|((name, _), heads)| Some((name.clone(), heads.trouble.clone()?)))
                .collect(),
            gatherers: self
                .gatherers
                .iter()
                .zip(&heads)
                .map(|((name, _), heads)| (name.clone(), heads.connected))
                .collect(),
            lag_seconds_max,
            tables_syncing: self.progress.syncing(),
            refused: refused.collect(),
            market_sync: self.markets.borrow().as_ref().map(|report| report.component(now)),
            beside: self.beside.as_ref().map(|(name, health)| {
                let (status, shown) = health.borrow().clone();
                (*name, status, shown)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Facts {
        Facts {
            ping: Some(Duration::from_millis(3)),
            production_trouble: None,
            gatherer_troubles: Vec::new(),
            gatherers: vec![("gatherer-1".into(), true), ("gatherer-2".into(), true)],
            market_sync: None,
            lag_seconds_max: 0.5,
            tables_syncing: 6,
            refused: Vec::new(),
            beside: None,
        }
    }

    #[test]
    fn the_body_is_the_published_one() {
        let report = report(&well());
        assert_eq!(report.status, Status::Healthy);
        assert_eq!(
            report.components,
            json!({
                "production_rds": "connected",
                "production_ping_ms": 3.0,
                "gatherers": {"gatherer-1": "connected", "gatherer-2": "connected"},
                "sync": {"max_lag_seconds": 0.5, "tables_syncing": 6},
                "market_sync": "off",
            })
        );
    }

    #[test]
    fn what_is_away_says_why() {
        let facts = Facts {
            ping: None,
            production_trouble: Some("FATAL: no such database".into()),
            gatherers: vec![("gatherer-1".into(), false), ("gatherer-2".into(), true)],
            gatherer_troubles: vec![("gatherer-1".into(), "password refused".into())],
            ..well()
        };
        let components = report(&facts).components;
        assert_eq!(components["production_error"], "FATAL: no such database");
        assert_eq!(components["gatherer_errors"], json!({ "gatherer-1": "password refused" }));
    }

    #[test]
    fn every_threshold_counts() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let gatherers = |first, second| vec![("a".into(), first), ("b".into(), second)];
        let markets = |status| Some((status, json!({})));
        let beside = |status| Some(("archive", status, json!({})));
        for (facts, status) in [
            (Facts { market_sync: markets(Status::Healthy), ..well() }, Status::Healthy),
            (Facts { market_sync: markets(Status::Degraded), ..well() }, Status::Degraded),
            (Facts { beside: beside(Status::Healthy), ..well() }, Status::Healthy),
            (Facts { beside: beside(Status::Unhealthy), ..well() }, Status::Degraded),
            (Facts { ping: ms(49), ..well() }, Status::Healthy),
            (Facts { ping: ms(50), ..well() }, Status::Degraded),
            (Facts { ping: ms(200), ..well() }, Status::Degraded),
            (Facts { ping: ms(201), ..well() }, Status::Unhealthy),
            (Facts { ping: None, ..well() }, Status::Unhealthy),
            (Facts { gatherers: gatherers(true, false), ..well() }, Status::Degraded),
            (Facts { gatherers: gatherers(false, false), ..well() }, Status::Unhealthy),
            (Facts { lag_seconds_max: 5.0, ..well() }, Status::Degraded),
            (Facts { lag_seconds_max: 30.0, ..well() }, Status::Degraded),
            (Facts { lag_seconds_max: 30.1, ..well() }, Status::Unhealthy),
            (Facts { refused: vec!["hole".into()], ..well() }, Status::Degraded),
        ] {
            assert_eq!(report(&facts).status, status, "{facts:?}");
        }
    }
}
