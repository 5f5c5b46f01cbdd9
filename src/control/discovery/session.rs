//! One delta discovery stream, as a pure state machine.
//!
//! Requests and new revisions go in, responses come out of [`Session::next_response`]; there is no
//! socket, clock or task in here. The rules are those of `spec/control-plane.md` §3.4, the order of
//! responses across types is §3.5's:
//!
//! * A policy goes out before the workloads that list it, and is withdrawn after them: an unknown
//!   policy name is skipped by stock proxies, which leaves the workload open.
//! * On a fresh stream the node's own workloads come last, after the policies, and the first answer
//!   for policies comes after the rest of the mesh, because it is what makes a stock proxy ready.
//! * Whom to believe goes out before everything: it may be that somebody is believed no more.
//! * What waypoints are told comes last of all: it speaks of services, policies and workloads.
//! * The revision resource closes every batch: it is sent once everything else subscribed on the
//!   stream has been sent in its current form. Subscribe it last.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::control::revision::{Kind, Revision};
use crate::wire::convert::delta::Response;
use crate::wire::proto::discovery::{DeltaDiscoveryRequest, Node};
use crate::wire::{LATEEN_VERSION, WAYPOINTS};
use prost_types::value::Kind as Value;

use super::subscription::{Batch, Subscription, Whose};

/// By which metadata a stock proxy tells its version.
const ISTIO_VERSION: &str = "ISTIO_VERSION";

/// How much goes into one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of encoded resources.
    pub bytes: usize,
    /// Resources.
    pub resources: usize,
}

impl Default for Chunk {
    /// 4 MiB, in any number of resources: §3.5 allows four times that, but a client reads a
    /// response as a whole before it makes anything of it.
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            resources: usize::MAX,
        }
    }
}

/// Why a stream cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The first message does not say who it is from.
    #[error("the first request names no node")]
    NoNode,
    /// The client calls itself another node than it is authenticated as.
    #[error("authenticated as node `{node}`, but NODE_NAME is `{claimed}`")]
    OtherNode {
        /// Who it is.
        node: Arc<str>,
        /// Who it says it is.
        claimed: String,
    },
    /// The mesh files do not declare the node, or no longer do.
    #[error("node `{node}` is not declared in the mesh files")]
    UnknownNode {
        /// The node.
        node: Arc<str>,
    },
    /// It asks for more names than any mesh has.
    #[error("more than {limit} resource names in one subscription")]
    TooManyNames {
        /// The limit.
        limit: usize,
    },
    /// It is so far behind that what changed since is no longer known.
    #[error("too far behind; reconnect with the versions held")]
    HistoryLost,
    /// A response stayed unacknowledged too long.
    #[error("a response stayed unacknowledged")]
    Unacknowledged,
}

/// What a request turned out to be, beyond the responses it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A subscription, or nothing worth telling.
    Noted,
    /// A type that is not served; it gets no answer.
    UnknownType,
    /// An acknowledgement.
    Acked {
        /// Of which type.
        kind: Kind,
        /// The revision that the client now has in full, as far as this type goes.
        revision: Option<u64>,
    },
    /// A refusal; the response is not repeated before its content changes.
    Nacked {
        /// Of which type.
        kind: Kind,
        /// The client's reason.
        message: String,
    },
}

/// Whom a stream is to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A node, which sees the mesh as it concerns it.
    Node(Arc<str>),
    /// Another control plane, which is told whom to believe and nothing else (§9.1).
    Control(Arc<str>),
}

impl Who {
    /// What it is called in the books. No node can be called as a control plane is there.
    pub fn label(&self) -> Arc<str> {
        match self {
            Self::Node(name) => Arc::clone(name),
            Self::Control(name) => Arc::from(format!("control {name}")),
        }
    }

    fn may(&self, kind: Kind) -> bool {
        matches!(self, Self::Node(_)) || kind == Kind::Trust
    }

    fn known(&self, revision: &Revision) -> Result<(), Refusal> {
        match self {
            Self::Node(node) if !revision.knows(node) => {
                let node = Arc::clone(node);
                Err(Refusal::UnknownNode { node })
            }
            Self::Node(_) | Self::Control(_) => Ok(()),
        }
    }
}

/// The state of one stream.
#[derive(Debug)]
pub struct Session {
    who: Who,
    whose: Whose,
    chunk: Chunk,
    revision: Arc<Revision>,
    trust: Option<Subscription>,
    address: Option<Subscription>,
    authorization: Option<Subscription>,
    placement: Option<Subscription>,
    waypoint: Option<Subscription>,
    announcement: Option<Subscription>,
}

impl Session {
    /// Starts a stream with its first request, which is then to be given to [`Session::request`].
    ///
    /// # Errors
    /// [`Refusal`] when it names no node or another than `who`, or the mesh does not know `who`.
    pub fn open(
        who: Who,
        first: Option<&Node>,
        revision: Arc<Revision>,
        chunk: Chunk,
    ) -> Result<Self, Refusal> {
        let first = first.filter(|n| !n.id.is_empty()).ok_or(Refusal::NoNode)?;
        let node = who.label();
        let claimed = metadata(first, "NODE_NAME").unwrap_or_default();
        if !claimed.is_empty() && *claimed != *node {
            let claimed = claimed.to_owned();
            return Err(Refusal::OtherNode { node, claimed });
        }
        who.known(&revision)?;
        let whose = Whose {
            node,
            rehearses: rehearses(first),
            waypoints: waypoints(first),
        };
        Ok(Self {
            who,
            whose,
            chunk,
            revision,
            trust: None,
            address: None,
            authorization: None,
            placement: None,
            waypoint: None,
            announcement: None,
        })
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// [`Refusal::TooManyNames`]; the stream is to be ended.
    pub fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<Outcome, Refusal> {
        let kind = Kind::of(&request.type_url).filter(|kind| self.who.may(*kind));
        let Some(kind) = kind else {
            return Ok(Outcome::UnknownType);
        };
        let (whose, revision) = (self.whose.clone(), self.revision.clone());
        let slot = self.slot(kind);
        let Some(subscription) = slot else {
            *slot = Some(Subscription::first(kind, whose, &revision, request)?);
            return Ok(Outcome::Noted);
        };
        let outcome = match request.response_nonce.as_str() {
            "" => Outcome::Noted,
            nonce => subscription.answered(nonce, request.error_detail),
        };
        // Names may come with an acknowledgement, even one that is too late: never lose them.
        subscription.adjust(
            &revision,
            request.resource_names_subscribe,
            &request.resource_names_unsubscribe,
        )?;
        Ok(outcome)
    }

    /// Moves on to a newer revision.
    ///
    /// # Errors
    /// [`Refusal::UnknownNode`] when it no longer has this node, [`Refusal::HistoryLost`] when the
    /// way from here to there is forgotten; the stream is to be ended.
    pub fn advance(&mut self, revision: Arc<Revision>) -> Result<(), Refusal> {
        self.who.known(&revision)?;
        let from = self.revision.number();
        if from == revision.number() {
            return Ok(());
        }
        let steps = revision.changes_since(from).ok_or(Refusal::HistoryLost)?;
        let node = self.whose.node.clone();
        for (changes, kind) in steps.flat_map(|c| Kind::ALL.map(|kind| (c, kind))) {
            if let (Some(names), Some(subscription)) = (changes.names(kind, &node), self.slot(kind))
            {
                subscription.changed(&revision, names);
            }
        }
        if let Some(announcement) = &mut self.announcement {
            announcement.owe();
        }
        self.revision = revision;
        Ok(())
    }

    /// The next response to send, until there is none for now.
    ///
    /// `nonce` must be new and hard to guess: a client that can quote it has read the response,
    /// which is what bounds the responses in flight to one per type.
    pub fn next_response(&mut self, now: Instant, nonce: u128) -> Option<Response> {
        let (kind, batch) = self.next_batch()?;
        if let (false, Some(announcement)) = (kind == Kind::Revision, &mut self.announcement) {
            announcement.owe();
        }
        let nonce = format!("{nonce:032x}");
        let number = self.revision.number();
        if let Some(subscription) = self.slot(kind) {
            subscription.sent(&nonce, now, number, &batch);
        }
        Some(Response {
            system_version_info: self.revision.version_info(),
            resources: batch.resources.iter().map(|r| r.encoded.clone()).collect(),
            type_url: kind.type_url().to_owned(),
            nonce,
            removed_resources: batch.removed.iter().map(ToString::to_string).collect(),
        })
    }

    /// Whether something asked for at first has not been sent in full.
    pub fn is_fresh(&self) -> bool {
        self.subscriptions().any(|(_, s)| s.is_fresh())
    }

    /// Since when the oldest response without an acknowledgement waits for it.
    pub fn waiting_since(&self) -> Option<Instant> {
        let subscriptions = self.subscriptions();
        let sent = subscriptions.filter_map(|(_, subscription)| subscription.waiting_since());
        sent.min()
    }

    fn next_batch(&self) -> Option<(Kind, Batch)> {
        let trust = self.trust().map(|b| (Kind::Trust, b));
        trust
            .or_else(|| self.policies().map(|b| (Kind::Authorization, b)))
            .or_else(|| self.addresses().map(|b| (Kind::Address, b)))
            .or_else(|| self.placements().map(|b| (Kind::Placement, b)))
            .or_else(|| self.waypoints().map(|b| (Kind::Waypoint, b)))
            .or_else(|| self.announcement().map(|b| (Kind::Revision, b)))
    }

    fn trust(&self) -> Option<Batch> {
        let trust = self.trust.as_ref()?.idle()?;
        trust.due(trust.all(&self.revision, self.chunk))
    }

    fn policies(&self) -> Option<Batch> {
        let policies = self.authorization.as_ref()?.idle()?;
        let address = self.address.as_ref();
        let remote_left = address.is_some_and(|a| a.is_fresh() && a.owes_remote(&self.revision));
        if !policies.was_answered() && remote_left {
            return None;
        }
        // What a workload may still list is not withdrawn.
        let withdraw = address.is_none_or(Subscription::is_sent);
        let mut batch = policies.upserts(&self.revision, self.chunk);
        if withdraw && batch.complete {
            batch.remove(policies.gone(&self.revision));
        }
        policies.due(batch)
    }

    fn addresses(&self) -> Option<Batch> {
        let address = self.address.as_ref()?.idle()?;
        let policies_sent = match &self.authorization {
            Some(policies) => policies.was_answered() && !policies.owes_upserts(&self.revision),
            // A client that has acknowledged an answer and still not asked for policies has none.
            None => !address.is_fresh() || address.was_acked(),
        };
        if !address.is_fresh() && !policies_sent {
            return None;
        }
        let mut batch = address.remote(&self.revision, self.chunk);
        if batch.complete && policies_sent {
            batch.append(address.own(&self.revision));
        }
        // Removals go last: a renamed workload's new form must not come after its old one's end.
        if batch.complete && (policies_sent || !address.owes_own(&self.revision)) {
            batch.remove(address.gone(&self.revision));
        }
        address.due(batch)
    }

    fn placements(&self) -> Option<Batch> {
        let placement = self.placement.as_ref()?.idle()?;
        placement.due(placement.all(&self.revision, self.chunk))
    }

    fn waypoints(&self) -> Option<Batch> {
        let waypoint = self.waypoint.as_ref()?.idle()?;
        waypoint.due(waypoint.all(&self.revision, self.chunk))
    }

    fn announcement(&self) -> Option<Batch> {
        let announcement = self.announcement.as_ref()?.idle()?;
        let settled = |(kind, s): (Kind, &Subscription)| kind == Kind::Revision || s.is_sent();
        if !self.subscriptions().all(settled) {
            return None;
        }
        announcement.due(announcement.all(&self.revision, self.chunk))
    }

    fn slot(&mut self, kind: Kind) -> &mut Option<Subscription> {
        match kind {
            Kind::Trust => &mut self.trust,
            Kind::Address => &mut self.address,
            Kind::Authorization => &mut self.authorization,
            Kind::Placement => &mut self.placement,
            Kind::Waypoint => &mut self.waypoint,
            Kind::Revision => &mut self.announcement,
        }
    }

    fn subscriptions(&self) -> impl Iterator<Item = (Kind, &Subscription)> {
        let all = [
            (Kind::Trust, &self.trust),
            (Kind::Address, &self.address),
            (Kind::Authorization, &self.authorization),
            (Kind::Placement, &self.placement),
            (Kind::Waypoint, &self.waypoint),
            (Kind::Revision, &self.announcement),
        ];
        all.into_iter()
            .filter_map(|(kind, slot)| Some((kind, slot.as_ref()?)))
    }
}

/// Whether a client knows policies that are only tried: ours do, and stock ones from 1.29 on. An
/// older one takes them for real (`spec/control-plane.md` §3.4 rule 7).
fn rehearses(node: &Node) -> bool {
    let number = |text: Option<&str>| text?.parse::<u32>().ok();
    let stock = || {
        let mut parts = metadata(node, ISTIO_VERSION)?.split(['.', '-']);
        Some((number(parts.next())?, number(parts.next())?) >= (1, 29))
    };
    metadata(node, LATEEN_VERSION).is_some() || stock() == Some(true)
}

/// The waypoints that a process says it is; none where it does not say (§8.2).
fn waypoints(node: &Node) -> Option<Arc<BTreeSet<String>>> {
    let fields = &node.metadata.as_ref()?.fields;
    let Value::ListValue(list) = fields.get(WAYPOINTS)?.kind.as_ref()? else {
        return None;
    };
    let names = list.values.iter().filter_map(|value| match &value.kind {
        Some(Value::StringValue(name)) => Some(name.clone()),
        _ => None,
    });
    Some(Arc::new(names.collect()))
}

/// A text in the node's metadata.
fn metadata<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod rehearsal;
#[cfg(test)]
mod tests;
