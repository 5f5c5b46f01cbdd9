//! Whom the server's end lets in, and what it answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::hbone::testing::*;
use crate::hbone::*;
use crate::tls::testing::{Leaf, TestCa};
use crate::tls::{PeerRefused, Svid, hbone_client};

/// Presents nothing.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// What a client hears of a server that refuses it.
async fn alert(server: &Server, tls: Arc<ClientConfig>) -> Option<AlertDescription> {
    let heard = async {
        let mut stream = tls_connect(server.at, tls).await?;
        stream.read_u8().await
    };
    let error = soon("an alert", heard).await.unwrap_err();
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[tokio::test]
async fn a_server_says_why_it_refuses_a_certificate() {
    let (handler, _requests) = HandOver::new();
    let mut server = server(Limits::default(), handler).await;
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let web = server.ca.svid(WEB);
    let dated = |not_before, not_after| {
        server.ca.svid_of(&Leaf {
            not_before,
            not_after,
            ..Leaf::uris(&[WEB])
        })
    };
    let expired = dated(now - 2 * hour, now - hour);
    let early = dated(now + hour, now + 2 * hour);
    let foreign = server.ca.svid("spiffe://other.local/ns/shop/sa/web");
    let node = server.ca.svid("spiffe://cluster.local/node/edge-1");
    let forged = {
        let (chain, key) = TestCa::new().leaf(&Leaf::uris(&[WEB]));
        Arc::new(Svid::new(vec![chain], key, server.ca.trust()).unwrap())
    };
    let client = |svid: &Arc<Svid>| (*hbone_client(svid, ids(&[CART])).unwrap()).clone();
    let mut http1 = client(&web);
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut anonymous = client(&web);
    anonymous.client_auth_cert_resolver = Arc::new(Nobody);
    type Is = fn(&AcceptError) -> bool;
    let rows: [(&str, ClientConfig, Is, Option<AlertDescription>); 7] = [
        (
            "no certificate",
            anonymous,
            |e| matches!(e, AcceptError::NoCertificate { .. }),
            Some(AlertDescription::CertificateRequired),
        ),
        (
            "ALPN http/1.1",
            http1,
            |e| matches!(e, AcceptError::Alpn { .. }),
            Some(AlertDescription::NoApplicationProtocol),
        ),
        (
            "another trust domain",
            client(&foreign),
            |e| matches!(e, AcceptError::Peer(PeerRefused::TrustDomain { .. })),
            None,
        ),
        (
            "a node is no workload",
            client(&node),
            |e| matches!(e, AcceptError::Peer(PeerRefused::NoIdentity { .. })),
            None,
        ),
        (
            "another root",
            client(&forged),
            |e| matches!(e, AcceptError::Untrusted { .. }),
            None,
        ),
        (
            "expired",
            client(&expired),
            |e| matches!(e, AcceptError::OutOfDate { .. }),
            Some(AlertDescription::CertificateExpired),
        ),
        (
            "not yet valid",
            client(&early),
            |e| matches!(e, AcceptError::OutOfDate { .. }),
            None,
        ),
    ];
    for (name, tls, is, told) in rows {
        let heard = alert(&server, Arc::new(tls)).await;
        assert!(heard.is_some(), "{name}: told by an alert");
        assert!(told.is_none() || heard == told, "{name}: {heard:?}");
        let end = server.end(name).await.unwrap_err();
        assert!(is(&end), "{name}: {end:?}");
    }
}

/// A ClientHello of TLS 1.2: complete, but without the extension that offers 1.3.
fn hello_of_tls12() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],     // supported_groups: P-256
        &[0, 13, 0, 4, 0, 2, 4, 3],          // signature_algorithms: ECDSA P-256 SHA-256
        &[0, 16, 0, 5, 0, 3, 2, b'h', b'2'], // ALPN: h2
    ]
    .concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend((hello.len() as u16).to_be_bytes());
    handshake.extend(hello);
    let mut record = vec![22, 3, 1];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}

#[tokio::test]
async fn a_server_says_why_it_refuses_a_protocol() {
    let (handler, _requests) = HandOver::new();
    let mut server = server(Limits::default(), handler).await;
    type Is = fn(&AcceptError) -> bool;
    let rows: [(&str, Vec<u8>, Is); 3] = [
        ("TLS 1.2", hello_of_tls12(), |e| {
            matches!(e, AcceptError::Version { .. })
        }),
        ("plain HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), |e| {
            matches!(e, AcceptError::Tls { .. })
        }),
        ("nothing at all", vec![], |e| {
            matches!(e, AcceptError::Tls { .. })
        }),
    ];
    for (name, bytes, is) in rows {
        let mut tcp = TcpStream::connect(server.at).await.unwrap();
        tcp.write_all(&bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        let end = server.end(name).await.unwrap_err();
        assert!(is(&end), "{name}: {end:?}");
    }
}

#[tokio::test]
async fn a_peer_that_dawdles_is_cut() {
    let limits = Limits {
        handshake: Duration::from_millis(200),
        ..steady()
    };
    let (handler, _requests) = HandOver::new();
    let mut server = server(limits, handler).await;
    let _silent = TcpStream::connect(server.at).await.unwrap();
    let end = server.end("no TLS").await;
    assert!(matches!(end, Err(AcceptError::Timeout)), "no TLS: {end:?}");
    let _no_preface = server.raw().await;
    let end = server.end("no preface").await;
    assert!(
        matches!(end, Err(AcceptError::Timeout)),
        "no preface: {end:?}"
    );
    let mut idle = server.raw().await;
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let end = server.end("no CONNECT").await;
    assert!(
        matches!(end, Err(AcceptError::Timeout)),
        "no CONNECT: {end:?}"
    );
}

/// A client's HTTP/2 without a pool around it.
async fn raw_h2(server: &Server, tasks: &mut JoinSet<()>) -> h2::client::SendRequest<bytes::Bytes> {
    let stream = server.raw().await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tasks.spawn(async move {
        let _ended = connection.await;
    });
    sender
}

#[tokio::test]
async fn only_a_connect_to_a_target_reaches_a_handler() {
    let peer = peer(Limits::default()).await;
    let mut tasks = JoinSet::new();
    let mut sender = raw_h2(&peer.server, &mut tasks).await;
    let zeros = format!("00-{}", "0".repeat(52));
    let latin = HeaderValue::from_bytes(b"k8s.namespace.name=caf\xe9").unwrap();
    let plain = HeaderValue::from_static("x");
    let many: Vec<_> = (0..129).map(|_| ("x-many", plain.clone())).collect();
    let enough: Vec<_> = (0..128).map(|_| ("x-many", plain.clone())).collect();
    let bad = StatusCode::BAD_REQUEST;
    let to = "10.0.0.2:80";
    for (name, method, uri, fields, end, want) in [
        ("GET", "GET", "https://10.0.0.2:80/", vec![], true, bad),
        ("no port", "CONNECT", "10.0.0.2", vec![], false, bad),
        ("port 0", "CONNECT", "10.0.0.2:0", vec![], false, bad),
        (
            "user part",
            "CONNECT",
            "root@10.0.0.2:80",
            vec![],
            false,
            bad,
        ),
        ("already ended", "CONNECT", to, vec![], true, bad),
        ("too many fields", "CONNECT", to, many, false, bad),
        (
            "as many fields as may be",
            "CONNECT",
            to,
            enough,
            false,
            StatusCode::OK,
        ),
        (
            "host name",
            "CONNECT",
            "cart.shop:80",
            vec![],
            false,
            StatusCode::OK,
        ),
        (
            "unreadable traceparent",
            "CONNECT",
            to,
            vec![("traceparent", HeaderValue::from_str(&zeros).unwrap())],
            false,
            StatusCode::OK,
        ),
        (
            "baggage that is not ASCII",
            "CONNECT",
            to,
            vec![("baggage", latin)],
            false,
            StatusCode::OK,
        ),
        (
            "refused by the handler",
            "CONNECT",
            "10.0.0.2:9",
            vec![],
            false,
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    ] {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (key, value) in fields {
            request = request.header(key, value);
        }
        sender = sender.ready().await.unwrap();
        let (answer, _body) = sender.send_request(request.body(()).unwrap(), end).unwrap();
        let answer = soon(name, answer).await.unwrap();
        assert_eq!(answer.status(), want, "{name}");
        let told = answer.headers().contains_key("baggage");
        assert_eq!(
            told,
            want == StatusCode::OK,
            "{name}: baggage only with a 200"
        );
        assert!(
            answer.body().is_end_stream() != told,
            "{name}: nothing but a 200 has a body"
        );
    }
}

#[tokio::test]
async fn requests_reset_before_their_answer_do_not_pile_up() {
    let limits = Limits {
        streams_in: 5,
        ..steady()
    };
    /// Connects for ever.
    struct Slow;
    impl Handler for Slow {
        async fn handle(self: Arc<Self>, _request: Incoming) {
            std::future::pending().await
        }
    }
    let server = server(limits, Arc::new(Slow)).await;
    let mut tasks = JoinSet::new();
    let mut sender = raw_h2(&server, &mut tasks).await;
    let connect = || http::Request::connect("10.0.0.2:80").body(()).unwrap();
    let mut refused = 0;
    for _ in 0..30 {
        sender = sender.ready().await.unwrap();
        let (answer, mut stream) = sender.send_request(connect(), false).unwrap();
        // Whether a handler holds it or it is refused shows by which of the two comes first.
        let outcome = tokio::time::timeout(Duration::from_millis(50), answer).await;
        match outcome {
            Err(_held) => stream.send_reset(h2::Reason::CANCEL),
            Ok(answer) => {
                let reason = answer.unwrap_err().reason();
                assert_eq!(reason, Some(h2::Reason::REFUSED_STREAM));
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 25, "five handlers, and no more");
}

#[tokio::test]
async fn a_request_dropped_unanswered_is_reset() {
    let (handler, mut requests) = HandOver::new();
    let server = server(Limits::default(), handler).await;
    let (pool, _plain) = pool(steady());
    let hop = server.web();
    let request = ask(80);
    let asked = pool.connect(&hop, &request);
    let dropped = async { drop(requests.recv().await) };
    let (answer, ()) = soon("a reset", async { tokio::join!(asked, dropped) }).await;
    let error = answer.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Http2 {
                unprocessed: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!error.retryable());
}
