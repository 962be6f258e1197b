//! `deduplicator.yaml`.

use std::collections::HashMap;

use super::read::Section;
use super::{archive, database, market_sync, rotation, shared, units};
use crate::ops::telemetry;
use crate::pg::Target;
use crate::role::dedup::{Config, GathererTarget, Retention};

pub fn read(root: Section<'_>) -> Option<(Config, telemetry::Config)> {
    database::skip_login(&root, "verify");
    let (config, logging, _) = whole(root, |_, _| Some(None))?;
    Some((config, logging))
}

/// The same, and the other login to production that `verify` reads with, when the file has one.
pub fn read_with_reader(root: Section<'_>) -> Option<(Config, telemetry::Config, Option<Target>)> {
    whole(root, |root, production| {
        if root.has("verify") {
            database::admin(root.section("verify"), production).map(Some)
        } else {
            Some(None)
        }
    })
}

fn whole(
    root: Section<'_>,
    reader: impl FnOnce(&Section<'_>, Option<&Target>) -> Option<Option<Target>>,
) -> Option<(Config, telemetry::Config, Option<Target>)> {
    let id = root.require("deduplicator_id", units::id);
    let application_name = format!("kalshi dedup {}", id.as_deref().unwrap_or_default());
    let gatherers = gatherers(&root, &application_name);
    let production = database::target(root.section("production"), application_name);
    let reader = reader(&root, production.as_ref());
    database::skip_login(&root, "admin");
    rotation::skip(&root);
    let markets = market_sync::read(&root);
    let retention = retention(root.section("retention"));
    let server = shared::server(&root);
    // Another loader gives what it says; here it only has to be right.
    let archive = archive::read(&root, production.as_ref(), server.as_ref());
    let logging = shared::logging(&root);
    root.finish();
    archive?;
    let deduplicator = Config {
        deduplicator_id: id?,
        gatherers: gatherers?,
        production: production?,
        markets: markets?,
        retention: retention?,
        server: server?,
    };
    Some((deduplicator, logging?, reader?))
}

/// The keys of the whole file, for a command that reads only some of them.
pub const KEYS: [&str; 12] = [
    "deduplicator_id",
    "gatherers",
    "production",
    "admin",
    "rotation",
    "api",
    "markets",
    "retention",
    "archive",
    "verify",
    "server",
    "logging",
];

fn gatherers(root: &Section<'_>, application_name: &str) -> Option<Vec<GathererTarget>> {
    let sections = root.sections("gatherers");
    if sections.is_empty() {
        root.problem("gatherers", "must name at least one gatherer");
        return None;
    }
    let context = root.context();
    let mut ids: HashMap<String, String> = HashMap::new();
    let mut databases: HashMap<(String, u16, String), String> = HashMap::new();
    let mut unique = |section: Section<'_>| {
        let key = section.path_of("id");
        let field = section.required("id");
        let id = field.as_ref().and_then(|field| field.parse(context, units::id));
        let database = database::target(section.section("database"), application_name.to_owned());
        section.finish();
        let (field, id, database) = (field?, id?, database?);
        // One log under two ids would count as two independent witnesses.
        let place = (database.host.clone(), database.port, database.database.clone());
        let twice = ids
            .insert(id.clone(), key.clone())
            .map(|first| format!("is the id of {first} too"))
            .or_else(|| {
                databases
                    .insert(place, key)
                    .map(|first| format!("reads the database that {first} reads"))
            });
        if let Some(message) = twice {
            field.problem(context, &message);
            return None;
        }
        Some(GathererTarget { id, database })
    };
    // Collected twice, so that the first wrong one does not hide the next.
    sections.into_iter().map(&mut unique).collect::<Vec<_>>().into_iter().collect()
}

/// How long production keeps rows; see [`Retention`] for what is left out.
fn retention(section: Section<'_>) -> Option<Retention> {
    let defaults = Retention::default();
    let kept = |key, default| section.get(key, default, units::retention);
    let trades = kept("trades", defaults.trades);
    let orderbook_deltas = kept("orderbook_deltas", defaults.orderbook_deltas);
    let orderbook_snapshots = kept("orderbook_snapshots", defaults.orderbook_snapshots);
    let tickers = kept("tickers", defaults.tickers);
    let coverage = kept("coverage", defaults.coverage);
    let market_lifecycle = section.get("market_lifecycle", (), units::forever);
    section.finish();
    market_lifecycle?;
    Some(Retention {
        trades: trades?,
        orderbook_deltas: orderbook_deltas?,
        orderbook_snapshots: orderbook_snapshots?,
        tickers: tickers?,
        coverage: coverage?,
    })
}
