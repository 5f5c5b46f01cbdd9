//! Whose turn it is: the round-robin state of every service, shared by all local clients.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::model::balance::RoundRobin;
use crate::model::outbound::{Refusal, Route, decide};
use crate::model::service::ServiceKey;
use crate::model::view::View;
use crate::model::workload::Workload;

/// Services remembered before the memory starts over; far above what one host talks to.
const SERVICES: usize = 65_536;

#[derive(Default)]
pub(super) struct Picks {
    turns: Mutex<HashMap<ServiceKey, RoundRobin>>,
}

impl Picks {
    /// Decides one connection, taking the service's next turn.
    pub(super) fn decide(
        &self,
        view: &View,
        source: &Workload,
        destination: SocketAddr,
    ) -> Result<Route, Refusal> {
        let service = view.service_at(&source.network, destination.ip(), &source.namespace);
        let Some(service) = service else {
            return decide(view, source, destination, &mut RoundRobin::default());
        };
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= SERVICES {
            turns.clear();
        }
        let turn = turns.entry(service.key.clone()).or_default();
        decide(view, source, destination, turn)
    }
}
