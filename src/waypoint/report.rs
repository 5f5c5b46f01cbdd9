//! Tells whether a waypoint takes tunnels: this process's own readiness, and the control plane, which
//! has nodes go by another instance where this one does not (`spec/control-plane.md` §7).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::agent::MeshState;
use crate::agent::report::LocalStates;
use crate::model::waypoint::WaypointName;
use crate::model::workload::Health;

/// Longest wait for peers to have heard that this process stops.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// How a waypoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes no tunnels, and why.
    Pending(String),
    /// It takes tunnels there.
    Serving(Vec<SocketAddr>),
}

/// Says how one waypoint of this process is.
#[derive(Debug)]
pub struct Teller {
    waypoint: WaypointName,
    state: watch::Sender<State>,
    reports: watch::Sender<LocalStates>,
    /// The uid of the instance that was last reported.
    instance: Option<Arc<str>>,
}

impl Teller {
    /// Says it in this process by `state`, and to the control plane by `reports`.
    pub fn new(
        waypoint: WaypointName,
        state: watch::Sender<State>,
        reports: watch::Sender<LocalStates>,
    ) -> Self {
        Self {
            waypoint,
            state,
            reports,
            instance: None,
        }
    }

    /// Says how it is. A mesh that has no `instance` here hears nothing of it.
    pub(super) fn tell(&mut self, instance: Option<&Arc<str>>, state: State) {
        self.report(instance, &state);
        let new = self.state.send_if_modified(|now| {
            let new = *now != state;
            now.clone_from(&state);
            new
        });
        let waypoint = &self.waypoint;
        match state {
            State::Serving(at) if new => info!(%waypoint, ?at, "waypoint serves"),
            State::Pending(reason) if new => {
                warn!(%waypoint, error = reason, "waypoint does not serve, trying again");
            }
            State::Serving(_) | State::Pending(_) => {}
        }
    }

    fn report(&mut self, instance: Option<&Arc<str>>, state: &State) {
        let before = std::mem::replace(&mut self.instance, instance.cloned());
        let left = before.filter(|before| Some(before) != instance);
        let unable = match state {
            State::Pending(reason) => Some(reason.as_str()),
            State::Serving(_) => None,
        };
        self.reports.send_if_modified(|reports| {
            let left = left.is_some_and(|uid| reports.left(&uid));
            let serves = |uid| reports.serves(uid, unable, SystemTime::now());
            instance.is_some_and(serves) | left
        });
    }

    /// Tells that this process is going; returns once peers have heard of it, so that nobody is still
    /// sent here when the ports close. They hear with the same revision as this process does.
    pub(super) fn announce(
        &self,
        mut mesh: watch::Receiver<Arc<MeshState>>,
    ) -> impl Future<Output = ()> + use<> {
        self.reports
            .send_if_modified(|states| !std::mem::replace(&mut states.draining, true));
        let instance = self.instance.clone();
        async move {
            let left = |state: &Arc<MeshState>| {
                let instance = instance.as_ref().and_then(|uid| state.view.workload(uid));
                instance.is_none_or(|w| w.health == Health::Unhealthy)
            };
            // Without a control plane in reach nobody can be told.
            let _told_or_not = tokio::time::timeout(ANNOUNCE, mesh.wait_for(left)).await;
        }
    }
}
