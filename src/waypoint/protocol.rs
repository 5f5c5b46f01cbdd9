//! What is spoken in a tunnel, declared or found out, and who serves it (`spec/waypoint-l7.md` §1.4).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::http::Version;
use super::sni::{self, Hello};
use super::sniff::{self, Patience, Spoken, peek};
use super::{Arrival, http, tcp};
use crate::causes::chain;
use crate::hbone::{Connector, Tunnel, TunnelError};
use crate::model::service::AppProtocol;

/// From the first byte until it is known what is spoken; as long as an HTTP head may take (§1.5).
const DECIDE: Duration = Duration::from_secs(10);
/// From the start until a ClientHello is whole (§2.8).
const HELLO: Duration = Duration::from_secs(10);

/// Serves one tunnel to its end.
pub(super) async fn serve<C: Connector + Clone>(
    arrival: Arc<Arrival<C>>,
    mut tunnel: Tunnel,
    stop: &CancellationToken,
) {
    let stopping = async {
        stop.cancelled().await;
        tokio::time::sleep(http::FIRST).await;
    };
    let looked = tokio::select! {
        looked = look(&arrival, &mut tunnel) => looked,
        // Nothing was asked yet.
        () = stopping => return tunnel.close(),
    };
    match looked {
        Ok(Carried::Bytes) => tcp::serve(&arrival, tunnel, None).await,
        // Never terminated: its hello says, in clear text, whom it is for.
        Ok(Carried::Tls(hello)) => tcp::serve(&arrival, tunnel, hello.server_name()).await,
        Ok(Carried::Http { client, endpoint }) => {
            http::serve(arrival, tunnel, client, endpoint, stop).await;
        }
        Err(e) => {
            debug!(src.addr = %arrival.client.source, error = %chain(&e), "client left before it spoke");
        }
    }
}

/// How a tunnel is served.
enum Carried {
    Bytes,
    Tls(Hello),
    Http { client: Version, endpoint: Version },
}

/// Finds out how a tunnel is to be served, and looks at no more of it than that takes.
async fn look<C: Connector>(
    arrival: &Arrival<C>,
    tunnel: &mut Tunnel,
) -> Result<Carried, TunnelError> {
    let endpoint = match arrival.bound.app_protocol() {
        AppProtocol::Tcp => return Ok(Carried::Bytes),
        AppProtocol::Tls => {
            let patience = Patience {
                first: HELLO,
                rest: HELLO,
            };
            let hello = peek(tunnel, patience, sni::LARGEST, sni::read).await?;
            return Ok(Carried::Tls(hello.unwrap_or(Hello::Unreadable)));
        }
        AppProtocol::Unknown => None,
        AppProtocol::Http11 => Some(Version::Http1),
        AppProtocol::Http2 | AppProtocol::Grpc => Some(Version::Http2),
    };
    let patience = Patience {
        // Who has said nothing for so long, on a port that may speak anything, waits for the server.
        first: match endpoint {
            Some(_) => http::IDLE,
            None => arrival.options(|told| told.sniff_timeout),
        },
        rest: DECIDE,
    };
    let spoken = match endpoint {
        Some(_) => peek(tunnel, patience, sniff::LARGEST, sniff::http_version).await?,
        None => peek(tunnel, patience, sniff::LARGEST, sniff::spoken).await?,
    };
    let client = match (spoken, endpoint) {
        (Some(Spoken::Http2), _) => Version::Http2,
        (Some(Spoken::Http1), _) | (_, Some(_)) => Version::Http1,
        (Some(Spoken::Bytes) | None, None) => return Ok(Carried::Bytes),
    };
    Ok(Carried::Http {
        client,
        endpoint: endpoint.unwrap_or(client),
    })
}
