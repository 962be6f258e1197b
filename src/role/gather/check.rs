//! `kalshi gather --check`: everything that a running gatherer needs, tried once, changing nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fs::Access;

use super::{Config, writer};
use crate::kalshi::offset::SKEW_MICROS_MIN;
use crate::kalshi::rest::{Rest, RestError, Settings};
use crate::kalshi::session;
use crate::kalshi::socket::{self, ConnectError};
use crate::model::{Log, Micros};
use crate::ops::exit::UsageError;
use crate::ops::findings::Findings;
use crate::ops::http;
use crate::pg::migrate::{self, Schema, VersionError};
use crate::pg::rights;

/// One call or handshake of the check: somebody waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to everything that the configuration names, changes nothing, and prints what it found.
///
/// # Errors
/// All that a running gatherer could not work with, in words that say what to do.
pub async fn run(config: Config, as_json: bool) -> Result<()> {
    let mut findings = Findings::default();
    findings.add("database", &config.database.to_string(), database(&config).await);
    let exchange = exchange(&config).await;
    findings.add("Kalshi API", &config.api.rest_url, exchange.map(|()| None));
    let dir = &config.journal.dir;
    findings.add("journal", &dir.display().to_string(), journal(dir).map(|()| None));
    // Taken and given back at once: a port that another process listens on is said here.
    let bound = http::Server::bind(&config.server).await;
    let pages = format!("{} and {}", config.server.health, config.server.metrics);
    findings.add("pages", &pages, bound.map(|_| None));
    findings.report(as_json)
}

/// A note when our user has more rights than it should.
async fn database(config: &Config) -> Result<Option<String>> {
    let client = config.database.connect().await?;
    migrate::check(&client, Schema::Gatherer).await.map_err(VersionError::ending)?;
    writer::expect_engine(&client, config).await?;
    let owner: Option<String> = client
        .query_one("SELECT gatherer_id FROM writer", &[])
        .await
        .and_then(|row| row.try_get(0))
        .context("read whose database it is")?;
    if let Some(owner) = owner.filter(|owner| *owner != config.gatherer_id) {
        return Err(writer::foreign(&config.database, &owner, &config.gatherer_id).into());
    }
    // A missing right shows here instead of in the middle of the night.
    let logs = Log::ALL.map(Log::name);
    let others = [
        ("logs", "UPDATE"),
        ("writer", "UPDATE"),
        ("coverage_open", "INSERT"),
        ("coverage_open", "UPDATE"),
        ("coverage_open", "DELETE"),
    ];
    let needed: Vec<(&str, &str)> = logs.iter().map(|log| (*log, "INSERT")).chain(others).collect();
    let rights = rights::ask(&client, &needed, &logs).await.context("ask for our rights")?;
    let (database, user) = (&config.database, &config.database.user);
    if let Some(missing) = rights.missing {
        return Err(anyhow::anyhow!(
            "database {database}: user {user} lacks the right to {missing}"
        ));
    }
    Ok(rights.is_excessive.then(|| {
        format!("user {user} may change and remove rows of the logs; the role gatherer need not")
    }))
}

/// Over REST and over a WebSocket: each has a URL of its own, and both need the key.
async fn exchange(config: &Config) -> Result<()> {
    let settings = Settings { timeout: TIMEOUT, attempts_max: 1, ..config.rest_settings() };
    let rest = Rest::new(&config.api, settings)?;
    let url = &config.api.rest_url;
    rest.status().await.map_err(|error| match &error {
        // Signed as every call is.
        error if error.is_auth() => key_problem(&rest, url, error),
        _ => anyhow::anyhow!("ask {url} for the exchange's status (api.rest_url): {error}"),
    })?;
    rest.learn_limits().await.map_err(|error| key_problem(&rest, url, &error))?;
    let settings = session::Settings { connect_timeout: TIMEOUT, ..session::Settings::default() };
    let handshake = socket::connect(&config.api, Micros::now(), &settings).await;
    handshake.map(drop).map_err(|error| handshake_problem(&config.api.ws_url, &error))
}

/// Whether the journal's directory can be written, or made.
fn journal(dir: &Path) -> Result<()> {
    let there = dir.ancestors().find(|path| path.exists());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let problem =
        |why: &str| Err(UsageError(format!("journal.dir {}: {why}", dir.display())).into());
    if !there.is_dir() {
        return problem(&format!("{} is no directory", there.display()));
    }
    match rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(error) => problem(&format!("{} cannot be written: {error}", there.display())),
    }
}

/// A refused key in plain words: the exchange's own are the same for each of the reasons.
fn key_problem(rest: &Rest, url: &str, error: &RestError) -> anyhow::Error {
    if !error.is_auth() {
        return anyhow::anyhow!("ask {url} for the account's limits: {error}");
    }
    let skew = rest.clock_offset_micros().filter(|offset| offset.abs() >= SKEW_MICROS_MIN);
    anyhow::anyhow!("{url} refused the key: {}; it answered {error}", reason(skew))
}

fn handshake_problem(url: &str, error: &ConnectError) -> anyhow::Error {
    match error {
        ConnectError::Refused { skew_ms, .. } => {
            let skew = skew_ms.map(|ms| ms.saturating_mul(1000));
            anyhow::anyhow!("{url} refused the key: {}; {error}", reason(skew))
        }
        _ => anyhow::anyhow!("open a WebSocket to {url} (api.ws_url): {error}"),
    }
}

fn reason(skew_micros: Option<i64>) -> String {
    match skew_micros {
        Some(micros) => {
            let seconds = micros.abs() / 1_000_000;
            let way = if micros > 0 { "behind" } else { "ahead of" };
            format!(
                "this machine's clock is about {seconds} s {way} the exchange's, so signatures are \
                 out of date: synchronise it (NTP)"
            )
        }
        None => "api.key_id is unknown there, or api.private_key_file is not its key; keys of the \
                 demo exchange and of production are not interchangeable"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kalshi::testing::{credentials, serve_rest, soon};

    #[test]
    fn a_refusal_says_what_to_do() {
        let refused =
            |skew_ms| ConnectError::Refused { code: 401, body: "NOT_FOUND".into(), skew_ms };
        let text = handshake_problem("wss://x", &refused(None)).to_string();
        assert!(text.contains("api.key_id") && text.contains("NOT_FOUND"), "{text}");
        let text = handshake_problem("wss://x", &refused(Some(-61_000))).to_string();
        assert!(text.contains("61 s ahead of") && text.contains("NTP"), "{text}");
        let text = handshake_problem("wss://x", &ConnectError::Timeout(TIMEOUT)).to_string();
        assert!(text.contains("api.ws_url"), "{text}");
    }

    #[test]
    fn a_journal_needs_a_directory_that_can_be_made() {
        let dir = tempfile::tempdir().unwrap();
        journal(&dir.path().join("a/b/journal")).unwrap();
        journal(dir.path()).unwrap();
        assert!(!dir.path().join("a").exists(), "a check changes nothing");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for bad in [file.clone(), file.join("journal")] {
            let text = journal(&bad).unwrap_err().to_string();
            assert!(text.contains("file is no directory"), "{text}");
        }
        let text = journal(Path::new("/proc/self/journal")).map_err(|error| error.to_string());
        assert!(text.is_err() || rustix::process::geteuid().is_root(), "{text:?}");
    }

    #[tokio::test]
    async fn a_refused_key_is_told_from_an_exchange_that_is_away() {
        let api = serve_rest(|_| (401, r#"{"code":"authentication_error"}"#.to_owned())).await;
        assert!(api.credentials.is_some() && credentials().key_id() == "key-1");
        let settings = Settings { timeout: TIMEOUT, attempts_max: 1, ..Settings::default() };
        let rest = Rest::new(&api, settings).unwrap();
        let error = soon("limits", rest.learn_limits()).await.unwrap_err();
        let text = key_problem(&rest, &api.rest_url, &error).to_string();
        assert!(text.contains("refused the key") && text.contains("demo"), "{text}");
        let away = RestError::Timeout(TIMEOUT);
        assert!(!key_problem(&rest, "u", &away).to_string().contains("refused"), "{away}");
    }
}
