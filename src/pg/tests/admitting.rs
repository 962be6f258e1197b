//! The example of access rules on a live server: each login that it has to admit, and those around it.

use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use super::super::migrate::Schema;
use super::super::testing::Cluster;
use super::super::{Target, TlsMode};
use super::authority::{Authority, serve};
use crate::ops::secret::Secret;

const EXAMPLE: &str = include_str!("../../../etc/kalshi/pg_hba.conf.example");
/// Stands for a machine of the deduplicator's subnet.
const SUBNET: &str = "127.0.0.2";

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_admits_exactly_who_has_to_come_in() {
    let cluster = Cluster::start_with_tcp();
    cluster.create_with("kalshi_ts", Schema::Gatherer).await;
    cluster.create_with("kalshi_prod", Schema::Production).await;
    let admin = cluster.target("postgres").connect().await.unwrap();
    for role in ["gatherer", "dedup_reader", "deduplicator", "exporter", "postgres"] {
        let sql = format!("ALTER ROLE {role} PASSWORD 'right'");
        admin.batch_execute(&sql).await.unwrap();
    }
    let work = tempfile::tempdir().unwrap();
    let authority = Authority::new(work.path());
    let key = std::fs::read(work.path().join("server.key")).unwrap();
    let rules = EXAMPLE.replace("10.0.1.0/24", &format!("{SUBNET}/32"));
    assert_ne!(rules, EXAMPLE);
    cluster.put("pg_hba.conf", rules.as_bytes());
    serve(&cluster, &admin, &authority.issue_now("DNS:localhost"), &key).await;

    let sql = "SELECT count(*) FILTER (WHERE error IS NOT NULL), \
                 bool_and(auth_method IN ('peer', 'scram-sha-256')), \
                 bool_and(type = 'hostssl') FILTER (WHERE address NOT IN ('127.0.0.1', '::1')), \
                 count(*) FROM pg_hba_file_rules";
    let row = admin.query_one(sql, &[]).await.unwrap();
    let found: (i64, bool, bool, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(found, (0, true, true, 5));

    let server = cluster.target("postgres");
    let subnet = come_from(SUBNET, server.port).await;
    let elsewhere = come_from("127.0.0.3", server.port).await;
    let ca = work.path().join("ca.crt");
    let enter = async |place: &str, user: &str, database: &str, password: &str, tls| {
        let (host, port) = match place {
            "socket" => (server.host.clone(), server.port),
            "loopback" => ("localhost".to_owned(), server.port),
            "subnet" => ("localhost".to_owned(), subnet),
            _ => ("localhost".to_owned(), elsewhere),
        };
        let target = Target {
            host,
            port,
            user: user.into(),
            database: database.into(),
            password: Some(Secret::new(password).into()),
            tls,
            root_cert: Some(ca.clone()),
            application_name: "kalshi test".into(),
        };
        target.connect().await.map(drop).map_err(|error| error.to_string())
    };

    use TlsMode::{Disable, Prefer, VerifyFull};
    for (place, user, tls) in [
        ("socket", "gatherer", Prefer),
        ("loopback", "gatherer", Disable),
        ("loopback", "gatherer", VerifyFull),
        ("subnet", "dedup_reader", VerifyFull),
    ] {
        enter(place, user, "kalshi_ts", "right", tls).await.unwrap();
        let text = enter(place, user, "kalshi_ts", "wrong", tls).await.unwrap_err();
        assert!(text.contains("password authentication failed"), "{place} {user}: {text}");
        let text = enter(place, user, "postgres", "right", tls).await.unwrap_err();
        assert!(text.contains("no pg_hba.conf entry"), "{place} {user}: {text}");
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
    for user in ["postgres", "deduplicator", "exporter", "kalshi_owner"] {
        refused.extend(["loopback", "subnet", "elsewhere"].map(|place| (place, user, VerifyFull)));
    }
    for (place, user, tls) in refused {
        for database in ["kalshi_ts", "kalshi_prod"] {
            let text = enter(place, user, database, "right", tls).await.unwrap_err();
            assert!(text.contains("no pg_hba.conf entry"), "{place} {user} {tls}: {text}");
        }
    }

    // By peer: whoever runs the server, when that is the user postgres, and nobody else, with whatever
    // password.
    let text = enter("socket", "postgres", "postgres", "right", Prefer).await;
    if rustix::process::geteuid().is_root() {
        assert!(cluster.psql("postgres"), "the system's user postgres gets in");
        assert!(text.unwrap_err().contains("Peer authentication failed"));
    } else {
        let whoami = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
        let is_postgres = whoami.starts_with(b"postgres\n");
        assert_eq!((cluster.psql("postgres"), text.is_ok()), (is_postgres, is_postgres));
    }
    assert!(!cluster.psql("gatherer"), "no password, no login");
}
