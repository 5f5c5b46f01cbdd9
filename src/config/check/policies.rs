//! What policies say of the rest of the mesh, and what becomes of them where they are enforced
//! (`spec/labels-and-policy.md` §2–§4). Nothing here is an error: a policy may be written before
//! what it is about.

mod effect;
mod levels;
mod mentions;
mod targets;

use std::collections::BTreeMap;

use self::targets::Targets;
use super::Context;
use super::carriers::Carriers;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenAttachment, WrittenAuthentication, WrittenAuthorization};
use crate::config::source::At;
use crate::model::declaration::Action;

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let written = context.written;
    if written.authorization_policies.is_empty() && written.peer_authentications.is_empty() {
        return;
    }
    let carriers = &Carriers::new(&written.workloads);
    let mut targets = Targets::new(context);
    for policy in &context.written.authorization_policies {
        if policy.sound {
            authorization(context, carriers, &mut targets, policy, found);
        }
    }
    mentions::check(context, found);
    for policy in &context.written.peer_authentications {
        authentication(context, carriers, policy, found);
    }
    levels::check(context, carriers, found);
}

fn authorization(
    context: &Context<'_>,
    carriers: &Carriers<'_>,
    targets: &mut Targets<'_>,
    policy: &WrittenAuthorization,
    found: &mut Vec<Diagnostic>,
) {
    let what = format!("authorization-policy `{}`", policy.name.value);
    match &policy.attachment {
        WrittenAttachment::Targets(refs) => {
            targets.check(context, policy, refs, found);
            return;
        }
        WrittenAttachment::Selector(labels) => {
            let namespace = &*policy.namespace.value;
            found.extend(selects_nothing(context, carriers, namespace, labels, &what));
        }
        WrittenAttachment::Namespace => {}
    }
    match &policy.action.value {
        Action::Allow | Action::Deny => effect::check(policy, found),
        Action::Audit | Action::Custom(_) => {
            let message =
                format!("{what} is not in force: node proxies only know `ALLOW` and `DENY`");
            found.push(
                Diagnostic::new(Code::NotInForce, policy.action.place.clone(), message)
                    .label("never enforced")
                    .help("write it as `ALLOW` or `DENY`, or take it out"),
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

/// In the root namespace a selector is for workloads of every namespace (§2.3).
fn selects_nothing(
    context: &Context<'_>,
    carriers: &Carriers<'_>,
    namespace: &str,
    labels: &At<BTreeMap<String, String>>,
    what: &str,
) -> Option<Diagnostic> {
    let wide = *namespace == *context.settings.root_namespace;
    let reach = (!wide).then_some(namespace);
    if carriers.of(reach, &labels.value).next().is_some() {
        return None;
    }
    let whose = match wide {
        true => "of the mesh".to_owned(),
        false => format!("of namespace `{namespace}`"),
    };
    let message = format!("{what} selects no workload {whose}");
    let finding = Diagnostic::new(Code::SelectorMatchesNothing, labels.place.clone(), message);
    let help = "name labels that the workloads it is for carry, all of them";
    Some(finding.label("matches nothing").help(help))
}
