//! The roles that follow a control plane: they start once this machine has joined.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::powers::Powers;
use super::{Roles, session_key};
use crate::agent::guest::{Guest, LocalCapture};
use crate::agent::identity::{Keeper, NodeIdentity};
use crate::agent::join::join;
use crate::agent::report::LocalStates;
use crate::agent::{self, Agent, Member};
use crate::capture::kept::link::Link;
use crate::causes::chain;
use crate::cli::Failure;
use crate::config::daemon::{Bearer, Config, Congestion, HostNames, Transport};
use crate::files;
use crate::hbone;
use crate::identity::token::{Token, TokenError};
use crate::model::route::SessionKey;
use crate::node::{Connections, Node, Shared, Workers, dns};
use crate::resolve;
use crate::status;
use crate::telemetry::Metrics;
use crate::waypoint::{self, HostNetwork, Teller, Waypoint};

/// Life asked for workloads' certificates; the authority has the last word.
const CERTIFICATE_TTL: Duration = Duration::from_secs(8 * 24 * 3600);
/// Between attempts to find an identity that `lateen join` or a token file may have brought.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait before a token that came to nothing is tried again. A control plane takes no more tokens
/// from an address of which five have failed within a minute: others behind it have theirs.
const TIRED: Duration = Duration::from_secs(15);

/// How many threads move bytes. Unless told otherwise half of the processors, so that the programs
/// whose bytes they are find room beside them, but two, so that bulk leaves one to the others.
fn workers(config: &Config) -> usize {
    let half = || thread::available_parallelism().map_or(2, |n| n.get().div_ceil(2).max(2));
    let told = config.workers().and_then(|n| usize::try_from(n).ok());
    told.unwrap_or_else(half)
}

/// What this machine is to its control planes, once it has joined where it has to.
async fn member(config: &Config, shutdown: &CancellationToken) -> Option<Member> {
    if let Some(bearer) = config.control().bearer() {
        return Some(Member::Guest(guest(config, bearer)));
    }
    let identity = joined(config, shutdown).await?;
    info!(node = %identity.node, generation = identity.mesh.generation, "node identity loaded");
    Some(Member::Joined(Keeper::new(config.state_dir(), identity)))
}

fn guest(config: &Config, bearer: &Bearer) -> Guest {
    let captures = config.captures().iter().map(|local| LocalCapture {
        namespace: Arc::clone(&local.namespace),
        name: Arc::clone(&local.name),
        capture: local.capture.clone(),
    });
    Guest {
        node: Arc::clone(config.node()),
        token_file: bearer.token_file().to_owned(),
        root_file: bearer.root_file().to_owned(),
        server_name: bearer.server_name().cloned(),
        cluster_id: Arc::clone(bearer.cluster_id()),
        captures: captures.collect(),
    }
}

/// How tunnels go by QUIC; `None` for by TCP alone.
fn quic_of(config: &Config) -> Option<hbone::Quic> {
    let congestion = match config.congestion() {
        Congestion::Bbr => hbone::Congestion::Bbr,
        Congestion::Cubic => hbone::Congestion::Cubic,
    };
    match config.transport() {
        Transport::Auto => Some(hbone::Quic {
            congestion,
            roaming: config.roaming(),
            reset: reset_key(&config.state_dir().join("quic-reset.key")),
        }),
        Transport::Tcp => None,
    }
}

/// The secret by which the next process ends this one's connections; where it cannot be kept peers find out
/// by silence, half a minute later.
fn reset_key(path: &Path) -> hbone::ResetKey {
    let kept = files::read_secret(path);
    let kept = kept.map(|kept| kept.and_then(|kept| kept.as_slice().try_into().ok()));
    let made = match kept {
        Ok(Some(secret)) => return hbone::ResetKey::new(secret),
        Ok(None) => {
            let secret: [u8; hbone::ResetKey::LENGTH] = rand::random();
            files::write(path, &secret).map(|()| hbone::ResetKey::new(secret))
        }
        Err(error) => Err(error),
    };
    made.unwrap_or_else(|error| {
        let error = chain(&error);
        warn!(error, "peers will learn late of a restart of this process");
        hbone::ResetKey::default()
    })
}

/// What this host's settings say of names.
fn names_of(config: &Config) -> dns::Settings {
    let settings = config.dns();
    dns::Settings {
        capture: settings.capture(),
        domain: Arc::clone(settings.domain()),
        preferred: settings.preferred_namespace().cloned(),
        listen: config.listeners().dns,
        told: match settings.host() {
            HostNames::Off => dns::Told::Never,
            HostNames::Auto => dns::Told::IfPossible,
            HostNames::Resolved => dns::Told::Always,
        },
    }
}

/// The roles that follow a control plane, before this machine has joined.
pub(super) struct Followers {
    node: Option<StartingNode>,
    waypoints: Vec<(waypoint::Settings, watch::Sender<waypoint::State>)>,
    /// The waypoints' threads, where there are any.
    carrying: Option<Workers>,
    started: watch::Sender<Option<status::NodeHandle>>,
}

struct StartingNode {
    powers: Powers,
    workers: Workers,
}

impl Followers {
    pub(super) fn new(
        config: &Config,
        roles: &Roles,
        powers: Option<Powers>,
        status: &mut status::Sources,
    ) -> Result<Self, Failure> {
        let mut node = None;
        let (started, seen) = watch::channel(None);
        status.node(seen);
        if let Some(powers) = powers {
            status.captures();
            let workers = Workers::start(workers(config), config.busy_poll());
            let workers = workers.map_err(|e| Failure::no("data plane threads", &e))?;
            node = Some(StartingNode { powers, workers });
        }
        let mut carrying = None;
        if !roles.waypoints.is_empty() {
            let workers = Workers::start(workers(config), false);
            carrying = Some(workers.map_err(|e| Failure::no("waypoint threads", &e))?);
        }
        let secret =
            match config.session_key_file() {
                Some(path) if !roles.waypoints.is_empty() => {
                    let secret = session_key::read(path);
                    Some(secret.map_err(|e| {
                        Failure::no(format!("session-key-file {}", path.display()), &e)
                    })?)
                }
                _ => None,
            };
        let threads = carrying.as_ref().map(Workers::handles).unwrap_or_default();
        let waypoints = roles.waypoints.iter().map(|name| {
            let settings = waypoint::Settings {
                name: name.clone(),
                node: Arc::clone(config.node()),
                threads: threads.clone(),
                drain: config.drain_deadline(),
                sessions: match &secret {
                    Some(secret) => SessionKey::derived(secret, name),
                    None => SessionKey::new(rand::random()),
                },
                keys: config.state_dir().join("jwks"),
                silence: waypoint::SILENCE,
                quic: quic_of(config),
            };
            let reason = format!("waypoint {name}: this machine has not joined");
            let (tell, seen) = watch::channel(waypoint::State::Pending(reason));
            status.waypoint(name, seen);
            (settings, tell)
        });
        let waypoints = waypoints.collect();
        Ok(Self {
            node,
            waypoints,
            carrying,
            started,
        })
    }

    /// The runtimes of the threads that move bytes.
    pub(super) fn runtimes(&self) -> Vec<Handle> {
        let node = self.node.as_ref().map(|node| &node.workers);
        let all = node.into_iter().chain(&self.carrying);
        all.flat_map(Workers::handles).collect()
    }

    /// Runs them once this machine has joined.
    pub(super) async fn run(
        self,
        config: Config,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) {
        let Some(member) = member(&config, &shutdown).await else {
            return;
        };
        let (states, seen) = watch::channel(LocalStates::default());
        let addresses = config.control().addresses().iter();
        let addresses = addresses.map(ToString::to_string).collect();
        let served = self.waypoints.iter().map(|(settings, _)| &settings.name);
        let (agent, handle): (Agent, agent::Handle) = Agent::new(
            config.state_dir(),
            config.runtime_dir().join("trust"),
            member,
            addresses,
            CERTIFICATE_TTL,
            served.cloned().collect(),
            seen.clone(),
        );
        let mut roles = JoinSet::new();
        let (names, refresher) = resolve::names(resolve::System::default());
        let (asked_for, second) = resolve::names(resolve::System::default());
        let mut connections = Connections::default();
        let mut link = None;
        if let Some(node) = self.node {
            let shared = Shared::new(
                handle.mesh.clone(),
                handle.certs.clone(),
                node.powers.sockets,
                Arc::clone(&metrics),
                config.drain_deadline(),
                names.clone(),
                &node.workers,
            );
            let shared = shared.naming(names_of(&config)).carrying(quic_of(&config));
            connections = shared.connections.clone();
            let role = Node::new(Arc::new(shared), node.workers, states.clone());
            roles.spawn(role.run(shutdown.clone()));
            link = node.powers.link;
        }
        self.started.send_replace(Some(status::NodeHandle {
            agent: handle.clone(),
            states: seen,
            connections,
            keeper: link.as_ref().map(Link::state),
        }));
        for (settings, tell) in self.waypoints {
            let (mesh, certs) = (handle.mesh.clone(), handle.certs.clone());
            let metrics = Arc::clone(&metrics);
            let teller = Teller::new(settings.name.clone(), tell, states.clone());
            let names = waypoint::Lookups {
                configured: names.clone(),
                asked_for: asked_for.clone(),
            };
            let role = Waypoint::new(settings, mesh, certs, metrics, HostNetwork, names, teller);
            roles.spawn(role.run(shutdown.clone()));
        }
        let mut tasks = JoinSet::new();
        // The agent outlives the data plane, so that policy and certificates hold while it drains;
        // and so does the connection to the keeper, which opens what that needs.
        let agent_stop = CancellationToken::new();
        tasks.spawn(agent.run(agent_stop.clone()));
        if let Some(link) = link {
            tasks.spawn(link.run(agent_stop.clone()));
        }
        for refresher in [refresher, second] {
            tasks.spawn(refresher.run(agent_stop.clone()));
        }
        let gauges = gauges(handle.mesh, handle.link, metrics, agent_stop.clone());
        tasks.spawn(gauges);
        while let Some(done) = roles.join_next().await {
            if let Err(e) = done {
                error!(error = %e, "a role of this process died, stopping");
                shutdown.cancel();
            }
        }
        // Nothing runs on them any more.
        drop(self.carrying);
        agent_stop.cancel();
        while tasks.join_next().await.is_some() {}
    }
}

/// Counts what changes rarely.
async fn gauges(
    mut mesh: watch::Receiver<Arc<agent::MeshState>>,
    mut link: watch::Receiver<agent::Link>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    loop {
        if let Some(revision) = &mesh.borrow_and_update().revision {
            metrics.revision(revision.number);
        }
        let stale = link.borrow_and_update().stale_since();
        metrics.stale_since(stale.unwrap_or_default());
        tokio::select! {
            () = stop.cancelled() => return,
            changed = mesh.changed() => if changed.is_err() { return },
            changed = link.changed() => if changed.is_err() { return },
        }
    }
}

/// The node's identity. Where there is none yet, joins with the token file of the settings, or
/// waits for `lateen join`.
async fn joined(config: &Config, shutdown: &CancellationToken) -> Option<NodeIdentity> {
    let mut told = String::new();
    let mut tries = Tries::default();
    loop {
        let missing = match NodeIdentity::load(config.state_dir()) {
            Ok(Some(identity)) => return Some(identity),
            Ok(None) => join_by_file(config, &mut tries).await,
            Err(e) => Err(chain(&e)),
        };
        match missing {
            // The identity is there now.
            Ok(true) => continue,
            Err(reason) if reason != told => {
                warn!(error = reason, "this machine is no node of a mesh yet");
                told = reason;
            }
            // The same as before: perhaps a token that has not been brought yet.
            Ok(false) | Err(_) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// When a token may be tried: a new one at once, one that came to nothing less and less often.
#[derive(Debug, Default)]
struct Tries {
    token: String,
    wait: Duration,
    next: Option<Instant>,
}

impl Tries {
    fn may(&mut self, token: &str, now: Instant) -> bool {
        if self.token != token {
            *self = Self {
                token: token.to_owned(),
                ..Self::default()
            };
        }
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.wait = (self.wait * 2).clamp(LOOK, TIRED);
        self.next = Some(now + self.wait);
        true
    }
}

/// Whether it has joined; it has not, either, while there is nothing to be tried.
async fn join_by_file(config: &Config, tries: &mut Tries) -> Result<bool, String> {
    let control = config.control();
    let Some(path) = control
        .join_token_file()
        .filter(|_| !control.addresses().is_empty())
    else {
        return Err("run lateen join URL --token-file FILE".to_owned());
    };
    let token = std::fs::read_to_string(path);
    let token = token.map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let token = token.parse();
    let token: Token = token.map_err(|e: TokenError| format!("{}: {e}", path.display()))?;
    if !tries.may(&token.id, Instant::now()) {
        return Ok(false);
    }
    // Only one of several control planes knows the token.
    let mut refused = Vec::new();
    for url in control.addresses() {
        let url = url.to_string();
        match join(&url, &token, config.node(), config.state_dir()).await {
            Ok(joined) => {
                info!(id = %joined.id, "joined with the token file");
                return Ok(true);
            }
            Err(e) => refused.push(format!("{url}: {}", chain(&e))),
        }
    }
    Err(refused.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_came_to_nothing_does_not_use_up_what_others_have() {
        let begun = Instant::now();
        let mut tries = Tries::default();
        let looks = |tries: &mut Tries, token, seconds: std::ops::Range<u64>| {
            let looks = seconds.start * 2..seconds.end * 2;
            let times = looks.map(|look| begun + LOOK * u32::try_from(look).unwrap());
            times.filter(|now| tries.may(token, *now)).count()
        };
        assert_eq!(looks(&mut tries, "a", 0..1), 2, "at once, and soon again");
        looks(&mut tries, "a", 1..60);
        let later = looks(&mut tries, "a", 60..120);
        assert!((1..5).contains(&later), "{later} in a minute");
        assert_eq!(looks(&mut tries, "b", 120..121), 2, "another is new");
    }
}
