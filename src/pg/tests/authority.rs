//! Certificates and a server that shows them: what the tests of TLS share.

use std::fs;
use std::path::Path;
use std::process::Command;

use tokio_postgres::Client;

use super::super::testing::Cluster;

/// Certificates made for one test by the openssl command, which Debian's PostgreSQL depends on.
pub struct Authority<'a> {
    dir: &'a Path,
}

impl<'a> Authority<'a> {
    pub fn new(dir: &'a Path) -> Self {
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
    pub fn issue(&self, san: &str, from: &str, to: &str) -> Vec<u8> {
        self.issue_by("ca", san, from, to)
    }

    /// The same, valid today.
    pub fn issue_now(&self, san: &str) -> Vec<u8> {
        self.issue(san, "20260101000000Z", "20991231000000Z")
    }

    /// A server certificate by one of the authorities.
    pub fn issue_by(&self, by: &str, san: &str, from: &str, to: &str) -> Vec<u8> {
        let extensions = format!("basicConstraints=CA:FALSE\nsubjectAltName={san}\n");
        self.sign(by, "server", &extensions, from, to)
    }

    /// An authority's certificate by another authority: its name, which [`Authority::issue_by`] takes.
    pub fn intermediate(&self, name: &str) {
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key \
             -out {name}.csr -subj /CN={name}"
        ));
        let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
        self.sign("ca", name, extensions, "20260101000000Z", "20991231000000Z");
    }

    /// A certificate that nobody else signed, though it is none of an authority's.
    pub fn self_signed(&self, san: &str) -> Vec<u8> {
        self.openssl(&format!(
            "req -x509 -key server.key -out alone.crt -days 2 -subj /CN=alone \
             -addext basicConstraints=critical,CA:FALSE -addext subjectAltName={san}"
        ));
        fs::read(self.dir.join("alone.crt")).unwrap()
    }

    /// Authorities that have nothing to do with ours, in PEM.
    pub fn strangers(&self, count: u32) -> Vec<u8> {
        let stranger = |n: u32| {
            self.openssl(&format!(
                "req -x509 -key other.key -out stranger.crt -days 2 -subj /CN=stranger-{n} \
                 -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
            ));
            fs::read(self.dir.join("stranger.crt")).unwrap()
        };
        (0..count).flat_map(stranger).collect()
    }

    fn sign(&self, by: &str, name: &str, extensions: &str, from: &str, to: &str) -> Vec<u8> {
        fs::write(self.dir.join("ext"), extensions).unwrap();
        self.openssl(&format!(
            "ca -config ca.conf -batch -notext -in {name}.csr -out {name}.crt -cert {by}.crt \
             -keyfile {by}.key -extfile ext -startdate {from} -enddate {to}"
        ));
        fs::read(self.dir.join(format!("{name}.crt"))).unwrap()
    }
}

/// Gives the server a certificate and waits until new sessions see it.
pub async fn serve(cluster: &Cluster, admin: &Client, certificate: &[u8], key: &[u8]) {
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

pub async fn encrypted(client: &Client) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    client.query_one(sql, &[]).await.unwrap().get(0)
}
