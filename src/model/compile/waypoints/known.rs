//! Whom routes can name, for those who judge what is written.

use std::sync::Arc;

use super::extensions;
use super::sites::Sites;
use crate::model::compile::service_key;
use crate::model::declaration::{Mesh, Origin, Port, ProviderService};
use crate::model::route::BackendRef;

/// Whom a backend of a route can be.
pub struct Backends<'a> {
    sites: Sites<'a>,
}

impl<'a> Backends<'a> {
    /// Those of a mesh.
    pub fn new(mesh: &'a Mesh) -> Self {
        let domain = &mesh.settings.domain;
        let services = mesh.services.iter();
        let keys: Vec<_> = services
            .map(|s| service_key(&s.name, &s.namespace, domain))
            .collect();
        Self {
            sites: Sites::new(mesh, &keys),
        }
    }

    /// The ports of whom a reference means, for waypoints too; none where that is nobody, or nobody that
    /// its namespace sees.
    pub fn ports(&self, wanted: &BackendRef) -> Option<&'a [Port]> {
        self.sites.backend(wanted).map(|site| site.ports)
    }

    /// The same of a provider, as waypoints of `namespace` see it.
    pub fn provider(
        &self,
        service: &ProviderService,
        namespace: &Arc<str>,
        origin: &Origin,
    ) -> Option<&'a [Port]> {
        self.ports(&extensions::wanted(service, namespace, origin))
    }
}
