//! Carries what is not HTTP as bytes: one endpoint per connection (`spec/waypoint-l7.md` §1.8), of the
//! backend that its routes lead to (§2.8).
//!
//! Whatever is to turn a connection away by policy comes before the first endpoint is chosen.

mod patience;
mod stream;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Arrival;
use super::account::{Account, Forth, entry};
use super::endpoints::{Outcome, Place};
use super::filters::{self, Standing};
use super::routing::{Seen, Untold};
use super::secure::Alpn;
use super::upstream::{Chosen, Way};
use crate::hbone::{Connector, Tunnel, relay, relay_tunnels};
use crate::model::balance::hash;
use crate::model::route::{self, Target, TlsSelection};
use crate::model::waypoint::{Destination, Picking};
use crate::telemetry::access_log::{chain, denied};

/// Endpoints tried before a connection is given up (§1.8).
const ATTEMPTS: usize = 3;

/// Why a connection goes nowhere.
#[derive(Debug, thiserror::Error)]
enum Nowhere {
    #[error("the waypoint's instance is not in the mesh view")]
    Gone,
    #[error(transparent)]
    Untold(#[from] Untold),
    #[error("no route takes it")]
    NoRoute,
    #[error("its route has no backend with a weight")]
    NoBackend,
    #[error("its backend is not there: {0}")]
    Invalid(Arc<str>),
}

/// Carries one tunnel to its end, which asks for `server_name` where it is TLS. Another endpoint is
/// tried while nothing of the client's has been sent on; without any the tunnel is closed.
pub(super) async fn serve<C: Connector + Clone>(
    arrival: &Arrival<C>,
    tunnel: Tunnel,
    server_name: Option<&str>,
) {
    let Some(seen) = arrival.look() else {
        return refuse(arrival, tunnel, &Nowhere::Gone);
    };
    if let Err(denied) = filters::connection(arrival, &seen, server_name).await {
        return refuse(arrival, tunnel, &denied);
    }
    let to = match destination(arrival, &seen, server_name) {
        Ok(to) => to,
        Err(nowhere) => return refuse(arrival, tunnel, &nowhere),
    };
    let mut tried: Vec<SocketAddr> = Vec::new();
    let source = arrival.client.source.ip().to_canonical().to_string();
    // Of all that a policy may hash a connection has but its source.
    let by_source = match seen.ruled(&to) {
        Ok(ruled) => ruled.hashes_source(),
        Err(untold) => return refuse(arrival, tunnel, &untold),
    };
    loop {
        let picking = Picking {
            host: server_name,
            tried: &tried,
            hash: by_source.then(|| hash(source.as_bytes(), 0)),
            ..Picking::default()
        };
        let chosen = match arrival.choose(&seen, &to, &picking).await {
            Ok(chosen) => chosen,
            Err(none) => return refuse(arrival, tunnel, &none),
        };
        let account = Account::open(arrival, &chosen);
        let place = match chosen.under_way.as_ref().map(|u| u.connection()) {
            Some(Err(overflow)) => {
                account.failed("UO", chain(&overflow));
                return tunnel.close();
            }
            Some(Ok(place)) => Some(place),
            None => None,
        };
        let secured = chosen.secured(None, Alpn::None);
        match arrival.open(&chosen, secured.as_ref()).await {
            Ok(way) => {
                // It is all that is ever known of a program that speaks for itself.
                chosen.note(Outcome::Answered(200));
                let standing = Standing::Connection(server_name.map(str::to_owned));
                let revoked = standing.revoked(arrival, &seen);
                return carry(account, tunnel, way, (&chosen, place), revoked).await;
            }
            Err(e) => {
                account.failed(e.flag(), chain(&e));
                tried.push(chosen.address());
                if !e.retryable() || tried.len() >= ATTEMPTS || arrival.bound.service().is_none() {
                    return tunnel.close();
                }
            }
        }
    }
}

fn refuse<C: Connector>(arrival: &Arrival<C>, tunnel: Tunnel, why: &dyn std::error::Error) {
    let asked = entry(arrival, None);
    tunnel.close();
    denied(
        "waypoint",
        asked.source,
        Some(asked.destination),
        &chain(why),
    );
}

/// Where the routes have a connection go: the share of a backend that is not there goes nowhere (§2.6).
fn destination<'a, C: Connector>(
    arrival: &'a Arrival<C>,
    seen: &'a Seen,
    server_name: Option<&str>,
) -> Result<Destination<'a>, Nowhere> {
    let bound = &arrival.bound;
    let Some(table) = seen.connections(bound)? else {
        return Ok(Destination::from(bound));
    };
    let rule = match table.select(server_name) {
        TlsSelection::Default => return Ok(Destination::from(bound)),
        TlsSelection::Close => return Err(Nowhere::NoRoute),
        TlsSelection::Rule(chosen) => chosen.rule,
    };
    let backend = route::backend(rule, rand::random()).ok_or(Nowhere::NoBackend)?;
    let invalid = || match &backend.to {
        Target::Invalid(why) => Nowhere::Invalid(Arc::clone(why)),
        Target::Service { .. } => Nowhere::NoBackend,
    };
    seen.destination(&backend.to, bound.asked())?
        .ok_or_else(invalid)
}

async fn carry(
    mut account: Account,
    tunnel: Tunnel,
    way: Way,
    (chosen, _place): (&Chosen, Option<Place>),
    revoked: impl Future<Output = String>,
) {
    let traffic = Arc::clone(&account.traffic);
    if let Way::Plain(_) = way {
        account.forth = Forth::ToClient;
    }
    let carrying = async {
        match way {
            Way::Tunnel(onward) => relay_tunnels(tunnel, onward, &traffic).await,
            Way::Plain(onward) => relay(onward, tunnel, &traffic).await,
            Way::Stream(onward) => return stream::relay(tunnel, onward, &traffic).await,
        }
        .map_err(|e| chain(&e))
    };
    let carried = tokio::select! {
        carried = carrying => carried,
        cut = patience::spent(&traffic, &chosen.settings().connection_pool) => {
            return account.cut(cut.flag(), cut.to_string());
        }
        why = revoked => return account.cut("DENY", format!("policy has changed: {why}")),
    };
    account.closed(carried.err());
}
