//! Workloads on their machine's own network, which share its addresses, told apart (DESIGN §7).
//!
//! A port is the workload's that declares it: a service leads there, or its health probe asks there. A
//! tunnel says by name whom it means, and by the port it asks for; a stock peer names nobody and meets
//! the first of those who share the address (`spec/control-plane.md` §11).

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::balance::target_port;
use super::declaration::{Capture, HealthCheck, Probe};
use super::inbound::{Refusal, Target};
use super::service::ServiceKey;
use super::view::View;
use super::workload::Workload;
use crate::identity::SpiffeId;

/// A workload that shares the addresses of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharer {
    /// Its uid.
    pub uid: Arc<str>,
    /// Who it is.
    pub identity: SpiffeId,
    /// Where it is reached.
    pub addresses: Vec<IpAddr>,
    /// The ports that it declares.
    pub ports: BTreeSet<u16>,
    /// The ports of UDP that it declares.
    pub udp_ports: BTreeSet<u16>,
    /// The service ports of its services, and its own port that serves each.
    named: Vec<(ServiceKey, u16, u16)>,
}

impl Sharer {
    /// A workload as the mesh has it and as it is probed; none where it has no legal identity.
    pub fn new(view: &View, workload: &Workload, health: Option<&HealthCheck>) -> Option<Self> {
        let services = workload.services.keys().filter_map(|key| view.service(key));
        let named = services.flat_map(|service| {
            let ports = service.ports.iter().map(|port| port.service_port);
            ports.filter_map(move |port| {
                let own = target_port(service, workload, port)?;
                Some((service.key.clone(), port, own))
            })
        });
        let named: Vec<_> = named.collect();
        let mut ports: BTreeSet<u16> = named.iter().map(|(_, _, own)| *own).collect();
        ports.extend(health.and_then(probed));
        Some(Self {
            uid: Arc::clone(&workload.uid),
            identity: workload.identity().ok()?,
            addresses: workload.addresses.clone(),
            ports,
            udp_ports: view.udp_inbound(&workload.uid),
            named,
        })
    }

    /// Itself, unless somebody else was asked for by name.
    fn answers_to(&self, named: Option<&SpiffeId>) -> Result<&Self, Refusal> {
        match named {
            Some(named) if *named != self.identity => Err(Refusal::Another {
                named: named.clone(),
                meant: Arc::clone(&self.uid),
            }),
            _ => Ok(self),
        }
    }
}

/// The port that a probe asks at.
pub fn probed(health: &HealthCheck) -> Option<u16> {
    match health.probe {
        Probe::Http { port, .. } | Probe::Tcp { port } => Some(port),
        Probe::Exec { .. } => None,
    }
}

/// Whether what is captured so shares the addresses of its machine.
pub fn shares(capture: &Capture) -> bool {
    match capture {
        Capture::Unit(_) | Capture::Cgroup(_) | Capture::User(_) => true,
        Capture::Netns(_) | Capture::Interface(_) => false,
    }
}

/// Those who share the addresses of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// In the order of their uids.
    sharers: Vec<Sharer>,
    /// Places in that order.
    by_port: HashMap<SocketAddr, usize>,
    by_udp_port: HashMap<SocketAddr, usize>,
}

impl Sharing {
    /// Of two that declare the same port of an address the first by uid has it.
    pub fn new(sharers: impl IntoIterator<Item = Sharer>) -> Self {
        let mut sharers: Vec<_> = sharers.into_iter().collect();
        sharers.sort_by(|a, b| a.uid.cmp(&b.uid));
        let by = |ports: fn(&Sharer) -> &BTreeSet<u16>| {
            let mut by_port = HashMap::new();
            for (at, sharer) in sharers.iter().enumerate() {
                for ip in &sharer.addresses {
                    for port in ports(sharer) {
                        by_port.entry(SocketAddr::new(*ip, *port)).or_insert(at);
                    }
                }
            }
            by_port
        };
        let (by_port, by_udp_port) = (by(|s| &s.ports), by(|s| &s.udp_ports));
        Self {
            sharers,
            by_port,
            by_udp_port,
        }
    }

    /// All of them, in the order of their uids.
    pub fn iter(&self) -> impl Iterator<Item = &Sharer> {
        self.sharers.iter()
    }

    /// The workload of this uid.
    pub fn get(&self, uid: &str) -> Option<&Sharer> {
        let at = self.sharers.binary_search_by(|s| (*s.uid).cmp(uid)).ok()?;
        self.sharers.get(at)
    }

    /// Whose a port of an address is.
    pub fn owner(&self, at: SocketAddr) -> Option<&Sharer> {
        self.sharers.get(*self.by_port.get(&canonical(at))?)
    }

    /// Whose a port of UDP is.
    pub fn udp_owner(&self, at: SocketAddr) -> Option<&Sharer> {
        self.sharers.get(*self.by_udp_port.get(&canonical(at))?)
    }

    /// The identities at an address, each once: the one that is presented to who names nobody first.
    pub fn identities(&self, at: IpAddr) -> Vec<&SpiffeId> {
        let at = at.to_canonical();
        let here = self.sharers.iter().filter(|s| s.addresses.contains(&at));
        let mut seen = BTreeSet::new();
        let new = here.filter(|sharer| seen.insert(&sharer.identity));
        new.map(|sharer| &sharer.identity).collect()
    }

    /// Whom a tunnel means that arrived at the address `at`, where it asked for `target` and, if it did,
    /// for somebody by name.
    ///
    /// # Errors
    /// [`Refusal`], with the status to answer.
    pub fn meant(
        &self,
        at: IpAddr,
        target: Target<'_>,
        named: Option<&SpiffeId>,
    ) -> Result<&Sharer, Refusal> {
        let at = at.to_canonical();
        let meant = match target {
            Target::Address(to) if to.ip().to_canonical() != at => {
                return Err(Refusal::NotHere { to });
            }
            Target::Address(to) => self.owner(to).ok_or(Refusal::NobodyThere { to })?,
            Target::Name { host, port } => {
                let missing = || Refusal::NoService {
                    host: host.to_owned(),
                    port,
                };
                self.serving(at, host, port).ok_or_else(missing)?
            }
        };
        meant.answers_to(named)
    }

    /// The same of a tunnel for datagrams, which is for an address.
    ///
    /// # Errors
    /// As [`Self::meant`].
    pub fn meant_by_datagrams(
        &self,
        at: IpAddr,
        to: SocketAddr,
        named: Option<&SpiffeId>,
    ) -> Result<&Sharer, Refusal> {
        if to.ip().to_canonical() != at.to_canonical() {
            return Err(Refusal::NotHere { to });
        }
        let meant = self.udp_owner(to).ok_or(Refusal::NobodyThere { to })?;
        meant.answers_to(named)
    }

    fn serving(&self, at: IpAddr, host: &str, port: u16) -> Option<&Sharer> {
        self.sharers.iter().find(|sharer| {
            let mut named = sharer.named.iter();
            named.any(|(key, service_port, own)| {
                let asked = *service_port == port && key.hostname.eq_ignore_ascii_case(host);
                let owner = || self.owner(SocketAddr::new(at, *own));
                asked && owner().is_some_and(|owner| owner.uid == sharer.uid)
            })
        })
    }
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::testing::{service, view, workload};

    const V4: &str = "10.77.0.11";
    const V6: &str = "fd77::11";

    fn http(port: u16) -> HealthCheck {
        HealthCheck {
            probe: Probe::Http {
                path: Arc::from("/"),
                port,
            },
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 2,
            start_timeout: Duration::from_secs(60),
        }
    }

    /// `cart` on 8080, `web` on 9090 and probed on 9091, `batch` on nothing, and `twin`, who declares
    /// what is `cart`'s and is `web` by identity.
    fn sharing() -> Sharing {
        let mut twin = workload("twin", &[V4]).of("cart").host_network();
        twin.service_account = Arc::from("web");
        let all = vec![
            workload("cart", &[V4, V6]).of("cart").host_network(),
            workload("web", &[V4, V6])
                .mapping("web", 80, 9090)
                .host_network(),
            workload("batch", &[V4]).host_network(),
            twin,
        ];
        let view = view(
            all.clone(),
            vec![
                service("cart", &["10.96.0.10"]),
                service("web", &["10.96.0.11"]),
            ],
        );
        let sharers = all.iter().rev().map(|workload| {
            let health = (&*workload.name == "web").then(|| http(9091));
            Sharer::new(&view, workload, health.as_ref()).unwrap()
        });
        Sharing::new(sharers)
    }

    #[test]
    fn a_port_is_its_declarers() {
        let sharing = sharing();
        for (name, at, want) in [
            ("a service's target", "10.77.0.11:8080", Some("cart")),
            ("of the other family", "[fd77::11]:8080", Some("cart")),
            ("mapped", "[::ffff:10.77.0.11]:8080", Some("cart")),
            ("its own mapping", "10.77.0.11:9090", Some("web")),
            ("a probe's", "10.77.0.11:9091", Some("web")),
            ("a service port is none", "10.77.0.11:80", None),
            ("undeclared", "10.77.0.11:22", None),
            ("another address", "10.77.0.12:8080", None),
        ] {
            let owner = sharing.owner(at.parse().unwrap());
            assert_eq!(owner.map(|s| &*s.uid), want, "{name}");
        }
        assert!(sharing.get("batch").unwrap().ports.is_empty());
        assert_eq!(sharing.get("nobody"), None);
    }

    /// Of UDP a port is one's, of TCP the same another's.
    #[test]
    fn a_tunnel_for_datagrams_means_who_declares_the_port_of_udp() {
        let all = vec![
            workload("cart", &[V4, V6]).of("dns").host_network().udp(),
            workload("web", &[V4])
                .mapping("web", 80, 5353)
                .host_network(),
            workload("tcp", &[V4]).of("log").host_network(),
        ];
        let view = view(
            all.clone(),
            vec![
                service("dns", &["10.96.0.10"]).udp(&[(53, 5353)]),
                service("web", &["10.96.0.11"]),
                service("log", &["10.96.0.12"]).udp(&[(514, 514)]),
            ],
        );
        let sharers = all.iter().filter_map(|w| Sharer::new(&view, w, None));
        let sharing = Sharing::new(sharers);
        let [cart, web]: [SpiffeId; 2] = ["cart", "web"].map(|name| {
            let id = format!("spiffe://cluster.local/ns/shop/sa/{name}");
            id.parse().unwrap()
        });
        for (case, at, to, named, want) in [
            ("by port", V4, "10.77.0.11:5353", None, Ok("cart")),
            ("mapped", V4, "[::ffff:10.77.0.11]:5353", None, Ok("cart")),
            (
                "of the other family",
                V6,
                "[fd77::11]:5353",
                None,
                Ok("cart"),
            ),
            (
                "and by name",
                V4,
                "10.77.0.11:5353",
                Some(&cart),
                Ok("cart"),
            ),
            (
                "another's name",
                V4,
                "10.77.0.11:5353",
                Some(&web),
                Err(503),
            ),
            ("a port of TCP", V4, "10.77.0.11:8080", None, Err(503)),
            (
                "of one that takes none",
                V4,
                "10.77.0.11:514",
                None,
                Err(503),
            ),
            ("elsewhere", V4, "10.77.0.12:5353", None, Err(400)),
        ] {
            let to = to.parse().unwrap();
            let meant = sharing.meant_by_datagrams(at.parse().unwrap(), to, named);
            let meant = meant.map(|s| &*s.uid).map_err(|refusal| refusal.status());
            assert_eq!(meant, want, "{case}");
        }
        let tcp = sharing.owner("10.77.0.11:5353".parse().unwrap());
        assert_eq!(tcp.map(|s| &*s.uid), Some("web"));
    }

    #[test]
    fn the_first_by_uid_is_presented() {
        let sharing = sharing();
        let accounts = |at: &str| {
            let identities = sharing.identities(at.parse().unwrap());
            let last = |id: &&SpiffeId| id.to_string().rsplit('/').next().unwrap().to_owned();
            identities.iter().map(last).collect::<Vec<_>>()
        };
        assert_eq!(accounts(V4), ["batch", "cart", "web"]);
        assert_eq!(accounts(V6), ["cart", "web"]);
        assert!(accounts("10.77.0.12").is_empty());
    }

    #[test]
    fn a_tunnel_means_who_is_named_and_asked_for() {
        let sharing = sharing();
        let address = |text: &str| Target::Address(text.parse().unwrap());
        let name = |host, port| Target::Name { host, port };
        let cart: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        for (case, target, named, want) in [
            ("by port", address("10.77.0.11:8080"), None, Ok("cart")),
            (
                "and by name",
                address("10.77.0.11:8080"),
                Some(&cart),
                Ok("cart"),
            ),
            (
                "another's port",
                address("10.77.0.11:9090"),
                Some(&cart),
                Err(503),
            ),
            ("nobody's port", address("10.77.0.11:1"), None, Err(503)),
            ("elsewhere", address("10.77.0.12:8080"), None, Err(400)),
            (
                "by host name",
                name("WEB.shop.mesh.internal", 80),
                None,
                Ok("web"),
            ),
            (
                "of two that serve it the owner of the port",
                name("cart.shop.mesh.internal", 80),
                None,
                Ok("cart"),
            ),
            (
                "not a service's port",
                name("web.shop.mesh.internal", 9090),
                None,
                Err(503),
            ),
        ] {
            let meant = sharing.meant(V4.parse().unwrap(), target, named);
            let meant = meant.map(|s| &*s.uid).map_err(|refusal| refusal.status());
            assert_eq!(meant, want, "{case}");
        }
    }
}
