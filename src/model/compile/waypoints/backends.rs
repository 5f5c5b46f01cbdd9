//! Who a backend is (`spec/waypoint-l7.md` §2.6).

use std::sync::Arc;

use super::World;
use super::sites::Site;
use crate::model::declaration::DestinationRule;
use crate::model::route::{BackendKind, BackendRef, Target};
use crate::model::service::ServiceKey;

/// Why a backend is nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Nothing of its kind can be one.
    #[error("nothing of kind `{0}` can be a backend")]
    Kind(Arc<str>),
    /// There is no such service.
    #[error("there is no service {0}")]
    Service(Arc<str>),
    /// Nobody has that host name.
    #[error("no service has the host name {0}")]
    Host(Arc<str>),
    /// The service has no such port.
    #[error("{0} declares no port {1}")]
    Port(ServiceKey, u16),
    /// The destination rule of the service has no such subset.
    #[error("{0} has no subset {1}")]
    Subset(ServiceKey, Arc<str>),
}

impl World<'_> {
    /// Whom a route at a waypoint of `namespace` means.
    pub(super) fn target(&self, wanted: &BackendRef, namespace: &str) -> Target {
        let target = self.found(wanted, namespace);
        target.unwrap_or_else(|missing| Target::Invalid(Arc::from(missing.to_string())))
    }

    /// The same.
    ///
    /// # Errors
    /// Why that is nobody.
    pub(super) fn found(&self, wanted: &BackendRef, namespace: &str) -> Result<Target, Missing> {
        let site = self.sites.backend(wanted);
        let site = site.ok_or_else(|| match &wanted.kind {
            BackendKind::Service => {
                Missing::Service(format!("{}/{}", wanted.namespace, wanted.name).into())
            }
            BackendKind::Hostname => Missing::Host(Arc::clone(&wanted.name)),
            BackendKind::Unknown(kind) => Missing::Kind(Arc::clone(kind)),
        })?;
        let port = port(site, wanted.port);
        let port = port.map_err(|port| Missing::Port(site.key.clone(), port))?;
        if let Some(subset) = &wanted.subset {
            let rule = self.traffic.rule(&site.key, namespace);
            if !rule.is_some_and(|rule| has(rule, subset)) {
                return Err(Missing::Subset(site.key.clone(), Arc::clone(subset)));
            }
        }
        Ok(Target::Service {
            key: site.key.clone(),
            port,
            subset: wanted.subset.clone(),
        })
    }
}

fn has(rule: &DestinationRule, subset: &str) -> bool {
    rule.subsets.iter().any(|s| *s.name == *subset)
}

/// The port meant: one that is left open is the only one there is, or the one that is asked for.
fn port(site: &Site<'_>, wanted: Option<u16>) -> Result<u16, u16> {
    match (wanted, site.ports) {
        (Some(wanted), ports) if ports.iter().any(|p| p.port == wanted) => Ok(wanted),
        (Some(missing), _) => Err(missing),
        (None, [only]) => Ok(only.port),
        (None, _) => Ok(0),
    }
}
