//! TLS: what each mode accepts and refuses, and that nothing falls back to plain text.

use std::fs;
use std::path::Path;

use super::super::error::Class;
use super::super::testing::Cluster;
use super::super::{Target, TlsMode};
use super::authority::{Authority, encrypted, serve};

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

    let now = |san| authority.issue_now(san);
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

/// Chains, bundles and addresses, as a provider's databases have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_bundles_and_addresses() {
    let cluster = Cluster::start_with_tcp();
    let admin = cluster.target("postgres").connect().await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let authority = Authority::new(work.path());
    let file = |name: &str| work.path().join(name);
    let key = fs::read(file("server.key")).unwrap();
    let connect = async |host: &str, tls, root: &str| {
        let root_cert = Some(file(root));
        let target = Target { host: host.into(), tls, root_cert, ..cluster.target("postgres") };
        match target.connect().await {
            Ok(client) => {
                assert!(encrypted(&client).await);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    };
    let verifying = [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull];

    // The authority that is trusted signed another, which signed the server's certificate.
    authority.intermediate("between");
    let (from, to) = ("20260101000000Z", "20991231000000Z");
    let leaf = authority.issue_by("between", "DNS:localhost", from, to);
    let chain = [leaf.clone(), fs::read(file("between.crt")).unwrap()].concat();
    serve(&cluster, &admin, &chain, &key).await;
    for mode in verifying {
        connect("localhost", mode, "ca.crt").await.unwrap();
    }
    let text = connect("localhost", TlsMode::VerifyFull, "other.crt").await.unwrap_err();
    assert!(text.contains("UnknownIssuer"), "{text}");
    // A server that does not send what is between; only whoever trusts that itself gets in.
    serve(&cluster, &admin, &leaf, &key).await;
    let text = connect("localhost", TlsMode::VerifyFull, "ca.crt").await.unwrap_err();
    assert!(text.contains("does not send the certificates between"), "{text}");
    connect("localhost", TlsMode::VerifyFull, "between.crt").await.unwrap();

    // More authorities than any provider has regions, ours among them, with words in between.
    let strangers = authority.strangers(120);
    fs::write(file("strangers.pem"), &strangers).unwrap();
    let mut bundle = b"# an authority\n".to_vec();
    bundle.extend(&strangers);
    bundle.extend(fs::read(file("ca.crt")).unwrap());
    fs::write(file("bundle.pem"), &bundle).unwrap();
    serve(&cluster, &admin, &chain, &key).await;
    for mode in verifying {
        connect("localhost", mode, "bundle.pem").await.unwrap();
        let text = connect("localhost", mode, "strangers.pem").await.unwrap_err();
        assert!(text.contains("no trusted authority issued"), "{mode}: {text}");
    }

    // A name is no address and an address no name.
    for (san, good, bad) in [
        ("IP:127.0.0.1", "127.0.0.1", "localhost"),
        ("DNS:localhost", "localhost", "127.0.0.1"),
        ("IP:127.0.0.9,DNS:localhost", "localhost", "127.0.0.1"),
    ] {
        serve(&cluster, &admin, &authority.issue_now(san), &key).await;
        connect(good, TlsMode::VerifyFull, "ca.crt").await.unwrap();
        connect(bad, TlsMode::VerifyCa, "ca.crt").await.unwrap();
        let text = connect(bad, TlsMode::VerifyFull, "ca.crt").await.unwrap_err();
        assert!(text.contains("another host's"), "{san}: {text}");
    }

    // Signed by nobody else.
    serve(&cluster, &admin, &authority.self_signed("DNS:localhost"), &key).await;
    let text = connect("localhost", TlsMode::VerifyFull, "ca.crt").await.unwrap_err();
    assert!(text.contains("no trusted authority issued"), "{text}");

    // Not yet valid.
    let early = authority.issue("DNS:localhost", "20980101000000Z", "20991231000000Z");
    serve(&cluster, &admin, &early, &key).await;
    let text = connect("localhost", TlsMode::VerifyCa, "ca.crt").await.unwrap_err();
    assert!(text.contains("not valid yet") && text.contains("clock"), "{text}");
}

/// A peer that agrees to TLS and then speaks plain text, or nothing: no mode goes on without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_only_pretends_is_left() {
    use TlsMode::{Prefer, Require, VerifyFull};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for (answer, modes, words) in [
        (&b"SR\0\0\0\x08\0\0\0\0"[..], [Prefer, Require], "does not speak TLS"),
        (&b"S"[..], [Prefer, VerifyFull], "TLS handshake"),
        // What a server from before TLS answers; prefer takes it for a no.
        (&b"E\0\0\0\x08oops"[..], [VerifyFull, Require], "server does not support TLS"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = tokio::spawn(async move {
            let mut heard = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
                // A peer that gives up may reset.
                let _rest = stream.read_to_end(&mut heard).await;
            }
            heard
        });
        for tls in modes {
            let target = Target {
                host: "127.0.0.1".into(),
                port,
                database: "d".into(),
                user: "canary-user".into(),
                password: None,
                tls,
                root_cert: None,
                application_name: "kalshi test".into(),
            };
            let error = target.connect().await.expect_err("no session");
            assert!(error.to_string().contains(words), "{tls} {answer:?}: {error}");
        }
        let heard = peer.await.unwrap();
        let heard = String::from_utf8_lossy(&heard);
        assert!(!heard.contains("canary"), "the login went out in plain text: {heard}");
    }
}
