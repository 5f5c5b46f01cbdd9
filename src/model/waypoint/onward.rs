//! Where what has come through a tunnel goes on, once routes have been asked
//! (`spec/waypoint-l7.md` §1.8, §2.6).

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Bound, Subset};
use crate::model::balance::{self, Candidate, Endpoint, Pick, Untried};
use crate::model::outbound::{self, Route, direct, to_endpoint};
use crate::model::service::{Service, ServiceKey};
use crate::model::view::View;
use crate::model::workload::Workload;

/// Whom a request or a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// A port of a service.
    Service {
        /// Which.
        key: &'a ServiceKey,
        /// Its service port.
        port: u16,
        /// Only those endpoints.
        subset: Option<&'a Subset>,
        /// The address the client asked for, which need not be the service's.
        asked: SocketAddr,
    },
    /// A workload by itself.
    Workload {
        /// Which.
        workload: &'a Arc<Workload>,
        /// Its address, and any port.
        asked: SocketAddr,
    },
}

impl<'a> From<&'a Bound> for Destination<'a> {
    fn from(bound: &'a Bound) -> Self {
        match bound {
            Bound::Service { service, asked, .. } => Self::Service {
                key: &service.key,
                port: asked.port(),
                subset: None,
                asked: *asked,
            },
            Bound::Workload { workload, asked } => Self::Workload {
                workload,
                asked: *asked,
            },
        }
    }
}

/// What is to be heeded as an endpoint is picked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Picking<'a> {
    /// Endpoints that failed this request or connection: none of them again.
    pub tried: &'a [SocketAddr],
    /// What those that are alike in it go to the same endpoint by, where the service balances so.
    pub hash: Option<u64>,
    /// The endpoint that the client stays with, while it is there.
    pub pinned: Option<SocketAddr>,
    /// The endpoints, where more is known of them than the mesh says: those whose names were resolved.
    pub among: Option<&'a [Arc<Workload>]>,
    /// The host that is asked for, by a request or in a client's hello.
    pub host: Option<&'a str>,
}

/// Where what comes through a tunnel goes on from `instance`: to an endpoint of `to`, never through a
/// second waypoint. Who that is is looked up anew, since the mesh may have changed while the tunnel was
/// open.
///
/// # Errors
/// [`outbound::Refusal`], in words for the log.
pub fn toward(
    view: &View,
    instance: &Workload,
    to: &Destination<'_>,
    picking: &Picking<'_>,
    pick: &mut impl Pick,
) -> Result<Route, outbound::Refusal> {
    match *to {
        Destination::Service {
            key,
            port,
            subset,
            asked,
        } => {
            let gone = || outbound::Refusal::NoEndpoint {
                service: key.to_string(),
                port,
            };
            let service = view.service(key).ok_or_else(gone)?;
            let endpoints = picking.among.unwrap_or_else(|| view.endpoints(key));
            if let Some(pinned) = pinned(endpoints, instance, service, port, subset, picking) {
                return direct(pinned, Some(service));
            }
            let mut among = Among {
                subset,
                untried: Untried::new(picking.tried, pick),
            };
            let like = SocketAddr::new(address_of(service, asked), port);
            to_endpoint(endpoints, instance, service, like, &mut among)
        }
        Destination::Workload { workload, asked } => {
            let workload = view.workload(&workload.uid).unwrap_or(workload);
            let endpoint = Endpoint {
                workload: Arc::clone(workload),
                address: asked,
            };
            direct(endpoint, None)
        }
    }
}

/// To the address that was asked for (`simple: PASSTHROUGH`): an endpoint's own, or one that the mesh has
/// nothing to say of. What is for any other address of the mesh is not for the wire in clear text.
///
/// # Errors
/// [`outbound::Refusal`], in words for the log.
pub fn as_asked(
    view: &View,
    instance: &Workload,
    key: &ServiceKey,
    asked: SocketAddr,
) -> Result<Route, outbound::Refusal> {
    let service = view.service(key);
    let endpoint = service.and_then(|service| {
        let workload = view.workload_at(&instance.network, asked.ip())?;
        let port = balance::target_port(service, workload, asked.port())?;
        Some(Endpoint {
            workload: Arc::clone(workload),
            address: SocketAddr::new(asked.ip(), port),
        })
    });
    match endpoint {
        Some(endpoint) => direct(endpoint, service),
        None if view.has_address(asked.ip()) => Err(outbound::Refusal::NobodyThere { to: asked }),
        None => Ok(Route::Passthrough { to: asked }),
    }
}

/// The endpoint the client stays with.
fn pinned(
    endpoints: &[Arc<Workload>],
    instance: &Workload,
    service: &Service,
    port: u16,
    subset: Option<&Subset>,
    picking: &Picking<'_>,
) -> Option<Endpoint> {
    let address = picking.pinned.filter(|p| !picking.tried.contains(p))?;
    let endpoint = balance::endpoint(endpoints, instance, service, port, address)?;
    subset
        .is_none_or(|s| s.uids.contains(&endpoint.workload.uid))
        .then_some(endpoint)
}

/// The service's own address to go by: the one asked for if it is, else one of the same family where
/// there is a choice.
fn address_of(service: &Service, asked: SocketAddr) -> std::net::IpAddr {
    let ip = asked.ip();
    let vips = || service.vips.iter().map(|v| v.address);
    if vips().any(|v| v == ip) {
        return ip;
    }
    let same = vips().find(|v| v.is_ipv4() == ip.is_ipv4());
    same.or_else(|| vips().next()).unwrap_or(ip)
}

/// Picks among those of a subset that have not been tried.
struct Among<'a, P> {
    subset: Option<&'a Subset>,
    untried: Untried<'a, P>,
}

impl<P: Pick> Pick for Among<'_, P> {
    fn pick(&mut self, service: &ServiceKey, port: u16, candidates: &[Candidate<'_>]) -> usize {
        self.untried.pick(service, port, candidates)
    }

    fn prefers(&self) -> bool {
        self.untried.prefers()
    }

    fn admits(&self, workload: &Workload) -> bool {
        let within = self.subset.is_none_or(|s| s.uids.contains(&workload.uid));
        within && self.untried.admits(workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::balance::RoundRobin;
    use crate::model::testing::{key, service, view, workload};

    #[test]
    fn what_goes_as_asked_is_tunnelled_or_refused_in_the_mesh() {
        let view = view(
            vec![
                workload("wp-1", &["10.2.0.1"]),
                workload("cart-1", &["10.1.0.11"]).of("cart"),
            ],
            vec![
                service("cart", &["10.96.0.10"]),
                service("web", &["10.96.0.11"]),
            ],
        );
        let instance = view.workload("wp-1").unwrap();
        for (name, asked, want) in [
            ("an endpoint", "10.1.0.11:80", "tunnel 10.1.0.11:8080"),
            ("on another port", "10.1.0.11:81", "refused"),
            ("the service", "10.96.0.10:80", "refused"),
            ("another service", "10.96.0.11:80", "refused"),
            ("outside", "192.0.2.1:80", "as asked"),
        ] {
            let asked = asked.parse().unwrap();
            let went = match as_asked(&view, instance, &key("cart"), asked) {
                Ok(Route::Tunnel(tunnelled)) => format!("tunnel {}", tunnelled.target),
                Ok(Route::Passthrough { .. }) => "as asked".to_owned(),
                Ok(other) => panic!("{name}: {other:?}"),
                Err(_) => "refused".to_owned(),
            };
            assert_eq!(went, want, "{name}");
        }
    }

    #[test]
    fn a_destination_narrows_whom_it_may_be() {
        let view = view(
            vec![
                workload("wp-1", &["10.2.0.1"]),
                workload("cart-1", &["10.1.0.11"]).of("cart"),
                workload("cart-2", &["10.1.0.12"]).of("cart"),
                workload("cart-3", &["10.1.0.13"]).of("cart").weighing(0),
                workload("cart-4", &["10.1.0.14"]).of("cart").unhealthy(),
            ],
            vec![service("cart", &["10.96.0.10"])],
        );
        let subset = Subset {
            name: Arc::from("v2"),
            uids: vec![Arc::from("cart-2"), Arc::from("cart-3")],
            traffic: None,
        };
        let cart = key("cart");
        let at = |host: u8| SocketAddr::from(([10, 1, 0, host], 8080));
        for (name, subset, tried, pinned, want) in [
            ("a subset", Some(&subset), None, None, Some(at(12))),
            ("which is used up", Some(&subset), Some(at(12)), None, None),
            ("pinned", None, None, Some(at(11)), Some(at(11))),
            (
                "to one that gets nothing new",
                None,
                None,
                Some(at(13)),
                Some(at(13)),
            ),
            (
                "of the subset alone",
                Some(&subset),
                None,
                Some(at(11)),
                Some(at(12)),
            ),
            (
                "to one that is unwell",
                Some(&subset),
                None,
                Some(at(14)),
                Some(at(12)),
            ),
            (
                "to one that failed",
                None,
                Some(at(11)),
                Some(at(11)),
                Some(at(12)),
            ),
            ("to nobody", Some(&subset), None, Some(at(99)), Some(at(12))),
        ] {
            let to = Destination::Service {
                key: &cart,
                port: 80,
                subset,
                asked: SocketAddr::from(([10, 96, 0, 99], 80)),
            };
            let tried: Vec<_> = tried.into_iter().collect();
            let picking = Picking {
                tried: &tried,
                pinned,
                ..Picking::default()
            };
            let instance = view.workload("wp-1").unwrap();
            // Whoever has the turn: three rounds reach everybody who may be picked.
            let mut turns = RoundRobin::default();
            for _ in 0..3 {
                let route = toward(&view, instance, &to, &picking, &mut turns);
                let target = route.ok().map(|route| match route {
                    Route::Tunnel(tunnelled) => tunnelled.target,
                    other => panic!("{name}: {other:?}"),
                });
                assert_eq!(target, want, "{name}");
            }
        }
    }
}
