//! Carries what is not HTTP as bytes: one endpoint per connection (`spec/waypoint-l7.md` §1.8).
//!
//! Whatever is to turn a connection away by policy comes before the first endpoint is chosen.

use std::sync::Arc;

use super::Arrival;
use super::account::{Account, Forth, entry};
use super::upstream::{ATTEMPTS, Way};
use crate::hbone::{Connector, Tunnel, relay, relay_tunnels};
use crate::telemetry::access_log::{chain, denied};

/// Carries one tunnel to its end. Another endpoint is tried while nothing of the client's has been
/// sent on; without any the tunnel is closed.
pub(super) async fn serve<C: Connector + Clone>(arrival: &Arrival<C>, tunnel: Tunnel) {
    let mut tried = Vec::new();
    loop {
        let chosen = match arrival.choose(&tried) {
            Ok(chosen) => chosen,
            Err(e) => {
                let asked = entry(arrival, None);
                tunnel.close();
                return denied(
                    "waypoint",
                    asked.source,
                    Some(asked.destination),
                    &chain(&e),
                );
            }
        };
        let account = Account::open(arrival, &chosen);
        match arrival.open(&chosen).await {
            Ok(way) => return carry(account, tunnel, way).await,
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

async fn carry(mut account: Account, tunnel: Tunnel, way: Way) {
    let traffic = Arc::clone(&account.traffic);
    let carried = match way {
        Way::Tunnel(onward) => relay_tunnels(tunnel, onward, &traffic).await,
        Way::Plain(onward) => {
            account.forth = Forth::ToClient;
            relay(onward, tunnel, &traffic).await
        }
    };
    account.closed(carried.err().map(|e| chain(&e)));
}
