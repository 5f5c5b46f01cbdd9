//! The way of a connection, asked of the functions that decide it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::filtered::{Client, judged};
use super::limited::limited;
use super::request::{self, Leads, Read, lead};
use super::told::telling;
use super::traced::traced;
use super::{Explanation, Judgement, Step, Way, label, step};
use crate::identity::SpiffeId;
use crate::model::balance::{Candidate, Pick};
use crate::model::compile::Waypoints;
use crate::model::inbound::{self, Caller, Target};
use crate::model::outbound::{self, Route, Tunnelled};
use crate::model::policy::{Cause, Considered, Effect, Request, Verdict};
use crate::model::route;
use crate::model::service::{AppProtocol, Service, ServiceKey};
use crate::model::view::View;
use crate::model::waypoint::{
    self, AttachedSet, Bound, Destination, Picking, Resolution, Resources, WaypointName,
};
use crate::model::workload::{Transport, TunnelProtocol, Workload};

/// Takes every turn once.
pub(super) struct Turn {
    pub(super) now: usize,
    pub(super) of: usize,
}

impl Pick for Turn {
    fn pick(&mut self, _service: &ServiceKey, _port: u16, candidates: &[Candidate<'_>]) -> usize {
        self.of = self.of.max(candidates.len());
        // Of a second choice on the same way, such as a waypoint's instance, any will do.
        self.now % candidates.len().max(1)
    }
}

/// A question while it is answered.
pub(super) struct Explaining<'a> {
    pub(super) view: &'a View,
    pub(super) source: &'a Arc<Workload>,
    pub(super) to: SocketAddr,
    /// What waypoints are told, as far as it is known.
    pub(super) waypoints: &'a Waypoints,
    /// What is asked for.
    pub(super) request: Option<Read>,
}

/// What arrives at a workload.
pub(super) struct Arrival<'a> {
    pub(super) identity: Option<SpiffeId>,
    pub(super) source: IpAddr,
    pub(super) at: SocketAddr,
    pub(super) service: Option<&'a Service>,
}

impl Explaining<'_> {
    /// Whether the client's node is on the way at all.
    pub(super) fn captured(&self) -> Step {
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

    /// Where it goes from there, and what becomes of it.
    pub(super) fn routes(&self, explanation: &mut Explanation) {
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
                Ok(Route::Named { workload, port, .. }) => {
                    explanation.allowed = true;
                    let (name, to) = (label(&workload), &workload.hostname);
                    explanation.reason =
                        format!("{name} is known by its name: sent to {to}:{port} as it is");
                    let text = format!("{to}:{port} is looked up, and passed through as it is");
                    explanation.steps.push(step("route", text));
                    return;
                }
                Ok(Route::Tunnel(route))
                    if !route.workload.addresses.contains(&route.target.ip()) =>
                {
                    self.by_waypoint(&route, explanation);
                }
                Ok(Route::Tunnel(route)) => {
                    explanation.ways.push(self.through(self.source, &route))
                }
            }
            turn.now += 1;
        }
        if explanation.ways.len() > 1 {
            let text = format!("{} endpoints may be chosen", explanation.ways.len());
            explanation.steps.push(step("route", text));
        }
    }

    /// The tunnel ends at a waypoint, which goes on as itself; told once of each waypoint.
    fn by_waypoint(&self, route: &Tunnelled, explanation: &mut Explanation) {
        let instance = &route.workload;
        let (name, to) = (label(instance), route.target);
        let text = format!(
            "{to} is behind waypoint {name}: {} to {}, asking for {to}; it goes on as itself",
            tunnel(self.source, instance),
            route.hop
        );
        let text = step("waypoint", text);
        if explanation.steps.contains(&text) {
            return;
        }
        explanation.steps.push(text);
        let told = self.told(instance);
        let target = Target::Address(to);
        let bound = match waypoint::admit(self.view, told.map(|t| &**t), instance, target) {
            Ok(bound) => bound,
            Err(refusal) => {
                explanation.reason = format!("refused by waypoint {name}: {refusal}");
                return;
            }
        };
        let request = self.request.as_ref();
        let mut request = request.map(|r| told.map_or_else(|| r.clone(), |told| r.at(told)));
        if let Some(told) = told
            && let Err((status, why)) =
                self.filtered(told, route, &bound, request.as_mut(), explanation)
        {
            return match request {
                Some(_) if is_http(&bound) => answered(&name, status, &why, explanation),
                _ => explanation.reason = format!("closed by waypoint {name}: {why}"),
            };
        }
        if let (Some(told), Some(request)) = (told, &request)
            && is_http(&bound)
        {
            traced(told, &bound, request, &mut explanation.steps);
        }
        let routed = request.filter(|_| bound.service().is_some());
        if let Some(request) = routed {
            let Some(told) = told else {
                let text = "its routes are not known on this node; `--dir` tells of them";
                explanation.steps.push(step("rule", text));
                return self.onward(None, instance, &bound, explanation);
            };
            let namespace = &self.source.namespace;
            return match lead(told, &bound, &request, namespace, &mut explanation.steps) {
                Leads::Itself => self.onward(Some(&**told), instance, &bound, explanation),
                Leads::To(targets) => self.shared(told, instance, &bound, &targets, explanation),
                Leads::Answered(status, why) => answered(&name, status, &why, explanation),
                Leads::Closed(why) => {
                    explanation.reason = format!("closed by waypoint {name}: {why}");
                }
            };
        }
        self.onward(told.map(|t| &**t), instance, &bound, explanation);
    }

    /// Asks the policies of a waypoint, and its rate limits. Where those look at requests and none is asked
    /// about, they have no say yet.
    fn filtered(
        &self,
        told: &Resources,
        route: &Tunnelled,
        bound: &Bound,
        mut request: Option<&mut Read>,
        explanation: &mut Explanation,
    ) -> Result<(), (u16, String)> {
        let Some(source) = address(self.source, route.hop.ip()) else {
            return Ok(());
        };
        let client = Client::new(self.source, source);
        let http = is_http(bound);
        if http && request.is_none() {
            let attached = told.attached_to(bound);
            let looks = |set: &AttachedSet| {
                let AttachedSet {
                    policies,
                    authentications,
                    limits,
                    telemetry: _,
                } = set;
                !(policies.is_empty() && authentications.is_empty() && limits.is_empty())
            };
            if attached.is_some_and(looks) {
                let text = "policies of the waypoint look at each request; `--path` and its like ask about one";
                explanation.steps.push(step("policy", text));
            }
            return Ok(());
        }
        telling(told, bound, &mut explanation.steps);
        let steps = &mut explanation.steps;
        request = request.filter(|_| http);
        judged(told, bound, &client, request.as_deref_mut(), steps)?;
        match request {
            Some(request) => {
                limited(told, bound, &client, request, steps).map_err(|why| (503, why))
            }
            None => Ok(()),
        }
    }

    /// What a waypoint's instance is told.
    fn told(&self, instance: &Workload) -> Option<&Arc<Resources>> {
        let serves = |name: &WaypointName| {
            let mut services = instance.services.keys();
            name.name == instance.name
                || services.any(|key| self.view.service(key).is_some_and(|s| s.name == name.name))
        };
        let mut all = self.waypoints.iter();
        let own = all.find(|(name, _)| name.namespace == instance.namespace && serves(name));
        own.map(|(_, told)| told)
    }

    /// To the backends of a rule.
    fn shared(
        &self,
        told: &Resources,
        instance: &Arc<Workload>,
        bound: &Bound,
        targets: &[route::Target],
        explanation: &mut Explanation,
    ) {
        let name = label(instance);
        for target in targets {
            let words = request::target(target);
            let route::Target::Service { key, port, subset } = target else {
                answered(&name, 500, &format!("backend {words}"), explanation);
                continue;
            };
            let binding = told.services.get(key);
            let mut subsets = binding.into_iter().flat_map(|b| &b.subsets);
            let part = subset
                .as_ref()
                .map(|name| subsets.find(|s| s.name == *name));
            let asked = bound.asked();
            let to = Destination::Service {
                key,
                port: if *port == 0 { asked.port() } else { *port },
                subset: part.flatten(),
                asked,
            };
            if part.is_some_and(|found| found.is_none()) {
                answered(&name, 503, &format!("no such subset: {words}"), explanation);
                continue;
            }
            let mut turn = Turn { now: 0, of: 1 };
            while turn.now < turn.of {
                let picking = Picking::default();
                let route = waypoint::toward(self.view, instance, &to, &picking, &mut turn);
                match self.way(instance, route, explanation) {
                    Ok(Some(way)) => explanation.ways.push(way),
                    Ok(None) => {}
                    Err(refusal) => {
                        answered(&name, 503, &format!("{words}: {refusal}"), explanation);
                        break;
                    }
                }
                turn.now += 1;
            }
        }
    }

    /// To the endpoints of what was asked for.
    fn onward(
        &self,
        told: Option<&Resources>,
        instance: &Arc<Workload>,
        bound: &Bound,
        explanation: &mut Explanation,
    ) {
        let name = label(instance);
        let binding = bound.service().zip(told);
        let binding = binding.and_then(|(service, told)| told.services.get(&service.key));
        let external = binding.and_then(|binding| binding.external.as_ref());
        if external.is_some_and(|external| external.resolution == Resolution::DynamicDns) {
            let text = "the host that a request names is looked up, as each asks for it";
            explanation.steps.push(step("waypoint", text));
            explanation.allowed = true;
            explanation.reason =
                format!("sent on by waypoint {name} to the host that is asked for");
            return;
        }
        let mut turn = Turn { now: 0, of: 1 };
        while turn.now < turn.of {
            let route = waypoint::onward(self.view, instance, bound, &[], &mut turn);
            match self.way(instance, route, explanation) {
                Ok(Some(way)) => explanation.ways.push(way),
                Ok(None) => return,
                Err(refusal) => {
                    explanation.reason = format!("refused by waypoint {name}: {refusal}");
                    return;
                }
            }
            turn.now += 1;
        }
    }

    /// The way on from a waypoint; none where it leaves the mesh.
    fn way(
        &self,
        instance: &Workload,
        route: Result<Route, outbound::Refusal>,
        explanation: &mut Explanation,
    ) -> Result<Option<Way>, String> {
        match route {
            Ok(Route::Tunnel(onward)) => Ok(Some(self.through(instance, &onward))),
            Ok(Route::Plain { endpoint, .. }) => {
                Ok(Some(open(&endpoint.workload, endpoint.address)))
            }
            Ok(Route::Passthrough { to }) => {
                explanation.allowed = true;
                explanation.reason = format!("sent on to {to} as it is");
                Ok(None)
            }
            Ok(Route::Named { workload, port, .. }) => {
                let name = label(&workload);
                let text = format!("{}:{port} is looked up for {name}", workload.hostname);
                explanation.steps.push(step("waypoint", text));
                explanation.allowed = true;
                explanation.reason = format!("sent on to {name} as it is");
                Ok(None)
            }
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    /// No way there.
    pub(super) fn no_way(source: &Workload, workload: &Workload, at: SocketAddr) -> Way {
        let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
        Way {
            workload: label(workload),
            address: at,
            allowed: false,
            reason: format!("{} has no {family} address to connect from", label(source)),
            steps: Vec::new(),
            policies: Vec::new(),
        }
    }

    /// Nobody resolves services for it, nor speaks for it.
    fn uncaptured(&self, explanation: &mut Explanation) {
        let network = &self.source.network;
        let to = self.to;
        let own = self.view.workload_at(network, to.ip());
        let sharer = || self.view.sharer_at(network, to);
        if let Some(workload) = own.or_else(sharer) {
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

    /// From the client, or from the waypoint that goes on.
    fn through(&self, from: &Workload, route: &Tunnelled) -> Way {
        let Some(source) = address(from, route.hop.ip()) else {
            return Self::no_way(from, &route.workload, route.target);
        };
        let arrival = Arrival {
            identity: from.identity().ok(),
            source,
            at: route.target,
            service: route.service.as_deref(),
        };
        self.tunnelled(tunnel(from, &route.workload), route, &arrival)
    }

    fn tunnelled(&self, by: &str, route: &Tunnelled, arrival: &Arrival<'_>) -> Way {
        let (workload, hop) = (&*route.workload, route.hop);
        let name = route.name.as_deref();
        let name = name.map_or_else(String::new, |name| format!(" by the name {name}"));
        let via = format!(
            "{by} to {} at {hop}{name}, asking for {}",
            label(workload),
            arrival.at
        );
        let target = Target::Address(arrival.at);
        let caller = Caller {
            peer: arrival.identity.as_ref(),
            host: arrival.service.map(|s| &*s.key.hostname),
        };
        let delivery = inbound::tunnelled(self.view, workload, hop.ip(), target, caller);
        self.arrive(workload, arrival, step("transport", via), delivery)
    }

    fn plain(&self, workload: &Workload) -> Way {
        let Some(source) = address(self.source, self.to.ip()) else {
            return Self::no_way(self.source, workload, self.to);
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
    pub(super) fn arrive(
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
        let request = Request::new(arrival.identity.as_ref(), Some(arrival.source), delivery.to);
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

/// Whether requests are looked at there. What nobody declares is taken to be some.
fn is_http(bound: &Bound) -> bool {
    !matches!(bound.app_protocol(), AppProtocol::Tcp | AppProtocol::Tls)
}

/// Answered by a waypoint, at least for some of the requests. The first such answer is what is told.
fn answered(waypoint: &str, status: u16, why: &str, explanation: &mut Explanation) {
    let text = format!("{status} by waypoint {waypoint}: {why}");
    explanation.steps.push(step("answer", text.clone()));
    if explanation.status.is_none() {
        explanation.status = Some(status);
        explanation.allowed = status < 400;
        explanation.reason = format!("answered {text}");
    }
}

/// By what one workload reaches another.
pub(super) fn tunnel(from: &Workload, to: &Workload) -> &'static str {
    match from.transport.between(to.transport) {
        Transport::Tcp => "HBONE",
        Transport::Auto => "HBONE over QUIC or TCP",
        Transport::Quic => "HBONE over QUIC",
    }
}

/// One of a workload's addresses, of the family of the other; none when it has none.
pub(super) fn address(of: &Workload, like: IpAddr) -> Option<IpAddr> {
    let mut own = of.addresses.iter();
    own.find(|a| a.is_ipv4() == like.is_ipv4()).copied()
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
