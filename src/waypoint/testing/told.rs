//! What a waypoint is told, in a few words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::attached::PolicyKey;
use crate::model::authorization::Authorization;
use crate::model::declaration::{Action, ExtAuthz, Origin, Rule as PolicyRule, WaypointFor};
use crate::model::route::{
    Backend, Fault, Filter, HeaderChange, Kind, Match, PathMatch, Route, RouteKey, Rule, Target,
    Timeouts,
};
use crate::model::service::{AppProtocol, ServiceKey};
use crate::model::telemetry::{Exporter, Sections, Telemetry, Tracing};
use crate::model::testing::key;
use crate::model::traffic::{Balance, Settings, TrafficPolicy};
use crate::model::waypoint::{
    AttachedSet, BoundPort, Extension, External, GatewayConfig, NamedTraffic, Options, Resources,
    ServiceBinding, TrafficKey,
};

/// The services behind waypoint `shop/wp`.
const SERVICES: [&str; 6] = ["cart", "v1", "v2", "v3", "chat", "empty"];

fn origin() -> Origin {
    Origin {
        file: Arc::from("routes.toml"),
        line: 1,
    }
}

/// A rule that takes everything and leads nowhere.
pub(in crate::waypoint) fn rule() -> Rule<Target> {
    Rule {
        name: Arc::from(""),
        line: 1,
        matches: vec![Match::default()],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        persistence: None,
        fault: Fault::default(),
    }
}

/// Port 80 of a service.
pub(in crate::waypoint) fn target(service: &str) -> Target {
    target_on(service, 80)
}

fn target_on(service: &str, port: u16) -> Target {
    Target::Service {
        key: key(service),
        port,
        subset: None,
    }
}

/// A policy that asks a provider about what these rules match.
pub(in crate::waypoint) fn custom(provider: &str, rules: Vec<PolicyRule>) -> Authorization {
    Authorization {
        key: PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from(format!("ask-{provider}")),
        },
        origin: origin(),
        action: Action::Custom(Arc::from(provider)),
        dry_run: false,
        rules,
    }
}

/// Sets one header field.
pub(in crate::waypoint) fn set(name: &str, value: &str) -> HeaderChange {
    HeaderChange {
        set: vec![(Arc::from(name), Arc::from(value))],
        ..HeaderChange::default()
    }
}

impl Rule<Target> {
    pub(in crate::waypoint) fn at(mut self, prefix: &str) -> Self {
        self.matches = vec![Match {
            path: PathMatch::Prefix(Arc::from(prefix)),
            ..Match::default()
        }];
        self
    }

    pub(in crate::waypoint) fn to(self, service: &str, weight: u32) -> Self {
        self.with_backend(target(service), weight, Vec::new())
    }

    pub(in crate::waypoint) fn leading_to(self, service: &str, port: u16, weight: u32) -> Self {
        self.with_backend(target_on(service, port), weight, Vec::new())
    }

    pub(in crate::waypoint) fn with_backend(
        mut self,
        to: Target,
        weight: u32,
        filters: Vec<Filter<Target>>,
    ) -> Self {
        self.backends.push(Backend {
            to,
            weight,
            filters,
        });
        self
    }

    pub(in crate::waypoint) fn with(mut self, filter: Filter<Target>) -> Self {
        self.filters.push(filter);
        self
    }
}

/// A gateway and the services behind it, without routes.
pub(in crate::waypoint) fn told() -> Resources {
    let gateway = GatewayConfig {
        name: "shop/wp".parse().unwrap(),
        origin: origin(),
        waypoint_for: WaypointFor::Service,
        hbone_port: 15008,
        options: Options::default(),
        workload_set: AttachedSet::default(),
    };
    let port = |(port, protocol)| BoundPort {
        port,
        name: Arc::from(""),
        protocol,
        routes: Vec::new(),
        general: Vec::new(),
    };
    let ports = [
        (80, AppProtocol::Http11),
        (81, AppProtocol::Grpc),
        (90, AppProtocol::Tcp),
        (91, AppProtocol::Unknown),
        (9000, AppProtocol::Http11),
    ];
    let services = SERVICES.map(|name| {
        let binding = ServiceBinding {
            key: key(name),
            origin: origin(),
            bound: true,
            addresses: Vec::new(),
            ports: ports.map(port).into(),
            set: AttachedSet::default(),
            traffic: None,
            subsets: Vec::new(),
            external: None,
        };
        (key(name), Arc::new(binding))
    });
    Resources {
        gateway: Some(Arc::new(gateway)),
        services: services.into(),
        ..Resources::default()
    }
}

/// The traffic policy that says nothing but this.
pub(in crate::waypoint) fn settings(say: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    say(&mut settings);
    settings
}

/// Connections and requests for `cart` go to its endpoints in turns, for tests of who is next.
pub(in crate::waypoint) fn in_turns() -> Resources {
    told().treated(
        "cart",
        settings(|s| s.load_balancer.policy = Balance::RoundRobin),
    )
}

impl Resources {
    /// The same with a traffic policy for a service.
    pub(in crate::waypoint) fn treated(self, service: &str, settings: Settings) -> Self {
        self.treating(&key(service), settings)
    }

    /// The same for a service by its key.
    pub(in crate::waypoint) fn treating(
        mut self,
        service: &ServiceKey,
        settings: Settings,
    ) -> Self {
        let named = TrafficKey {
            namespace: Arc::from("shop"),
            name: Arc::clone(&service.hostname),
            subset: Arc::from(""),
        };
        let binding = self.services.get_mut(service).unwrap();
        Arc::make_mut(binding).traffic = Some(named.clone());
        let policy = TrafficPolicy {
            usual: settings,
            ports: BTreeMap::new(),
        };
        let traffic = NamedTraffic {
            key: named.clone(),
            origin: origin(),
            policy,
        };
        self.traffic.insert(named, Arc::new(traffic));
        self
    }

    /// The same with a host outside the mesh, and the ports of `cart`.
    pub(in crate::waypoint) fn outside(mut self, host: ServiceKey, external: External) -> Self {
        let cart = &self.services[&key("cart")];
        let binding = ServiceBinding {
            key: host.clone(),
            external: Some(external),
            ..ServiceBinding::clone(cart)
        };
        self.services.insert(host, Arc::new(binding));
        self
    }

    /// The same, and applications are told of identities.
    pub(in crate::waypoint) fn telling(mut self) -> Self {
        let gateway = self.gateway.as_mut().unwrap();
        let options = &mut Arc::make_mut(gateway).options;
        options.xfcc_include_client_identity = true;
        self
    }

    /// The same, and who says nothing for so long waits for the server.
    pub(in crate::waypoint) fn sniffing(mut self, timeout: Duration) -> Self {
        let gateway = self.gateway.as_mut().unwrap();
        Arc::make_mut(gateway).options.sniff_timeout = timeout;
        self
    }

    /// The same with a route for `cart`: for one of its ports, or for all of them.
    pub(in crate::waypoint) fn with_route(
        mut self,
        kind: Kind,
        name: &str,
        port: Option<u16>,
        rules: Vec<Rule<Target>>,
    ) -> Self {
        let route = RouteKey {
            kind,
            namespace: Arc::from("shop"),
            name: Arc::from(name),
        };
        let cart = self.services.get_mut(&key("cart")).unwrap();
        for bound in &mut Arc::make_mut(cart).ports {
            match port {
                None => bound.general.push(route.clone()),
                Some(port) if port == bound.port => bound.routes.push(route.clone()),
                Some(_) => {}
            }
        }
        let made = Route {
            key: route.clone(),
            origin: origin(),
            server_names: Vec::new(),
            rules,
        };
        self.routes.insert(route, Arc::new(made));
        self
    }

    /// The same with policies on `cart`.
    pub(in crate::waypoint) fn authorized(mut self, policies: Vec<Authorization>) -> Self {
        let cart = self.services.get_mut(&key("cart")).unwrap();
        for policy in policies {
            Arc::make_mut(cart).set.policies.push(policy.key.clone());
            self.policies.insert(policy.key.clone(), Arc::new(policy));
        }
        self
    }

    /// The same with a provider.
    pub(in crate::waypoint) fn asking(mut self, name: &str, to: Target, check: ExtAuthz) -> Self {
        let name = Arc::<str>::from(name);
        let extension = Extension {
            name: Arc::clone(&name),
            origin: origin(),
            to,
            check,
        };
        self.extensions.insert(name, Arc::new(extension));
        self
    }

    /// The same with an `http-route` for all ports of `cart`.
    pub(in crate::waypoint) fn ruled(self, rules: Vec<Rule<Target>>) -> Self {
        self.with_route(Kind::Http, "cart", None, rules)
    }

    /// The same, and this telemetry is attached to `cart`.
    pub(in crate::waypoint) fn recorded(mut self, says: Sections) -> Self {
        let key = PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from("telling"),
        };
        let telemetry = Telemetry {
            key: key.clone(),
            origin: origin(),
            says,
        };
        self.telemetry.insert(key.clone(), Arc::new(telemetry));
        self.attach_telemetry(key)
    }

    /// The same, and telemetry of that name is attached to `cart`.
    pub(in crate::waypoint) fn attach_telemetry(mut self, name: PolicyKey) -> Self {
        if let Some(cart) = self.services.get_mut(&key("cart")) {
            Arc::make_mut(cart).set.telemetry.push(name);
        }
        self
    }

    /// The same, and there is an access log unless telemetry says otherwise, kept by `keeper`.
    pub(in crate::waypoint) fn logged(mut self, keeper: Exporter) -> Self {
        let provider = Arc::<str>::from("log");
        let gateway = Arc::make_mut(self.gateway.as_mut().unwrap());
        let setup = &mut gateway.options.telemetry;
        setup.defaults.access_logging = vec![Arc::clone(&provider)];
        setup.providers.insert(provider, keeper);
        self
    }

    /// The same, and requests for `cart` are traced so, for whoever is told.
    pub(in crate::waypoint) fn traced(mut self, says: Tracing, told: Exporter) -> Self {
        let key = PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from("traces"),
        };
        let provider = Arc::<str>::from("spans");
        let telemetry = Telemetry {
            key: key.clone(),
            origin: origin(),
            says: Sections {
                tracing: vec![Tracing {
                    providers: vec![Arc::clone(&provider)],
                    ..says
                }],
                ..Sections::default()
            },
        };
        self.telemetry.insert(key.clone(), Arc::new(telemetry));
        let gateway = Arc::make_mut(self.gateway.as_mut().unwrap());
        gateway.options.telemetry.providers.insert(provider, told);
        let cart = self.services.get_mut(&self::key("cart")).unwrap();
        Arc::make_mut(cart).set.telemetry = vec![key];
        self
    }
}
