//! `--check`: whether every database answers and has the right schema, and whether the exchange's REST
//! does. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::{Config, GathererTarget, gatherer, markets};
use crate::kalshi::lists::{List, Wanted};
use crate::kalshi::rest::{Rest, Settings};
use crate::ops::exit::UsageError;
use crate::pg::migrate::{self, Schema, VersionError};
use crate::pg::{Options, Target};

/// One call of the check: somebody waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to production and each gatherer read-only, asks the exchange, and prints a line for each.
///
/// # Errors
/// `UsageError` when a schema is another than this program's, else an error that counts what does not
/// answer.
pub async fn check(config: Config) -> anyhow::Result<()> {
    let mut failed = 0_u32;
    let mut wrong_schema = None;
    let production = ("production", &config.production, Schema::Production);
    let gatherers = config
        .gatherers
        .iter()
        .map(|GathererTarget { id, database }| (id.as_str(), database, Schema::Gatherer));
    for (name, target, schema) in std::iter::once(production).chain(gatherers) {
        match look(name, target, schema).await {
            Ok(()) => println!("{name}: {target}: ok"),
            Err(error) => {
                failed += 1;
                println!("{name}: {target}: {error:#}");
                if let Some(version) = error.downcast_ref::<VersionError>()
                    && !matches!(version, VersionError::Pg(_))
                {
                    wrong_schema.get_or_insert(UsageError(format!("{name}: {version}")));
                }
            }
        }
    }
    if let Some(error) = wrong_schema {
        return Err(error.into());
    }
    let mut exchange = None;
    if let Some(markets) = &config.markets {
        let url = &markets.api.rest_url;
        match ask(markets).await {
            Ok(()) => println!("Kalshi API: {url}: ok"),
            Err(error) => {
                println!("Kalshi API: {url}: {error:#}");
                exchange = Some("the Kalshi API cannot be used");
            }
        }
    }
    let databases = config.gatherers.len() + 1;
    match (failed, exchange) {
        (0, None) => {}
        (0, Some(exchange)) => bail!("{exchange}"),
        (failed, None) => bail!("{failed} of {databases} databases cannot be used"),
        (failed, Some(exchange)) => {
            bail!("{failed} of {databases} databases cannot be used, and {exchange}")
        }
    }
    Ok(())
}

async fn look(name: &str, target: &Target, schema: Schema) -> anyhow::Result<()> {
    let options = Options { read_only: true, ..Options::default() };
    let client = target.connect_with(options).await?;
    migrate::check(&client, schema).await?;
    // A missing right shows here instead of in the middle of the night.
    for table in super::table::ALL {
        let sql = format!("SELECT log_seq FROM {} ORDER BY log_seq DESC LIMIT 1", table.name());
        client.query_opt(sql.as_str(), &[]).await.map_err(|error| {
            anyhow::anyhow!("read {}: {}", table.name(), crate::pg::describe(&error))
        })?;
    }
    if schema == Schema::Gatherer {
        gatherer::expect_owner(&client, name).await?;
        let sql = "SELECT has_function_privilege('consumer_passed(text, text, bigint)', 'EXECUTE')";
        let may_tell: bool = client.query_one(sql, &[]).await?.try_get(0)?;
        ensure!(may_tell, "no right to call consumer_passed: its retention would not wait for us");
    }
    if schema == Schema::Production {
        for table in super::table::ALL.iter().filter(|table| table.partition_micros.is_some()) {
            let sql = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class \
                       WHERE oid = $1::text::regclass";
            let owns: bool = client.query_one(sql, &[&table.name()]).await?.try_get(0)?;
            ensure!(owns, "{} is another user's table: partitions need its owner", table.name());
        }
    }
    Ok(())
}

/// What the market sync needs: the exchange's state, our limits where requests are signed, and a list.
async fn ask(config: &markets::Config) -> anyhow::Result<()> {
    let settings = Settings { timeout: TIMEOUT, attempts_max: 1, ..Settings::default() };
    let rest = Arc::new(Rest::new(&config.api, settings)?);
    rest.status().await.context("ask for the exchange's status (api.rest_url)")?;
    rest.learn_limits().await.map_err(|error| {
        let why = if error.is_auth() { " (api.key_id, api.private_key_file)" } else { "" };
        anyhow::anyhow!("ask for the account's limits{why}: {error}")
    })?;
    let mut pages = rest.list(List::Markets, &Wanted::default(), None);
    pages.next().await.context("list markets")?;
    Ok(())
}
