//! Rate limits: whether they come into force anywhere, and whether what they are for is asked by
//! requests (`spec/waypoint-l7.md` §9).

use super::Context;
use super::targets::Targets;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::WrittenLimit;
use crate::config::source::At;
use crate::model::declaration::{Mesh, TargetKind, TargetRef};
use crate::model::service::AppProtocol;

pub(super) fn check(
    context: &Context<'_>,
    mesh: &Mesh,
    targets: &mut Targets<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let all = context.written.rate_limits.iter();
    for limit in all.filter(|limit| limit.sound) {
        let what = format!("rate-limit `{}`", limit.name.value);
        targets.check((&what, &limit.namespace.value), &limit.targets, found);
        let unasked = limit.targets.iter().filter(|t| !is_asked(mesh, limit, t));
        found.extend(unasked.map(|target| not_asked(&what, target)));
    }
}

/// Whether a target may be asked by requests, as far as is known.
fn is_asked(mesh: &Mesh, limit: &WrittenLimit, target: &At<TargetRef>) -> bool {
    let mut services = mesh.services.iter();
    let is_it = |namespace: &str, name: &str| {
        *namespace == *limit.namespace.value && *name == *target.value.name
    };
    let service = match target.value.kind {
        TargetKind::Service => services.find(|s| is_it(&s.namespace, &s.name)),
        TargetKind::ServiceEntry | TargetKind::Gateway | TargetKind::GatewayClass => None,
    };
    let opaque = |p: AppProtocol| matches!(p, AppProtocol::Tcp | AppProtocol::Tls);
    service.is_none_or(|s| !s.ports.iter().all(|port| opaque(port.app_protocol)))
}

fn not_asked(what: &str, target: &At<TargetRef>) -> Diagnostic {
    let name = &target.value.name;
    let message = format!("{what} counts nothing: service `{name}` has no port of HTTP");
    Diagnostic::new(Code::NoEffect, target.place.clone(), message)
        .label("has no effect")
        .help("connections are not counted, only requests; if it is HTTP, give the port an `app-protocol`")
}
