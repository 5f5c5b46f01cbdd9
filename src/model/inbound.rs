//! What becomes of a connection that arrives for a workload (`spec/hbone-dataplane.md` §3.2–§4).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::balance::target_port;
use super::outbound::PROXY_PORTS;
use super::service::Service;
use super::view::View;
use super::workload::Workload;

/// What a tunnel is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// An address with a workload's port.
    Address(SocketAddr),
    /// A service's host name with the service's port.
    Name {
        /// The host name.
        host: &'a str,
        /// The service's port.
        port: u16,
    },
}

/// A connection that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where the program listens.
    pub to: SocketAddr,
    /// The service the client addressed, where it can be told.
    pub service: Option<Arc<Service>>,
}

/// Why a connection is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is meant for somebody else.
    #[error("{to} is not an address of this workload")]
    NotHere {
        /// The address asked for.
        to: SocketAddr,
    },
    /// The name is no service of this workload's.
    #[error("this workload does not serve {host} port {port}")]
    NoService {
        /// The host name asked for.
        host: String,
        /// The port asked for.
        port: u16,
    },
    /// The proxy was asked for itself.
    #[error("port {port} is the proxy's own")]
    ProxyPort {
        /// The port asked for.
        port: u16,
    },
    /// Policies hold that this version cannot evaluate.
    #[error("policy {policy} holds for this workload, and this version cannot evaluate it")]
    Policy {
        /// One of them.
        policy: Arc<str>,
    },
}

impl Refusal {
    /// The status that tells an HBONE peer (§1.4).
    pub fn status(&self) -> u16 {
        match self {
            Self::NotHere { .. } => 400,
            Self::NoService { .. } | Self::ProxyPort { .. } => 503,
            Self::Policy { .. } => 401,
        }
    }

    /// The response flag that tells it in metrics.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::NotHere { .. } | Self::NoService { .. } | Self::ProxyPort { .. } => "CONNECT",
            Self::Policy { .. } => "DENY",
        }
    }
}

/// Decides a tunnel that arrived at `local_ip` of `workload`: it must ask for that address, for
/// one whose waypoint the workload is, or for a service of the workload's by name. In each case it
/// is delivered here.
///
/// `forwarded_host` is the service the peer says was addressed; it only ever labels.
///
/// # Errors
/// [`Refusal`], with the status to answer.
pub fn tunnelled(
    view: &View,
    workload: &Workload,
    local_ip: IpAddr,
    target: Target<'_>,
    forwarded_host: Option<&str>,
) -> Result<Delivery, Refusal> {
    let local_ip = local_ip.to_canonical();
    let (port, service) = match target {
        Target::Address(to) if to.ip().to_canonical() == local_ip => {
            let service = label(view, workload, to.port(), forwarded_host);
            (to.port(), service)
        }
        Target::Address(to) => {
            let service = stands_for(view, workload, to)?;
            (to.port(), service)
        }
        Target::Name { host, port } => {
            let missing = || Refusal::NoService {
                host: host.to_owned(),
                port,
            };
            let service = view.service_named(host, &workload.namespace);
            let service = service.ok_or_else(missing)?;
            let mapped = target_port(service, workload, port).ok_or_else(missing)?;
            (mapped, Some(Arc::clone(service)))
        }
    };
    if PROXY_PORTS.contains(&port) {
        return Err(Refusal::ProxyPort { port });
    }
    permit(workload)?;
    Ok(Delivery {
        to: SocketAddr::new(local_ip, port),
        service,
    })
}

/// Lets in what asks for somebody whose waypoint `workload` is; names the service if it is one.
fn stands_for(
    view: &View,
    workload: &Workload,
    to: SocketAddr,
) -> Result<Option<Arc<Service>>, Refusal> {
    let (network, ip) = (&workload.network, to.ip().to_canonical());
    let (waypoint, service) = if let Some(other) = view.workload_at(network, ip) {
        (other.waypoint.as_ref(), None)
    } else {
        let service = view.service_at(network, ip, &workload.namespace);
        (service.and_then(|s| s.waypoint.as_ref()), service)
    };
    match waypoint {
        Some(waypoint) if view.is_instance(&waypoint.destination, workload) => {
            Ok(service.map(Arc::clone))
        }
        _ => Err(Refusal::NotHere { to }),
    }
}

/// Decides a plain connection to `destination` of `workload`.
///
/// # Errors
/// [`Refusal`], in words for the log.
pub fn plaintext(
    view: &View,
    workload: &Workload,
    destination: SocketAddr,
) -> Result<Delivery, Refusal> {
    let port = destination.port();
    if PROXY_PORTS.contains(&port) {
        return Err(Refusal::ProxyPort { port });
    }
    permit(workload)?;
    Ok(Delivery {
        to: destination,
        service: label(view, workload, port, None),
    })
}

/// A policy nobody evaluates must not read as one that allows.
fn permit(workload: &Workload) -> Result<(), Refusal> {
    match workload.authorization_policies.first() {
        Some(policy) => Err(Refusal::Policy {
            policy: Arc::clone(policy),
        }),
        None => Ok(()),
    }
}

/// The service a connection to this port counts for: the one the peer names if the workload really
/// serves it, else the first whose target port fits (§8).
fn label(
    view: &View,
    workload: &Workload,
    port: u16,
    forwarded_host: Option<&str>,
) -> Option<Arc<Service>> {
    let mine = workload.services.keys().filter_map(|key| view.service(key));
    let named = forwarded_host.and_then(|host| {
        let mut mine = mine.clone();
        mine.find(|s| s.key.hostname.eq_ignore_ascii_case(host))
    });
    let serves = |s: &&Arc<Service>| {
        let mut ports = s.ports.iter().map(|p| p.service_port);
        ports.any(|p| target_port(s, workload, p) == Some(port))
    };
    named.or_else(|| mine.clone().find(serves)).map(Arc::clone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{port, service, view, waypoint_at, waypoint_named, workload};

    fn told(outcome: Result<Delivery, Refusal>) -> String {
        match outcome {
            Ok(delivery) => {
                let service = delivery
                    .service
                    .map_or(String::new(), |s| format!(" of {}", s.name));
                format!("{}{service}", delivery.to)
            }
            Err(refusal) => refusal.status().to_string(),
        }
    }

    #[test]
    fn each_vector_has_its_answer() {
        let me = workload("me", &["10.0.0.2"])
            .of("cart")
            .mapping("moved", 80, 9090);
        let services = vec![
            service("cart", &["10.9.0.1"]),
            service("moved", &[]).ports(&[port(80, 0)]),
            service("other", &["10.9.0.2"]),
        ];
        let view = view(vec![me.clone()], services);
        let address = |a: &str| Target::Address(a.parse().unwrap());
        let name = |host| Target::Name { host, port: 80 };
        for (row, target, want) in [
            ("own address", address("10.0.0.2:80"), "10.0.0.2:80"),
            (
                "a service's target",
                address("10.0.0.2:8080"),
                "10.0.0.2:8080 of cart",
            ),
            ("39 another address", address("10.0.0.3:80"), "400"),
            (
                "own address written as v6",
                address("[::ffff:10.0.0.2]:80"),
                "10.0.0.2:80",
            ),
            (
                "40 a service's address: no waypoint here",
                address("10.9.0.1:80"),
                "400",
            ),
            (
                "42 a service by name",
                name("cart.shop.mesh.internal"),
                "10.0.0.2:8080 of cart",
            ),
            (
                "42 mapped by the workload",
                name("moved.shop.mesh.internal"),
                "10.0.0.2:9090 of moved",
            ),
            ("43 unknown name", name("nobody.shop.mesh.internal"), "503"),
            (
                "43 a service it is not in",
                name("other.shop.mesh.internal"),
                "503",
            ),
            (
                "43 a port it has not",
                Target::Name {
                    host: "cart.shop.mesh.internal",
                    port: 81,
                },
                "503",
            ),
            ("44 proxy port 15001", address("10.0.0.2:15001"), "503"),
            ("44 proxy port 15006", address("10.0.0.2:15006"), "503"),
            ("44 proxy port 15008", address("10.0.0.2:15008"), "503"),
        ] {
            let local = "10.0.0.2".parse().unwrap();
            assert_eq!(
                told(tunnelled(&view, &me, local, target, None)),
                want,
                "{row}"
            );
        }
    }

    #[test]
    fn a_waypoint_takes_what_is_meant_for_those_it_stands_for() {
        let me = workload("wp", &["10.0.0.10"]).of("wp");
        let bound = |name: &str, n: u8| workload(name, &[&format!("10.0.0.{n}")]).of("direct");
        let workloads = vec![
            me.clone(),
            bound("by-address", 2).behind(waypoint_at("10.0.0.10")),
            bound("by-name", 3).behind(waypoint_named("wp")),
            bound("elsewhere", 4).behind(waypoint_at("10.0.0.11")),
            bound("unbound", 5),
            workload("other", &["10.0.0.11"]),
        ];
        let services = vec![
            service("wp", &["10.9.0.10"]).ports(&[port(15008, 15008)]),
            service("cart", &["10.9.0.1"]).through(waypoint_named("wp")),
            service("direct", &["10.9.0.2"]),
        ];
        let view = view(workloads, services);
        for (row, to, want) in [
            ("40 its service", "10.9.0.1:80", "10.0.0.10:80 of cart"),
            ("41 a service of its workload", "10.9.0.2:80", "400"),
            ("its workload, by address", "10.0.0.2:80", "10.0.0.10:80"),
            ("its workload, by name", "10.0.0.3:80", "10.0.0.10:80"),
            ("another waypoint's workload", "10.0.0.4:80", "400"),
            ("nobody's workload", "10.0.0.5:80", "400"),
            ("its service, proxy port", "10.9.0.1:15001", "503"),
            ("an address nobody has", "10.0.0.99:80", "400"),
        ] {
            let local = "10.0.0.10".parse().unwrap();
            let target = Target::Address(to.parse().unwrap());
            let got = told(tunnelled(&view, &me, local, target, None));
            assert_eq!(got, want, "{row}");
        }
    }

    #[test]
    fn the_peer_names_the_service_only_where_it_is_true() {
        let me = workload("me", &["10.0.0.2"]).of("cart").of("basket");
        let view = view(
            vec![me.clone()],
            vec![
                service("cart", &[]),
                service("basket", &[]),
                service("other", &[]),
            ],
        );
        let local = "10.0.0.2".parse().unwrap();
        let target = Target::Address("10.0.0.2:8080".parse().unwrap());
        for (row, host, want) in [
            (
                "named",
                Some("cart.shop.mesh.internal"),
                "10.0.0.2:8080 of cart",
            ),
            (
                "not one of its own",
                Some("other.shop.mesh.internal"),
                "10.0.0.2:8080 of basket",
            ),
            ("not named", None, "10.0.0.2:8080 of basket"),
        ] {
            assert_eq!(
                told(tunnelled(&view, &me, local, target, host)),
                want,
                "{row}"
            );
        }
    }

    #[test]
    fn a_policy_nobody_can_evaluate_closes_the_workload() {
        let mut me = workload("me", &["10.0.0.2"]);
        me.authorization_policies.push(Arc::from("shop/only-web"));
        let view = view(vec![me.clone()], vec![]);
        let to: SocketAddr = "10.0.0.2:80".parse().unwrap();
        assert_eq!(
            told(tunnelled(&view, &me, to.ip(), Target::Address(to), None)),
            "401"
        );
        assert_eq!(told(plaintext(&view, &me, to)), "401");
        assert_eq!(
            told(plaintext(&view, &workload("free", &["10.0.0.2"]), to)),
            "10.0.0.2:80"
        );
    }
}
