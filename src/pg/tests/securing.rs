//! TLS: what each mode accepts and refuses, and that nothing falls back to plain text.

use std::fs;
use std::path::Path;
use std::process::Command;

use tokio_postgres::Client;

use super::super::error::Class;
use super::super::testing::Cluster;
use super::super::{Target, TlsMode};

/// Certificates made for one test by the openssl command, which Debian's PostgreSQL depends on.
struct Authority<'a> {
    dir: &'a Path,
}

impl<'a> Authority<'a> {
    fn new(dir: &'a Path) -> Self {
        let authority = Self { dir };
        for name in ["ca", "other"] {
            authority.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key \
                 -out {name}.crt -days 2 -subj /CN={name} -addext basicConstraints=critical,CA:TRUE \
                 -addext keyUsage=critical,keyCertSign"
            ));
        }
        authority.openssl(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key \
             -out server.csr -subj /CN=server",
        );
        let config = "[ca]\ndefault_ca=c\n[c]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n\
                      default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n";
        fs::write(dir.join("ca.conf"), config).unwrap();
        fs::write(dir.join("index"), "").unwrap();
        fs::write(dir.join("serial"), "01\n").unwrap();
        authority
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .current_dir(self.dir)
            .args(arguments.split_whitespace())
            .output();
        let output = output.expect("the openssl command, which Debian's PostgreSQL depends on");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A server certificate for a name, valid between two dates.
    fn issue(&self, san: &str, from: &str, to: &str) -> Vec<u8> {
        fs::write(
            self.dir.join("ext"),
            format!("basicConstraints=CA:FALSE\nsubjectAltName={san}\n"),
        )
        .unwrap();
        self.openssl(&format!(
            "ca -config ca.conf -batch -notext -in server.csr -out server.crt -cert ca.crt -keyfile ca.key \
             -extfile ext -startdate {from} -enddate {to}"
        ));
        fs::read(self.dir.join("server.crt")).unwrap()
    }
}

/// Gives the server a certificate and waits until new sessions see it.
async fn serve(cluster: &Cluster, admin: &Client, certificate: &[u8], key: &[u8]) {
    cluster.put("server.crt", certificate);
    cluster.put("server.key", key);
    cluster.put("postgresql.auto.conf", b"ssl = on\n");
    let loaded = || async {
        let row = admin.query_one("SELECT pg_conf_load_time()::text", &[]).await.unwrap();
        row.get::<_, String>(0)
    };
    let before = loaded().await;
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    while loaded().await == before {}
}

async fn encrypted(client: &Client) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_keeps_its_promise() {
    let cluster = Cluster::start_with_tcp();
    let admin = cluster.target("postgres").connect().await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let authority = Authority::new(work.path());
    let key = fs::read(work.path().join("server.key")).unwrap();
    let (ca, other) = (work.path().join("ca.crt"), work.path().join("other.crt"));
    let target = |host: &str, tls, root: Option<&Path>| Target {
        host: host.into(),
        tls,
        root_cert: root.map(Into::into),
        ..cluster.target("postgres")
    };
    let refusal = async |target: Target| {
        let error = target.connect().await.expect_err("no session");
        assert!(!error.to_string().contains("BEGIN"), "{error}");
        (error.class(), error.to_string())
    };

    // A server without TLS: only the modes that allow plain text get in.
    for mode in [TlsMode::Disable, TlsMode::Prefer] {
        assert!(!encrypted(&target("localhost", mode, None).connect().await.unwrap()).await);
    }
    for (mode, root) in [
        (TlsMode::Require, None),
        (TlsMode::VerifyCa, Some(ca.as_path())),
        (TlsMode::VerifyFull, Some(ca.as_path())),
    ] {
        let (_, text) = refusal(target("localhost", mode, root)).await;
        assert!(text.contains("server does not support TLS"), "{mode}: {text}");
    }

    let now = |san| authority.issue(san, "20260101000000Z", "20991231000000Z");
    serve(&cluster, &admin, &now("DNS:localhost,IP:127.0.0.1"), &key).await;
    for (mode, root, tls) in [
        (TlsMode::Disable, None, false),
        (TlsMode::Prefer, None, true),
        (TlsMode::Require, None, true),
        (TlsMode::Require, Some(ca.as_path()), true),
        (TlsMode::VerifyCa, Some(ca.as_path()), true),
        (TlsMode::VerifyFull, Some(ca.as_path()), true),
    ] {
        for host in ["localhost", "127.0.0.1"] {
            let client = target(host, mode, root).connect().await.unwrap();
            assert_eq!(encrypted(&client).await, tls, "{mode} {host}");
        }
    }
    // Over a unix socket PostgreSQL speaks no TLS, as libpq knows too.
    let socket = target(&cluster.target("postgres").host, TlsMode::VerifyFull, Some(&ca));
    assert!(!encrypted(&socket.connect().await.unwrap()).await);

    // The wrong authority, given or the system's.
    for (mode, root) in [
        (TlsMode::Require, Some(other.as_path())),
        (TlsMode::VerifyCa, Some(other.as_path())),
        (TlsMode::VerifyFull, Some(other.as_path())),
        (TlsMode::VerifyFull, None),
    ] {
        let (class, text) = refusal(target("localhost", mode, root)).await;
        assert_eq!(class, Class::Retry);
        assert!(
            text.contains("UnknownIssuer") || text.contains("no trusted authorities"),
            "{text}"
        );
    }
    // Settings that cannot work.
    let (class, text) = refusal(target("localhost", TlsMode::VerifyCa, None)).await;
    assert!(class == Class::Fatal && text.contains("verify-ca needs sslrootcert"), "{text}");
    let (class, text) =
        refusal(target("localhost", TlsMode::VerifyFull, Some(Path::new("/no/ca.pem")))).await;
    assert!(class == Class::Retry && text.contains("read root certificate /no/ca.pem"), "{text}");
    let key_file = work.path().join("server.key");
    let (_, text) = refusal(target("localhost", TlsMode::VerifyFull, Some(&key_file))).await;
    assert!(text.contains("has no CERTIFICATE block"), "{text}");

    // Another host's certificate: only verify-full cares.
    serve(&cluster, &admin, &now("DNS:db.example"), &key).await;
    assert!(
        encrypted(&target("localhost", TlsMode::VerifyCa, Some(&ca)).connect().await.unwrap())
            .await
    );
    let (_, text) = refusal(target("localhost", TlsMode::VerifyFull, Some(&ca))).await;
    assert!(text.contains("not valid for name \"localhost\""), "{text}");

    // An expired one.
    let expired = authority.issue("DNS:localhost", "20200101000000Z", "20200201000000Z");
    serve(&cluster, &admin, &expired, &key).await;
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let (_, text) = refusal(target("localhost", mode, Some(&ca))).await;
        assert!(text.contains("certificate expired"), "{text}");
    }

    // An authority's own certificate served as the server's.
    let ca_key = fs::read(work.path().join("ca.key")).unwrap();
    serve(&cluster, &admin, &fs::read(&ca).unwrap(), &ca_key).await;
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let (_, text) = refusal(target("localhost", mode, Some(&ca))).await;
        assert!(text.contains("CaUsedAsEndEntity"), "{text}");
    }
    // Prefer keeps TLS when the server offers it, and does not fall back when TLS itself fails.
    assert!(encrypted(&target("localhost", TlsMode::Prefer, None).connect().await.unwrap()).await);
}
