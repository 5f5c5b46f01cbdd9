//! Why a connection is let in, or is not: the whole way from a workload to an address, told step by
//! step.
//!
//! Nothing is decided here. Each step asks the function that a node asks when a program connects:
//! [`outbound::decide`], [`inbound::tunnelled`] and [`inbound::plaintext`], and the workload's
//! [`Guard`](crate::model::policy::Guard).

mod name;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::SpiffeId;
use crate::model::balance::{Candidate, Pick};
use crate::model::compile::{Assignments, CompileError, Observed, Reported, compile};
use crate::model::declaration::Mesh;
use crate::model::inbound::{self, Target};
use crate::model::outbound::{self, Route, Tunnelled};
use crate::model::policy::{Cause, Considered, Effect, Policies, Request, Verdict};
use crate::model::service::{Service, ServiceKey};
use crate::model::view::View;
use crate::model::workload::{TunnelProtocol, Workload};

pub use name::{Destination, QuestionError};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Question {
    /// The client: `namespace/workload`.
    pub from: String,
    /// Where it connects to: `host:port`, the host a name or an address.
    pub to: String,
}

/// The way of a connection and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// The client, as `namespace/workload`.
    pub from: String,
    /// What was asked for.
    pub to: String,
    /// Whether every way it may take is open.
    pub allowed: bool,
    /// What made it so, in words.
    pub reason: String,
    /// What happens before an endpoint is chosen.
    pub steps: Vec<Step>,
    /// One for each endpoint that may be chosen; none when it gets to no workload of the mesh.
    pub ways: Vec<Way>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// Which: `capture`, `name`, `route`, `transport`, `arrival`.
    pub stage: String,
    /// What happens.
    pub text: String,
}

/// The way to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Way {
    /// The workload, as `namespace/workload`.
    pub workload: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// Whether it is open.
    pub allowed: bool,
    /// What made it so, in words.
    pub reason: String,
    /// What happens on it.
    pub steps: Vec<Step>,
    /// Every policy that holds for the workload, in the order in which they count.
    pub policies: Vec<Judgement>,
}

/// What a policy has to say of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Judgement {
    /// `namespace/name`.
    pub policy: String,
    /// `ALLOW` or `DENY`.
    pub action: String,
    /// It is only tried.
    pub dry_run: bool,
    /// Whether it matches.
    pub matches: bool,
    /// Where it is written, the rule if one matches, as `file:line`; empty when unknown.
    pub place: String,
}

/// Answers a question by a view of the mesh.
///
/// # Errors
/// [`QuestionError`], when the question names something that does not exist.
pub fn explain(view: &View, question: &Question) -> Result<Explanation, QuestionError> {
    let source = name::workload(view, &question.from)?;
    let destination = name::destination(view, source, &question.to)?;
    let explained = Explaining {
        view,
        source,
        to: destination.address,
    };
    let mut explanation = Explanation {
        from: label(source),
        to: question.to.clone(),
        allowed: false,
        reason: String::new(),
        steps: vec![explained.captured()],
        ways: Vec::new(),
    };
    explanation.steps.extend(destination.step());
    explained.routes(&mut explanation);
    explanation.settle();
    Ok(explanation)
}

/// The mesh as it is meant to be: every enrolled workload captured, and healthy.
///
/// # Errors
/// [`CompileError`], when it does not compile.
pub fn intended(mesh: &Mesh) -> Result<View, CompileError> {
    let bare = compile(mesh, &Reported::default(), &Assignments::default())?;
    let placed = bare.placements.values().flat_map(|placed| &**placed);
    let captured = placed
        .filter(|placement| placement.enrolled)
        .map(|placement| {
            let captured = Observed {
                captured: true,
                ..Observed::default()
            };
            (Arc::clone(&placement.uid), captured)
        });
    let whole = compile(mesh, &captured.collect(), &bare.assignments)?;
    let policies = Arc::new(Policies::new(whole.policies));
    Ok(View::new(whole.workloads, whole.services).under(policies))
}

impl Explanation {
    /// Open when all ways are; what is said is said by the first that is not.
    fn settle(&mut self) {
        let closed = self.ways.iter().find(|way| !way.allowed);
        let Some(telling) = closed.or_else(|| self.ways.first()) else {
            return;
        };
        let open = self.ways.iter().filter(|way| way.allowed).count();
        self.allowed = telling.allowed;
        self.reason = match (open, self.ways.len()) {
            (0, _) | (_, 1) => telling.reason.clone(),
            (open, all) if open == all => telling.reason.clone(),
            (open, all) => format!(
                "it depends on the endpoint: {open} of {all} let it in, and {} does not: {}",
                telling.workload, telling.reason
            ),
        };
    }
}

fn label(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

fn step(stage: &str, text: impl Into<String>) -> Step {
    Step {
        stage: stage.to_owned(),
        text: text.into(),
    }
}

/// Takes every turn once.
struct Turn {
    now: usize,
    of: usize,
}

impl Pick for Turn {
    fn pick(&mut self, _service: &ServiceKey, _port: u16, candidates: &[Candidate<'_>]) -> usize {
        self.of = candidates.len();
        self.now
    }
}

struct Explaining<'a> {
    view: &'a View,
    source: &'a Arc<Workload>,
    to: SocketAddr,
}

/// What arrives at a workload.
struct Arrival<'a> {
    identity: Option<SpiffeId>,
    source: IpAddr,
    at: SocketAddr,
    service: Option<&'a Service>,
}

impl Explaining<'_> {
    fn captured(&self) -> Step {
        let who = match self.source.identity() {
            Ok(identity) => identity.to_string(),
            Err(_illegal) => "nobody".to_owned(),
        };
        let text = match self.source.tunnel {
            TunnelProtocol::Hbone => format!("{} is captured, as {who}", label(self.source)),
            TunnelProtocol::None => format!(
                "{} is not captured: what it sends leaves as it is, from nobody",
                label(self.source)
            ),
        };
        step("capture", text)
    }

    fn routes(&self, explanation: &mut Explanation) {
        if self.source.addresses.contains(&self.to.ip()) {
            explanation.allowed = true;
            explanation.reason = format!("{} is the workload itself: it is not left", self.to);
            explanation
                .steps
                .push(step("route", explanation.reason.clone()));
            return;
        }
        if self.source.tunnel == TunnelProtocol::None {
            return self.uncaptured(explanation);
        }
        let mut turn = Turn { now: 0, of: 1 };
        while turn.now < turn.of {
            match outbound::decide(self.view, self.source, self.to, &mut turn) {
                Err(refusal) => {
                    explanation.reason = format!("refused by the client's node: {refusal}");
                    explanation.steps.push(step("route", refusal.to_string()));
                    return;
                }
                Ok(Route::Passthrough { to }) => {
                    explanation.allowed = true;
                    explanation.reason =
                        format!("{to} is no workload's address: sent there as it is");
                    let text = format!("{to} is passed through as it is");
                    explanation.steps.push(step("route", text));
                    return;
                }
                Ok(Route::Plain { endpoint, .. }) => {
                    explanation
                        .ways
                        .push(open(&endpoint.workload, endpoint.address));
                }
                Ok(Route::Tunnel(route)) => explanation.ways.push(self.through(&route)),
            }
            turn.now += 1;
        }
        if turn.of > 1 {
            let text = format!("{} endpoints may be chosen", turn.of);
            explanation.steps.push(step("route", text));
        }
    }

    /// The client's own address, of the family of the other; none when it has none.
    fn address(&self, like: IpAddr) -> Option<IpAddr> {
        let mut own = self.source.addresses.iter();
        own.find(|a| a.is_ipv4() == like.is_ipv4()).copied()
    }

    /// No way there.
    fn no_way(&self, workload: &Workload, at: SocketAddr) -> Way {
        let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
        Way {
            workload: label(workload),
            address: at,
            allowed: false,
            reason: format!(
                "{} has no {family} address to connect from",
                label(self.source)
            ),
            steps: Vec::new(),
            policies: Vec::new(),
        }
    }

    /// Nobody resolves services for it, nor speaks for it.
    fn uncaptured(&self, explanation: &mut Explanation) {
        let network = &self.source.network;
        let to = self.to;
        if let Some(workload) = self.view.workload_at(network, to.ip()) {
            let way = match workload.tunnel {
                TunnelProtocol::None => open(workload, to),
                TunnelProtocol::Hbone => self.plain(workload),
            };
            explanation.ways.push(way);
            return;
        }
        let vip = self.view.is_vip(network, to.ip());
        explanation.allowed = !vip;
        explanation.reason = match vip {
            true => format!(
                "{to} is a service's address, where nobody answers but for captured workloads"
            ),
            false => format!("{to} is not of the mesh, and nothing of the mesh is on the way"),
        };
        explanation
            .steps
            .push(step("route", explanation.reason.clone()));
    }

    fn through(&self, route: &Tunnelled) -> Way {
        let Some(source) = self.address(route.hop.ip()) else {
            return self.no_way(&route.workload, route.target);
        };
        let arrival = Arrival {
            identity: self.source.identity().ok(),
            source,
            at: route.target,
            service: route.service.as_deref(),
        };
        self.tunnelled(&route.workload, route.hop, &arrival)
    }

    fn tunnelled(&self, workload: &Workload, hop: SocketAddr, arrival: &Arrival<'_>) -> Way {
        let via = format!(
            "HBONE to {} at {hop}, asking for {}",
            label(workload),
            arrival.at
        );
        let host = arrival.service.map(|s| &*s.key.hostname);
        let target = Target::Address(arrival.at);
        let delivery = inbound::tunnelled(self.view, workload, hop.ip(), target, host);
        self.arrive(workload, arrival, step("transport", via), delivery)
    }

    fn plain(&self, workload: &Workload) -> Way {
        let Some(source) = self.address(self.to.ip()) else {
            return self.no_way(workload, self.to);
        };
        let arrival = Arrival {
            identity: None,
            source,
            at: self.to,
            service: None,
        };
        let via = step(
            "transport",
            format!("plain text to {} at {}", label(workload), self.to),
        );
        let delivery = inbound::plaintext(self.view, workload, self.to);
        self.arrive(workload, &arrival, via, delivery)
    }

    /// What the server's node does with it.
    fn arrive(
        &self,
        workload: &Workload,
        arrival: &Arrival<'_>,
        via: Step,
        delivery: Result<inbound::Delivery, inbound::Refusal>,
    ) -> Way {
        let mut way = Way {
            workload: label(workload),
            address: arrival.at,
            allowed: false,
            reason: String::new(),
            steps: vec![via],
            policies: Vec::new(),
        };
        let delivery = match delivery {
            Ok(delivery) => delivery,
            Err(refusal) => {
                way.reason = format!("refused by the server's node: {refusal}");
                way.steps.push(step("arrival", refusal.to_string()));
                return way;
            }
        };
        let request = Request::new(arrival.identity.as_ref(), arrival.source, delivery.to);
        let who = match &arrival.identity {
            Some(identity) => identity.to_string(),
            None => "nobody".to_owned(),
        };
        let seen = format!("seen as {who} from {}, to {}", arrival.source, delivery.to);
        way.steps.push(step("arrival", seen));
        let guard = self.view.policies().guard(workload);
        way.policies = guard.consider(&request).iter().map(judgement).collect();
        let rehearsed = guard.rehearse(&request);
        let rehearsed = rehearsed.iter().map(|r| step("dry-run", r.to_string()));
        way.steps.extend(rehearsed);
        match guard.judge(&request) {
            Verdict::Denied(denial) => way.reason = denial.to_string(),
            Verdict::Allowed(by) => {
                way.allowed = true;
                way.reason = match by {
                    Some(cause) => format!("allowed by {cause}"),
                    None => "no policy that allows holds for it, so nothing has to".to_owned(),
                };
            }
        }
        way
    }
}

/// To a workload that is not captured.
fn open(workload: &Workload, at: SocketAddr) -> Way {
    let via = format!("plain text to {} at {at}", label(workload));
    Way {
        workload: label(workload),
        address: at,
        allowed: true,
        reason: format!(
            "{} is not captured: no policy is enforced there",
            label(workload)
        ),
        steps: vec![step("transport", via)],
        policies: Vec::new(),
    }
}

fn judgement(considered: &Considered) -> Judgement {
    let policy = &considered.policy;
    let cause = Cause {
        policy: Arc::clone(policy),
        rule: considered.matched,
    };
    Judgement {
        policy: policy.key.to_string(),
        action: match policy.effect {
            Effect::Allow => "ALLOW".to_owned(),
            Effect::Deny => "DENY".to_owned(),
        },
        dry_run: policy.dry_run,
        matches: considered.matched.is_some(),
        place: cause.place().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
