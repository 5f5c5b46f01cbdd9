//! Two ends of QUIC on the loopback, and peers that say what no honest one would.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ApplicationClose, Connection, ConnectionError, Endpoint, TransportConfig, VarInt};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::{Client, Closable, Code, Config, Ended, Incoming, Server, Stream, client, server};

/// Two ends that have shaken hands.
pub(crate) struct Pair {
    pub(crate) client: Connection,
    pub(crate) server: Connection,
    /// They are closed with their endpoints.
    _endpoints: (Endpoint, Endpoint),
}

pub(crate) fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(VarInt::from_u32(20_000).into()))
        .congestion_controller_factory(Arc::new(Closable::new(CubicConfig::default())))
        .max_concurrent_uni_streams(32u32.into())
        .datagram_receive_buffer_size(Some(1 << 20));
    transport
}

pub(super) async fn pair() -> Pair {
    pair_of(transport(), transport()).await
}

pub(crate) async fn pair_of(client: TransportConfig, server: TransportConfig) -> Pair {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["peer".to_owned()]).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let tls = builder.with_no_client_auth();
    let mut tls = tls.with_single_cert(vec![cert.der().clone()], key).unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicServerConfig::try_from(tls).unwrap();
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(server));
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listening = Endpoint::server(config, any).unwrap();

    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(client));
    let dialling = Endpoint::client(any).unwrap();
    let to = listening.local_addr().unwrap();
    let connecting = dialling.connect_with(config, to, "peer").unwrap();
    let accepting = async { listening.accept().await.unwrap().await.unwrap() };
    let (client, server) = within(async { tokio::join!(connecting, accepting) }).await;
    Pair {
        client: client.unwrap(),
        server,
        _endpoints: (dialling, listening),
    }
}

/// Both ends, with what drives them.
pub(super) struct Ends {
    pub(super) client: Client,
    pub(super) server: Arc<Server>,
    pub(super) drivers: JoinSet<Result<(), Ended>>,
    /// The client's.
    pub(super) dialled: AbortHandle,
    _pair: Pair,
}

pub(super) async fn ends() -> Ends {
    ends_of(pair().await, Config::default())
}

pub(super) fn ends_of(pair: Pair, config: Config) -> Ends {
    let (client, dialled) = client(pair.client.clone(), config.clone());
    let (server, accepted) = server(pair.server.clone(), config);
    let mut drivers = JoinSet::new();
    let dialled = drivers.spawn(dialled.run());
    drivers.spawn(accepted.run());
    Ends {
        client,
        server: Arc::new(server),
        drivers,
        dialled,
        _pair: pair,
    }
}

impl Ends {
    /// A plain stream, seen from both ends.
    pub(super) async fn stream(&self) -> (Stream, Stream) {
        let request = super::Request::connect("10.0.0.2:80");
        let accepted = async {
            let incoming = self.server.accept().await.unwrap();
            accept(incoming).await
        };
        let (opened, accepted) =
            within(async { tokio::join!(self.client.connect(&request), accepted) }).await;
        (opened.unwrap().1, accepted)
    }
}

/// Says yes.
pub(super) async fn accept(incoming: Incoming) -> Stream {
    let (_request, responder) = incoming.request().await.unwrap();
    let ok = super::Response::new(http::StatusCode::OK);
    responder.accept(&ok).await.unwrap()
}

/// A task that ends with its owner.
pub(super) struct Task<T> {
    set: JoinSet<T>,
    pub(super) handle: AbortHandle,
}

pub(super) fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut set = JoinSet::new();
    let handle = set.spawn(future);
    Task { set, handle }
}

impl<T: 'static> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.set.poll_join_next(cx).map(|joined| joined.unwrap())
    }
}

/// Waits for what must not take long.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    let most = Duration::from_secs(20);
    tokio::time::timeout(most, future)
        .await
        .expect("took too long")
}

/// The code with which the peer closed a connection.
pub(super) async fn closed(connection: &Connection) -> Code {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => {
            error_code.into()
        }
        other => panic!("not closed by the peer: {other:?}"),
    }
}
