//! What each role may do, by trying everything that it must not: every table, every verb.

use std::collections::BTreeSet;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::super::error::describe;
use super::super::migrate::{self, MigrateError, Schema};
use super::super::testing::Cluster;
use super::super::{OWNER, Options, Target, rights};

const LOGS: [&str; 6] = [
    "trades",
    "orderbook_deltas",
    "orderbook_snapshots",
    "tickers",
    "market_lifecycle",
    "coverage",
];
/// Every role that can log in, with its kind of database.
const LOGINS: [(&str, Schema); 4] = [
    ("gatherer", Schema::Gatherer),
    ("dedup_reader", Schema::Gatherer),
    ("deduplicator", Schema::Production),
    ("exporter", Schema::Production),
];

/// The SQLSTATE of a statement, tried and taken back; none when it succeeds.
async fn tried(client: &Client, sql: &str) -> Option<String> {
    client.batch_execute("BEGIN").await.unwrap();
    let result = client.batch_execute(sql).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    result.err().map(|error| error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned())
}

async fn is_refused(client: &Client, sql: &str) -> bool {
    tried(client, sql).await.as_deref() == Some("42501")
}

async fn texts(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Every verb on every table that does not end with 42501, as `VERB table` or `UPDATE table.column`.
async fn allowed(client: &Client, admin: &Client) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    // Partitions are their parents'.
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
                  AND relkind IN ('r', 'p') AND NOT relispartition";
    for table in texts(admin, tables).await {
        for (verb, sql) in [
            ("SELECT", format!("SELECT FROM {table} LIMIT 1")),
            ("INSERT", format!("INSERT INTO {table} DEFAULT VALUES")),
            ("DELETE", format!("DELETE FROM {table} WHERE false")),
            ("TRUNCATE", format!("TRUNCATE {table} CASCADE")),
            ("DROP", format!("DROP TABLE {table} CASCADE")),
            ("ALTER", format!("ALTER TABLE {table} ADD COLUMN mine int")),
            ("INDEX", format!("CREATE INDEX ON {table} ((1))")),
            ("COMMENT", format!("COMMENT ON TABLE {table} IS 'mine'")),
            ("GRANT", format!("GRANT ALL ON {table} TO PUBLIC")),
            ("TRIGGER", format!("ALTER TABLE {table} DISABLE TRIGGER ALL")),
        ] {
            // A grant that one may not give is a warning where something else is held.
            let is_refused = if verb == "GRANT" {
                let held = "SELECT has_table_privilege('public', $1, 'DELETE')";
                client.batch_execute("BEGIN").await.unwrap();
                let _outcome = client.batch_execute(&sql).await;
                client.batch_execute("COMMIT").await.unwrap();
                !admin.query_one(held, &[&table]).await.unwrap().get::<_, bool>(0)
            } else {
                is_refused(client, &sql).await
            };
            if !is_refused {
                allowed.insert(format!("{verb} {table}"));
            }
        }
        let columns = format!(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = '{table}'::regclass \
             AND attnum > 0 AND NOT attisdropped"
        );
        for column in texts(admin, &columns).await {
            let sql = format!("UPDATE {table} SET {column} = DEFAULT WHERE false");
            if !is_refused(client, &sql).await {
                allowed.insert(format!("UPDATE {table}.{column}"));
            }
        }
    }
    allowed
}

/// What a role is meant to be allowed beside reading everything.
async fn meant(admin: &Client, login: &str) -> BTreeSet<String> {
    let (inserts, updates, deletes): (&[&str], &[&str], &[&str]) = match login {
        "gatherer" => (&["coverage_open"], &["coverage_open"], &["coverage_open"]),
        "deduplicator" => (
            &[
                "gatherers",
                "sync_cursors",
                "contributions",
                "contributions_open",
                "series",
                "events",
                "markets",
                "series_past",
                "events_past",
                "markets_past",
            ],
            &["sync_cursors", "contributions", "series", "events", "markets", "market_sync"],
            &["contributions_open"],
        ),
        _ => (&[], &[], &[]),
    };
    let columns: &[&str] = match login {
        "gatherer" => &[
            "writer.gatherer_id",
            "writer.epoch",
            "writer.holder",
            "writer.acquired_at",
            "logs.head",
            "logs.journal_id",
            "logs.journal_position",
        ],
        "deduplicator" => {
            &["writer.epoch", "writer.holder", "writer.acquired_at", "logs.head", "logs.time_max"]
        }
        _ => &[],
    };
    let writes = !columns.is_empty();
    let mut meant: BTreeSet<String> = columns.iter().map(|c| format!("UPDATE {c}")).collect();
    let logs = LOGS.iter().filter(|_| writes);
    meant.extend(inserts.iter().chain(logs).map(|table| format!("INSERT {table}")));
    meant.extend(deletes.iter().map(|table| format!("DELETE {table}")));
    for table in updates {
        let sql = format!(
            "SELECT 'UPDATE {table}.' || attname FROM pg_attribute \
             WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
        );
        meant.extend(texts(admin, &sql).await);
    }
    meant
}

/// The tables that this test knows all about; of others, later ones, only the default is asked.
fn is_known(right: &str) -> bool {
    const OTHERS: [&str; 17] = [
        "rotations",
        "writer",
        "logs",
        "coverage_open",
        "gatherers",
        "sync_cursors",
        "contributions",
        "contributions_open",
        "consumers",
        "series",
        "events",
        "markets",
        "series_past",
        "events_past",
        "markets_past",
        "market_sync",
        "refinery_schema_history",
    ];
    let table = right.split(' ').nth(1).and_then(|rest| rest.split('.').next()).unwrap();
    LOGS.contains(&table) || OTHERS.contains(&table)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_what_it_has_to_and_nothing_else() {
    let cluster = Cluster::start();
    for (login, schema) in LOGINS {
        let database = schema.to_string();
        let admin = match cluster.target(&database).connect().await {
            Ok(admin) => admin,
            Err(_) => cluster.create_with(&database, schema).await.connect().await.unwrap(),
        };
        let client = cluster.login(&database, login).connect().await.unwrap();
        let allowed = allowed(&client, &admin).await;
        let (reads, writes): (BTreeSet<_>, BTreeSet<_>) =
            allowed.into_iter().partition(|right| right.starts_with("SELECT "));
        let (known, others): (BTreeSet<_>, BTreeSet<_>) =
            writes.into_iter().partition(|right| is_known(right));
        assert_eq!(known, meant(&admin, login).await, "{login}");
        let changing = others.iter().find(|right| {
            let is_update = right.starts_with("UPDATE ") || right.starts_with("INSERT ");
            !is_update || login == "dedup_reader" || login == "exporter"
        });
        assert_eq!(changing, None, "{login}");
        let tables = "SELECT 'SELECT ' || relname FROM pg_class \
                      WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') \
                      AND NOT relispartition";
        assert_eq!(reads, texts(&admin, tables).await.into_iter().collect(), "{login}");

        for sql in [
            "CREATE TABLE mine (x int)",
            "CREATE VIEW mine AS SELECT 1",
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE SCHEMA mine",
            "CREATE ROLE mine",
            "ALTER ROLE postgres PASSWORD 'mine'",
            "ALTER SCHEMA public OWNER TO CURRENT_USER",
            "DROP SCHEMA public CASCADE",
            "ALTER SYSTEM SET log_statement = 'all'",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "COPY trades TO '/tmp/mine'",
            "SET ROLE postgres",
            "SET session_replication_role = replica",
            "SELECT pg_read_file('PG_VERSION')",
            "SELECT * FROM pg_authid",
        ] {
            let outcome = tried(&client, sql).await;
            // Some are refused before rights are asked for: not within a transaction.
            let is_refused = matches!(outcome.as_deref(), Some("42501" | "25001"));
            assert!(is_refused, "{login}: {sql}: {outcome:?}");
        }
        // A mere warning, and nothing is granted.
        client.batch_execute("GRANT ALL ON SCHEMA public TO PUBLIC").await.unwrap();
        let sql = "SELECT has_schema_privilege('public', 'public', 'CREATE, USAGE')";
        assert!(!admin.query_one(sql, &[]).await.unwrap().get::<_, bool>(0), "{login}");
        let is_writer = login == "gatherer" || login == "deduplicator";
        let temporary = is_refused(&client, "CREATE TEMP TABLE mine (x int)").await;
        assert_eq!(temporary, login != "deduplicator", "{login}");
        for log in LOGS {
            let sql = format!("LOCK TABLE {log} IN ACCESS EXCLUSIVE MODE");
            assert!(is_refused(&client, &sql).await, "{login}: {sql}");
        }
        // Only by saying so does a writer become the owner.
        let sql = format!("SET ROLE {OWNER}");
        assert_eq!(is_refused(&client, &sql).await, !is_writer, "{login}");
        let other = if schema == Schema::Gatherer { "production" } else { "gatherer" };
        let error = cluster.login(other, login).connect().await;
        let absent = cluster.target(other).connect().await.is_err();
        assert!(absent || error.is_err(), "{login} connects to {other}");
    }
    let production = cluster.login("gatherer", "exporter").connect().await.unwrap_err();
    assert!(production.to_string().contains("permission denied for database"), "{production}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_has_a_password_and_strangers_nothing() {
    let cluster = Cluster::start();
    let admin = cluster.create_with("p", Schema::Production).await.connect().await.unwrap();
    let sql = "SELECT rolname::text FROM pg_authid WHERE rolpassword IS NOT NULL";
    assert_eq!(texts(&admin, sql).await, [""; 0]);
    let sql = "SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres' \
               AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)";
    assert_eq!(texts(&admin, sql).await, [""; 0]);
    admin.batch_execute("CREATE ROLE stranger LOGIN").await.unwrap();
    let stranger = cluster.login("p", "stranger").connect().await;
    assert!(stranger.unwrap_err().to_string().contains("permission denied for database"));
    assert!(cluster.login("p", OWNER).connect().await.is_err(), "nobody logs in as the owner");
    let sql = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
               AND pg_get_userbyid(relowner) <> 'kalshi_owner'";
    assert_eq!(texts(&admin, sql).await, [""; 0]);
    // Whoever may connect and not look is told so, and not that there is no schema.
    admin.batch_execute("GRANT CONNECT ON DATABASE p TO stranger").await.unwrap();
    let stranger = cluster.login("p", "stranger").connect().await.unwrap();
    let error = migrate::check(&stranger, Schema::Production).await.unwrap_err();
    assert!(error.to_string().contains("stranger may not look into database p"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_later_migrations_make_is_covered() {
    let cluster = Cluster::start();
    for (schema, writer, reader) in [
        (Schema::Gatherer, "gatherer", "dedup_reader"),
        (Schema::Production, "deduplicator", "exporter"),
    ] {
        let database = schema.to_string();
        cluster.create_with(&database, schema).await;
        let options = Options { role: Some(OWNER), ..Options::default() };
        // As the service itself migrates.
        let owner = cluster.login(&database, writer).connect_with(options).await.unwrap();
        owner
            .batch_execute(
                "CREATE TABLE later (id bigint GENERATED BY DEFAULT AS IDENTITY, x int); \
                 CREATE FUNCTION later() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            )
            .await
            .unwrap();
        let writer = cluster.login(&database, writer).connect().await.unwrap();
        let reader = cluster.login(&database, reader).connect().await.unwrap();
        for (client, may_insert) in [(&writer, true), (&reader, false)] {
            assert_eq!(tried(client, "SELECT later() FROM later").await, None);
            let inserts = tried(client, "INSERT INTO later (x) VALUES (1)").await;
            assert_eq!(inserts.is_none(), may_insert, "{inserts:?}");
            for sql in ["UPDATE later SET x = 1", "DELETE FROM later", "TRUNCATE later"] {
                assert!(is_refused(client, sql).await, "{sql}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_one_cluster_are_migrated_at_the_same_time() {
    let cluster = Cluster::start();
    for round in 0..4 {
        let mut runs = tokio::task::JoinSet::new();
        for n in 0..3 {
            for schema in [Schema::Gatherer, Schema::Production] {
                let target = cluster.create(&format!("{schema}{n}")).await;
                runs.spawn(async move { migrate::run(&target, schema).await });
            }
        }
        while let Some(ended) = runs.join_next().await {
            ended.unwrap().unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        for n in 0..3 {
            for schema in [Schema::Gatherer, Schema::Production] {
                cluster.drop_database(&format!("{schema}{n}")).await;
            }
        }
        // Half of the rounds find the roles, half make them.
        if round % 2 == 0 {
            let admin = cluster.target("postgres").connect().await.unwrap();
            let roles = format!("{OWNER}, gatherer, dedup_reader, deduplicator, exporter");
            admin.batch_execute(&format!("DROP ROLE {roles}")).await.unwrap();
        }
    }
}

/// An administrator as a provider gives one: no superuser.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_needs_no_superuser_and_the_service_migrates_later() {
    let cluster = Cluster::start();
    let superuser = cluster.target("postgres").connect().await.unwrap();
    superuser.batch_execute("CREATE ROLE boss LOGIN CREATEROLE CREATEDB").await.unwrap();
    let boss = cluster.login("p", "boss");
    assert!(migrate::create_database(&boss).await.unwrap());
    migrate::run(&boss, Schema::Production).await.unwrap();
    // Nothing to do, and the right to do it: the owner's, for as long as it migrates.
    let service = cluster.login("p", "deduplicator");
    assert!(migrate::run(&service, Schema::Production).await.unwrap().applied.is_empty());
    superuser.batch_execute("ALTER ROLE boss NOCREATEROLE NOCREATEDB").await.unwrap();
    let client = service.connect().await.unwrap();
    let rights = rights::ask(&client, &[("logs", "UPDATE")], &LOGS).await.unwrap();
    assert_eq!(rights, rights::Rights::default());
    let exporter = cluster.login("p", "exporter").connect().await.unwrap();
    let rights = rights::ask(&exporter, &[("logs", "UPDATE"), ("trades", "INSERT")], &LOGS).await;
    let missing = rights.unwrap().missing.unwrap();
    for word in ["UPDATE on logs", "INSERT on trades", "membership in kalshi_owner"] {
        assert!(missing.contains(word), "{missing}");
    }
    let rights = rights::ask(&superuser_of(&cluster, "p").await, &[], &LOGS).await.unwrap();
    assert!(rights.missing.is_none() && rights.is_excessive);
}

async fn superuser_of(cluster: &Cluster, database: &str) -> Client {
    cluster.target(database).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lacks_a_right_is_told_which_and_what_to_do() {
    let cluster = Cluster::start();
    let superuser = cluster.target("postgres").connect().await.unwrap();
    superuser.batch_execute("CREATE ROLE svc LOGIN; CREATE ROLE other LOGIN").await.unwrap();
    let rights = |error: MigrateError| {
        assert!(matches!(error, MigrateError::Rights { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("`admin:`") && text.contains("a superuser run: "), "{text}");
        text
    };
    let target = cluster.login("mine", "svc");
    let text = rights(migrate::create_database(&target).await.unwrap_err());
    assert!(text.contains("make database mine") && text.contains("CREATE DATABASE"), "{text}");
    superuser.batch_execute("CREATE DATABASE mine OWNER svc").await.unwrap();
    let text = rights(migrate::run(&target, Schema::Gatherer).await.unwrap_err());
    assert!(text.contains("migration V3__roles") && text.contains("42501"), "{text}");
    // What the text says, done.
    superuser.batch_execute("ALTER ROLE \"svc\" CREATEROLE").await.unwrap();
    migrate::run(&target, Schema::Gatherer).await.unwrap();
    superuser.batch_execute("ALTER ROLE \"svc\" NOCREATEROLE").await.unwrap();

    // A later migration, by somebody who may not become the owner.
    let admin = superuser_of(&cluster, "mine").await;
    let newest = Schema::Gatherer.version();
    let sql = format!("DELETE FROM refinery_schema_history WHERE version = {newest}");
    admin.batch_execute(&sql).await.unwrap();
    let sql = "GRANT CONNECT ON DATABASE mine TO other; GRANT USAGE ON SCHEMA public TO other; \
               GRANT SELECT ON ALL TABLES IN SCHEMA public TO other";
    admin.batch_execute(sql).await.unwrap();
    let other = cluster.login("mine", "other");
    let text = rights(migrate::run(&other, Schema::Gatherer).await.unwrap_err());
    assert!(text.contains("as kalshi_owner") && text.contains("GRANT kalshi_owner TO"), "{text}");
}

/// A service that was set up under another name before there were roles: it goes on after the upgrade,
/// and so does whom somebody let in by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_takes_nothing_from_whom_it_was_given_by_name() {
    let cluster = Cluster::start();
    let superuser = cluster.target("postgres").connect().await.unwrap();
    let sql = "CREATE ROLE svc LOGIN; CREATE ROLE ann LOGIN; CREATE ROLE boss LOGIN CREATEROLE";
    superuser.batch_execute(sql).await.unwrap();
    superuser.batch_execute("CREATE DATABASE old OWNER boss").await.unwrap();
    let admin = superuser_of(&cluster, "old").await;
    admin.batch_execute("GRANT CREATE ON SCHEMA public TO svc").await.unwrap();
    let service = cluster.login("old", "svc");
    migrate::run_to(&service, Schema::Gatherer, 1).await.unwrap();
    let client = service.connect().await.unwrap();
    client
        .batch_execute(
            "GRANT SELECT ON trades TO ann; \
             INSERT INTO coverage_open VALUES (1, 1, 'T', 'trade', 1, NULL); \
             UPDATE logs SET head = 7 WHERE name = 'trades'",
        )
        .await
        .unwrap();
    // Who migrates needs what was the service's until now, and is told so.
    let boss = cluster.login("old", "boss");
    let error = migrate::run(&boss, Schema::Gatherer).await.unwrap_err();
    assert!(error.to_string().ends_with("GRANT \"svc\" TO \"boss\";"), "{error}");
    admin.batch_execute("GRANT \"svc\" TO \"boss\"").await.unwrap();
    migrate::run(&boss, Schema::Gatherer).await.unwrap();
    let kept = "SELECT (SELECT head FROM logs WHERE name = 'trades') + count(*) FROM coverage_open";
    assert_eq!(admin.query_one(kept, &[]).await.unwrap().get::<_, i64>(0), 8);

    let client = service.connect().await.unwrap();
    migrate::check(&client, Schema::Gatherer).await.unwrap();
    assert_eq!(tried(&client, "UPDATE logs SET head = 8").await, None);
    assert_eq!(tried(&client, &format!("SET LOCAL ROLE {OWNER}; CREATE TABLE x ()")).await, None);
    assert!(is_refused(&client, "DELETE FROM trades").await);
    let ann = cluster.login("old", "ann").connect().await.unwrap();
    assert_eq!(tried(&ann, "SELECT FROM trades").await, None);
    assert!(is_refused(&ann, "SELECT FROM tickers").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_moves_its_own_position_by_compare_and_set() {
    let cluster = Cluster::start();
    let target = cluster.create_with("p", Schema::Production).await;
    let admin = target.connect().await.unwrap();
    let sql = "UPDATE logs SET head = 100 WHERE name = 'trades'; CREATE ROLE ann LOGIN IN ROLE exporter; \
               INSERT INTO consumers (name, table_name, position) VALUES ('archive', 'trades', 5)";
    admin.batch_execute(sql).await.unwrap();
    let exporter = cluster.login("p", "exporter").connect().await.unwrap();
    let ann = cluster.login("p", "ann").connect().await.unwrap();
    let moves = async |client: &Client, log: &str, from: i64, to: i64| {
        let row = client.query_one("SELECT move_consumer($1, $2, $3)", &[&log, &from, &to]).await;
        row.unwrap().get::<_, bool>(0)
    };
    assert!(
        !moves(&exporter, "trades", 5, 6).await,
        "there is no row yet, and archive's is another"
    );
    assert!(moves(&exporter, "trades", 0, 0).await);
    assert!(moves(&exporter, "trades", 0, 40).await);
    assert!(!moves(&exporter, "trades", 0, 50).await, "somebody else was faster");
    assert!(!moves(&exporter, "trades", 40, 30).await);
    assert!(!moves(&exporter, "trades", 40, 101).await, "beyond the head");
    assert!(!moves(&exporter, "nothing", 0, 0).await);
    assert!(moves(&ann, "trades", 0, 7).await);
    let rows = "SELECT name || ' ' || position FROM consumers ORDER BY name";
    assert_eq!(texts(&admin, rows).await, ["ann 7", "archive 5", "exporter 40"]);
    let deduplicator = cluster.login("p", "deduplicator").connect().await.unwrap();
    assert!(is_refused(&deduplicator, "SELECT move_consumer('trades', 0, 0)").await);
}

/// A role that a session becomes at its start, and one that it may not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_may_act_as_the_owner_if_its_user_is_a_member() {
    let cluster = Cluster::start();
    cluster.create_with("g", Schema::Gatherer).await;
    let options = Options { role: Some(OWNER), ..Options::default() };
    let as_owner = |user: &str| -> Target { cluster.login("g", user) };
    let client = as_owner("gatherer").connect_with(options).await.unwrap();
    let answer = client.simple_query("SELECT current_user, session_user").await.unwrap();
    let Some(SimpleQueryMessage::Row(row)) = answer.get(1) else { panic!("{answer:?}") };
    assert_eq!((row.get(0), row.get(1)), (Some(OWNER), Some("gatherer")));
    let refused = as_owner("dedup_reader").connect_with(options).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied to set role"), "{refused}");
    let plain = as_owner("gatherer").connect().await.unwrap();
    let error = plain.batch_execute("DROP TABLE trades").await.unwrap_err();
    assert!(describe(&error).contains("must be owner of table trades"), "{}", describe(&error));
}
