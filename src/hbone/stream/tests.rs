//! Our end of TLS against the library's own, which is what peers have.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::buffer::PLAIN;
use super::*;
use crate::hbone::testing::{CART, WEB, ids, pattern, soon};
use crate::tls::testing::TestCa;
use crate::tls::{hbone_client, hbone_server};

type TheirServer = tokio_rustls::server::TlsStream<TcpStream>;
type TheirClient = tokio_rustls::client::TlsStream<TcpStream>;

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(to), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

async fn our_client() -> (Client, TheirServer) {
    let ca = TestCa::new();
    let ours = hbone_client(&ca.svid(WEB), ids(&[CART])).unwrap();
    let theirs = hbone_server(&ca.svid(CART)).unwrap();
    let (near, far) = tcp().await;
    let ip = near.peer_addr().unwrap().ip();
    let accepted = TlsAcceptor::from(Arc::clone(&theirs.config));
    let (ours, theirs) = tokio::join!(connect(near, ip.into(), ours), accepted.accept(far));
    (ours.unwrap(), theirs.unwrap())
}

async fn our_server() -> (Server, TheirClient) {
    let ca = TestCa::new();
    let theirs = hbone_client(&ca.svid(WEB), ids(&[CART])).unwrap();
    let ours = hbone_server(&ca.svid(CART)).unwrap();
    let (near, far) = tcp().await;
    let name = ServerName::IpAddress(far.peer_addr().unwrap().ip().into());
    let connector = TlsConnector::from(theirs);
    let (ours, theirs) = tokio::join!(
        accept(near, Arc::clone(&ours.config)),
        connector.connect(name, far)
    );
    (ours.unwrap(), theirs.unwrap())
}

/// Sends in pieces and reads in pieces of other sizes, to the end.
async fn carry(
    mut from: impl AsyncWrite + Unpin,
    mut to: impl AsyncRead + Unpin,
    writes: &[usize],
    read: usize,
) {
    let data = pattern(writes.iter().sum());
    let sent = async {
        let mut rest = &data[..];
        for size in writes {
            let (piece, more) = rest.split_at(*size);
            from.write_all(piece).await.unwrap();
            rest = more;
        }
        from.flush().await.unwrap();
        from.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let received = async {
        let mut piece = vec![0; read];
        loop {
            match to.read(&mut piece).await.unwrap() {
                0 => break,
                bytes => got.extend_from_slice(&piece[..bytes]),
            }
        }
    };
    soon("all of it", async { tokio::join!(sent, received) }).await;
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
}

#[tokio::test]
async fn bytes_arrive_whole_whatever_the_pieces() {
    for (name, writes, read) in [
        ("nothing", vec![], 10),
        ("a byte", vec![1], 1),
        ("short pieces", vec![10; 2000], 7),
        ("a record's worth", vec![PLAIN; 3], PLAIN),
        ("one byte more", vec![PLAIN + 1; 3], PLAIN - 1),
        ("more than the buffers hold", vec![3_000_000], 100_000),
        ("large read in crumbs", vec![100_000, 1, 100_000], 100),
    ] {
        println!("{name}");
        let (ours, theirs) = our_client().await;
        carry(ours, theirs, &writes, read).await;
        let (ours, theirs) = our_client().await;
        carry(theirs, ours, &writes, read).await;
        let (ours, theirs) = our_server().await;
        carry(ours, theirs, &writes, read).await;
        let (ours, theirs) = our_server().await;
        carry(theirs, ours, &writes, read).await;
    }
}

#[tokio::test]
async fn keys_change_while_bytes_go_both_ways() {
    let (mut ours, mut theirs) = our_client().await;
    let data = pattern(100_000);
    let mut got = vec![0; data.len()];
    for round in 0..5 {
        // It asks for new keys of ours too, so that what we say next has to begin with them.
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        let (sent, received) = soon("their bytes", async {
            let sent = async {
                theirs.write_all(&data).await?;
                theirs.flush().await
            };
            tokio::join!(sent, ours.read_exact(&mut got))
        })
        .await;
        sent.unwrap();
        received.unwrap();
        assert!(got == data, "to us, round {round}");
        got.fill(0);
        let (sent, received) = soon("our bytes", async {
            let sent = async {
                ours.write_all(&data).await?;
                ours.flush().await
            };
            tokio::join!(sent, theirs.read_exact(&mut got))
        })
        .await;
        sent.unwrap();
        received.unwrap();
        assert!(got == data, "from us, round {round}");
        got.fill(0);
    }
}

#[tokio::test]
async fn a_cut_is_no_end() {
    let (mut ours, mut theirs) = our_server().await;
    theirs.write_all(b"half a").await.unwrap();
    theirs.flush().await.unwrap();
    // The kernel ends TCP in order; TLS was not ended.
    drop(theirs.into_inner().0);
    let mut got = Vec::new();
    let read = soon("an end", ours.read_to_end(&mut got)).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(got, b"half a");
}

#[tokio::test]
async fn what_is_written_in_turns_leaves_at_their_end() {
    let (mut ours, mut theirs) = our_client().await;
    let turn = ours.turn();
    turn.begin();
    ours.write_all(b"now").await.unwrap();
    ours.flush().await.unwrap();
    let mut got = [0; 3];
    let early = tokio::time::timeout(std::time::Duration::from_millis(20), theirs.read(&mut got));
    assert!(early.await.is_err(), "it left before its turn had ended");
    let moved = poll_fn(|cx| Poll::Ready(turn.end(cx))).await;
    assert!(moved > 3, "{moved}");
    soon("it", theirs.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"now");
}

#[tokio::test]
async fn a_key_is_replaced_when_it_has_sealed_enough() {
    let (ours, theirs) = our_client().await;
    lock(&ours.inner).records.traffic().limit(3);
    // Many times the limit, and the peer must follow each time.
    carry(ours, theirs, &[PLAIN; 40], 5000).await;
    let (ours, theirs) = our_server().await;
    lock(&ours.inner).records.traffic().limit(1);
    carry(ours, theirs, &[10; 40], 7).await;
}

/// Both ends are ours, so that either can say what no library would.
async fn ours() -> (Client, Server) {
    let ca = TestCa::new();
    let client = hbone_client(&ca.svid(WEB), ids(&[CART])).unwrap();
    let server = hbone_server(&ca.svid(CART)).unwrap();
    let (near, far) = tcp().await;
    let ip = near.peer_addr().unwrap().ip();
    let (client, server) = tokio::join!(
        connect(near, ip.into(), client),
        accept(far, Arc::clone(&server.config))
    );
    (client.unwrap(), server.unwrap())
}

#[tokio::test]
async fn what_may_not_come_after_the_handshake_ends_the_session() {
    use super::key::Kind;
    use rustls::{AlertDescription, Error, InvalidMessage, PeerMisbehaved};
    const TICKET: [u8; 6] = [4, 0, 0, 2, 1, 2];
    let unexpected = key::unexpected;
    type Said = Vec<(Kind, Vec<u8>)>;
    let application = || (Kind::Application, b"hello".to_vec());
    let cases: Vec<(&str, Said, Option<Error>)> = vec![
        (
            "a ticket",
            vec![(Kind::Handshake, TICKET.to_vec()), application()],
            None,
        ),
        (
            "a ticket in two parts",
            vec![
                (Kind::Handshake, TICKET[..3].to_vec()),
                (Kind::Handshake, TICKET[3..].to_vec()),
                application(),
            ],
            None,
        ),
        (
            "two tickets in one record",
            vec![(Kind::Handshake, [TICKET, TICKET].concat()), application()],
            None,
        ),
        (
            "an alert that means nothing",
            vec![(Kind::Alert, vec![1, 90]), application()],
            None,
        ),
        (
            "empty records",
            vec![(Kind::Application, vec![]); 5]
                .into_iter()
                .chain([application()])
                .collect(),
            None,
        ),
        (
            "bytes between the parts of a message",
            vec![(Kind::Handshake, TICKET[..3].to_vec()), application()],
            Some(unexpected()),
        ),
        (
            "a new key that others share a record with",
            vec![(Kind::Handshake, [&[24, 0, 0, 1, 0], &TICKET[..]].concat())],
            Some(InvalidMessage::InvalidKeyUpdate.into()),
        ),
        (
            "a new key with an unknown wish",
            vec![(Kind::Handshake, vec![24, 0, 0, 1, 2])],
            Some(InvalidMessage::InvalidKeyUpdate.into()),
        ),
        (
            "an empty handshake record",
            vec![(Kind::Handshake, vec![])],
            Some(InvalidMessage::InvalidEmptyPayload.into()),
        ),
        (
            "a message longer than any",
            vec![(Kind::Handshake, vec![4, 1, 0, 0])],
            Some(InvalidMessage::HandshakePayloadTooLarge.into()),
        ),
        (
            "a wish for another certificate",
            vec![(Kind::Handshake, vec![13, 0, 0, 1, 0])],
            Some(unexpected()),
        ),
        (
            "an alert between the parts of a message",
            vec![
                (Kind::Handshake, TICKET[..3].to_vec()),
                (Kind::Alert, vec![1, 90]),
            ],
            Some(unexpected()),
        ),
        (
            "nothing but empty records",
            vec![(Kind::Application, vec![]); 33],
            Some(PeerMisbehaved::TooManyEmptyFragments.into()),
        ),
        (
            "nothing but tickets",
            vec![(Kind::Handshake, [4, 0, 0, 0].repeat(33))],
            Some(PeerMisbehaved::TooManyEmptyFragments.into()),
        ),
        (
            "no known kind",
            vec![(Kind::Other, vec![1])],
            Some(unexpected()),
        ),
        (
            "a fatal alert",
            vec![(Kind::Alert, vec![2, 42])],
            Some(Error::AlertReceived(AlertDescription::BadCertificate)),
        ),
        (
            "half an alert",
            vec![(Kind::Alert, vec![2])],
            Some(InvalidMessage::MessageTooShort.into()),
        ),
    ];
    for (name, said, want) in cases {
        let (mut client, mut server) = ours().await;
        for (kind, message) in said {
            lock(&server.inner).records.say(kind, &message);
        }
        server.flush().await.unwrap();
        let mut got = [0; 5];
        let read = soon(name, client.read_exact(&mut got)).await;
        match want {
            None => assert_eq!((read.unwrap(), &got), (5, b"hello"), "{name}"),
            Some(want) => {
                let error = read.unwrap_err();
                let why = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
                assert_eq!(why, Some(&want), "{name}");
                assert!(client.write_all(b"x").await.is_err(), "{name}: it goes on");
                drop(client);
                let told = soon("an end", server.read_exact(&mut got)).await;
                let told = told.unwrap_err().to_string();
                let answered = !matches!(want, Error::AlertReceived(_));
                assert_eq!(told.contains("alert"), answered, "{name}: {told}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_takes_no_tickets() {
    use super::key::Kind;
    let (mut client, mut server) = ours().await;
    lock(&client.inner)
        .records
        .say(Kind::Handshake, &[4, 0, 0, 2, 1, 2]);
    client.flush().await.unwrap();
    let read = soon("an error", server.read_exact(&mut [0; 5])).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_forged_record_is_answered_with_an_alert() {
    let (mut ours, mut theirs) = our_client().await;
    let mut forged = vec![23, 3, 3, 0, 40];
    forged.resize(45, 7);
    theirs.get_mut().0.write_all(&forged).await.unwrap();
    let read = soon("an error", ours.read(&mut [0; 5])).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
    let told = soon("the alert", theirs.read(&mut [0; 5])).await;
    assert!(told.unwrap_err().to_string().contains("BadRecordMac"));
}

#[tokio::test]
async fn a_new_key_right_behind_the_handshake_is_not_lost() {
    let ca = TestCa::new();
    let theirs = hbone_client(&ca.svid(WEB), ids(&[CART])).unwrap();
    let ours = hbone_server(&ca.svid(CART)).unwrap();
    let (near, far) = tcp().await;
    let name = ServerName::IpAddress(far.peer_addr().unwrap().ip().into());
    let mut accepting = std::pin::pin!(accept(near, Arc::clone(&ours.config)));
    // The client is through before we have read its last message.
    let mut theirs = tokio::select! {
        biased;
        connected = TlsConnector::from(theirs).connect(name, far) => connected.unwrap(),
        _early = &mut accepting => panic!("accepted before the client was done"),
    };
    theirs.get_mut().1.refresh_traffic_keys().unwrap();
    theirs.write_all(b"hello").await.unwrap();
    theirs.flush().await.unwrap();
    let mut ours = soon("our end", accepting).await.unwrap();
    let mut got = [0; 5];
    soon("their bytes", ours.read_exact(&mut got))
        .await
        .unwrap();
    assert_eq!(&got, b"hello");
    // They asked for a new key of ours too.
    ours.write_all(b"world").await.unwrap();
    ours.flush().await.unwrap();
    soon("our bytes", theirs.read_exact(&mut got))
        .await
        .unwrap();
    assert_eq!(&got, b"world");
}
