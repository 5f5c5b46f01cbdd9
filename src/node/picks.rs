//! Whose turn it is: the round-robin of every service, shared by all local clients.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::model::balance::{Candidate, Pick, RoundRobin, Untried};
use crate::model::outbound::{Refusal, Route, decide};
use crate::model::service::ServiceKey;
use crate::model::view::View;
use crate::model::workload::Workload;

pub(super) struct Picks {
    turns: Mutex<RoundRobin>,
}

impl Default for Picks {
    /// Begins anywhere, so that hosts that start together do not all begin with one endpoint.
    fn default() -> Self {
        let start = rand::random::<u32>() as usize;
        Self {
            turns: Mutex::new(RoundRobin::starting_after(start)),
        }
    }
}

impl Picks {
    /// Decides one connection, taking the service's next turn among those that have not been `tried`.
    pub(super) fn decide(
        &self,
        view: &View,
        source: &Workload,
        destination: SocketAddr,
        tried: &[SocketAddr],
    ) -> Result<Route, Refusal> {
        let mut turns = self;
        let mut untried = Untried::new(tried, &mut turns);
        decide(view, source, destination, &mut untried)
    }
}

/// The lock is held for the turn only, not for the decision around it.
impl Pick for &Picks {
    fn pick(&mut self, service: &ServiceKey, port: u16, candidates: &[Candidate<'_>]) -> usize {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.pick(service, port, candidates)
    }
}
