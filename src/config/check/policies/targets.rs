//! Policies with `target-refs`: for waypoints (`spec/labels-and-policy.md` §2.2).

use std::sync::Arc;

use crate::config::check::Context;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenAuthorization, did_you_mean};
use crate::config::source::At;
use crate::model::declaration::{TargetKind, TargetRef};

/// The names of the one class of waypoints.
const CLASSES: [&str; 2] = ["istio-waypoint", "waypoint"];

pub(super) fn check(
    context: &Context<'_>,
    policy: &WrittenAuthorization,
    refs: &At<Vec<At<TargetRef>>>,
    found: &mut Vec<Diagnostic>,
) {
    let message = format!(
        "authorization-policy `{}` is not in force: this version serves no waypoints",
        policy.name.value
    );
    found.push(
        Diagnostic::new(Code::NotInForce, refs.place.clone(), message)
            .label("nobody enforces it")
            .help("write it with `selector`, for node proxies, where addresses, ports and identities are enough to go by"),
    );
    for target in &refs.value {
        match target.value.kind {
            TargetKind::Service => found.extend(service(context, policy, target)),
            TargetKind::GatewayClass => class(context, policy, target, found),
            // Kinds that this version does not read: whether they exist is not known.
            TargetKind::Gateway | TargetKind::ServiceEntry => {}
        }
    }
}

fn service(
    context: &Context<'_>,
    policy: &WrittenAuthorization,
    target: &At<TargetRef>,
) -> Option<Diagnostic> {
    let namespace = &policy.namespace.value;
    let services = || {
        let all = context.written.services.iter();
        all.filter(|service| service.namespace.value == *namespace)
            .map(|service| &*service.name.value)
    };
    let name = &target.value.name;
    if services().any(|known| known == &**name) {
        return None;
    }
    let guess = did_you_mean(name, services());
    let help = format!(
        "name a service of namespace `{namespace}`, or write the policy in the namespace of its target"
    );
    Some(not_found(policy, target, "Service", guess, help))
}

fn class(
    context: &Context<'_>,
    policy: &WrittenAuthorization,
    target: &At<TargetRef>,
    found: &mut Vec<Diagnostic>,
) {
    let name = &target.value.name;
    if !CLASSES.contains(&&**name) {
        let help = "write `name = \"istio-waypoint\"`, the class of all waypoints".to_owned();
        let guess = did_you_mean(name, CLASSES);
        found.push(not_found(policy, target, "GatewayClass", guess, help));
    }
    let root: &Arc<str> = &context.settings.root_namespace;
    if policy.namespace.value != *root {
        let message = format!(
            "authorization-policy `{}` attaches to no waypoint by `{name}`: it is not in the root namespace",
            policy.name.value
        );
        found.push(
            Diagnostic::new(Code::NoEffect, target.place.clone(), message)
                .label("attaches nowhere")
                .help(format!(
                    "write it with `namespace = \"{root}\"`, or target a gateway"
                )),
        );
    }
}

fn not_found(
    policy: &WrittenAuthorization,
    target: &At<TargetRef>,
    kind: &str,
    guess: Option<String>,
    help: String,
) -> Diagnostic {
    let message = format!(
        "authorization-policy `{}` has an unknown target: {kind} `{}`",
        policy.name.value, target.value.name
    );
    Diagnostic::new(Code::TargetNotFound, target.place.clone(), message)
        .label(guess.unwrap_or_else(|| "no such target".to_owned()))
        .help(help)
}
