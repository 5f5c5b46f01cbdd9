//! TLS and PROXY headers towards programs.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ::http::StatusCode;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::http::Http1;
use super::program::Program;
use crate::hbone::TunnelIo;
use crate::hbone::testing::soon;
use crate::model::traffic::{Balance, ProxyProtocol, Settings, TlsOrigination, UpstreamTls};
use crate::tls::testing::{Leaf, TestCa};
use crate::tls::to_pem;
use crate::waypoint::testing::told::{settings, told};
use crate::waypoint::testing::{Rig, VIP};

/// What a program learns in a handshake: the name asked for, and what is to be spoken.
pub(super) type Learnt = Arc<Mutex<Vec<(Option<String>, Option<String>)>>>;

/// A program that speaks HTTP inside TLS.
pub(super) async fn serve_tls(
    listener: TcpListener,
    tls: ServerConfig,
    program: Program,
    learnt: Learnt,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _from) = listener.accept().await.unwrap();
        let (acceptor, program) = (acceptor.clone(), program.clone());
        let learnt = Arc::clone(&learnt);
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(tcp).await else {
                return;
            };
            let session = stream.get_ref().1;
            let spoken = session.alpn_protocol();
            let spoken = spoken.map(|p| String::from_utf8_lossy(p).into_owned());
            let name = session.server_name().map(str::to_owned);
            learnt.lock().unwrap().push((name, spoken));
            program.converse(stream).await;
        });
    }
}

pub(in crate::waypoint) fn certified(ca: &TestCa, name: &str) -> ServerConfig {
    let now = SystemTime::now();
    let (certificate, key) = ca.leaf(&Leaf {
        uris: &[],
        dns: &[name],
        not_before: now - Duration::from_secs(60),
        not_after: now + Duration::from_secs(3600),
    });
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_no_client_auth();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Roots in a file.
pub(super) fn roots(ca: &TestCa) -> (TempDir, Arc<str>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs::write(&file, to_pem(&ca.root)).unwrap();
    let path = Arc::from(file.to_str().unwrap());
    (dir, path)
}

pub(super) fn originating(tls: TlsOrigination) -> Settings {
    settings(|s| s.tls = UpstreamTls::Originate(tls))
}

#[tokio::test]
async fn tls_is_begun_with_a_program_that_is_proven() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let (_dir, path) = roots(&ca);
    let by_file = TlsOrigination {
        ca_certificates: Some(path),
        ..TlsOrigination::default()
    };
    let named = TlsOrigination {
        sni: Some(Arc::from("other.example")),
        subject_alt_names: vec![Arc::from("cart")],
        ..by_file.clone()
    };
    for (name, tunnel, tls, certificate, want) in [
        (
            "inside the tunnel",
            true,
            &by_file,
            certified(&ca, "cart"),
            Some("cart"),
        ),
        (
            "on the wire",
            false,
            &by_file,
            certified(&ca, "cart"),
            Some("cart"),
        ),
        (
            "by another name",
            false,
            &named,
            certified(&ca, "cart"),
            Some("other.example"),
        ),
        (
            "another's certificate",
            false,
            &by_file,
            certified(&other, "cart"),
            None,
        ),
        (
            "another name's",
            true,
            &by_file,
            certified(&ca, "web"),
            None,
        ),
    ] {
        let mut rig = Rig::new().await;
        let listener = match tunnel {
            true => rig.endpoint("cart-1", "10.1.0.11").await,
            false => rig.plain_endpoint("cart-1", "10.1.0.11").await,
        };
        let (program, learnt) = (Program::named("one"), Learnt::default());
        let serving = serve_tls(listener, certificate, program.clone(), Arc::clone(&learnt));
        rig.run(serving);
        rig.resources = Some(told().treated("cart", originating(tls.clone())));
        rig.publish().await;
        let (status, text) = Http1::to(&rig).await.get("/").await;
        match want {
            Some(asked) => {
                assert_eq!((status, &*text), (StatusCode::OK, "one"), "{name}");
                let learnt = learnt.lock().unwrap().clone();
                let want = (Some(asked.to_owned()), Some("http/1.1".to_owned()));
                assert_eq!(learnt, [want], "{name}");
                let host = program.last().header("host");
                assert_eq!(host.as_deref(), Some("cart"), "{name}");
            }
            None => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
                assert!(
                    text.ends_with("remote connection failure"),
                    "{name}: {text}"
                );
                let flag = "response_flags=\"UF";
                assert_eq!(rig.metric("istio_requests_total", flag), 1, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn what_goes_as_asked_is_not_sent_to_the_service_itself() {
    let mut rig = Rig::new().await;
    let listener = rig.plain_endpoint("cart-1", "10.1.0.11").await;
    rig.run(Program::named("one").serve(listener));
    let asked = settings(|s| {
        s.load_balancer.policy = Balance::Passthrough;
        s.tls = UpstreamTls::Originate(TlsOrigination::default());
    });
    rig.resources = Some(told().treated("cart", asked));
    rig.publish().await;
    let before = rig.connector.dials.load(Ordering::Relaxed);
    let (status, text) = Http1::to(&rig).await.get("/").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    let dials = rig.connector.dials.load(Ordering::Relaxed);
    assert_eq!(dials, before, "nobody is asked in plain text");
}

#[tokio::test]
async fn a_program_is_told_whose_connection_it_is() {
    for (name, tunnel, version) in [
        ("text, inside the tunnel", true, ProxyProtocol::V1),
        ("text, on the wire", false, ProxyProtocol::V1),
        ("binary", false, ProxyProtocol::V2),
    ] {
        let mut rig = Rig::new().await;
        let listener = match tunnel {
            true => rig.endpoint("cart-1", "10.1.0.11").await,
            false => rig.plain_endpoint("cart-1", "10.1.0.11").await,
        };
        let policy = settings(|s| s.proxy_protocol = Some(version));
        rig.resources = Some(told().treated("cart", policy));
        rig.publish().await;
        let mut client = TunnelIo::new(rig.cart(90).await);
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut tcp, _from) = soon(name, listener.accept()).await.unwrap();
        let mut heard = Vec::new();
        soon(name, tcp.read_to_end(&mut heard)).await.unwrap();
        tcp.write_all(b"bye").await.unwrap();
        drop(tcp);
        let mut answer = String::new();
        soon(name, client.read_to_string(&mut answer))
            .await
            .unwrap();
        assert_eq!(answer, "bye", "{name}");
        let asked = SocketAddr::new(VIP, 90);
        if version == ProxyProtocol::V2 {
            assert_eq!(
                &heard[..16],
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
                "{name}"
            );
            assert_eq!(&heard[16..24], [127, 0, 0, 1, 10, 96, 0, 10], "{name}");
            assert_eq!(&heard[26..], b"\0\x5ahello", "{name}");
            continue;
        }
        let heard = String::from_utf8(heard).unwrap();
        let (line, rest) = heard.split_once("\r\n").unwrap();
        assert_eq!(rest, "hello", "{name}");
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(words[..4], ["PROXY", "TCP4", "127.0.0.1", "10.96.0.10"]);
        assert_eq!(words[5], asked.port().to_string(), "{name}");
    }
}
