//! Policies with `target-refs`: for waypoints (`spec/labels-and-policy.md` §2.2).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::config::check::Context;
use crate::config::check::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenAuthorization, did_you_mean};
use crate::config::source::{At, Place};
use crate::model::declaration::{TargetKind, TargetRef};

/// The names of the one class of waypoints.
const CLASSES: [&str; 2] = ["istio-waypoint", "waypoint"];

/// Something that has targets.
#[derive(Clone, Copy)]
pub(in crate::config::check) struct Attaching<'a> {
    /// Of which kind it is.
    pub(in crate::config::check) kind: &'static str,
    /// Its name.
    pub(in crate::config::check) name: &'a str,
    /// Its namespace, and that of its targets.
    pub(in crate::config::check) namespace: &'a Arc<str>,
}

impl fmt::Display for Attaching<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// What targets are looked for among.
pub(in crate::config::check) struct Targets<'a> {
    services: HashMap<&'a str, BTreeSet<&'a str>>,
    service_entries: HashMap<&'a str, BTreeSet<&'a str>>,
    guesses: Guesses,
}

impl<'a> Targets<'a> {
    pub(in crate::config::check) fn new(context: &Context<'a>) -> Self {
        let mut services: HashMap<_, BTreeSet<_>> = HashMap::new();
        for service in &context.written.services {
            let namespace = services.entry(&*service.namespace.value);
            namespace.or_default().insert(&*service.name.value);
        }
        let mut service_entries: HashMap<_, BTreeSet<_>> = HashMap::new();
        for entry in &context.written.service_entries {
            let namespace = service_entries.entry(&*entry.namespace.value);
            namespace.or_default().insert(&*entry.name.value);
        }
        Self {
            services,
            service_entries,
            guesses: Guesses::default(),
        }
    }

    /// Judges the targets of a policy.
    pub(in crate::config::check) fn check(
        &mut self,
        context: &Context<'_>,
        policy: Attaching<'_>,
        refs: &At<Vec<At<TargetRef>>>,
        found: &mut Vec<Diagnostic>,
    ) {
        for target in &refs.value {
            match target.value.kind {
                TargetKind::Service => found.extend(self.service(policy, target)),
                TargetKind::GatewayClass => class(context, policy, target, found),
                TargetKind::ServiceEntry => found.extend(self.service_entry(policy, target)),
                TargetKind::Gateway => {}
            }
        }
    }

    fn service(&mut self, policy: Attaching<'_>, target: &At<TargetRef>) -> Option<Diagnostic> {
        let (namespace, name) = (policy.namespace, &target.value.name);
        let known = self.services.get(&**namespace);
        if known.is_some_and(|known| known.contains(&**name)) {
            return None;
        }
        let whole = Arc::from(format!("{namespace}/{name}"));
        let known = known.into_iter().flatten().copied();
        let guess = self.guesses.meant_as(&whole, name, known);
        let help = format!(
            "name a service of namespace `{namespace}`, or write the policy in the namespace of its target"
        );
        Some(not_found(policy, target, "Service", guess, help))
    }
}

impl Targets<'_> {
    fn service_entry(
        &mut self,
        policy: Attaching<'_>,
        target: &At<TargetRef>,
    ) -> Option<Diagnostic> {
        let (namespace, name) = (policy.namespace, &target.value.name);
        let known = self.service_entries.get(&**namespace);
        if known.is_some_and(|known| known.contains(&**name)) {
            return None;
        }
        let known = known.into_iter().flatten().copied();
        let guess = did_you_mean(name, known);
        let help = format!(
            "name a service-entry of namespace `{namespace}`, or write the policy in the namespace of its target"
        );
        Some(not_found(policy, target, "ServiceEntry", guess, help))
    }
}

/// A policy of providers, of whom nobody is asked.
pub(super) fn not_enforced(policy: &WrittenAuthorization, place: &Place) -> Diagnostic {
    let message = format!(
        "authorization-policy `{}` is `CUSTOM`: this version asks no providers",
        policy.name.value
    );
    Diagnostic::new(Code::Unsupported, place.clone(), message)
        .label("nobody would be asked")
        .help("write it as `ALLOW` or `DENY`; or take it out: a mesh that ignored it would be more open than it reads")
}

fn class(
    context: &Context<'_>,
    policy: Attaching<'_>,
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
    if *policy.namespace != *root {
        let message = format!(
            "{policy} attaches to no waypoint by `{name}`: it is not in the root namespace"
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
    policy: Attaching<'_>,
    target: &At<TargetRef>,
    kind: &str,
    guess: Option<String>,
    help: String,
) -> Diagnostic {
    let message = format!(
        "{policy} has an unknown target: {kind} `{}`",
        target.value.name
    );
    Diagnostic::new(Code::TargetNotFound, target.place.clone(), message)
        .label(guess.unwrap_or_else(|| "no such target".to_owned()))
        .help(help)
}
