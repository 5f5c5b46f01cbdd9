//! What policies say of the rest of the mesh, and what becomes of them where they are enforced
//! (`spec/labels-and-policy.md` §2–§4). Nothing here is an error: a policy may be written before
//! what it is about.

mod effect;
mod levels;
mod mentions;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::carriers::Carriers;
use super::targets::Targets;
use super::{Context, enrolment};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{
    WrittenAttachment, WrittenAuthentication, WrittenAuthorization, WrittenWorkload,
};
use crate::config::source::At;
use crate::model::binding::Waypoints;
use crate::model::declaration::{Action, Mesh};
use requests::Requests;

pub(super) fn check<'a>(
    context: &Context<'a>,
    carriers: &Carriers<'a>,
    found: &mut Vec<Diagnostic>,
) {
    let written = context.written;
    if written.authorization_policies.is_empty() && written.peer_authentications.is_empty() {
        return;
    }
    for policy in &context.written.authorization_policies {
        if policy.sound {
            authorization(context, carriers, policy, found);
        }
    }
    mentions::check(context, found);
    for policy in &context.written.peer_authentications {
        authentication(context, carriers, policy, found);
    }
    levels::check(context, carriers, found);
}

/// Those that are attached to what waypoints serve.
pub(super) fn targeted(
    context: &Context<'_>,
    (mesh, waypoints): (&Mesh, &Waypoints<'_>),
    targets: &mut Targets<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let mut requests = Requests::new(context, mesh, waypoints);
    let all = context.written.authorization_policies.iter();
    for policy in all.filter(|policy| policy.sound) {
        let WrittenAttachment::Targets(refs) = &policy.attachment else {
            continue;
        };
        let what = format!("authorization-policy `{}`", policy.name.value);
        targets.check((&what, &policy.namespace.value), &refs.value, found);
        requests.check(policy, &refs.value, found);
    }
}

fn authorization<'a>(
    context: &Context<'a>,
    carriers: &Carriers<'a>,
    policy: &WrittenAuthorization,
    found: &mut Vec<Diagnostic>,
) {
    let what = format!("authorization-policy `{}`", policy.name.value);
    match &policy.attachment {
        WrittenAttachment::Targets(_) => return,
        WrittenAttachment::Selector(labels) => {
            let namespace = &*policy.namespace.value;
            found.extend(selects_nothing(context, carriers, namespace, labels, &what));
            let held = carriers.of(reach(context, namespace), &labels.value);
            found.extend(unenforced(context, held, &policy.name, &what));
        }
        WrittenAttachment::Namespace => {
            let namespace = &*policy.namespace.value;
            let held = carriers.all(reach(context, namespace));
            found.extend(unenforced(context, held, &policy.name, &what));
        }
    }
    match &policy.action.value {
        Action::Allow | Action::Deny => effect::check(policy, found),
        Action::Audit | Action::Custom(_) => {
            let message =
                format!("{what} is not in force: node proxies only know `ALLOW` and `DENY`");
            found.push(
                Diagnostic::new(Code::NotInForce, policy.action.place.clone(), message)
                    .label("never enforced")
                    .help("add `target-refs`: waypoints know the others; or write it as `ALLOW` or `DENY`, or take it out"),
            );
        }
    }
}

fn authentication(
    context: &Context<'_>,
    carriers: &Carriers<'_>,
    policy: &WrittenAuthentication,
    found: &mut Vec<Diagnostic>,
) {
    let Some(labels) = &policy.selector else {
        return;
    };
    let what = format!("peer-authentication `{}`", policy.name.value);
    let namespace = &policy.namespace.value;
    if *namespace != context.settings.root_namespace {
        found.extend(selects_nothing(context, carriers, namespace, labels, &what));
        return;
    }
    let message =
        format!("{what} is ignored: it is in the root namespace `{namespace}` and has a selector");
    found.push(
        Diagnostic::new(Code::NoEffect, labels.place.clone(), message)
            .label("has no effect")
            .help("leave the selector out to mean the whole mesh, or write it in the namespace of the workloads"),
    );
}

/// For workloads of which namespace a policy can be; none for those of every one (§2.3).
fn reach<'n>(context: &Context<'_>, namespace: &'n str) -> Option<&'n str> {
    (*namespace != *context.settings.root_namespace).then_some(namespace)
}

/// A node enforces nothing for what it does not capture.
fn unenforced<'a>(
    context: &Context<'a>,
    held: impl Iterator<Item = &'a WrittenWorkload>,
    name: &At<Arc<str>>,
    what: &str,
) -> Option<Diagnostic> {
    let mut held = held.peekable();
    let first = *held.peek()?;
    if held.any(|workload| enrolment::is_enrolled(context, workload)) {
        return None;
    }
    let message = format!("{what} is not in force: none of the workloads it is for is captured");
    let finding = Diagnostic::new(Code::NotInForce, name.place.clone(), message);
    Some(
        finding
            .label("never enforced")
            .related(first.name.place.clone(), "one of them")
            .help("add `dataplane-mode = \"ambient\"` to them or to their namespace"),
    )
}

fn selects_nothing(
    context: &Context<'_>,
    carriers: &Carriers<'_>,
    namespace: &str,
    labels: &At<BTreeMap<String, String>>,
    what: &str,
) -> Option<Diagnostic> {
    let reach = reach(context, namespace);
    if carriers.of(reach, &labels.value).next().is_some() {
        return None;
    }
    let whose = match reach.is_none() {
        true => "of the mesh".to_owned(),
        false => format!("of namespace `{namespace}`"),
    };
    let message = format!("{what} selects no workload {whose}");
    let finding = Diagnostic::new(Code::SelectorMatchesNothing, labels.place.clone(), message);
    let help = "name labels that the workloads it is for carry, all of them";
    Some(finding.label("matches nothing").help(help))
}
