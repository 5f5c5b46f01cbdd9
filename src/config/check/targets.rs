//! Policies of any kind with `target-refs`: whether they come into force anywhere
//! (`spec/labels-and-policy.md` §2.2). None of it is an error: a policy may be written before what it
//! is about.

use std::sync::Arc;

use super::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::did_you_mean;
use crate::config::source::At;
use crate::model::binding::{Amiss, Attachments, CLASSES};
use crate::model::declaration::TargetRef;

/// Judges the targets of policies, one after the other.
pub(super) struct Targets<'a> {
    attachments: Attachments<'a>,
    root: &'a str,
    guesses: Guesses,
}

impl<'a> Targets<'a> {
    pub(super) fn new(attachments: Attachments<'a>, root: &'a str) -> Self {
        Self {
            attachments,
            root,
            guesses: Guesses::default(),
        }
    }

    /// Judges those of one; `what` names it, as ``authorization-policy `p` ``.
    pub(super) fn check(
        &mut self,
        (what, namespace): (&str, &str),
        refs: &[At<TargetRef>],
        found: &mut Vec<Diagnostic>,
    ) {
        for target in refs {
            let amiss = self.attachments.amiss(namespace, &target.value);
            found.extend(amiss.map(|amiss| match amiss {
                Amiss::Unknown => self.unknown(what, namespace, target),
                Amiss::Unbound => unbound(what, target),
                Amiss::OutsideRoot => self.outside_root(what, target),
                Amiss::OtherClass => other_class(what, target),
            }));
        }
    }

    fn unknown(&mut self, what: &str, namespace: &str, target: &At<TargetRef>) -> Diagnostic {
        let TargetRef { kind, name } = &target.value;
        let key = Arc::from(format!("{kind:?} {namespace}/{name}"));
        let known = self.attachments.names(*kind, namespace);
        let guess = self.guesses.meant_as(&key, name, known);
        let help = format!(
            "name a {} of namespace `{namespace}`, or write the policy in the namespace of its target",
            kind.table()
        );
        not_found(what, target, guess, help)
    }

    fn outside_root(&self, what: &str, target: &At<TargetRef>) -> Diagnostic {
        let message = format!(
            "{what} attaches to no waypoint by `{}`: it is not in the root namespace",
            target.value.name
        );
        let root = self.root;
        Diagnostic::new(Code::NoEffect, target.place.clone(), message)
            .label("attaches nowhere")
            .help(format!(
                "write it with `namespace = \"{root}\"`, or target a gateway"
            ))
    }
}

/// Node proxies do not see policies with targets at all (§2.3).
fn unbound(what: &str, target: &At<TargetRef>) -> Diagnostic {
    let TargetRef { kind, name } = &target.value;
    let kind = kind.table();
    let message = format!("{what} is in force nowhere: {kind} `{name}` is behind no waypoint");
    Diagnostic::new(Code::AncestorNotBound, target.place.clone(), message)
        .label("nobody enforces this")
        .help(format!(
            "give the {kind}, or its namespace, a `use-waypoint`: node proxies do not look at requests"
        ))
}

fn other_class(what: &str, target: &At<TargetRef>) -> Diagnostic {
    let help = "write `name = \"istio-waypoint\"`, the class of all waypoints".to_owned();
    let guess = did_you_mean(&target.value.name, CLASSES);
    not_found(what, target, guess, help)
}

fn not_found(
    what: &str,
    target: &At<TargetRef>,
    guess: Option<String>,
    help: String,
) -> Diagnostic {
    let TargetRef { kind, name } = &target.value;
    let message = format!("{what} has an unknown target: {} `{name}`", kind.as_str());
    Diagnostic::new(Code::TargetNotFound, target.place.clone(), message)
        .label(guess.unwrap_or_else(|| "no such target".to_owned()))
        .help(help)
}
