//! The providers that policies at waypoints have asked (`spec/waypoint-l7.md` §4.4).

use std::collections::HashMap;
use std::sync::Arc;

use super::World;
use crate::model::declaration::{
    Action, Origin, Provider, ProviderKind, ProviderService, Settings,
};
use crate::model::route::{BackendKind, BackendRef};
use crate::model::waypoint::{Extension, Resources};

/// Those of a mesh by name.
pub(super) type Providers<'a> = HashMap<&'a str, &'a Provider>;

pub(super) fn by_name(settings: &Settings) -> Providers<'_> {
    let providers = settings.providers.iter();
    providers.map(|p| (&*p.name, p)).collect()
}

impl World<'_> {
    /// Tells a waypoint of `namespace` of all that the policies it is `told` have asked. Of what is no
    /// provider, or none that decides, it is not told, and so denies.
    pub(super) fn extend(&self, namespace: &Arc<str>, told: &mut Resources) {
        let asked = told
            .policies
            .values()
            .filter_map(|policy| match &policy.action {
                Action::Custom(provider) => Some(provider),
                Action::Allow | Action::Deny | Action::Audit => None,
            });
        let known = asked.filter_map(|name| self.providers.get(&**name));
        let extensions = known.filter_map(|provider| self.extension(provider, namespace));
        told.extensions = extensions
            .map(|extension| (Arc::clone(&extension.name), Arc::new(extension)))
            .collect();
    }

    fn extension(&self, provider: &Provider, namespace: &Arc<str>) -> Option<Extension> {
        let ProviderKind::ExtAuthz { service, check } = &provider.kind else {
            return None;
        };
        let wanted = wanted(service, namespace, &provider.origin);
        Some(Extension {
            name: Arc::clone(&provider.name),
            origin: provider.origin.clone(),
            to: self.target(&wanted, namespace),
            check: check.clone(),
        })
    }
}

/// The service a provider is, to a waypoint of `namespace`.
pub(super) fn wanted(
    service: &ProviderService,
    namespace: &Arc<str>,
    origin: &Origin,
) -> BackendRef {
    BackendRef {
        kind: BackendKind::Hostname,
        name: Arc::clone(&service.host),
        namespace: Arc::clone(service.namespace.as_ref().unwrap_or(namespace)),
        port: Some(service.port),
        subset: None,
        origin: origin.clone(),
    }
}
