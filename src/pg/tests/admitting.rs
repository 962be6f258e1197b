//! The examples of access rules on a live server: each login that one has to admit, and those around it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};

use super::super::Target;
use super::super::TlsMode::{self, Disable, Prefer, VerifyFull};
use super::super::migrate::Schema;
use super::super::testing::Cluster;
use super::authority::{Authority, serve};
use crate::ops::secret::Secret;

const GATHERER: &str = include_str!("../../../etc/kalshi/pg_hba.conf.example");
const PRODUCTION: &str = include_str!("../../../etc/kalshi/pg_hba.production.conf.example");

/// Lets whoever connects to the port it gives reach the server from another address.
async fn come_from(address: &str, server: u16) -> u16 {
    let from: IpAddr = address.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(from, 0)).unwrap();
            let mut far = socket.connect(([127, 0, 0, 1], server).into()).await.unwrap();
            tokio::spawn(async move {
                // Either end may go first.
                let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    port
}

/// A server that admits by an example's rules, and the ways to it.
struct Entrance {
    cluster: Cluster,
    server: Target,
    ca: PathBuf,
    /// Places by name, with the port by which one connects from there.
    ports: Vec<(&'static str, u16)>,
    _work: TempDir,
}

impl Entrance {
    /// Opens a server whose roles all have the password `right`; `places` are addresses of the example
    /// with a name and the address that stands for them here.
    async fn open(example: &str, places: &[(&str, &'static str, &str)], admitting: i64) -> Self {
        let cluster = Cluster::start_with_tcp();
        cluster.create_with("kalshi_ts", Schema::Gatherer).await;
        cluster.create_with("kalshi_prod", Schema::Production).await;
        let admin = cluster.target("postgres").connect().await.unwrap();
        admin.batch_execute("CREATE ROLE ann LOGIN IN ROLE exporter").await.unwrap();
        for role in ["gatherer", "dedup_reader", "deduplicator", "exporter", "postgres", "ann"] {
            let sql = format!("ALTER ROLE {role} PASSWORD 'right'");
            admin.batch_execute(&sql).await.unwrap();
        }
        let work = tempfile::tempdir().unwrap();
        let authority = Authority::new(work.path());
        let key = std::fs::read(work.path().join("server.key")).unwrap();
        let mut rules = example.to_owned();
        for (told, _, here) in places {
            assert!(rules.contains(*told), "{told} is not in the example");
            rules = rules.replace(*told, &format!("{here}/32"));
        }
        cluster.put("pg_hba.conf", rules.as_bytes());
        serve(&cluster, &admin, &authority.issue_now("DNS:localhost"), &key).await;

        let sql = "SELECT count(*) FILTER (WHERE error IS NOT NULL), \
                     bool_and(auth_method IN ('peer', 'scram-sha-256')), \
                     bool_and(type = 'hostssl') FILTER (WHERE address NOT IN ('127.0.0.1', '::1')), \
                     count(*) FROM pg_hba_file_rules";
        let row = admin.query_one(sql, &[]).await.unwrap();
        let found: (i64, bool, bool, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!(found, (0, true, true, admitting));

        let server = cluster.target("postgres");
        let mut ports = vec![
            ("loopback", server.port),
            ("elsewhere", come_from("127.0.0.9", server.port).await),
        ];
        for (_, name, here) in places {
            ports.push((*name, come_from(here, server.port).await));
        }
        Self { cluster, server, ca: work.path().join("ca.crt"), ports, _work: work }
    }

    async fn enter(
        &self,
        place: &str,
        user: &str,
        database: &str,
        password: &str,
        tls: TlsMode,
    ) -> Result<(), String> {
        let (host, port) = if place == "socket" {
            (self.server.host.clone(), self.server.port)
        } else {
            let (_, port) = self.ports.iter().find(|(name, _)| *name == place).unwrap();
            ("localhost".to_owned(), *port)
        };
        let target = Target {
            host,
            port,
            user: user.into(),
            database: database.into(),
            password: Some(Secret::new(password)),
            tls,
            root_cert: Some(self.ca.clone()),
            application_name: "kalshi test".into(),
        };
        target.connect().await.map(drop).map_err(|error| error.to_string())
    }

    /// With the password, to that database alone.
    async fn admits(&self, place: &str, user: &str, database: &str, tls: TlsMode) {
        self.enter(place, user, database, "right", tls).await.unwrap();
        let text = self.enter(place, user, database, "wrong", tls).await.unwrap_err();
        assert!(text.contains("password authentication failed"), "{place} {user}: {text}");
        let text = self.enter(place, user, "postgres", "right", tls).await.unwrap_err();
        assert!(text.contains("no pg_hba.conf entry"), "{place} {user}: {text}");
    }

    /// Whatever the database and with the right password.
    async fn refuses(&self, place: &str, user: &str, tls: TlsMode) {
        for database in ["kalshi_ts", "kalshi_prod"] {
            let text = self.enter(place, user, database, "right", tls).await.unwrap_err();
            assert!(text.contains("no pg_hba.conf entry"), "{place} {user} {tls}: {text}");
        }
    }

    /// By peer: whoever runs the server, when that is the user postgres, and nobody else, with whatever
    /// password.
    async fn admits_postgres_as_peer(&self) {
        let text = self.enter("socket", "postgres", "postgres", "right", Prefer).await;
        if rustix::process::geteuid().is_root() {
            assert!(self.cluster.psql("postgres"), "the system's user postgres gets in");
            assert!(text.unwrap_err().contains("Peer authentication failed"));
        } else {
            let whoami = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
            let is_postgres = whoami.starts_with(b"postgres\n");
            let found = (self.cluster.psql("postgres"), text.is_ok());
            assert_eq!(found, (is_postgres, is_postgres));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_admits_exactly_who_has_to_come_in() {
    let places = [("10.0.1.0/24", "subnet", "127.0.0.2")];
    let entrance = Entrance::open(GATHERER, &places, 5).await;
    for (place, user, tls) in [
        ("socket", "gatherer", Prefer),
        ("loopback", "gatherer", Disable),
        ("loopback", "gatherer", VerifyFull),
        ("subnet", "dedup_reader", VerifyFull),
    ] {
        entrance.admits(place, user, "kalshi_ts", tls).await;
    }
    // Without encryption, from elsewhere, as somebody else.
    let mut refused = vec![
        ("subnet", "dedup_reader", Disable),
        ("elsewhere", "dedup_reader", VerifyFull),
        ("loopback", "dedup_reader", VerifyFull),
        ("socket", "dedup_reader", Prefer),
        ("subnet", "gatherer", VerifyFull),
        ("elsewhere", "gatherer", VerifyFull),
    ];
    for user in ["postgres", "deduplicator", "exporter", "ann", "kalshi_owner"] {
        refused.extend(["loopback", "subnet", "elsewhere"].map(|place| (place, user, VerifyFull)));
    }
    for (place, user, tls) in refused {
        entrance.refuses(place, user, tls).await;
    }
    entrance.admits_postgres_as_peer().await;
    assert!(!entrance.cluster.psql("gatherer"), "no password, no login");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_production_admits_the_deduplicators_machine_and_who_reads() {
    let places =
        [("10.0.1.20/32", "deduplicator's", "127.0.0.2"), ("10.0.2.0/24", "readers'", "127.0.0.3")];
    let entrance = Entrance::open(PRODUCTION, &places, 4).await;
    for (place, user) in [
        ("deduplicator's", "deduplicator"),
        ("deduplicator's", "exporter"),
        ("readers'", "exporter"),
        ("readers'", "ann"),
    ] {
        entrance.admits(place, user, "kalshi_prod", VerifyFull).await;
        let text = entrance.enter(place, user, "kalshi_ts", "right", VerifyFull).await.unwrap_err();
        assert!(text.contains("no pg_hba.conf entry"), "{place} {user}: {text}");
        entrance.refuses(place, user, Disable).await;
        for other in ["loopback", "elsewhere"] {
            entrance.refuses(other, user, VerifyFull).await;
        }
        entrance.refuses("socket", user, Prefer).await;
    }
    // One place is not the other, and nobody else comes in from either.
    entrance.refuses("readers'", "deduplicator", VerifyFull).await;
    entrance.refuses("deduplicator's", "ann", VerifyFull).await;
    for user in ["postgres", "gatherer", "dedup_reader", "kalshi_owner"] {
        for place in ["loopback", "deduplicator's", "readers'", "elsewhere"] {
            entrance.refuses(place, user, VerifyFull).await;
        }
    }
    entrance.admits_postgres_as_peer().await;
    for user in ["deduplicator", "exporter"] {
        assert!(!entrance.cluster.psql(user), "no password, no login");
    }
}
