//! TLS towards a peer whose certificate is right, and towards those whose certificate is not.

use std::path::Path;
use std::process::Command;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::kalshi::auth::Signer;
use crate::kalshi::rest::{self, Rest};
use crate::kalshi::testing::{credentials, soon};

/// Certificates made for one test by the openssl command, which Debian's PostgreSQL depends on.
struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let authority = Self { dir: tempfile::tempdir().unwrap() };
        authority.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key \
             -out ca.crt -days 2 -subj /CN=ca -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,keyCertSign",
        );
        authority.openssl(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key \
             -out server.csr -subj /CN=server",
        );
        let config = "[ca]\ndefault_ca=c\n[c]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n\
                      default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n";
        for (name, text) in [("ca.conf", config), ("index", ""), ("serial", "01\n")] {
            std::fs::write(authority.path().join(name), text).unwrap();
        }
        authority
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .current_dir(self.path())
            .args(arguments.split_whitespace())
            .output();
        let output = output.expect("the openssl command, which Debian's PostgreSQL depends on");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A certificate for a name, valid between two years.
    fn issue(&self, san: &str, from: u16, to: u16) -> Vec<CertificateDer<'static>> {
        let extensions = format!("basicConstraints=CA:FALSE\nsubjectAltName={san}\n");
        std::fs::write(self.path().join("ext"), extensions).unwrap();
        self.openssl(&format!(
            "ca -config ca.conf -batch -notext -in server.csr -out server.crt -cert ca.crt \
             -keyfile ca.key -extfile ext -startdate {from}0101000000Z -enddate {to}0101000000Z"
        ));
        self.certificates("server.crt")
    }

    /// A certificate that vouches for itself.
    fn self_signed(&self) -> Vec<CertificateDer<'static>> {
        self.openssl(
            "req -x509 -key server.key -out self.crt -days 2 -subj /CN=localhost \
             -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE",
        );
        self.certificates("self.crt")
    }

    fn certificates(&self, file: &str) -> Vec<CertificateDer<'static>> {
        let certificates = CertificateDer::pem_file_iter(self.path().join(file)).unwrap();
        certificates.map(Result::unwrap).collect()
    }

    fn trusted(&self) -> Settings {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.certificates("ca.crt"));
        Settings { tls: Some(Arc::new(tls::with_roots(roots).unwrap())), ..Settings::default() }
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(self.path().join("server.key")).unwrap()
    }
}

/// A server's side of TLS with that certificate.
fn acceptor(authority: &Authority, certificates: Vec<CertificateDer<'static>>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, authority.key())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// How connecting to a peer with that certificate ends; its first frame is `hello`.
async fn connected(
    authority: &Authority,
    certificates: Vec<CertificateDer<'static>>,
    settings: &Settings,
) -> Result<String, String> {
    use futures_util::{SinkExt, StreamExt};
    let acceptor = acceptor(authority, certificates);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (stream, _) = tcp.accept().await.unwrap();
        // A client that does not like the certificate is gone here.
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let mut ws = tokio_tungstenite::accept_async(stream).await.unwrap();
        ws.send(tokio_tungstenite::tungstenite::Message::text("hello")).await.unwrap();
        while ws.next().await.is_some() {}
    });
    let api = Api {
        rest_url: format!("https://localhost:{port}/trade-api/v2"),
        ws_url: format!("wss://localhost:{port}/trade-api/ws/v2"),
        credentials: Some(Signer::new(credentials())),
    };
    let result = match soon("an end", connect(&api, Micros::now(), settings)).await {
        Ok(mut socket) => {
            let frame = soon("a frame", socket.next()).await.unwrap().unwrap();
            Ok(String::from_utf8(frame.into_data().to_vec()).unwrap())
        }
        Err(error) => Err(error.to_string()),
    };
    soon("the peer's end", serving).await.unwrap();
    result
}

#[tokio::test]
async fn only_a_certificate_that_is_vouched_for_right_named_and_valid_is_taken() {
    let authority = Authority::new();
    let trusted = authority.trusted();
    let good = authority.issue("DNS:localhost", 2025, 2099);
    assert_eq!(connected(&authority, good.clone(), &trusted).await, Ok("hello".to_owned()));
    let refusal = async |certificates, settings: &Settings| {
        let error = connected(&authority, certificates, settings).await.unwrap_err();
        assert!(error.contains("TLS with localhost") || error.contains("no root"), "{error}");
        error
    };
    let error = refusal(authority.issue("DNS:example.com", 2025, 2099), &trusted).await;
    assert!(error.contains("not valid for name"), "{error}");
    let error = refusal(authority.issue("DNS:localhost", 2020, 2021), &trusted).await;
    assert!(error.contains("expired"), "{error}");
    let error = refusal(authority.issue("DNS:localhost", 2098, 2099), &trusted).await;
    assert!(error.contains("not valid yet"), "{error}");
    let error = refusal(authority.self_signed(), &trusted).await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    // By default the machine's own roots decide, which do not know the test's.
    let error = refusal(good, &Settings::default()).await;
    assert!(error.contains("UnknownIssuer") || error.contains("no root certificates"), "{error}");
}

/// How asking a peer with that certificate for the exchange's status over REST ends.
async fn asked(
    authority: &Authority,
    certificates: Vec<CertificateDer<'static>>,
    settings: rest::Settings,
) -> Result<bool, String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let acceptor = acceptor(authority, certificates);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (stream, _) = tcp.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        let body = r#"{"exchange_active":true,"trading_active":true}"#;
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.ok();
    });
    let api = Api {
        rest_url: format!("https://localhost:{port}/trade-api/v2"),
        ws_url: String::new(),
        credentials: Some(Signer::new(credentials())),
    };
    let rest = Rest::new(&api, settings).unwrap();
    let status = soon("an answer", rest.status()).await;
    soon("the peer's end", serving).await.unwrap();
    status.map(|status| status.trading_active).map_err(|error| error.to_string())
}

#[tokio::test]
async fn rest_takes_the_same_certificates_and_no_others() {
    let authority = Authority::new();
    let trusted = || rest::Settings {
        tls: authority.trusted().tls,
        attempts_max: 1,
        ..rest::Settings::default()
    };
    let good = authority.issue("DNS:localhost", 2025, 2099);
    assert_eq!(asked(&authority, good, trusted()).await, Ok(true));
    for (certificates, reason) in [
        (authority.issue("DNS:example.com", 2025, 2099), "not valid for name"),
        (authority.issue("DNS:localhost", 2020, 2021), "expired"),
        (authority.self_signed(), "UnknownIssuer"),
    ] {
        let error = asked(&authority, certificates, trusted()).await.unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}
