//! Production fails over to a standby that never got the last commits: what was acknowledged to the
//! deduplicator is gone with the primary, rows and cursors alike, and is merged again.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::{Cluster, Exchange, Process, deduplicator_file, gatherer_file, migrate, wait_for};

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of ours is UTF-8")
}

/// Points the name under which production is known somewhere else, at once.
fn point(name: &Path, at: &Path) {
    let new = name.with_extension("new");
    symlink(at, &new).expect("make a link");
    fs::rename(&new, name).expect("put it in place");
}

fn head(cluster: &Cluster, database: &str) -> i64 {
    cluster.number(database, "SELECT head FROM logs WHERE name = 'orderbook_deltas'")
}

#[test]
fn commits_that_a_failover_lost_are_merged_again() {
    let root = tempfile::tempdir().expect("a directory");
    let at = |name: &str| {
        let dir = root.path().join(name);
        fs::create_dir(&dir).expect("a directory");
        dir
    };
    let cluster = Cluster::start(&at("gatherers"));
    let primary = Cluster::start(&at("primary"));
    cluster.sql("postgres", "CREATE DATABASE g1");
    primary.sql("postgres", "CREATE DATABASE production");

    let exchange = Exchange::start(&["--markets", "20", "--rate", "200", "--seed", "3"]);
    let file = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
    let dedup =
        deduplicator_file(root.path(), "dedup", &cluster, &[("gatherer-1", "g1")], "production");
    // Only a socket has a name that can be pointed elsewhere without a name server.
    let name = root.path().join("production");
    symlink(primary.sockets(), &name).expect("make a link");
    let text = fs::read_to_string(&dedup).expect("the configuration");
    let lines = text.lines().map(|line| match line.strip_prefix("production: ") {
        Some(_) => format!(
            "production: {{ host: {}, port: {}, database: production, user: postgres }}\n",
            name.display(),
            primary.port
        ),
        None => format!("{line}\n"),
    });
    fs::write(&dedup, lines.collect::<String>()).expect("write the configuration");
    migrate(&file.path);
    migrate(&dedup);

    let standby = primary.standby(&at("standby"));
    let mut gatherer =
        Process::start(&["gather", "--config", path(&file.path)], root.path().join("g1.log"));
    let log = root.path().join("d.log");
    let mut deduplicator = Process::start(&["dedup", "--config", path(&dedup)], log);
    wait_for("rows on the standby", || (head(&standby, "production") > 300).then_some(()));

    // From here on the standby gets nothing, and the primary goes on acknowledging.
    standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
    standby.sql("postgres", "SELECT pg_reload_conf()");
    wait_for("the end of the replication", || {
        (standby.number("postgres", "SELECT count(*) FROM pg_stat_wal_receiver") == 0).then_some(())
    });
    let kept = head(&standby, "production");
    wait_for("commits that will be lost", || {
        (head(&primary, "production") > kept + 300).then_some(())
    });
    primary.crash();
    let said = deduplicator.log().len();
    // The name leads to the standby before it is promoted: it takes connections and no writes.
    point(&name, &standby.sockets());
    wait_for("a refusal by the standby", || {
        let log = deduplicator.log();
        let now = log.get(said..).unwrap_or_default();
        (now.contains("read-only") || now.contains("in recovery")).then_some(())
    });
    standby.promote();

    wait_for("new rows after the failover", || {
        (head(&standby, "production") > kept + 600).then_some(())
    });
    assert!(gatherer.stop().success(), "{}", gatherer.log());
    wait_for("the cursor at the log's end", || {
        let position = standby.number(
            "production",
            "SELECT position FROM sync_cursors WHERE table_name = 'orderbook_deltas'",
        );
        (position == head(&cluster, "g1")).then_some(())
    });
    assert!(deduplicator.stop().success(), "{}", deduplicator.log());

    // One gatherer: production has exactly its rows, each once.
    let columns = "ticker, exchange_ts, side, price, size_delta, occurrence";
    let bag = format!(
        "SELECT count(*) || ' ' || count(DISTINCT ({columns})) || ' ' || \
         sum(hashtextextended(({columns})::text COLLATE \"C\", 0)::numeric) FROM orderbook_deltas"
    );
    assert_eq!(standby.sql("production", &bag), cluster.sql("g1", &bag));
    let dense = "SELECT count(*) = max(log_seq) AND min(log_seq) = 1 FROM orderbook_deltas";
    assert_eq!(standby.sql("production", dense), "t");
}
