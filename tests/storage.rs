//! A gatherer's logs in parts: made and dropped by a gatherer that dies at any step, and read by a
//! deduplicator that comes late.

mod support;

use std::path::Path;

use support::{
    Cluster, Exchange, GathererFile, Process, deduplicator_file, engine, gatherer_file, migrate,
    wait_for,
};

/// Rows of a part of the changes; the simulated exchange publishes as many in a second.
const PART: i64 = 200;

struct Gatherer {
    file: GathererFile,
    cluster: Cluster,
    /// Publishes for as long as it lives.
    _exchange: Exchange,
    root: tempfile::TempDir,
}

impl Gatherer {
    /// A gatherer's database whose changes come in small parts, and its configuration.
    fn prepare() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::start(root.path());
        cluster.sql("postgres", "CREATE DATABASE g1");
        cluster.sql("postgres", "CREATE DATABASE production");
        let exchange = Exchange::start(&["--markets", "20", "--rate", "200", "--seed", "3"]);
        let file = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
        let text = std::fs::read_to_string(&file.path).expect("the configuration");
        let engine = format!("engine: {}", engine());
        let text = text.replace(&engine, &format!("{engine}, retention: 1h"));
        std::fs::write(&file.path, text).expect("write the configuration");
        migrate(&file.path);
        let this = Self { file, cluster, _exchange: exchange, root };
        this.sql(&format!(
            "UPDATE logs SET chunk_rows = {PART} WHERE name = 'orderbook_deltas'; {}",
            match is_native() {
                true => format!(
                    "ALTER TABLE orderbook_deltas DETACH PARTITION orderbook_deltas_0; \
                     DROP TABLE orderbook_deltas_0; CREATE TABLE orderbook_deltas_0 \
                     PARTITION OF orderbook_deltas FOR VALUES FROM (0) TO ({PART}); \
                     ALTER TABLE orderbook_deltas_0 OWNER TO kalshi_owner"
                ),
                false =>
                    format!("SELECT set_chunk_time_interval('orderbook_deltas', {PART}::bigint)"),
            }
        ));
        this
    }

    fn sql(&self, statement: &str) -> String {
        self.cluster.sql("g1", statement)
    }

    fn number(&self, query: &str) -> i64 {
        self.cluster.number("g1", query)
    }

    /// Starts it, to die at a named step if there is one.
    fn start(&self, dies_at: Option<&str>) -> Process {
        let points = format!("FAILPOINTS={}", dies_at.unwrap_or_default());
        let arguments = ["gather", "--config", path(&self.file.path)];
        Process::start_in(&["env", &points], &arguments, self.root.path().join("g1.log"))
    }

    fn dies_at(&self, point: &str) {
        let mut process = self.start(Some(point));
        let status = process.ended();
        assert!(status.code().is_none(), "{point}: {status}: {}", process.log());
    }

    /// First row, last row, rows, head and `kept_from`.
    fn rows(&self) -> [i64; 5] {
        let text = self.sql(
            "SELECT min(log_seq), max(log_seq), count(*), (SELECT head FROM logs WHERE name = d.name), \
             (SELECT kept_from FROM logs WHERE name = d.name) \
             FROM orderbook_deltas, (VALUES ('orderbook_deltas')) d (name) GROUP BY d.name",
        );
        let mut values = text.split('|').map(|value| value.parse().expect("a number"));
        std::array::from_fn(|_| values.next().expect("five values"))
    }

    fn parts(&self) -> i64 {
        self.number(match is_native() {
            true => {
                "SELECT count(*) FROM pg_inherits WHERE inhparent = 'orderbook_deltas'::regclass"
            }
            false => "SELECT count(*) FROM show_chunks('orderbook_deltas')",
        })
    }

    fn wait_head(&self, head: i64) {
        let sql = "SELECT head FROM logs WHERE name = 'orderbook_deltas'";
        wait_for(&format!("row {head}"), || (self.number(sql) >= head).then_some(()));
    }
}

fn is_native() -> bool {
    engine() == "native"
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of ours is UTF-8")
}

#[test]
fn a_gatherer_may_die_at_any_step_with_a_part_and_a_late_reader_is_told_what_is_gone() {
    if !cfg!(feature = "failpoints") {
        panic!("build with --features failpoints, as make test does");
    }
    let gatherer = Gatherer::prepare();
    if is_native() {
        // Between the making of a partition and its first row, whichever comes first.
        for passed in 0..3 {
            gatherer.dies_at(&format!("append-after-partition={passed}*off->return"));
        }
    }
    let mut process = gatherer.start(None);
    gatherer.wait_head(6 * PART);
    assert_eq!(process.stop().code(), Some(0), "{}", process.log());
    let [first, last, rows, head, kept_from] = gatherer.rows();
    assert_eq!([first, last, rows, kept_from], [1, head, head, 1]);
    assert!(gatherer.parts() > head / PART, "{} parts", gatherer.parts());

    // Three parts and a half came three hours ago.
    let old = 3 * PART + PART / 2;
    gatherer.sql(&format!(
        "UPDATE orderbook_deltas SET received_at = received_at - 10800000000 WHERE log_seq < {old}"
    ));
    gatherer.dies_at("retention-after-decision=return");
    let [first, .., kept_from] = gatherer.rows();
    assert_eq!([first, kept_from], [1, PART], "decided and not dropped");
    let mut process = gatherer.start(None);
    wait_for("the old parts to go", || (gatherer.rows()[0] == 3 * PART).then_some(()));
    gatherer.wait_head(head + 2 * PART);
    assert_eq!(process.stop().code(), Some(0), "{}", process.log());
    let [first, last, rows, head, kept_from] = gatherer.rows();
    assert_eq!([first, last, rows, kept_from], [3 * PART, head, head - 3 * PART + 1, 3 * PART]);

    // Who comes only now goes on behind what is gone, and says so.
    let (root, cluster) = (gatherer.root.path(), &gatherer.cluster);
    let late = deduplicator_file(root, "late", cluster, &[("gatherer-1", "g1")], "production");
    migrate(&late);
    let mut dedup = Process::start(&["dedup", "--config", path(&late)], root.join("late.log"));
    let told = format!(
        "SELECT count(*) FROM consumers WHERE name = 'late' AND position = {head} \
         AND table_name = 'orderbook_deltas'"
    );
    wait_for("the gatherer to be told", || (gatherer.number(&told) == 1).then_some(()));
    assert_eq!(dedup.stop().code(), Some(0), "{}", dedup.log());
    let gone = format!("gatherer-1 dropped {} rows of orderbook_deltas", 3 * PART - 1);
    assert!(dedup.log().contains(&gone), "{}", dedup.log());
    let count = "SELECT count(*) FROM orderbook_deltas";
    assert_eq!(cluster.number("production", count), rows);

    // From now on the gatherer waits for it.
    gatherer.sql("UPDATE orderbook_deltas SET received_at = received_at - 10800000000");
    let behind = 5 * PART;
    gatherer.sql(&format!("UPDATE consumers SET position = {behind}"));
    let mut process = gatherer.start(None);
    wait_for("what was read to go", || (gatherer.rows()[0] == behind).then_some(()));
    gatherer.wait_head(head + PART);
    assert_eq!(gatherer.rows()[0], behind);
    assert_eq!(process.stop().code(), Some(0), "{}", process.log());
}

#[test]
fn another_engine_than_the_database_has_is_refused_with_what_to_do() {
    let gatherer = Gatherer::prepare();
    let text = std::fs::read_to_string(&gatherer.file.path).expect("the configuration");
    let other = if is_native() { "timescaledb" } else { "native" };
    let text = text.replace(&format!("engine: {}", engine()), &format!("engine: {other}"));
    std::fs::write(&gatherer.file.path, text).expect("write the configuration");
    let config = path(&gatherer.file.path);
    for arguments in
        [&["gather", "--config", config][..], &["gather", "--check", "--config", config]]
    {
        let log = gatherer.root.path().join("refused.log");
        let mut process = Process::start(arguments, log.clone());
        assert_eq!(process.ended().code(), Some(64), "{arguments:?}: {}", process.log());
        let said = format!("set it to {} or auto", engine());
        assert!(process.log().contains(&said), "{arguments:?}: {}", process.log());
        std::fs::remove_file(log).expect("remove a log");
    }
}
