//! `deduplicator.yaml` as `kalshi verify` reads it: the same databases, and optionally another login to
//! production that can only read.

use super::deduplicator;
use super::read::Section;
use crate::ops::telemetry;
use crate::pg::Target;
use crate::role::verify::{Config, Gatherer};

pub fn read(root: Section<'_>) -> Option<(Config, telemetry::Config)> {
    // The whole file is checked, as for the deduplicator that runs with it.
    let (config, logging, reader) = deduplicator::read_with_reader(root)?;
    let named = |target: Target| Target { application_name: "kalshi verify".to_owned(), ..target };
    let gatherers = config
        .gatherers
        .into_iter()
        .map(|gatherer| Gatherer { id: gatherer.id, database: named(gatherer.database) });
    let writer = named(config.production);
    let verify = Config {
        gatherers: gatherers.collect(),
        production: reader.map_or_else(|| writer.clone(), named),
        writer,
        api: config.markets.map(|markets| markets.api),
    };
    Some((verify, logging))
}
