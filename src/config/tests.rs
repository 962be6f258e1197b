//! Whole files: what is accepted, everything that is refused, and that nothing secret is shown.

mod administrator;
mod market_sync;
mod rotating;
mod secrets;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::pg::TlsMode;
use crate::role::dedup::Config as Deduplicator;
use crate::role::gather::{Config as Gatherer, Multivariate, Sessions};

const CANARY: &str = "canary-5e1f";

/// A directory with a private key that can be used.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write("key.pem", &private_key(), 0o400);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn environment(&self) -> Environment {
        Environment::given([
            ("KALSHI_KEY_ID", "key-1".to_owned()),
            ("TIMESCALEDB_PASSWORD", format!("{CANARY}: \"#\n{{")),
            ("KEY_FILE", self.path("key.pem").display().to_string()),
            ("PEM", private_key()),
            ("PORT", "6000".to_owned()),
            ("CANARY", CANARY.to_owned()),
            ("EMPTY", String::new()),
        ])
    }

    fn gatherer(&self, source: &str) -> Result<Loaded<Gatherer>, ConfigErrors> {
        parse(Path::new("g.yaml"), source, &self.environment(), |root| {
            root.expect_kind(Kind::Gatherer)?;
            gatherer::read(root.section)
        })
    }

    fn deduplicator(&self, source: &str) -> Result<Loaded<Deduplicator>, ConfigErrors> {
        parse(Path::new("d.yaml"), source, &self.environment(), |root| {
            root.expect_kind(Kind::Deduplicator)?;
            deduplicator::read(root.section)
        })
    }

    /// The problems without the file's name.
    fn problems(&self, source: &str) -> Vec<String> {
        let errors = self.gatherer(source).map(|_| ()).unwrap_err();
        listed(&errors)
    }

    /// The problems that the database section has, whose lines begin at 7.
    fn database_problems(&self, section: &str) -> Vec<String> {
        self.problems(&with_database(section))
    }
}

fn private_key() -> String {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use base64::Engine as _;
    let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    let der: Pkcs8V1Der<'static> = pair.as_der().unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

fn listed(errors: &ConfigErrors) -> Vec<String> {
    let line = |p: &Problem| {
        let at = p.place.map(|place| format!("{}: ", place.line)).unwrap_or_default();
        format!("{at}{}: {}", p.key, p.message)
    };
    errors.problems().iter().map(line).collect()
}

const TOP: &str = "gatherer_id: g1
api:
  rest_url: https://h/trade-api/v2
  ws_url: wss://h/ws
  key_id: ${KALSHI_KEY_ID}
  private_key_file: ${KEY_FILE}
";

fn with_database(section: &str) -> String {
    format!("{TOP}{section}")
}

const DATABASE: &str = "database: { host: h, database: d, user: u }\n";

#[test]
fn only_what_is_required_and_the_defaults_of_the_rest() {
    let place = Place::new();
    let loaded = place.gatherer(&with_database(DATABASE)).unwrap();
    let config = loaded.config;
    assert_eq!(config.gatherer_id, "g1");
    assert_eq!(config.api.rest_url, "https://h/trade-api/v2");
    assert_eq!(config.api.credentials.as_ref().unwrap().current().key_id(), "key-1");
    assert_eq!(config.database.port, 5432);
    assert!(config.database.password.is_none());
    assert_eq!(config.database.tls, TlsMode::Prefer);
    assert_eq!(config.database.application_name, "kalshi gather g1");
    assert_eq!(config.journal.dir, Path::new("/var/lib/kalshi/journal"));
    assert_eq!(config.journal.max_age, Duration::from_secs(72 * 3600));
    assert_eq!(config.journal.max_bytes, 50 << 30);
    let reconnect_max = Duration::from_secs(300);
    let sessions = Sessions {
        ticker: 2,
        trade: 2,
        lifecycle: 2,
        orderbook: 144,
        reconnect_max,
        user_connections_max: 200,
        user_gatherers: 1,
    };
    assert_eq!(config.sessions, sessions);
    assert_eq!(config.markets.multivariate, Multivariate::Exclude);
    assert!(config.markets.series.is_empty() && config.markets.exclude_series.is_empty());
    assert_eq!(config.audit_period, Some(Duration::from_secs(6 * 3600)));
    assert_eq!(config.server.health.to_string(), "0.0.0.0:8080");
    assert_eq!(config.server.metrics.to_string(), "0.0.0.0:9090");
    assert_eq!(loaded.telemetry, telemetry::Config::default());
    assert!(loaded.notices.is_empty());
}

#[test]
fn the_examples_are_right_and_show_the_defaults() {
    let place = Place::new();
    let example = include_str!("../../etc/kalshi/gatherer.yaml")
        .replace("/etc/kalshi/kalshi.pem", &place.path("key.pem").display().to_string());
    let shown = place.gatherer(&example).unwrap_or_else(|e| panic!("{e}"));
    let bare = place.gatherer(&with_database(DATABASE)).unwrap();
    assert_eq!(shown.config.journal.max_bytes, bare.config.journal.max_bytes);
    assert_eq!(shown.config.journal.max_age, bare.config.journal.max_age);
    assert_eq!(shown.config.sessions, bare.config.sessions);
    assert_eq!(shown.config.markets, bare.config.markets);
    assert_eq!(shown.config.audit_period, bare.config.audit_period);
    assert_eq!(shown.config.server, bare.config.server);
    assert_eq!(shown.telemetry, bare.telemetry);
    assert!(shown.notices.is_empty(), "{:?}", shown.notices);

    let environment = Environment::given([
        ("DEDUP_READER_PASSWORD", CANARY),
        ("PRODUCTION_PASSWORD", CANARY),
        ("PRODUCTION_HOST", "production.internal"),
    ]);
    let example = include_str!("../../etc/kalshi/deduplicator.yaml");
    let read = |root: Root<'_>| deduplicator::read(root.section);
    let shown =
        parse(Path::new("d.yaml"), example, &environment, read).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(shown.config.gatherers.len(), 3);
    assert!(shown.notices.is_empty(), "{:?}", shown.notices);
}

#[test]
fn every_key_can_be_given_and_numbers_by_variables() {
    let place = Place::new();
    let config = place
        .gatherer(&with_database(
            "database: { host: /run/postgresql, port: ${PORT}, database: d, user: u, password: ${TIMESCALEDB_PASSWORD}, sslmode: verify-ca }
journal: { dir: ./j, max_age: 1h30m, max_bytes: ${SIZE:-256MiB} }
sessions: { ticker: 1, trade: 1, lifecycle: 1, orderbook: \"${N:-3}\" }
markets: { multivariate: include, series: [KXA, KXB], exclude_series: [KXC] }
storage: { engine: native, retention: 30d }
server: { health: 127.0.0.1:0, metrics: '[::1]:0' }
logging: { level: 'info,kalshi::pg=debug', format: text }
",
        ))
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(config.notices.is_empty(), "{:?}", config.notices);
    assert_eq!(config.telemetry.format, telemetry::Format::Text);
    let config = config.config;
    assert_eq!(config.database.port, 6000);
    assert_eq!(config.database.password.unwrap().expose(), format!("{CANARY}: \"#\n{{"));
    assert_eq!(config.database.tls, TlsMode::VerifyCa);
    assert_eq!(config.journal.max_age, Duration::from_secs(5400));
    assert_eq!(config.journal.max_bytes, 256 << 20);
    assert_eq!(config.sessions.orderbook, 3);
    assert_eq!(config.markets.series, ["KXA", "KXB"]);
    assert_eq!(config.storage.engine, Choice::Native);
    assert_eq!(config.storage.retention, Some(Duration::from_secs(30 * 86_400)));
}

#[test]
fn all_problems_at_once_with_line_and_key() {
    let place = Place::new();
    let source = "gatherer_id: g 1
api:
  rest_url: http://kalshi.com/trade-api/v2
  ws_url: ${NO_URL:?set the address}
  keyid: x
  private_key_file: ${KEY_FILE}
database:
  host: [h]
  port: ${PORT}00
  database: ${EMPTY}
  pasword: hunter2
  sslmode: verify
journal: { max_age: 72, max_bytes: 255MiB }
sessions:
  orderbook: 0
  ticker: lots
markets: { series: [KXA, 'KX B'], exclude_series: [KXA], multivariate: {} }
audit: { period: sometimes, perid: 1h }
storage: []
server: { health: 8080 }
logging: { level: loud, format: xml }
loging: {}
";
    assert_eq!(
        place.problems(source),
        [
            "1: gatherer_id: `g 1` is not a name of 1 to 40 letters, digits, `-`, `_` and `.`",
            "2: api.key_id: is required",
            "3: api.rest_url: `http://kalshi.com/trade-api/v2` is not encrypted: http:// is for loopback addresses, use https://",
            "4: api.ws_url: variable NO_URL is not set or empty: set the address",
            "5: api.keyid: is not a known key: did you mean `key_id`?",
            "7: database.user: is required",
            "8: database.host: must be a single value, not a list",
            "9: database.port: `${PORT}00` is not a port from 1 to 65535",
            "10: database.database: is empty",
            "11: database.pasword: is not a known key: did you mean `password`?",
            "12: database.sslmode: `verify` is not one of disable, prefer, require, verify-ca, verify-full",
            "13: journal.max_age: `72` is not a duration like 500ms, 25s, 5m, 72h or 14d",
            "13: journal.max_bytes: `255MiB` is less than 256MiB",
            "15: sessions.orderbook: `0` is not a number of sessions from 1 to 1000",
            "16: sessions.ticker: `lots` is not a number of sessions from 1 to 1000",
            "17: markets.series[1]: `KX B` is not a series like KXGOLD15M or KXBTC*",
            "17: markets.multivariate: must be a single value, not a mapping",
            "18: audit.period: `sometimes` is neither off nor a time from 10s to 30d",
            "18: audit.perid: is not a known key: did you mean `period`?",
            "19: storage: must be a mapping, not a list",
            "20: server.health: `8080` is not an address like 127.0.0.1:8080 or [::]:8080",
            "21: logging.level: `loud` is no log level: give off, error, warn, info, debug, trace, or levels by module like info,kalshi::pg=debug",
            "21: logging.format: `xml` is not one of json, text",
            "22: loging: is not a known key: did you mean `logging`?",
        ]
    );
    let text = place.gatherer(source).map(|_| ()).unwrap_err().to_string();
    assert!(text.starts_with("g.yaml has 24 problems\n  g.yaml:1:1: gatherer_id: "), "{text}");
}

#[test]
fn an_excluded_series_cannot_be_chosen() {
    let problems = Place::new().problems(&with_database(&format!(
        "{DATABASE}markets: {{ series: [A], exclude_series: [A, B] }}\n"
    )));
    assert_eq!(problems, ["8: markets.exclude_series[0]: `A` is in `series` too"]);
}

#[test]
fn markets_and_poller_are_read_and_checked() {
    let place = Place::new();
    let load = |text: &str| place.gatherer(&with_database(&format!("{DATABASE}{text}")));
    let config = |text: &str| load(text).unwrap_or_else(|e| panic!("{e}")).config;
    let poller = config("").poller.unwrap();
    assert_eq!((poller.share, poller.interval_min.as_secs()), (0.5, 60));
    assert!(config("poller: off\n").poller.is_none());
    assert_eq!(config("audit: off\n").audit_period, None);
    let poller = config("poller: { share: 0.25, interval_min: 5m }\n").poller.unwrap();
    assert_eq!((poller.share, poller.interval_min.as_secs()), (0.25, 300));
    let markets = config("markets: { tickers: [\"KXA-*\"], exclude_tickers: [KXA-1] }\n").markets;
    assert_eq!(
        (markets.tickers, markets.exclude_tickers),
        (vec!["KXA-*".into()], vec!["KXA-1".into()])
    );
    let problems = place.problems(&with_database(&format!(
        "{DATABASE}markets: {{ tickers: [A], exclude_tickers: [A, 'B C'] }}\n\
         poller: {{ share: 2, interval_min: 1ms }}\nsessions: {{ user_gatherers: 0 }}\n"
    )));
    assert_eq!(problems.len(), 5, "{problems:#?}");
    assert!(problems.iter().any(|p| p.contains("`A` is in `tickers` too")), "{problems:#?}");
    let problems = place.problems(&with_database(&format!("{DATABASE}poller: on\n")));
    assert!(problems[0].contains("neither off nor"), "{problems:?}");
    let notices =
        load("sessions: { user_gatherers: 3 }\n").unwrap_or_else(|e| panic!("{e}")).notices;
    assert!(notices[0].contains("3 x 150 connections"), "{notices:?}");
}

#[test]
fn a_missing_variable_is_named_with_its_key() {
    let source =
        with_database("database:\n  host: h\n  database: d\n  user: u\n  password: ${NOT_THERE}\n");
    let error = Place::new().gatherer(&source).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "g.yaml:11:3: database.password: variable NOT_THERE is not set");
}

#[test]
fn a_database_by_url() {
    let place = Place::new();
    let database = |section: &str| {
        place.gatherer(&with_database(section)).unwrap_or_else(|e| panic!("{e}")).config.database
    };
    let target = database("database:\n  url: postgres://u:p%40w@h:6432/d?sslmode=require\n");
    assert_eq!((target.host.as_str(), target.port), ("h", 6432));
    assert_eq!(target.password.unwrap().expose(), "p@w");
    assert_eq!(target.tls, TlsMode::Require);
    let target =
        database("database:\n  url: postgres://u@h/d\n  password: ${CANARY}\n  sslmode: disable\n");
    assert_eq!(target.port, 5432);
    assert_eq!(target.password.unwrap().expose(), CANARY);
    assert_eq!(target.tls, TlsMode::Disable);
    let target = database("database: { url: \"postgres://u@/d?host=/run/postgresql\" }\n");
    assert_eq!(target.host, "/run/postgresql");
}

#[test]
fn a_database_by_url_that_is_wrong() {
    let place = Place::new();
    for (section, problem) in [
        (
            "database: { url: postgres://u:${CANARY}@h/d, host: x }\n",
            "7: database.host: is given beside `url`, which says it already",
        ),
        (
            "database: { url: postgres://u:${CANARY}@h/d, password: x }\n",
            "7: database.url: the URL has a password that is also given beside it: keep one of them",
        ),
        (
            "database: { url: postgres://u:${CANARY}@h/d?sslmode=allow }\n",
            "7: database.url: the URL has a sslmode that is not one of disable, prefer, require, verify-ca, verify-full",
        ),
        (
            "database: { url: postgres://u:${CANARY}@/d }\n",
            "7: database.url: the URL names no host",
        ),
        (
            "database: { url: postgres://u:${CANARY}@h }\n",
            "7: database.url: the URL names no database",
        ),
        ("database: { url: postgres://h/d }\n", "7: database.url: the URL names no user"),
        (
            "database: { url: ${CANARY} }\n",
            "7: database.url: the URL does not begin with postgres://",
        ),
        ("database: { url: '' }\n", "7: database.url: is empty"),
    ] {
        assert_eq!(place.database_problems(section), [problem]);
    }
}

#[test]
fn gatherers_are_unique() {
    let place = Place::new();
    let item = |id: &str, host: &str| {
        format!("- {{ id: {id}, database: {{ host: {host}, database: d, user: u }} }}\n")
    };
    let file = |items: &[String]| {
        let production = "production: { host: p, database: d, user: u }\n";
        format!("deduplicator_id: d1\n{production}gatherers:\n{}", items.concat())
    };
    let loaded = place.deduplicator(&file(&[item("a", "h1"), item("b", "h2")])).unwrap();
    assert_eq!(loaded.config.gatherers[1].id, "b");
    let problems = |source: &str| listed(&place.deduplicator(source).map(|_| ()).unwrap_err());
    assert_eq!(
        problems(&file(&[item("a", "h1"), item("a", "h2"), item("c", "h1")])),
        [
            "5: gatherers[1].id: `a` is the id of gatherers[0].id too",
            "6: gatherers[2].id: `c` reads the database that gatherers[0].id reads"
        ]
    );
    assert_eq!(
        problems(
            "deduplicator_id: d1\nproduction: { host: p, database: d, user: u }\ngatherers: []\n"
        ),
        ["3: gatherers: must name at least one gatherer"]
    );
    assert_eq!(
        problems(&file(&["- x\n".to_owned()])),
        ["4: gatherers[0]: must be a mapping, not a single value"]
    );
}

#[test]
fn settings_of_all_parts_are_checked_together() {
    let place = Place::new();
    let base = "deduplicator_id: d1
production: { host: p, database: d, user: u }
gatherers: [ { id: a, database: { host: h, database: d, user: u } } ]
";
    let source = format!(
        "{base}api: {{ rest_url: https://h/v2 }}
archive: {{ url: s3://b/p, database: {{ user: exporter, password: x }} }}
"
    );
    let loaded = place.deduplicator(&source).unwrap_or_else(|e| panic!("{e}"));
    assert!(loaded.notices.is_empty());
    let source = format!("{base}archive: {{ url: ftp://b, database: {{ user: exporter }} }}\n");
    assert_eq!(place.deduplicator(&source).map(|_| ()).unwrap_err().problems().len(), 1);
    let source = format!("{base}retention: {{ trades: 5 }}\n");
    assert_eq!(place.deduplicator(&source).map(|_| ()).unwrap_err().problems().len(), 1);
}

#[test]
fn retention_is_that_of_the_file_or_the_default() {
    let place = Place::new();
    let base = "deduplicator_id: d1
production: { host: p, database: d, user: u }
gatherers: [ { id: a, database: { host: h, database: d, user: u } } ]
";
    let kept = |retention: &str| {
        place.deduplicator(&format!("{base}{retention}\n")).map(|loaded| loaded.config.retention)
    };
    let day = |days: u64| Some(std::time::Duration::from_secs(days * 86_400));
    let default = kept("").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((default.trades, default.orderbook_snapshots, default.coverage), (None, None, None));
    assert_eq!((default.orderbook_deltas, default.tickers), (day(90), day(30)));
    let given = kept("retention: { trades: 365d, tickers: forever, market_lifecycle: forever }");
    let given = given.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((given.trades, given.tickers, given.orderbook_deltas), (day(365), None, day(90)));
    let errors = kept("retention: { market_lifecycle: 90d, tickers: 5 }").unwrap_err();
    assert_eq!(errors.problems().len(), 2, "{errors}");
}

#[test]
fn either_file_gives_its_database() {
    let place = Place::new();
    let load = |source: &str| parse(Path::new("x.yaml"), source, &place.environment(), either);
    let source = "gatherer_id: g\napi: { key_id: ${NOT_THERE} }\njournal: 5\ndatabase: { host: h, database: d, user: u }\n";
    let loaded = load(source).unwrap_or_else(|e| panic!("{e}")).config;
    assert_eq!((loaded.schema, loaded.target.host.as_str()), (Schema::Gatherer, "h"));
    let loaded =
        load("deduplicator_id: g\nproduction: { host: p, database: d, user: u }\n").unwrap().config;
    assert_eq!((loaded.schema, loaded.target.host.as_str()), (Schema::Production, "p"));
    let errors = load("database: { host: h }\n").map(|_| ()).unwrap_err();
    assert_eq!(listed(&errors), ["1: gatherer_id: or `deduplicator_id` is required"]);
    assert_eq!(listed(&load("gatherer_id: g\nproducton: {}\n").map(|_| ()).unwrap_err()).len(), 4);
}

#[test]
fn files_that_are_no_configuration() {
    let place = Place::new();
    let text = |source: &str| place.gatherer(source).map(|_| ()).unwrap_err().to_string();
    assert_eq!(text(""), "g.yaml: is empty");
    assert_eq!(text("# nothing\n"), "g.yaml: is empty");
    assert!(text("- a\n").starts_with("g.yaml:1:1: must be a mapping"), "{}", text("- a\n"));
    assert!(text("a: [\n").starts_with("g.yaml:1:4: "), "{}", text("a: [\n"));
    assert_eq!(
        text("deduplicator_id: x\n"),
        "g.yaml:1:1: deduplicator_id: is the key of a deduplicator's file: a gatherer's has `gatherer_id`"
    );
    let missing =
        load_gatherer(Path::new("/nonexistent/g.yaml")).map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        missing,
        "/nonexistent/g.yaml: cannot be read: No such file or directory (os error 2)"
    );
    assert!(
        load_either(Path::new("/dev/zero"))
            .map(|_| ())
            .unwrap_err()
            .to_string()
            .contains("is larger than")
    );
}

#[test]
fn nothing_of_a_file_makes_it_panic() {
    use proptest::prelude::*;
    let place = Place::new();
    let full = with_database(DATABASE);
    let length = full.len();
    let mut runner = proptest::test_runner::TestRunner::default();
    let strategy = (0..length, 0..24usize, "[ \\n\\t{}\\[\\],:#&*!|>'\"%@`$~a-z0-9é-]{0,12}");
    runner
        .run(&strategy, |(start, cut, text)| {
            let head: String = full.chars().take(start).collect();
            let tail: String = full.chars().skip(start + cut).collect();
            let source = format!("{head}{text}{tail}");
            if let Err(errors) = place.gatherer(&source) {
                prop_assert!(!errors.problems().is_empty());
                prop_assert!(!errors.to_string().contains("could not be understood"), "{}", source);
            }
            Ok(())
        })
        .unwrap();
}
