//! Who a backend is (`spec/waypoint-l7.md` §2.6).

use std::sync::Arc;

use super::World;
use super::sites::Site;
use crate::model::declaration::DestinationRule;
use crate::model::route::{BackendKind, BackendRef, Target};

impl World<'_> {
    /// Whom a route at a waypoint of `namespace` means.
    pub(super) fn target(&self, wanted: &BackendRef, namespace: &str) -> Target {
        let found = match &wanted.kind {
            BackendKind::Service => self.sites.service(&wanted.namespace, &wanted.name),
            BackendKind::Hostname => self.sites.host(wanted),
            BackendKind::Unknown(kind) => {
                return invalid(format!("nothing of kind `{kind}` can be a backend"));
            }
        };
        let Some(site) = found else {
            return invalid(match wanted.kind {
                BackendKind::Service => {
                    format!("there is no service {}/{}", wanted.namespace, wanted.name)
                }
                _ => format!("no service has the host name {}", wanted.name),
            });
        };
        let port = match port(site, wanted.port) {
            Ok(port) => port,
            Err(port) => return invalid(format!("{} declares no port {port}", site.key)),
        };
        if let Some(subset) = &wanted.subset {
            let rule = self.traffic.rule(&site.key, namespace);
            if !rule.is_some_and(|rule| has(rule, subset)) {
                return invalid(format!("{} has no subset {subset}", site.key));
            }
        }
        Target::Service {
            key: site.key.clone(),
            port,
            subset: wanted.subset.clone(),
        }
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

fn invalid(why: String) -> Target {
    Target::Invalid(Arc::from(why))
}
