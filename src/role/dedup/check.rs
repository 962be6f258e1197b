//! `--check`: whether every database answers and has the right schema, and whether the exchange's REST
//! does. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio_postgres::Client;

use super::{Config, GathererTarget, gatherer, markets};
use crate::kalshi::lists::{List, Wanted};
use crate::kalshi::rest::{Rest, Settings};
use crate::ops::findings::Findings;
use crate::pg::migrate::{self, Schema, VersionError};
use crate::pg::{Options, Target, rights};

/// One call of the check: somebody waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the deduplicator changes in production beside the logs.
const CHANGES: [(&str, &str); 16] = [
    ("writer", "UPDATE"),
    ("logs", "UPDATE"),
    ("gatherers", "INSERT"),
    ("sync_cursors", "INSERT"),
    ("sync_cursors", "UPDATE"),
    ("contributions", "INSERT"),
    ("contributions", "UPDATE"),
    ("contributions_open", "INSERT"),
    ("contributions_open", "DELETE"),
    ("series", "UPDATE"),
    ("events", "UPDATE"),
    ("markets", "UPDATE"),
    ("series_past", "INSERT"),
    ("events_past", "INSERT"),
    ("markets_past", "INSERT"),
    ("market_sync", "UPDATE"),
];

/// Connects to production and each gatherer read-only, asks the exchange, and prints what it found,
/// with what was found of others that live in the same process.
///
/// # Errors
/// All that does not answer or is not as it should be, with the code of bad configuration when a schema
/// is one that no migration makes this program's.
pub async fn check(
    config: Config,
    others: Vec<(&str, String, anyhow::Result<Option<String>>)>,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut findings = Findings::default();
    let production = &config.production;
    findings.add("production", &production.to_string(), look_at_production(production).await);
    for GathererTarget { id, database } in &config.gatherers {
        findings.add(id, &database.to_string(), look_at_gatherer(id, database).await);
    }
    if let Some(markets) = &config.markets {
        let answer = ask(markets).await;
        findings.add("Kalshi API", &markets.api.rest_url, answer.map(|()| None));
    }
    for (name, target, found) in others {
        findings.add(name, &target, found);
    }
    findings.report(as_json)
}

async fn look(target: &Target, schema: Schema) -> anyhow::Result<Client> {
    let options = Options { read_only: true, ..Options::default() };
    let client = target.connect_with(options).await?;
    migrate::check(&client, schema).await.map_err(VersionError::ending)?;
    // A missing right shows here instead of in the middle of the night.
    for table in super::table::ALL {
        let sql = format!("SELECT log_seq FROM {} ORDER BY log_seq DESC LIMIT 1", table.name());
        client.query_opt(sql.as_str(), &[]).await.map_err(|error| {
            anyhow::anyhow!("read {}: {}", table.name(), crate::pg::describe(&error))
        })?;
    }
    Ok(client)
}

async fn look_at_gatherer(id: &str, target: &Target) -> anyhow::Result<Option<String>> {
    let client = look(target, Schema::Gatherer).await?;
    gatherer::expect_owner(&client, id).await?;
    let sql = "SELECT has_function_privilege('consumer_passed(text, text, bigint)', 'EXECUTE')";
    let may_tell: bool = client.query_one(sql, &[]).await?.try_get(0)?;
    ensure!(may_tell, "no right to call consumer_passed: its retention would not wait for us");
    Ok(None)
}

/// A note when our user has more rights than it should.
async fn look_at_production(target: &Target) -> anyhow::Result<Option<String>> {
    let client = look(target, Schema::Production).await?;
    let logs = super::table::ALL.map(super::table::Table::name);
    let needed: Vec<(&str, &str)> =
        logs.iter().map(|log| (*log, "INSERT")).chain(CHANGES).collect();
    let rights = rights::ask(&client, &needed, &logs).await.context("ask for our rights")?;
    let user = &target.user;
    ensure!(
        rights.missing.is_none(),
        "user {user} lacks the right to {}",
        rights.missing.unwrap_or_default()
    );
    // For the stages of batches.
    let sql = "SELECT has_database_privilege(current_database(), 'TEMPORARY')";
    let may: bool = client.query_one(sql, &[]).await?.try_get(0)?;
    ensure!(may, "user {user} lacks the right to make temporary tables");
    Ok(rights.is_excessive.then(|| {
        format!(
            "user {user} may change and remove rows of the logs; the role deduplicator need not"
        )
    }))
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
