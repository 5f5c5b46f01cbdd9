//! `traffic-policy`: groups, each of which is taken as a whole from the place nearest to what it is
//! for (§3.4).

use std::collections::BTreeMap;

use super::{balancer, outlier, pool, tls};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::Place;
use crate::model::traffic::{
    ConnectionPool, LoadBalancer, OutlierDetection, ProxyProtocol, RetryBudget, Settings,
    TrafficPolicy, UpstreamTls,
};

/// The groups that are written in one place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::config) struct Groups {
    pub(super) load_balancer: Option<LoadBalancer>,
    pub(super) connection_pool: Option<ConnectionPool>,
    pub(super) outlier_detection: Option<OutlierDetection>,
    pub(super) retry_budget: Option<RetryBudget>,
    pub(super) tls: Option<UpstreamTls>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
}

impl Groups {
    /// What is missing is as in `wider`.
    fn within(&self, wider: &Self) -> Self {
        let own = self.clone();
        let wider = wider.clone();
        Self {
            load_balancer: own.load_balancer.or(wider.load_balancer),
            connection_pool: own.connection_pool.or(wider.connection_pool),
            outlier_detection: own.outlier_detection.or(wider.outlier_detection),
            retry_budget: own.retry_budget.or(wider.retry_budget),
            tls: own.tls.or(wider.tls),
            proxy_protocol: own.proxy_protocol.or(wider.proxy_protocol),
        }
    }

    /// What is still missing is as by default.
    fn settle(&self) -> Settings {
        let own = self.clone();
        Settings {
            load_balancer: own.load_balancer.unwrap_or_default(),
            connection_pool: own.connection_pool.unwrap_or_default(),
            outlier_detection: own.outlier_detection,
            retry_budget: own.retry_budget,
            tls: own.tls.unwrap_or_default(),
            proxy_protocol: own.proxy_protocol,
        }
    }
}

/// A `traffic-policy` as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::config) struct WrittenPolicy {
    pub(super) usual: Groups,
    /// `port-level-settings`.
    pub(super) ports: BTreeMap<u16, Groups>,
}

impl WrittenPolicy {
    /// Whether anything is said of TLS for a port.
    pub(in crate::config) fn speaks_of_tls(&self, port: u16) -> bool {
        self.ports.get(&port).unwrap_or(&self.usual).tls.is_some()
    }

    /// Whether it has settings for a port, which inherit nothing, that say nothing of TLS.
    pub(in crate::config) fn leaves_out_tls(&self, port: u16) -> bool {
        let own = self.ports.get(&port);
        own.is_some_and(|groups| groups.tls.is_none())
    }

    /// What it means by itself. A port inherits nothing.
    pub(in crate::config) fn settle(&self) -> TrafficPolicy {
        let ports = self.ports.iter();
        TrafficPolicy {
            usual: self.usual.settle(),
            ports: ports.map(|(port, own)| (*port, own.settle())).collect(),
        }
    }

    /// What it means for a subset of what `rule` is for: group by group the subset's own comes first,
    /// then the rule's for the port, then the rule's.
    pub(in crate::config) fn settle_within(&self, rule: &Self) -> TrafficPolicy {
        let of_rule = rule.ports.iter();
        let of_rule = of_rule.map(|(port, wider)| (*port, self.usual.within(wider).settle()));
        let mut ports: BTreeMap<_, _> = of_rule.collect();
        let own = self.ports.iter();
        ports.extend(own.map(|(port, own)| (*port, own.settle())));
        TrafficPolicy {
            usual: self.usual.within(&rule.usual).settle(),
            ports,
        }
    }
}

pub(super) fn read(value: &Value<'_>) -> Option<WrittenPolicy> {
    let table = value.nested()?;
    let usual = groups(&table);
    let ports = table.optional("port-level-settings", ports);
    table.unsupported("tunnel", "take it out: endpoints are reached over HBONE");
    table.finish();
    Some(WrittenPolicy {
        usual,
        ports: ports.unwrap_or_default(),
    })
}

fn groups(table: &Table<'_>) -> Groups {
    Groups {
        load_balancer: table.optional("load-balancer", balancer::read),
        connection_pool: table.optional("connection-pool", pool::read),
        outlier_detection: table.optional("outlier-detection", outlier::read),
        retry_budget: table.optional("retry-budget", outlier::retry_budget),
        tls: table.optional("tls", tls::read),
        proxy_protocol: table.optional("proxy-protocol", tls::proxy_protocol),
    }
}

fn ports(value: &Value<'_>) -> Option<BTreeMap<u16, Groups>> {
    let mut seen: BTreeMap<u16, Place> = BTreeMap::new();
    let ports = value.list(|value| {
        let table = value.nested()?;
        let port = table.required("port", "port = { number = 80 }", number);
        let groups = groups(&table);
        table.finish();
        let port = port?;
        if let Some(first) = seen.get(&port) {
            let message = format!("{}: port {port} has settings twice", table.what());
            table.report(
                Diagnostic::new(Code::DuplicateName, table.place().clone(), message)
                    .label("again")
                    .related(first.clone(), "first here")
                    .help("write all its groups in one of the two"),
            );
            return None;
        }
        seen.insert(port, table.place().clone());
        Some((port, groups))
    });
    Some(ports?.into_iter().collect())
}

/// `{ number = 80 }`.
fn number(value: &Value<'_>) -> Option<u16> {
    let table = value.nested()?;
    let number = table.required("number", "number = 80", scalar::port);
    table.finish();
    number
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pool(max_connections: u32) -> Option<ConnectionPool> {
        Some(ConnectionPool {
            max_connections,
            ..ConnectionPool::default()
        })
    }

    fn outliers() -> Option<OutlierDetection> {
        Some(OutlierDetection {
            interval: Duration::from_secs(1),
            ..OutlierDetection::default()
        })
    }

    #[test]
    fn a_group_comes_from_the_nearest_place_that_has_it() {
        let rule = WrittenPolicy {
            usual: Groups {
                connection_pool: pool(1),
                outlier_detection: outliers(),
                ..Groups::default()
            },
            ports: BTreeMap::from([(
                80,
                Groups {
                    connection_pool: pool(2),
                    ..Groups::default()
                },
            )]),
        };
        let own = Groups {
            retry_budget: Some(RetryBudget::default()),
            ..Groups::default()
        };
        let subset = WrittenPolicy {
            usual: own.clone(),
            ports: BTreeMap::from([(81, Groups::default())]),
        };
        let narrow = WrittenPolicy {
            usual: Groups {
                connection_pool: pool(3),
                ..Groups::default()
            },
            ports: BTreeMap::new(),
        };
        let (alone, inherits) = (rule.settle(), subset.settle_within(&rule));
        let narrow = narrow.settle_within(&rule);
        let unlimited = u32::MAX;
        for (name, policy, port, connections, detects, budget) in [
            ("rule", &alone, 443, 1, true, false),
            (
                "rule, its port inherits nothing",
                &alone,
                80,
                2,
                false,
                false,
            ),
            ("subset", &inherits, 443, 1, true, true),
            ("subset, port of the rule", &inherits, 80, 2, false, true),
            (
                "subset, its own port",
                &inherits,
                81,
                unlimited,
                false,
                false,
            ),
            ("subset before port", &narrow, 80, 3, false, false),
        ] {
            let settings = policy.on(port);
            assert_eq!(
                settings.connection_pool.max_connections, connections,
                "{name}"
            );
            assert_eq!(settings.outlier_detection.is_some(), detects, "{name}");
            assert_eq!(settings.retry_budget.is_some(), budget, "{name}");
        }
    }
}
