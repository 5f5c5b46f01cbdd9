//! What a policy at a waypoint does beside what it reads like (`spec/labels-and-policy.md` §3.4,
//! `spec/waypoint-l7.md` §4.3).

use crate::config::check::Context;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::WrittenAuthorization;
use crate::config::source::At;
use crate::model::binding::{Bindable, Waypoints};
use crate::model::declaration::{
    Action, Condition, Mesh, Operation, Port, Rule, Source, TargetKind, TargetRef,
};
use crate::model::route::PathNormalization;
use crate::model::service::AppProtocol;

/// What is known of a mesh.
pub(super) struct Requests<'a> {
    mesh: &'a Mesh,
    waypoints: &'a Waypoints<'a>,
    /// Nobody has said how far paths are normalised, and nobody was told what that means.
    undecided: bool,
}

impl<'a> Requests<'a> {
    pub(super) fn new(context: &Context<'_>, mesh: &'a Mesh, waypoints: &'a Waypoints<'a>) -> Self {
        let mut written = context.written.settings.iter();
        Self {
            mesh,
            waypoints,
            undecided: !written.any(|settings| settings.says_paths)
                && mesh.settings.paths == PathNormalization::Base,
        }
    }

    /// Judges a policy with these targets.
    pub(super) fn check(
        &mut self,
        policy: &WrittenAuthorization,
        refs: &[At<TargetRef>],
        found: &mut Vec<Diagnostic>,
    ) {
        if policy.dry_run {
            return;
        }
        if policy.action.value != Action::Audit {
            found.extend(refs.iter().filter_map(|target| self.past(policy, target)));
        }
        if policy.action.value != Action::Deny {
            return;
        }
        let by_path = |rule: &&At<Rule>| rule.value.to.iter().any(|o| !o.paths.any.is_empty());
        if self.undecided
            && let Some(rule) = policy.rules.list.iter().find(by_path)
        {
            self.undecided = false;
            found.push(slashes(policy, rule));
        }
        let bytes = |rule: &&At<Rule>| closes_bytes(&rule.value);
        let mut closing = policy.rules.list.iter().filter(bytes).peekable();
        if closing.peek().is_some() && self.has_bytes(&policy.namespace.value, refs) {
            found.extend(closing.map(|rule| denies_bytes(policy, rule)));
        }
    }

    /// Datagrams pass no waypoint, and so none of its policies.
    fn past(&self, policy: &WrittenAuthorization, target: &At<TargetRef>) -> Option<Diagnostic> {
        let namespace = &policy.namespace.value;
        let mut services = self.mesh.services.iter();
        let service = services.find(|service| {
            let object = Bindable::from(*service);
            let kind = TargetKind::Service;
            !service.udp_ports.is_empty()
                && self.waypoints.before(object).next().is_some()
                && self.means(namespace, &target.value, (kind, object, &service.name))
        })?;
        let message = format!(
            "authorization-policy `{}` does not hold for the UDP ports of service `{}`, which pass no waypoint",
            policy.name.value, service.name
        );
        Some(
            Diagnostic::new(Code::NotInForce, target.place.clone(), message)
                .label("not for UDP")
                .help("write another policy with a `selector` for the workloads of the service: their nodes enforce it"),
        )
    }

    /// Whether a target of a policy of this namespace is that object, or a waypoint before it.
    fn means(
        &self,
        namespace: &str,
        target: &TargetRef,
        (is, object, name): (TargetKind, Bindable<'a>, &str),
    ) -> bool {
        let mut before = self.waypoints.before(object);
        match target.kind {
            TargetKind::Gateway => {
                before.any(|w| *w.namespace == *namespace && *w.name == *target.name)
            }
            TargetKind::GatewayClass => before.next().is_some(),
            kind => kind == is && object.namespace == namespace && *name == *target.name,
        }
    }

    /// Whether a port that is carried as bytes is among what is targeted.
    fn has_bytes(&self, namespace: &str, refs: &[At<TargetRef>]) -> bool {
        let meant = |is: TargetKind, object: Bindable<'a>, name: &str| {
            let mut refs = refs.iter();
            refs.any(|target| self.means(namespace, &target.value, (is, object, name)))
        };
        let services = self.mesh.services.iter();
        let mut services = services.filter(|service| is_bytes(&service.ports));
        let entries = self.mesh.service_entries.iter();
        let mut entries = entries.filter(|entry| is_bytes(&entry.ports));
        services.any(|s| meant(TargetKind::Service, Bindable::from(s), &s.name))
            || entries.any(|e| meant(TargetKind::ServiceEntry, Bindable::from(e), &e.name))
    }
}

fn is_bytes(ports: &[Port]) -> bool {
    let mut ports = ports.iter();
    ports.any(|port| matches!(port.app_protocol, AppProtocol::Tcp | AppProtocol::Tls))
}

/// Whether a rule asks for something of requests, and is not for some ports alone: of what is no request,
/// that is taken to match.
fn closes_bytes(rule: &Rule) -> bool {
    let of_source = rule
        .from
        .iter()
        .flat_map(Source::http_fields)
        .next()
        .is_some();
    let of_condition = rule.when.iter().any(Condition::is_of_requests);
    let everywhere = |operation: &Operation| operation.ports.is_empty();
    let of_operation =
        |operation: &Operation| operation.http_fields().next().is_some() && everywhere(operation);
    rule.to.iter().any(of_operation)
        || ((of_source || of_condition) && (rule.to.is_empty() || rule.to.iter().any(everywhere)))
}

fn slashes(policy: &WrittenAuthorization, rule: &At<Rule>) -> Diagnostic {
    let message = format!(
        "authorization-policy `{}` denies by path, and `//path` and `/%2Fpath` are other paths",
        policy.name.value
    );
    Diagnostic::new(Code::SlashesPass, rule.place.clone(), message)
        .label("passed by more slashes")
        .help("where programs take them for one, write `path-normalization = \"MERGE_SLASHES\"` or `\"DECODE_AND_MERGE_SLASHES\"` in `[mesh]`; where not, `\"BASE\"`")
}

fn denies_bytes(policy: &WrittenAuthorization, rule: &At<Rule>) -> Diagnostic {
    let message = format!(
        "authorization-policy `{}`: this rule also denies every connection that is no HTTP, of which nobody knows what it asks for",
        policy.name.value
    );
    Diagnostic::new(Code::DeniesMore, rule.place.clone(), message)
        .label("keeps more out than it says")
        .help("if that is not meant, name the `ports` it is for")
}
