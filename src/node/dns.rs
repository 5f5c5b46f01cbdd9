//! Answers what programs ask of name servers: names of the mesh from the view, all others from the
//! servers that they would have asked (`spec/hbone-dataplane.md` §5).
//!
//! One [`Answering`] per network, and in it one of the [`ways`] per workload: what one asks is neither
//! answered from another's servers nor kept with what that was told. What a name means is decided by [`crate::model::names`], what a
//! message says by [`crate::dns`]; the listeners are [`listen`]'s business, other servers those of
//! [`forward`] and what is behind it.

mod cache;
mod forward;
mod host;
mod listen;
mod resolved;
mod servers;
#[cfg(test)]
mod tests;
mod upstream;
mod ways;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::debug;

use crate::agent::MeshState;
use crate::capture::ruleset::MARK_MASK;
use crate::dns::{self, Code, IN, Kind, Name, Query, Transport};
use crate::model::names::{Asker, CLUSTER_DOMAIN, Family, Named, Names, addresses};
use crate::model::workload::Workload;
use crate::telemetry::{DnsLabels, Metrics};
pub(super) use host::Host;
pub use host::Told;
pub(super) use listen::{Listeners, serve};
pub use resolved::{Finding, LINK as RESOLVED_LINK, Resolver, by_hand};
pub(super) use servers::Servers;
pub(super) use upstream::Upstream;
use ways::{Way, Ways};

/// Where captured questions for names arrive.
pub(super) const PORT: u16 = 15053;
/// How long an answer of ours counts.
const LIFE: Duration = Duration::from_secs(30);
/// How long a question waits for whoever asks it to appear in the view.
const WAIT: Duration = Duration::from_secs(5);
/// Questions that are being followed up at once by this process (`spec/reliability.md` §2b).
const FLYING: usize = 4096;

/// What this host's settings say of names.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether what workloads ask is captured where they do not say.
    pub capture: bool,
    /// The domain of a mesh whose control plane does not tell it.
    pub domain: Arc<str>,
    /// Of services that share a name, those of this namespace come first.
    pub preferred: Option<Arc<str>>,
    /// Where programs of the host may ask.
    pub listen: Option<SocketAddr>,
    /// Whether the host's resolver does.
    pub told: Told,
}

impl Default for Settings {
    /// As a host without settings has it, but that its programs may not ask.
    fn default() -> Self {
        Self {
            capture: true,
            domain: Arc::from(CLUSTER_DOMAIN),
            preferred: None,
            listen: None,
            told: Told::Never,
        }
    }
}

/// What the networks of a host share.
#[derive(Clone)]
pub(super) struct Common {
    mesh: watch::Receiver<Arc<MeshState>>,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    flying: Arc<Semaphore>,
    /// The workloads on the host's own network, by the marks of what they send.
    marks: Arc<RwLock<HashMap<u32, Arc<str>>>>,
}

impl Common {
    pub(super) fn new(
        mesh: watch::Receiver<Arc<MeshState>>,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            mesh,
            settings: Arc::new(settings),
            metrics,
            flying: Arc::new(Semaphore::new(FLYING)),
            marks: Arc::default(),
        }
    }

    /// From now on, what bears one of these marks on the host's network is of that workload.
    pub(super) fn know(&self, marks: HashMap<u32, Arc<str>>) {
        *self.marks.write().unwrap_or_else(PoisonError::into_inner) = marks;
    }

    fn marked(&self, mark: u32) -> Option<Arc<str>> {
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        marks.get(&(mark & MARK_MASK)).cloned()
    }

    /// Those workloads.
    fn present(&self) -> HashSet<Arc<str>> {
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        marks.values().cloned().collect()
    }

    /// Whether what a workload asks is captured, given its own word.
    pub(super) fn captures(&self, own: Option<bool>) -> bool {
        own.unwrap_or(self.settings.capture)
    }
}

/// Who asks on a network.
#[derive(Clone, Debug)]
pub(super) enum Client {
    /// The workload with this uid.
    Workload(Arc<str>),
    /// Programs of the host, or its resolver for them. Of those that are no workloads, known by the mark
    /// of what they send, only names that mean the same to everybody are answered. Nobody else is asked for
    /// names of the mesh, since that resolver would be.
    Host,
}

/// Who answers on a network.
pub(super) struct Answering {
    client: Client,
    common: Common,
    ways: Ways,
}

/// What is known of who asks.
struct Known {
    state: Arc<MeshState>,
    workload: Option<Arc<Workload>>,
}

/// What becomes of a question.
enum Outcome {
    /// It is answered.
    Reply(Vec<u8>),
    /// Whoever else knows is asked.
    Forward,
}

impl Answering {
    pub(super) fn new(client: Client, common: Common, upstream: Upstream) -> Self {
        Self {
            client,
            common,
            ways: Ways::new(upstream),
        }
    }

    /// What is there to be said at once: nothing, where somebody has to be waited for or asked.
    fn at_once(&self, query: &Query, transport: Transport, mark: u32) -> Option<Vec<u8>> {
        let known = self.known(mark)?;
        match self.judge(&known, query, transport) {
            Outcome::Reply(reply) => {
                self.labels(query, transport, &known).count(&self.common);
                Some(reply)
            }
            Outcome::Forward => None,
        }
    }

    /// The answer to a question, whatever it takes.
    async fn in_time(&self, query: &Query, transport: Transport, mark: u32) -> Vec<u8> {
        let known = match self.known(mark) {
            Some(known) => known,
            None => match timeout(WAIT, self.appears(mark)).await {
                Ok(Some(known)) => known,
                Ok(None) | Err(_) => return dns::empty(query, Code::FAILURE, false),
            },
        };
        let labels = self.labels(query, transport, &known);
        labels.count(&self.common);
        if let Outcome::Reply(reply) = self.judge(&known, query, transport) {
            return reply;
        }
        let way = self.way(&known);
        let all = &self.common.flying;
        let (Ok(_place), Ok(_room)) = (way.flying.try_acquire(), all.try_acquire()) else {
            self.common.metrics.dns().overloaded();
            return dns::empty(query, Code::FAILURE, false);
        };
        let counted = labels.forwarding(&self.common);
        let reply = way.forwarder.answer(query, transport, counted).await;
        self.told(&known, query, None, "forwarded", &[]);
        reply
    }

    /// Who asks, as the mesh has it now; `None` while that is not known.
    fn known(&self, mark: u32) -> Option<Known> {
        let state = Arc::clone(&self.common.mesh.borrow());
        let workload = match &self.client {
            Client::Workload(uid) => Some(Arc::clone(state.view.workload(uid)?)),
            // Before the first view nothing is known to be no name of the mesh.
            Client::Host if !state.is_heard() => return None,
            Client::Host => match self.common.marked(mark) {
                Some(uid) => Some(Arc::clone(state.view.workload(&uid)?)),
                None => None,
            },
        };
        Some(Known { state, workload })
    }

    async fn appears(&self, mark: u32) -> Option<Known> {
        let mut mesh = self.common.mesh.clone();
        loop {
            // Marked as seen before it is looked at, so that no change goes by unseen.
            mesh.borrow_and_update();
            if let Some(known) = self.known(mark) {
                return Some(known);
            }
            mesh.changed().await.ok()?;
        }
    }

    fn way(&self, known: &Known) -> Arc<Way> {
        match (&self.client, &known.workload) {
            (Client::Host, Some(workload)) => self.ways.of(&workload.uid, || self.common.present()),
            (Client::Host, None) | (Client::Workload(_), _) => Arc::clone(self.ways.own()),
        }
    }

    fn judge(&self, known: &Known, query: &Query, transport: Transport) -> Outcome {
        match self.of_mesh(known, query, transport) {
            Outcome::Forward => {
                let remembered = self.way(known).forwarder.remembered(query, transport);
                let Some(reply) = remembered else {
                    return Outcome::Forward;
                };
                self.told(known, query, None, "remembered", &[]);
                Outcome::Reply(reply)
            }
            reply @ Outcome::Reply(_) => reply,
        }
    }

    /// What the mesh has to say to a question.
    fn of_mesh(&self, known: &Known, query: &Query, transport: Transport) -> Outcome {
        let asked = &query.question;
        let Some(host) = asked.name.host().filter(|_| asked.class == IN) else {
            return Outcome::Forward;
        };
        let names = self.names(&known.state);
        let view = &known.state.view;
        let asker = known
            .workload
            .as_deref()
            .map_or_else(Asker::default, Asker::from);
        let family = match asked.kind {
            Kind::A => Some(Family::V4),
            Kind::AAAA => Some(Family::V6),
            _ => None,
        };
        let last_to_know = matches!(self.client, Client::Host) && names.owns(&host);
        let named = match family.is_some() || last_to_know {
            true => names.find(view, asker, &host),
            false => None,
        };
        match (named, family) {
            (Some(named), Some(family)) => {
                let mut addresses = addresses(view, named.service, asker.network, family);
                addresses.shuffle(&mut rand::rng());
                let short = named.short.and_then(Name::of);
                let short = short.as_ref();
                self.told(known, query, Some(&named), "answered", &addresses);
                Outcome::Reply(dns::addresses(query, short, &addresses, LIFE, transport))
            }
            (Some(_), None) => Outcome::Reply(dns::empty(query, Code::OK, true)),
            (None, _) if last_to_know => {
                let code = if names.is_above(&host) {
                    Code::OK
                } else {
                    Code::NO_NAME
                };
                Outcome::Reply(dns::empty(query, code, true))
            }
            (None, _) => Outcome::Forward,
        }
    }

    fn names(&self, state: &MeshState) -> Names {
        let settings = &self.common.settings;
        let told = state.domain().map(Arc::from);
        let domain = told.unwrap_or_else(|| Arc::clone(&settings.domain));
        Names::new(domain, settings.preferred.clone())
    }

    fn labels(&self, query: &Query, transport: Transport, known: &Known) -> Labelled {
        let kind = query.question.kind.label();
        Labelled(DnsLabels::new(
            kind,
            transport.as_str(),
            known.workload.as_deref(),
        ))
    }

    fn told(
        &self,
        known: &Known,
        query: &Query,
        named: Option<&Named<'_>>,
        result: &'static str,
        endpoints: &[IpAddr],
    ) {
        debug!(
            target: "dns",
            {
                src.workload = known.workload.as_deref().map(|w| &*w.name),
                src.namespace = known.workload.as_deref().map(|w| &*w.namespace),
                query = %query.question.kind,
                domain = %query.question.name,
                service = named.map(|named| tracing::field::display(&named.service.key)),
                result,
                ?endpoints
            },
            "name asked for"
        );
    }
}

/// What a question is counted under.
struct Labelled(DnsLabels);

impl Labelled {
    fn count(&self, common: &Common) {
        common.metrics.dns().asked(&self.0);
    }

    fn forwarding(self, common: &Common) -> forward::Counted {
        forward::Counted {
            labels: self.0,
            metrics: Arc::clone(&common.metrics),
        }
    }
}
