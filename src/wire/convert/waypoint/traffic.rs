//! Traffic policies.

use std::sync::Arc;

use super::super::{Fault, Reason, port, required};
use super::FORMAT;
use super::parts::{
    PRESENT, duration, finite, for_so_long, format, given, lasting, maybe, part, string, strings,
    text, texts,
};
use crate::model::declaration::Origin;
use crate::model::traffic::{
    Balance, ConnectionPool, Distribute, HashKey, HashTable, Keepalive, LoadBalancer,
    LocalityPolicy, OutlierDetection, ProxyProtocol, RetryBudget, Settings, TlsOrigination,
    TrafficPolicy, UpstreamTls, Warmup,
};
use crate::model::waypoint::{NamedTraffic, TrafficKey};
use crate::wire::proto::waypoint as proto;
use proto::hash::{Key, Table};
use proto::load_balancer::Policy;

pub(super) fn encode(traffic: &NamedTraffic) -> proto::TrafficPolicy {
    let ports = traffic.policy.ports.iter();
    proto::TrafficPolicy {
        format: FORMAT,
        subset: traffic.key.subset.to_string(),
        usual: Some(encode_settings(&traffic.policy.usual)),
        ports: ports
            .map(|(port, s)| ((*port).into(), encode_settings(s)))
            .collect(),
    }
}

pub(super) fn decode(
    key: TrafficKey,
    origin: Origin,
    traffic: proto::TrafficPolicy,
) -> Result<NamedTraffic, Fault> {
    format(traffic.format)?;
    let ports = traffic.ports.into_iter();
    let ports = ports.map(|(port, given)| {
        let port = self::port("ports", port)?;
        Ok((
            port,
            settings(given).map_err(|fault| fault.within("ports"))?,
        ))
    });
    Ok(NamedTraffic {
        key,
        origin,
        policy: TrafficPolicy {
            usual: part("usual", traffic.usual, settings)?,
            ports: ports.collect::<Result<_, Fault>>()?,
        },
    })
}

fn encode_settings(settings: &Settings) -> proto::TrafficSettings {
    proto::TrafficSettings {
        load_balancer: Some(encode_balancer(&settings.load_balancer)),
        connection_pool: Some(encode_pool(&settings.connection_pool)),
        outlier_detection: settings.outlier_detection.as_ref().map(encode_outliers),
        retry_budget: settings.retry_budget.map(|budget| proto::RetryBudget {
            percent: budget.percent,
            min_concurrency: budget.min_concurrency,
        }),
        tls: match &settings.tls {
            UpstreamTls::None => None,
            UpstreamTls::Originate(tls) => Some(encode_tls(tls)),
        },
        proxy_protocol: match settings.proxy_protocol {
            None => 0,
            Some(ProxyProtocol::V1) => 1,
            Some(ProxyProtocol::V2) => 2,
        },
    }
}

fn settings(settings: proto::TrafficSettings) -> Result<Settings, Fault> {
    let tls = maybe("tls", settings.tls, decode_tls)?;
    let budget = |budget: proto::RetryBudget| {
        Ok(RetryBudget {
            percent: finite("percent", budget.percent)?,
            min_concurrency: budget.min_concurrency,
        })
    };
    Ok(Settings {
        load_balancer: part("load_balancer", settings.load_balancer, decode_balancer)?,
        connection_pool: part("connection_pool", settings.connection_pool, decode_pool)?,
        outlier_detection: maybe("outlier_detection", settings.outlier_detection, outliers)?,
        retry_budget: maybe("retry_budget", settings.retry_budget, budget)?,
        tls: tls.map_or(UpstreamTls::None, UpstreamTls::Originate),
        proxy_protocol: match settings.proxy_protocol {
            0 => None,
            1 => Some(ProxyProtocol::V1),
            2 => Some(ProxyProtocol::V2),
            other => {
                let unknown = Reason::Unsupported(other.to_string());
                return Err(Fault::new("proxy_protocol", unknown));
            }
        },
    })
}

fn encode_balancer(balancer: &LoadBalancer) -> proto::LoadBalancer {
    proto::LoadBalancer {
        policy: Some(match &balancer.policy {
            Balance::LeastRequest => Policy::LeastRequest(PRESENT),
            Balance::RoundRobin => Policy::RoundRobin(PRESENT),
            Balance::Random => Policy::Random(PRESENT),
            Balance::Passthrough => Policy::Passthrough(PRESENT),
            Balance::Hash { key, table } => Policy::Hash(encode_hash(key, *table)),
        }),
        warmup: balancer.warmup.map(|warmup| proto::Warmup {
            duration: Some(lasting(warmup.duration)),
            minimum_percent: warmup.minimum_percent,
            aggression: warmup.aggression,
        }),
        locality: balancer.locality.as_ref().map(encode_locality),
    }
}

fn decode_balancer(balancer: proto::LoadBalancer) -> Result<LoadBalancer, Fault> {
    let warmup = |warmup: proto::Warmup| {
        Ok(Warmup {
            duration: for_so_long("duration", warmup.duration)?,
            minimum_percent: finite("minimum_percent", warmup.minimum_percent)?,
            aggression: finite("aggression", warmup.aggression)?,
        })
    };
    Ok(LoadBalancer {
        policy: match given("policy", balancer.policy)? {
            Policy::LeastRequest(proto::Present {}) => Balance::LeastRequest,
            Policy::RoundRobin(proto::Present {}) => Balance::RoundRobin,
            Policy::Random(proto::Present {}) => Balance::Random,
            Policy::Passthrough(proto::Present {}) => Balance::Passthrough,
            Policy::Hash(hash) => decode_hash(hash).map_err(|fault| fault.within("hash"))?,
        },
        warmup: maybe("warmup", balancer.warmup, warmup)?,
        locality: balancer.locality.map(locality),
    })
}

fn encode_hash(key: &HashKey, table: HashTable) -> proto::Hash {
    proto::Hash {
        key: Some(match key {
            HashKey::Header(name) => Key::Header(name.to_string()),
            HashKey::Cookie { name, path, ttl } => Key::Cookie(proto::hash::Cookie {
                name: name.to_string(),
                path: string(path.as_ref()),
                ttl: ttl.map(lasting),
            }),
            HashKey::SourceIp => Key::SourceIp(PRESENT),
            HashKey::Query(name) => Key::Query(name.to_string()),
        }),
        table: Some(match table {
            HashTable::Ring(size) => Table::Ring(size),
            HashTable::Maglev(size) => Table::Maglev(size),
        }),
    }
}

fn decode_hash(hash: proto::Hash) -> Result<Balance, Fault> {
    let key = match given("key", hash.key)? {
        Key::Header(name) => HashKey::Header(required("header", name)?),
        Key::Cookie(cookie) => HashKey::Cookie {
            name: required("cookie", cookie.name)?,
            path: text(cookie.path),
            ttl: duration("ttl", cookie.ttl)?,
        },
        Key::SourceIp(proto::Present {}) => HashKey::SourceIp,
        Key::Query(name) => HashKey::Query(required("query", name)?),
    };
    let table = match given("table", hash.table)? {
        Table::Ring(size) => HashTable::Ring(size),
        Table::Maglev(size) => HashTable::Maglev(size),
    };
    Ok(Balance::Hash { key, table })
}

pub(super) fn encode_locality(policy: &LocalityPolicy) -> proto::LocalityPolicy {
    let distribute = |one: &Distribute| proto::locality_policy::Distribute {
        from: one.from.to_string(),
        to: {
            let share = |(locality, percent): &(Arc<str>, u32)| proto::locality_policy::Share {
                locality: locality.to_string(),
                percent: *percent,
            };
            one.to.iter().map(share).collect()
        },
    };
    let failover = |(from, to): &(Arc<str>, Arc<str>)| proto::locality_policy::Failover {
        from: from.to_string(),
        to: to.to_string(),
    };
    proto::LocalityPolicy {
        enabled: policy.enabled,
        distribute: policy.distribute.iter().map(distribute).collect(),
        failover: policy.failover.iter().map(failover).collect(),
        failover_priority: strings(&policy.failover_priority),
    }
}

pub(super) fn locality(policy: proto::LocalityPolicy) -> LocalityPolicy {
    let distribute = |one: proto::locality_policy::Distribute| {
        let to = one.to.into_iter();
        Distribute {
            from: Arc::from(one.from),
            to: to
                .map(|share| (Arc::from(share.locality), share.percent))
                .collect(),
        }
    };
    let failover = policy.failover.into_iter();
    LocalityPolicy {
        enabled: policy.enabled,
        distribute: policy.distribute.into_iter().map(distribute).collect(),
        failover: failover
            .map(|f| (Arc::from(f.from), Arc::from(f.to)))
            .collect(),
        failover_priority: texts(policy.failover_priority),
    }
}

fn encode_pool(pool: &ConnectionPool) -> proto::ConnectionPool {
    proto::ConnectionPool {
        max_connections: pool.max_connections,
        connect_timeout: Some(lasting(pool.connect_timeout)),
        tcp_idle_timeout: Some(lasting(pool.tcp_idle_timeout)),
        max_connection_duration: pool.max_connection_duration.map(lasting),
        tcp_keepalive: pool.tcp_keepalive.map(|keepalive| proto::Keepalive {
            probes: keepalive.probes,
            time: keepalive.time.map(lasting),
            interval: keepalive.interval.map(lasting),
        }),
        max_pending_requests: pool.max_pending_requests,
        max_requests: pool.max_requests,
        max_retries: pool.max_retries,
        max_requests_per_connection: pool.max_requests_per_connection,
        http_idle_timeout: Some(lasting(pool.http_idle_timeout)),
        max_concurrent_streams: pool.max_concurrent_streams,
        h2_upgrade: pool.h2_upgrade,
        use_client_protocol: pool.use_client_protocol,
    }
}

fn decode_pool(pool: proto::ConnectionPool) -> Result<ConnectionPool, Fault> {
    let keepalive = |keepalive: proto::Keepalive| {
        Ok(Keepalive {
            probes: keepalive.probes,
            time: duration("time", keepalive.time)?,
            interval: duration("interval", keepalive.interval)?,
        })
    };
    Ok(ConnectionPool {
        max_connections: pool.max_connections,
        connect_timeout: for_so_long("connect_timeout", pool.connect_timeout)?,
        tcp_idle_timeout: for_so_long("tcp_idle_timeout", pool.tcp_idle_timeout)?,
        max_connection_duration: duration("max_connection_duration", pool.max_connection_duration)?,
        tcp_keepalive: maybe("tcp_keepalive", pool.tcp_keepalive, keepalive)?,
        max_pending_requests: pool.max_pending_requests,
        max_requests: pool.max_requests,
        max_retries: pool.max_retries,
        max_requests_per_connection: pool.max_requests_per_connection,
        http_idle_timeout: for_so_long("http_idle_timeout", pool.http_idle_timeout)?,
        max_concurrent_streams: pool.max_concurrent_streams,
        h2_upgrade: pool.h2_upgrade,
        use_client_protocol: pool.use_client_protocol,
    })
}

fn encode_outliers(outliers: &OutlierDetection) -> proto::OutlierDetection {
    proto::OutlierDetection {
        consecutive_5xx: outliers.consecutive_5xx,
        consecutive_gateway: outliers.consecutive_gateway,
        split_local_errors: outliers.split_local_errors,
        consecutive_local: outliers.consecutive_local,
        interval: Some(lasting(outliers.interval)),
        base_ejection: Some(lasting(outliers.base_ejection)),
        max_ejection_percent: outliers.max_ejection_percent,
        min_health_percent: outliers.min_health_percent,
    }
}

fn outliers(outliers: proto::OutlierDetection) -> Result<OutlierDetection, Fault> {
    Ok(OutlierDetection {
        consecutive_5xx: outliers.consecutive_5xx,
        consecutive_gateway: outliers.consecutive_gateway,
        split_local_errors: outliers.split_local_errors,
        consecutive_local: outliers.consecutive_local,
        interval: for_so_long("interval", outliers.interval)?,
        base_ejection: for_so_long("base_ejection", outliers.base_ejection)?,
        max_ejection_percent: outliers.max_ejection_percent,
        min_health_percent: outliers.min_health_percent,
    })
}

fn encode_tls(tls: &TlsOrigination) -> proto::TlsOrigination {
    let files = tls.client_certificate.as_ref();
    proto::TlsOrigination {
        sni: string(tls.sni.as_ref()),
        subject_alt_names: strings(&tls.subject_alt_names),
        ca_certificates: string(tls.ca_certificates.as_ref()),
        insecure_skip_verify: tls.insecure_skip_verify,
        client_certificate: files.map(|(certificate, key)| proto::tls_origination::Files {
            certificate: certificate.to_string(),
            private_key: key.to_string(),
        }),
    }
}

fn decode_tls(tls: proto::TlsOrigination) -> Result<TlsOrigination, Fault> {
    let files = |files: proto::tls_origination::Files| {
        let certificate = required("certificate", files.certificate)?;
        Ok((certificate, required("private_key", files.private_key)?))
    };
    Ok(TlsOrigination {
        sni: text(tls.sni),
        subject_alt_names: texts(tls.subject_alt_names),
        ca_certificates: text(tls.ca_certificates),
        insecure_skip_verify: tls.insecure_skip_verify,
        client_certificate: maybe("client_certificate", tls.client_certificate, files)?,
    })
}
