//! Providers that policies name and that are not there, and providers that are no service of the mesh.
//! Neither is an error: what a rule matches is denied then, and the rest of the mesh goes on.

use super::Context;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenAttachment, WrittenAuthorization, did_you_mean};
use crate::config::source::Place;
use crate::model::compile::waypoints::Backends;
use crate::model::declaration::{Action, Mesh, Provider, ProviderKind, ProviderService};

pub(super) fn check(context: &Context<'_>, mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let settings = context.written.settings.first();
    let places = match settings.map(|settings| &settings.providers) {
        Some(Some(places)) => &**places,
        // Whom a policy means may be among those that could not be read.
        Some(None) => return,
        None => &[],
    };
    let providers = &mesh.settings.providers;
    let policies = context.written.authorization_policies.iter();
    for policy in policies.filter(|policy| policy.sound) {
        found.extend(named(policy, providers));
    }
    if providers.is_empty() {
        return;
    }
    let backends = Backends::new(mesh);
    for (provider, place) in providers.iter().zip(places) {
        let service = provider.kind.service();
        found.extend(service.and_then(|s| reached(mesh, &backends, provider, s, place)));
    }
}

/// Whether a policy at a waypoint names somebody who decides.
fn named(policy: &WrittenAuthorization, providers: &[Provider]) -> Option<Diagnostic> {
    let (Action::Custom(name), WrittenAttachment::Targets(_)) =
        (&policy.action.value, &policy.attachment)
    else {
        return None;
    };
    let what = format!("authorization-policy `{}`", policy.name.value);
    let known = providers.iter().find(|provider| provider.name == *name);
    let decides = |p: &&Provider| matches!(p.kind, ProviderKind::ExtAuthz { .. });
    let (message, label) = match known {
        Some(provider) if decides(&provider) => return None,
        Some(provider) => (
            format!(
                "{what} asks provider `{name}`, which is `{}` and decides nothing",
                provider.kind.as_str()
            ),
            None,
        ),
        None => {
            let deciding = providers.iter().filter(decides).map(|p| &*p.name);
            let guess = did_you_mean(name, deciding);
            (format!("{what} asks an unknown provider `{name}`"), guess)
        }
    };
    let finding = Diagnostic::new(Code::ProviderNotFound, policy.action.place.clone(), message);
    Some(
        finding
            .label(label.unwrap_or_else(|| "denies all that it matches".to_owned()))
            .help("name one of `extension-providers` in `[mesh]` that is `envoy-ext-authz-http` or `envoy-ext-authz-grpc`"),
    )
}

/// Whether a provider is a service of the mesh, with that port.
fn reached(
    mesh: &Mesh,
    backends: &Backends<'_>,
    provider: &Provider,
    service: &ProviderService,
    place: &Place,
) -> Option<Diagnostic> {
    let whole = match &service.namespace {
        Some(namespace) => format!("{namespace}/{}", service.host),
        None => service.host.to_string(),
    };
    let ports = backends.provider(service, &mesh.settings.root_namespace, &provider.origin);
    let (fault, help) = match ports {
        None => (
            format!("{whole}, which is no service of the mesh"),
            "declare it as a service, or as a service-entry where it is outside".to_owned(),
        ),
        Some(ports) if ports.iter().any(|p| p.port == service.port) => return None,
        Some(ports) => {
            let all: Vec<_> = ports.iter().map(|p| format!("`{}`", p.port)).collect();
            (
                format!("{whole}, which has no port {}", service.port),
                format!("it has {}", all.join(" and ")),
            )
        }
    };
    let message = format!("extension provider `{}` is {fault}", provider.name);
    let label = match provider.kind {
        ProviderKind::ExtAuthz { .. } => "cannot be asked",
        _ => "cannot be told",
    };
    let finding = Diagnostic::new(Code::ProviderNotFound, place.clone(), message);
    Some(finding.label(label).help(help))
}
