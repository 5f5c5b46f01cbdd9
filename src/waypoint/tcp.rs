//! Carries what is not HTTP as bytes: one endpoint per connection (`spec/waypoint-l7.md` §1.8), of the
//! backend that its routes lead to (§2.8).
//!
//! Whatever is to turn a connection away by policy comes before the first endpoint is chosen.

mod patience;
mod stream;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use tokio::time::{Instant, interval_at};

use super::Arrival;
use super::account::{Account, Forth, refused};
use super::endpoints::{Outcome, Place};
use super::filters::{self, NotLet, Standing};
use super::outside::Unchosen;
use super::routing::{Seen, Untold};
use super::secure::Alpn;
use super::upstream::{Chosen, Way};
use crate::causes::chain;
use crate::hbone::{Connector, Tunnel, relay, relay_tunnels};
use crate::model::balance::hash;
use crate::model::route::{self, Target, TlsSelection};
use crate::model::waypoint::{Destination, Picking};

/// Endpoints tried before a connection is given up (§1.8).
const ATTEMPTS: usize = 3;

/// Why a connection goes nowhere.
#[derive(Debug, thiserror::Error)]
enum Nowhere {
    #[error("the waypoint's instance is not in the mesh view")]
    Gone,
    #[error(transparent)]
    NotLet(#[from] NotLet),
    #[error(transparent)]
    Untold(#[from] Untold),
    #[error("no route takes it")]
    NoRoute,
    #[error("its route has no backend with a weight")]
    NoBackend,
    #[error("its backend is not there: {0}")]
    Invalid(Arc<str>),
    #[error(transparent)]
    Unchosen(#[from] Unchosen),
}

impl Nowhere {
    /// The same as one of Envoy's flags, as far as it has one (§1.9).
    fn flag(&self) -> &'static str {
        match self {
            Self::NotLet(NotLet::Denied { .. }) => "",
            Self::NotLet(NotLet::Asked { .. }) => "UAEX",
            Self::NoRoute | Self::Unchosen(Unchosen::Uncovered { .. }) => "NR",
            Self::NotLet(NotLet::Untold(_))
            | Self::Untold(_)
            | Self::NoBackend
            | Self::Invalid(_)
            | Self::Unchosen(Unchosen::Untold(_)) => "NC",
            Self::Gone | Self::Unchosen(_) => "UH",
        }
    }
}

/// Carries one tunnel to its end, which asks for `server_name` where it is TLS. Another endpoint is
/// tried while nothing of the client's has been sent on; without any the tunnel is closed.
pub(super) async fn serve<C: Connector + Clone>(
    arrival: &Arrival<C>,
    tunnel: Tunnel,
    server_name: Option<&str>,
) {
    let seen = arrival.look();
    let records = seen.as_ref().and_then(|seen| arrival.records(seen));
    let refuse = |tunnel: Tunnel, why: &Nowhere| {
        tunnel.close();
        let why = (why.flag(), &*chain(why));
        refused(arrival, records.as_deref(), server_name, why);
    };
    let Some(seen) = seen else {
        return refuse(tunnel, &Nowhere::Gone);
    };
    if let Err(not_let) = filters::connection(arrival, &seen, server_name).await {
        return refuse(tunnel, &not_let.into());
    }
    let to = match destination(arrival, &seen, server_name) {
        Ok(to) => to,
        Err(nowhere) => return refuse(tunnel, &nowhere),
    };
    let mut tried: Vec<SocketAddr> = Vec::new();
    let source = arrival.client.source.ip().to_canonical().to_string();
    // Of all that a policy may hash a connection has but its source.
    let by_source = match seen.ruled(&to) {
        Ok(ruled) => ruled.hashes_source(),
        Err(untold) => return refuse(tunnel, &untold.into()),
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
            Err(none) if tried.is_empty() => return refuse(tunnel, &none.into()),
            // Those that failed have been told of.
            Err(_) => return tunnel.close(),
        };
        let account = Account::open(arrival, &chosen, records.clone(), server_name);
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
    let spent = patience::spent(&traffic, &chosen.settings().connection_pool);
    let mut carrying = pin!(carrying);
    let mut spent = pin!(spent);
    let mut revoked = pin!(revoked);
    let start = Instant::now() + account.interval();
    let mut progress = interval_at(start, account.interval());
    loop {
        tokio::select! {
            carried = &mut carrying => return account.closed(carried.err()),
            cut = &mut spent => return account.cut(cut.flag(), cut.to_string()),
            why = &mut revoked => return account.cut("DENY", format!("policy has changed: {why}")),
            _now = progress.tick() => account.progress(),
        }
    }
}
