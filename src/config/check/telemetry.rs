//! What telemetry says of the rest of the mesh: whom it is for, and which providers it names
//! (`spec/labels-and-policy.md` §5.2).

use std::collections::HashMap;
use std::sync::Arc;

use super::Context;
use super::targets::Targets;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{NamedProvider, Use, WrittenAttachment, WrittenTelemetry, did_you_mean};
use crate::config::source::At;
use crate::config::suggest;
use crate::model::declaration::ProviderKind;
use crate::model::telemetry::{ENVOY, PROMETHEUS};

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    for settings in &context.written.settings {
        for provider in &settings.default_providers {
            found.extend(named(context, "`default-providers`", provider));
        }
    }
    if context.written.telemetry.is_empty() {
        return;
    }
    for telemetry in &context.written.telemetry {
        let what = format!("telemetry `{}`", telemetry.name.value);
        for provider in &telemetry.providers {
            found.extend(named(context, &what, provider));
        }
        match &telemetry.attachment {
            WrittenAttachment::Namespace | WrittenAttachment::Targets(_) => {}
            WrittenAttachment::Selector(labels) => found.push(not_in_force(&what, labels)),
        }
    }
    superseded(context, found);
}

/// What is attached to what waypoints serve.
pub(super) fn targeted(
    context: &Context<'_>,
    targets: &mut Targets<'_>,
    found: &mut Vec<Diagnostic>,
) {
    for telemetry in &context.written.telemetry {
        let WrittenAttachment::Targets(refs) = &telemetry.attachment else {
            continue;
        };
        let what = format!("telemetry `{}`", telemetry.name.value);
        targets.check((&what, &telemetry.namespace.value), &refs.value, found);
    }
}

/// A provider that is not there, or is of another kind than what it is named for.
fn named(context: &Context<'_>, what: &str, provider: &NamedProvider) -> Option<Diagnostic> {
    let At { value: name, place } = &provider.name;
    let (fits, builtin, kinds): (fn(&ProviderKind) -> bool, _, _) = match provider.used {
        Use::Tracing => (is_tracing, None, "`opentelemetry` or `zipkin`"),
        Use::Metrics => (is_metrics, Some(PROMETHEUS), "`prometheus`"),
        Use::Logging => (
            is_logging,
            Some(ENVOY),
            "`envoy-file-access-log` or `envoy-otel-als`",
        ),
    };
    let declared = &context.settings.providers;
    let finding = |message: String| Diagnostic::new(Code::BadValue, place.clone(), message);
    match declared.iter().find(|known| known.name == *name) {
        Some(known) if fits(&known.kind) => None,
        Some(known) => {
            let kind = known.kind.as_str();
            let message = format!("{what} names provider `{name}` for what `{kind}` does not do");
            let help = format!("name one that is {kinds}");
            Some(finding(message).label("of another kind").help(help))
        }
        None if builtin == Some(&**name) => None,
        None => {
            let fitting = declared.iter().filter(|known| fits(&known.kind));
            let fitting: Vec<&str> = fitting.map(|known| &*known.name).chain(builtin).collect();
            let message = format!("{what} names provider `{name}`, which is not declared");
            let meant = did_you_mean(name, fitting.iter().copied());
            let help = match fitting.is_empty() {
                true => format!("declare it in `[mesh]`, in `extension-providers`, as {kinds}"),
                false => format!(
                    "declare it in `extension-providers`; there are {}",
                    suggest::listed(fitting)
                ),
            };
            let label = meant.unwrap_or_else(|| "no such provider".to_owned());
            Some(finding(message).label(label).help(help))
        }
    }
}

fn is_tracing(kind: &ProviderKind) -> bool {
    matches!(
        kind,
        ProviderKind::OpenTelemetry(_) | ProviderKind::Zipkin(_)
    )
}

fn is_metrics(kind: &ProviderKind) -> bool {
    matches!(kind, ProviderKind::Prometheus)
}

fn is_logging(kind: &ProviderKind) -> bool {
    matches!(
        kind,
        ProviderKind::FileAccessLog(_) | ProviderKind::OtelAccessLog(_)
    )
}

/// Waypoints are not selected, and nobody else does what it says.
fn not_in_force<T>(what: &str, labels: &At<T>) -> Diagnostic {
    let message =
        format!("{what} is not in force: it selects workloads, whose nodes tell of no requests");
    Diagnostic::new(Code::NotInForce, labels.place.clone(), message)
        .label("nobody does it")
        .help("write `target-refs` for a service or gateway, or leave the selector out for all waypoints of the namespace")
}

/// Of several for all of a namespace the first is the one (§5.2).
fn superseded(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let mut first: HashMap<&Arc<str>, &WrittenTelemetry> = HashMap::new();
    for telemetry in &context.written.telemetry {
        let WrittenAttachment::Namespace = telemetry.attachment else {
            continue;
        };
        let namespace = &telemetry.namespace.value;
        let Some(winner) = first.get(namespace) else {
            first.insert(namespace, telemetry);
            continue;
        };
        let message = format!(
            "telemetry `{}` says nothing about namespace `{namespace}`: `{}` stands before it",
            telemetry.name.value, winner.name.value
        );
        found.push(
            Diagnostic::new(Code::Superseded, telemetry.name.place.clone(), message)
                .label("says nothing here")
                .related(winner.name.place.clone(), "this one counts")
                .help("write both in one: of several for a whole namespace, the first by file and line counts"),
        );
    }
}
