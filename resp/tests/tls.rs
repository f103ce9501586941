//! TLS against a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use resp::rustls::pki_types::pem::PemObject;
use resp::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use resp::{ClusterClient, Config, Connection, Endpoint, ErrorKind, Frame, TlsConfig, cmd, rustls};
use support::Server;
use support::certificates::make_files;

#[tokio::test]
async fn certificates_decide() {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name);
    make_files(files.path());
    let Some((_server, port)) = Server::with_tls(files.path(), "yes") else { return };
    let config = |tls: TlsConfig| Config::from_url(&format!("rediss://127.0.0.1:{port}")).unwrap().tls(tls);
    let trusting = || TlsConfig::default().ca(file("ca.pem")).server_name("redis.test");
    let complete = || trusting().certificate(file("client.pem")).key(file("client.key"));
    complete().check().unwrap();

    let mut connection = Connection::connect(&config(complete())).await.unwrap();
    let large = vec![b'x'; 3 << 20];
    connection.send(cmd::<()>("SET").arg("key").arg(&large)).await.unwrap();
    let reply = connection.send(cmd::<Frame>("GET").arg("key")).await.unwrap();
    assert!(reply.value().as_bytes() == Some(&large[..]));

    // The same by URL.
    let show = |name: &str| file(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (show("ca.pem"), show("client.pem"), show("client.key"));
    let url = format!("rediss://127.0.0.1:{port}?ca={ca}&cert={cert}&key={key}&server_name=redis.test");
    Connection::connect(&Config::from_url(&url).unwrap()).await.unwrap();

    // Another authority, another name, and no trusted authority.
    for tls in [complete().ca(file("other-ca.pem")), complete().server_name("example.org"), TlsConfig::default()] {
        let error = Connection::connect(&config(tls)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(!error.is_transient());
    }
    // The server requires a client certificate. TLS 1.3 reports that after the handshake.
    for _ in 0..20 {
        let error = Connection::connect(&config(trusting())).await.unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Tls, false), "{error}");
    }

    // Files that are missing or wrong.
    for tls in [
        complete().ca(file("none.pem")),
        complete().ca(file("client.key")),
        complete().key(file("client.pem")),
        complete().key(file("server.key")),
        trusting().certificate(file("client.pem")),
        complete().server_name("not a name"),
    ] {
        let error = Connection::connect(&config(tls)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    }
}

#[tokio::test]
async fn certificates_in_memory_and_an_own_configuration() {
    let files = tempfile::tempdir().unwrap();
    make_files(files.path());
    let Some((_server, port)) = Server::with_tls(files.path(), "yes") else { return };
    let config = |tls: TlsConfig| Config::from_url(&format!("rediss://127.0.0.1:{port}")).unwrap().tls(tls);
    let text = |name: &str| std::fs::read(files.path().join(name)).unwrap();
    let ping = async |tls: TlsConfig| {
        let mut connection = Connection::connect(&config(tls.server_name("redis.test"))).await?;
        connection.send(cmd::<String>("PING")).await
    };

    let in_memory = || TlsConfig::default().ca_pem(text("ca.pem")).certificate_pem(text("client.pem"));
    assert_eq!(ping(in_memory().key_pem(text("client.key"))).await.unwrap(), "PONG");
    let other = in_memory().ca_pem(text("other-ca.pem")).key_pem(text("client.key"));
    assert_eq!(ping(other).await.unwrap_err().kind(), ErrorKind::Tls);
    let wrong = in_memory().key_pem("wrong secret");
    assert!(!format!("{wrong:?}").contains("wrong secret"));
    let error = ping(wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.to_string().contains("PEM text in memory") && !error.to_string().contains("wrong secret"), "{error}");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&text("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(&text("client.pem")).unwrap()],
            PrivateKeyDer::from_pem_slice(&text("client.key")).unwrap(),
        )
        .unwrap();
    assert_eq!(ping(TlsConfig::of(Arc::new(own))).await.unwrap(), "PONG");
}

#[tokio::test]
async fn a_server_without_tls() {
    let server = Server::start();
    let config = Config::from_url(&format!("rediss://localhost:{}", server.port)).unwrap();
    // Redis takes the handshake for the beginning of a command, and waits for the rest.
    let config = config.connect_timeout(Duration::from_millis(200));
    let error = Connection::connect(&config).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Tls | ErrorKind::Io | ErrorKind::Timeout), "{error}");
}

#[tokio::test]
async fn sentinels_and_their_master() {
    let files = tempfile::tempdir().unwrap();
    make_files(files.path());
    let Some((server, port)) = Server::with_tls(files.path(), "no") else { return };
    let (_sentinel, at) = Server::sentinel_with_tls(files.path(), port);
    let ca = files.path().join("ca.pem");
    let ca = ca.to_str().unwrap();
    let url = format!("rediss-sentinel://127.0.0.1:{at}/m?ca={ca}&server_name=redis.test");
    let mut connection = Connection::connect(&Config::from_url(&url).unwrap()).await.unwrap();
    connection.send(cmd::<()>("SET").arg("key").arg("over TLS")).await.unwrap();
    let reply = server.connect().await.send(cmd::<Frame>("GET").arg("key")).await.unwrap();
    assert_eq!(reply.value().as_str(), Some("over TLS"));

    // The Sentinel's certificate is verified too.
    let url = format!("rediss-sentinel://127.0.0.1:{at}/m?ca={ca}&server_name=example.org");
    let error = Connection::connect(&Config::from_url(&url).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("Sentinel 127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_cluster_whose_node_does_not_know_its_own_host() {
    let files = tempfile::tempdir().unwrap();
    make_files(files.path());
    if Server::with_tls(files.path(), "no").is_none() {
        return;
    }
    let (server, port) = Server::cluster_with_tls(files.path());
    let mut by_hand = server.connect().await;
    by_hand.send(cmd::<()>("CLUSTER ADDSLOTSRANGE").arg(0).arg(16383)).await.unwrap();
    let ca = files.path().join("ca.pem");
    let url = format!("rediss-cluster://127.0.0.1:{port}?ca={}&server_name=redis.test", ca.to_str().unwrap());
    let config = Config::from_url(&url).unwrap();
    // CLUSTER SHARDS, then CLUSTER SLOTS, in both RESP versions.
    for may in ["+cluster|shards", "-cluster|shards"] {
        by_hand.send(cmd::<()>("ACL SETUSER default").arg(may)).await.unwrap();
        for config in [config.clone(), config.clone().resp2(true)] {
            let client = ClusterClient::connect(&config).await.unwrap();
            assert_eq!(client.nodes(), [Endpoint::tls("127.0.0.1", port)]);
            client.send(cmd::<()>("SET").arg("key").arg(may)).await.unwrap();
            let mut connection = Connection::connect(&config.for_key("key")).await.unwrap();
            assert_eq!(connection.send(cmd::<Frame>("GET").arg("key")).await.unwrap().value().as_str(), Some(may));
        }
    }
}
