//! `gatherer.yaml`.

use std::path::PathBuf;
use std::time::Duration;

use super::read::Section;
use super::secret::{KEY_ID, PRIVATE_KEY};
use super::{database, rotation, shared, units};
use crate::kalshi::Api;
use crate::kalshi::auth::{Credentials, Signer};
use crate::log::journal;
use crate::ops::telemetry;
use crate::pg::engine::Choice;
use crate::role::gather::upkeep::Storage;
use crate::role::gather::{Config, Markets, Multivariate, Sessions, poller};

/// Two segments of the journal and what is written while one is being removed.
const JOURNAL_BYTES_MIN: u64 = 256 << 20;
const HOUR: Duration = Duration::from_secs(3600);

pub fn read(root: Section<'_>) -> Option<(Config, telemetry::Config)> {
    let id = root.require("gatherer_id", units::id);
    let api = api(root.section("api"));
    let application_name = format!("kalshi gather {}", id.as_deref().unwrap_or_default());
    let database = database::target(root.section("database"), application_name);
    database::skip_login(&root, "admin");
    rotation::skip(&root);
    let journal = journal(root.section("journal"));
    let sessions = sessions(root.section("sessions"));
    let markets = markets(root.section("markets"));
    let audit_period = audit(&root);
    let poller = poller(&root);
    let storage = storage(root.section("storage"));
    let server = shared::server(&root);
    let logging = shared::logging(&root);
    root.finish();
    let gatherer = Config {
        gatherer_id: id?,
        api: api?,
        database: database?,
        journal: journal?,
        sessions: sessions?,
        markets: markets?,
        audit_period: audit_period?,
        poller: poller?,
        storage: storage?,
        server: server?,
    };
    Some((gatherer, logging?))
}

/// The keys of the whole file, for a command that reads only some of them.
pub const KEYS: [&str; 13] = [
    "gatherer_id",
    "api",
    "database",
    "admin",
    "rotation",
    "journal",
    "sessions",
    "markets",
    "audit",
    "poller",
    "storage",
    "server",
    "logging",
];

fn api(section: Section<'_>) -> Option<Api> {
    let rest_url = section.require("rest_url", units::rest_url);
    let ws_url = section.require("ws_url", units::ws_url);
    let credentials = credentials(&section);
    section.finish();
    Some(Api { rest_url: rest_url?, ws_url: ws_url?, credentials: Some(Signer::new(credentials?)) })
}

fn credentials(section: &Section<'_>) -> Option<Credentials> {
    let key_id = KEY_ID.read(section);
    if matches!(key_id, Some(None)) {
        section.problem(KEY_ID.value, "is required");
    }
    let Some(key) = PRIVATE_KEY.read(section)? else {
        section.problem(PRIVATE_KEY.file, "is required");
        return None;
    };
    let key_id = key_id??.secret;
    match Credentials::from_pem(key_id.expose().trim(), key.secret.expose().as_bytes()) {
        Ok(credentials) => Some(credentials),
        Err(error) => {
            key.field.secret_problem(section.context(), &format!("is no usable key: {error}"));
            None
        }
    }
}

fn journal(section: Section<'_>) -> Option<journal::Config> {
    let dir = section.get("dir", PathBuf::from("/var/lib/kalshi/journal"), |text| {
        if text.trim().is_empty() {
            return Err("is not a directory".to_owned());
        }
        Ok(PathBuf::from(text))
    });
    let year = HOUR.saturating_mul(24 * 366);
    let max_age = section.get(
        "max_age",
        HOUR.saturating_mul(72),
        units::duration_within(HOUR, year, "an age from 1h to 366d"),
    );
    let max_bytes = section.get("max_bytes", 50 << 30, |text| match units::bytes(text)? {
        bytes if bytes < JOURNAL_BYTES_MIN => Err("is less than 256MiB".to_owned()),
        bytes => Ok(bytes),
    });
    section.finish();
    Some(journal::Config { dir: dir?, max_age: max_age?, max_bytes: max_bytes? })
}

fn sessions(section: Section<'_>) -> Option<Sessions> {
    let ticker = section.get("ticker", 2, units::sessions);
    let trade = section.get("trade", 2, units::sessions);
    let lifecycle = section.get("lifecycle", 2, units::sessions);
    let orderbook = section.get("orderbook", 144, units::sessions);
    let second = Duration::from_secs(1);
    let reconnect_max = section.get(
        "reconnect_max",
        second.saturating_mul(300),
        units::duration_within(second, second.saturating_mul(3600), "a time from 1s to 1h"),
    );
    let user_connections_max = section.get("user_connections_max", 200, units::connections);
    let user_gatherers = section.get("user_gatherers", 1, units::gatherers);
    let context = section.context();
    section.finish();
    let sessions = Sessions {
        ticker: ticker?,
        trade: trade?,
        lifecycle: lifecycle?,
        orderbook: orderbook?,
        reconnect_max: reconnect_max?,
        user_connections_max: user_connections_max?,
        user_gatherers: user_gatherers?,
    };
    let (each, sharing) = (sessions.count(), usize::from(sessions.user_gatherers));
    let allowed = usize::from(sessions.user_connections_max);
    if each.saturating_mul(sharing) > allowed {
        context.notice(format!(
            "`sessions`: {sharing} x {each} connections are more than the {allowed} that the \
             exchange allows one user; `kalshi gather --plan` says what fits"
        ));
    }
    Some(sessions)
}

fn markets(section: Section<'_>) -> Option<Markets> {
    let multivariate =
        section.get("multivariate", Multivariate::Exclude, |text| match text.trim() {
            "exclude" => Ok(Multivariate::Exclude),
            "include" => Ok(Multivariate::Include),
            _ => Err("is not one of exclude, include".to_owned()),
        });
    let series = patterns(&section, "series", units::series, None);
    let exclude_series =
        patterns(&section, "exclude_series", units::series, Some(("series", series.as_deref())));
    let tickers = patterns(&section, "tickers", units::market, None);
    let exclude_tickers =
        patterns(&section, "exclude_tickers", units::market, Some(("tickers", tickers.as_deref())));
    section.finish();
    Some(Markets {
        multivariate: multivariate?,
        series: series?,
        exclude_series: exclude_series?,
        tickers: tickers?,
        exclude_tickers: exclude_tickers?,
    })
}

/// A list of patterns, none of which is in another list.
fn patterns(
    section: &Section<'_>,
    key: &'static str,
    parse: fn(&str) -> Result<String, String>,
    others: Option<(&str, Option<&[String]>)>,
) -> Option<Vec<String>> {
    let names = section.texts(key)?.into_iter().map(|field| {
        let name = field.parse(section.context(), parse)?;
        if let Some((other, Some(names))) = others
            && names.contains(&name)
        {
            field.problem(section.context(), &format!("is in `{other}` too"));
            return None;
        }
        Some(name)
    });
    // Collected twice, so that the first wrong one does not hide the next.
    names.collect::<Vec<_>>().into_iter().collect()
}

/// The period of the audit; none when it is off, of which the section is a short form.
fn audit(root: &Section<'_>) -> Option<Option<Duration>> {
    if root.is_text("audit") {
        return root.get("audit", None, |text| match text.trim() {
            "off" => Ok(None),
            _ => Err("is neither off nor a mapping like { period: 6h }".to_owned()),
        });
    }
    let section = root.section("audit");
    let period = section.get("period", Some(HOUR.saturating_mul(6)), units::audit_period);
    section.finish();
    period
}

/// `off`, or how much books are polled over REST.
fn poller(root: &Section<'_>) -> Option<Option<poller::Config>> {
    if root.is_text("poller") {
        return root.get("poller", None, |text| match text.trim() {
            "off" => Ok(None),
            _ => Err("is neither off nor a mapping like { share: 0.5 }".to_owned()),
        });
    }
    let section = root.section("poller");
    let share = section.get("share", 0.5, units::share);
    let second = Duration::from_secs(1);
    let interval_min = section.get(
        "interval_min",
        second.saturating_mul(60),
        units::duration_within(second, HOUR.saturating_mul(24), "a time from 1s to 24h"),
    );
    section.finish();
    Some(Some(poller::Config { share: share?, interval_min: interval_min? }))
}

/// How rows are kept.
pub fn storage(section: Section<'_>) -> Option<Storage> {
    let engine = section.get("engine", Choice::Auto, |text| match text.trim() {
        "auto" => Ok(Choice::Auto),
        "timescaledb" => Ok(Choice::Timescaledb),
        "native" => Ok(Choice::Native),
        _ => Err("is not one of auto, timescaledb, native".to_owned()),
    });
    let retention = section.get("retention", Some(HOUR.saturating_mul(14 * 24)), units::retention);
    section.finish();
    Some(Storage { engine: engine?, retention: retention? })
}
