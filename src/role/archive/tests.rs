//! The archive of a real production, in a directory: spans, repetitions, what is missing, versions,
//! larger parts, and what verification finds.

use std::time::Duration;

use tokio_postgres::Client;

use super::archiver::{self, Archiver};
use super::manifest::{self, Archive, Done, Manifest, Plan};
use super::metrics::Metrics;
use super::rows::{DAY, day_name};
use super::span::{LogState, Work};
use super::store::{Place, Store};
use super::table::Table;
use super::verify::{self, Options, Report};
use super::{Config, compact, versions};
use crate::model::Micros;
use crate::ops;
use crate::ops::exit::{Exit, HeldError};
use crate::pg::Target;
use crate::pg::migrate::Schema;
use crate::pg::testing::Cluster;

/// 2026-08-05.
const FIRST_DAY: i64 = 20_670;

struct Rig {
    _cluster: Cluster,
    production: Target,
    admin: Client,
    directory: tempfile::TempDir,
    store: Store,
    config: Config,
}

impl Rig {
    async fn start() -> Self {
        let cluster = Cluster::start();
        let production = cluster.create_with("production", Schema::Production).await;
        let admin = production.connect().await.unwrap();
        for log in ["trades", "orderbook_deltas", "orderbook_snapshots", "tickers", "coverage"] {
            let sql = format!(
                "CREATE TABLE {log}_all PARTITION OF {log} FOR VALUES FROM (MINVALUE) TO (MAXVALUE); \
                 GRANT SELECT ON {log}_all TO exporter"
            );
            admin.batch_execute(&sql).await.unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        let place = Place::Directory(directory.path().join("archive"));
        let any = "127.0.0.1:0".parse().unwrap();
        let config = Config {
            place: place.clone(),
            database: Target { user: "exporter".to_owned(), ..production.clone() },
            max_age: Duration::from_millis(100),
            memory: 64 * 1024 * 1024,
            compression_level: 3,
            compact: true,
            server: ops::http::Config { health: any, metrics: any },
        };
        Store::prepare(&place).unwrap();
        let store = Store::open(&place).unwrap();
        Self { _cluster: cluster, production, admin, directory, store, config }
    }

    async fn sql(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// Changes (from, to] of a few markets, from a day on, with the head at the last.
    async fn deltas(&self, from: i64, to: i64, day: i64) {
        let sql = format!(
            "INSERT INTO orderbook_deltas \
             SELECT n, {ts} + n * 1000, {ts} + n * 1000 + 5000, 'KX-' || n % 5, n % 2 = 0, \
                    10000 * (n % 50), 100 * (n % 9 + 1), 1, 1 \
             FROM generate_series({from} + 1, {to}) n; \
             UPDATE logs SET head = {to} WHERE name = 'orderbook_deltas'",
            ts = day * DAY,
        );
        self.sql(&sql).await;
    }

    /// Some rows of every log, of two days.
    async fn everything(&self) {
        self.deltas(0, 3_000, FIRST_DAY).await;
        self.deltas(3_000, 5_000, FIRST_DAY + 1).await;
        let ts = FIRST_DAY * DAY;
        self.sql(&format!(
            "INSERT INTO trades SELECT n, gen_random_uuid(), {ts} + n::bigint * 1000000000, {ts}, 'KX-' || n % 5, \
                 500000, CASE WHEN n % 2 = 0 THEN 500000 END, 100 * n, \
                 CASE WHEN n % 3 > 0 THEN n % 3 = 1 END, false, 1 FROM generate_series(1, 100) n; \
             INSERT INTO orderbook_snapshots SELECT n, {ts} + n, CASE WHEN n % 4 > 0 THEN {ts} + n * 1000 - 1 END, \
                 'KX-' || n % 5, 'ws', ARRAY[10000, 20000], ARRAY[500, 700], '{{}}'::bigint[], '{{}}'::bigint[], 7, 1, n, 1 \
                 FROM generate_series(1, 40) n; \
             INSERT INTO tickers SELECT n, {ts} + n, {ts} + n, 'KX-1', 1, NULL, 3, 4, 5, NULL, 7, 8, 9, NULL, n * 77, 1 \
                 FROM generate_series(1, 30) n; \
             INSERT INTO market_lifecycle SELECT n, 'KX-' || n, 'created', CASE WHEN n % 2 = 0 THEN {ts} END, {ts}, \
                 jsonb_build_object('n', n, 'text', 'it''s ä'), n, 1 FROM generate_series(1, 20) n; \
             INSERT INTO coverage SELECT n, 'orderbook_delta', 'KX-1', {ts} + n, {ts} + n + 5, NULL, {ts}, n, \
                 'continues', '', 7, 1, 1 FROM generate_series(1, 10) n; \
             UPDATE logs SET head = h FROM (VALUES ('trades', 100), ('orderbook_snapshots', 40), ('tickers', 30), \
                 ('market_lifecycle', 20), ('coverage', 10)) v (n, h) WHERE name = n"
        ))
        .await;
    }

    /// As the archiver does at its start.
    async fn begin(&self) -> anyhow::Result<(Client, Archive)> {
        let session = self.config.database.connect().await?;
        let archive = archiver::begin(&self.store, &session).await?;
        archiver::register(&session).await?;
        Ok((session, archive))
    }

    async fn log(&self, session: &Client, archive: &Archive, name: &str) -> LogState {
        let logs = archiver::look(session, archive).await.unwrap();
        logs.into_iter().find(|log| log.table.name == name).unwrap()
    }

    fn work<'a>(&'a self, session: &'a Client) -> Work<'a> {
        Work {
            store: &self.store,
            database: &self.config.database,
            session,
            memory: self.config.memory,
            level: 3,
        }
    }

    /// Archives all that is there.
    async fn archive(&self) -> anyhow::Result<()> {
        let (session, archive) = self.begin().await?;
        let work = self.work(&session);
        loop {
            let logs = archiver::look(&session, &archive).await?;
            let Some(log) = logs.iter().find(|log| log.pending() > 0) else { return Ok(()) };
            work.next(log).await?;
        }
    }

    async fn verify(&self) -> Report {
        let options = Options { since: None, books: 20, offline: false, json: true };
        verify::verify(&self.config, &options).await.unwrap()
    }

    async fn holds(&self) -> Report {
        let report = self.verify().await;
        assert!(report.ok, "{report:#?}");
        report
    }

    async fn problem(&self, words: &str) {
        let report = self.verify().await;
        let found = report.problems.iter().any(|problem| problem.contains(words));
        assert!(found && !report.ok, "{words}: {report:#?}");
    }

    async fn manifest(&self, table: &str, day: i64) -> Manifest {
        let table = Table::named(table).unwrap();
        manifest::latest(&self.store, table, &day_name(day)).await.unwrap().unwrap()
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join("archive").join(path)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_log_comes_into_the_archive_and_is_found_again() {
    let rig = Rig::start().await;
    rig.everything().await;
    rig.archive().await.unwrap();
    let report = rig.holds().await;
    let rows: Vec<(&str, u64)> =
        report.tables.iter().map(|seen| (seen.table.as_str(), seen.rows)).collect();
    assert_eq!(
        rows,
        [
            ("trades", 100),
            ("orderbook_deltas", 5_000),
            ("orderbook_snapshots", 40),
            ("tickers", 30),
            ("market_lifecycle", 20),
            ("coverage", 10),
            ("series", 0),
            ("events", 0),
            ("markets", 0),
        ]
    );
    assert!(report.books_compared > 0 && report.tables.iter().any(|seen| seen.days_compared > 1));
    // Again there is nothing to do, and it changes nothing.
    rig.archive().await.unwrap();
    rig.holds().await;
    assert_eq!(rig.manifest("orderbook_deltas", FIRST_DAY).await.version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_that_was_planned_is_followed_and_one_that_is_done_is_not_read_again() {
    let rig = Rig::start().await;
    rig.deltas(0, 20, FIRST_DAY).await;
    let (session, archive) = rig.begin().await.unwrap();
    let log = rig.log(&session, &archive, "orderbook_deltas").await;
    let plan = Plan {
        format: manifest::FORMAT,
        table: log.table.name.to_owned(),
        log_id: log.log_id,
        after: 0,
        through: 7,
        planned_at: String::new(),
        planned_by: String::new(),
    };
    let path = manifest::plan_path(log.table, log.log_id, 0);
    rig.store.replace(&path, manifest::bytes(&plan).unwrap()).await.unwrap();
    // Of an attempt that was cut short, with other bytes.
    let part = manifest::part_path(&plan, &day_name(FIRST_DAY));
    rig.store.replace(&part, "torn").await.unwrap();
    let archived = rig.work(&session).next(&log).await.unwrap();
    assert_eq!((archived.through, archived.rows, archived.parts), (7, 7, 1));

    // The cursor goes back, as after a kill before it moved; the rows are no longer readable.
    rig.sql("UPDATE consumers SET position = 0 WHERE table_name = 'orderbook_deltas'").await;
    rig.sql("REVOKE SELECT ON orderbook_deltas FROM exporter").await;
    assert_eq!(rig.work(&session).next(&log).await.unwrap(), archived);
    assert_eq!(rig.manifest("orderbook_deltas", FIRST_DAY).await.version, 1);
    rig.sql("GRANT SELECT ON orderbook_deltas TO exporter").await;
    rig.archive().await.unwrap();
    rig.holds().await;

    // Somebody else moved the cursor.
    rig.deltas(20, 30, FIRST_DAY).await;
    let log = rig.log(&session, &archive, "orderbook_deltas").await;
    rig.sql("UPDATE consumers SET position = 25 WHERE table_name = 'orderbook_deltas'").await;
    let error = rig.work(&session).next(&log).await.unwrap_err();
    assert!(error.downcast_ref::<HeldError>().is_some(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_bounds_spans() {
    let mut rig = Rig::start().await;
    rig.config.memory = 100_000;
    rig.deltas(0, 3_000, FIRST_DAY).await;
    rig.archive().await.unwrap();
    let parts = rig.manifest("orderbook_deltas", FIRST_DAY).await.parts;
    assert!(parts.len() > 2 && parts.iter().all(|part| part.rows <= 1_250), "{parts:?}");
    rig.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_before_is_declared_and_what_is_dropped_later_is_refused() {
    let rig = Rig::start().await;
    rig.deltas(0, 100, FIRST_DAY).await;
    rig.sql(&format!(
        "DELETE FROM orderbook_deltas WHERE log_seq <= 30; \
         UPDATE logs SET kept_from = {} WHERE name = 'orderbook_deltas'",
        FIRST_DAY * DAY
    ))
    .await;
    rig.archive().await.unwrap();
    let report = rig.holds().await;
    assert_eq!((report.tables[1].missing, report.tables[1].rows), (30, 70));
    rig.deltas(100, 200, FIRST_DAY).await;
    rig.sql("DELETE FROM orderbook_deltas WHERE log_seq = 150").await;
    let error = rig.archive().await.unwrap_err();
    assert!(
        error.to_string().contains("1 rows of orderbook_deltas between 100 and 200"),
        "{error}"
    );
    // Nothing of it is in the archive.
    let log_id =
        rig.admin.query_one("SELECT log_id FROM logs WHERE name = 'orderbook_deltas'", &[]);
    let path = manifest::done_path(
        Table::named("orderbook_deltas").unwrap(),
        log_id.await.unwrap().get(0),
        100,
    );
    assert_eq!(manifest::read::<Done>(&rig.store, &path).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_is_of_one_production_and_never_ahead_of_it() {
    let rig = Rig::start().await;
    rig.deltas(0, 100, FIRST_DAY).await;
    rig.archive().await.unwrap();
    // From a backup: the same log, with fewer rows.
    rig.sql(
        "DELETE FROM orderbook_deltas WHERE log_seq > 50; DELETE FROM consumers; \
         UPDATE logs SET head = 50 WHERE name = 'orderbook_deltas'",
    )
    .await;
    let error = rig.archive().await.unwrap_err();
    assert!(error.to_string().contains("restored from a backup"), "{error}");
    rig.sql("UPDATE logs SET log_id = gen_random_uuid() WHERE name = 'trades'").await;
    let error = rig.begin().await.map(|_| ()).unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Usage);
    assert!(error.to_string().contains("another production (trades"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_rows_are_parts_of_their_own_until_the_day_is_made_into_one() {
    let rig = Rig::start().await;
    let table = Table::named("orderbook_deltas").unwrap();
    for n in 0..4 {
        rig.deltas(n * 1_000, (n + 1) * 1_000, FIRST_DAY).await;
        rig.archive().await.unwrap();
    }
    let before = rig.manifest("orderbook_deltas", FIRST_DAY).await;
    assert_eq!((before.version, before.parts.len(), before.rows), (4, 4, 4_000));
    let now = Micros((FIRST_DAY + 1) * DAY);
    assert_eq!(
        compact::days(&rig.store, table, now, 3).await.unwrap(),
        0,
        "the day is not past yet"
    );
    let now = Micros((FIRST_DAY + 1) * DAY + 3 * 3_600_000_000);
    assert_eq!(compact::days(&rig.store, table, now, 3).await.unwrap(), 4);
    let after = rig.manifest("orderbook_deltas", FIRST_DAY).await;
    assert_eq!((after.version, after.parts.len(), after.rows), (5, 1, 4_000));
    assert!(after.parts[0].path.starts_with("v1/compact/"), "{after:?}");
    let (bytes, sum) = (after.bytes, before.bytes);
    assert!(bytes < sum, "{bytes} bytes in one, {sum} in four");
    rig.holds().await;
    // Small parts stay for those that list folders; one that comes late is beside the large one.
    assert!(rig.path(&before.parts[0].path).exists());
    rig.deltas(4_000, 4_001, FIRST_DAY).await;
    rig.archive().await.unwrap();
    assert_eq!(rig.manifest("orderbook_deltas", FIRST_DAY).await.parts.len(), 2);
    rig.holds().await;
    assert_eq!(compact::days(&rig.store, table, now, 3).await.unwrap(), 2);
    rig.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_archived_by_the_day_also_when_one_comes_late() {
    let rig = Rig::start().await;
    let yesterday = Micros::now().0.div_euclid(DAY) - 2;
    let insert = |n: i64, from: i64| {
        format!(
            "INSERT INTO markets (ticker, title, status, settlement_value, raw, content_hash, presence, valid_from) \
             VALUES ('KX-{n}', 'it''s {n}', 'open', 1000000, '{{\"a\": {n}}}', {n}, 'listed', {from})"
        )
    };
    for n in 0..50 {
        rig.sql(&insert(n, yesterday * DAY + n)).await;
    }
    rig.sql(&insert(100, Micros::now().0)).await;
    let (session, _) = rig.begin().await.unwrap();
    let table = Table::named("markets").unwrap();
    // So that a day takes several parts.
    let work = Work { memory: 2_000, ..rig.work(&session) };
    versions::archive(&work, table).await.unwrap();
    let first = rig.manifest("markets", yesterday).await;
    assert!(first.rows == 50 && first.parts.len() > 1, "{first:?}");
    versions::archive(&work, table).await.unwrap();
    assert_eq!(rig.manifest("markets", yesterday).await, first);
    rig.holds().await;
    rig.sql(&insert(200, yesterday * DAY + 77)).await;
    versions::archive(&work, table).await.unwrap();
    let again = rig.manifest("markets", yesterday).await;
    assert_eq!((again.version, again.rows), (2, 51));
    rig.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_finds_what_is_wrong() {
    let rig = Rig::start().await;
    rig.everything().await;
    rig.archive().await.unwrap();
    rig.holds().await;
    let deltas = rig.manifest("orderbook_deltas", FIRST_DAY).await;
    let path = rig.path(&deltas.parts[0].path);
    let right = std::fs::read(&path).unwrap();
    let mut wrong = right.clone();
    let at = wrong.len() / 2;
    wrong[at] ^= 1;
    std::fs::write(&path, &wrong).unwrap();
    rig.problem("not those of its manifest").await;
    std::fs::remove_file(&path).unwrap();
    rig.problem("is not there").await;
    std::fs::write(&path, &right).unwrap();
    rig.holds().await;

    let list =
        rig.path(&manifest::list_path(Table::named("trades").unwrap(), &day_name(FIRST_DAY)));
    let names = std::fs::read(&list).unwrap();
    std::fs::write(&list, b"").unwrap();
    rig.problem("does not name the parts").await;
    std::fs::write(&list, names).unwrap();

    // A row that never came into production's table, or was changed behind our back.
    rig.sql("DELETE FROM trades WHERE log_seq = 50").await;
    rig.problem("trades has").await;
    rig.sql("UPDATE orderbook_deltas SET size_delta = size_delta + 100 WHERE ticker = 'KX-1'")
        .await;
    rig.problem("the book of KX-1").await;

    let log_id = rig.admin.query_one("SELECT log_id FROM logs WHERE name = 'tickers'", &[]).await;
    let done = manifest::done_path(Table::named("tickers").unwrap(), log_id.unwrap().get(0), 0);
    std::fs::remove_file(rig.path(&done)).unwrap();
    rig.problem("tickers is archived up to 0, and its cursor in production is at 30").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_task_archives_says_so_and_stops() {
    let rig = Rig::start().await;
    rig.everything().await;
    let (health, mut reports) = tokio::sync::watch::channel(archiver::at_first());
    let run = |health| {
        let config = rig.config.clone();
        let metrics = Metrics::default();
        Archiver { config, metrics, health, is_alone: true }
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(run(health).run(stop.clone()));
    let all = reports.wait_for(|(_, shown)| shown["lag_rows"] == 0);
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("in time").unwrap();
    assert_eq!(reports.borrow().0, ops::health::Status::Healthy);

    // Another one finds the lock taken.
    let (other, _) = tokio::sync::watch::channel(archiver::at_first());
    let error = run(other).run(stop.clone()).await.unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Held);
    assert!(error.to_string().contains("is being archived by"), "{error}");
    stop.cancel();
    task.await.unwrap().unwrap();
    rig.holds().await;
    assert_eq!(rig.production.user, "postgres");
}
