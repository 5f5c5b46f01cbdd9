//! `connection-pool`.

use std::time::Duration;

use crate::config::read::{Value, scalar};
use crate::model::traffic::{ConnectionPool, Keepalive};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

pub(super) fn read(value: &Value<'_>) -> Option<ConnectionPool> {
    let table = value.nested()?;
    let mut pool = ConnectionPool::default();
    if let Some(value) = table.value("tcp") {
        tcp(&value, &mut pool);
    }
    if let Some(value) = table.value("http") {
        http(&value, &mut pool);
    }
    table.finish();
    Some(pool)
}

/// A limit; 0 would let nothing through, which Istio takes for no limit.
fn limit(value: &Value<'_>) -> Option<u32> {
    value.count(1..=u32::MAX)
}

fn within(low: Duration, high: Duration) -> impl Fn(&Value<'_>) -> Option<Duration> {
    move |value| scalar::duration(value, low..=high)
}

fn set<T>(field: &mut T, read: Option<T>) {
    if let Some(read) = read {
        *field = read;
    }
}

fn tcp(value: &Value<'_>, pool: &mut ConnectionPool) {
    let Some(table) = value.nested() else {
        return;
    };
    set(
        &mut pool.max_connections,
        table.optional("max-connections", limit),
    );
    let timeout = table.optional("connect-timeout", within(MILLISECOND, 3600 * SECOND));
    set(&mut pool.connect_timeout, timeout);
    let idle = table.optional("idle-timeout", within(Duration::ZERO, YEAR));
    set(&mut pool.tcp_idle_timeout, idle);
    pool.max_connection_duration =
        table.optional("max-connection-duration", within(MILLISECOND, YEAR));
    pool.tcp_keepalive = table.optional("tcp-keepalive", keepalive);
    table.finish();
}

fn keepalive(value: &Value<'_>) -> Option<Keepalive> {
    let table = value.nested()?;
    let keepalive = Keepalive {
        probes: table.optional("probes", |value| value.count(1..=127)),
        time: table.optional("time", within(SECOND, DAY)),
        interval: table.optional("interval", within(SECOND, DAY)),
    };
    table.finish();
    Some(keepalive)
}

/// `h2-upgrade-policy`: whether HTTP ports are spoken to in HTTP/2.
const UPGRADES: [(&str, bool); 3] = [
    ("DEFAULT", false),
    ("DO_NOT_UPGRADE", false),
    ("UPGRADE", true),
];

fn http(value: &Value<'_>, pool: &mut ConnectionPool) {
    let Some(table) = value.nested() else {
        return;
    };
    let pending = table.optional("http1-max-pending-requests", limit);
    set(&mut pool.max_pending_requests, pending);
    set(
        &mut pool.max_requests,
        table.optional("http2-max-requests", limit),
    );
    // None at all is a policy one may want: no retry adds to a service's load.
    let retries = table.optional("max-retries", |value| value.count(0..=u32::MAX));
    set(&mut pool.max_retries, retries);
    let per_connection = table.optional("max-requests-per-connection", |value| {
        value.count(0..=u32::MAX)
    });
    set(&mut pool.max_requests_per_connection, per_connection);
    let idle = table.optional("idle-timeout", within(MILLISECOND, YEAR));
    set(&mut pool.http_idle_timeout, idle);
    let streams = table.optional("max-concurrent-streams", limit);
    set(&mut pool.max_concurrent_streams, streams);
    let upgrade = table.optional("h2-upgrade-policy", |value| {
        scalar::choice(value, &UPGRADES)
    });
    set(&mut pool.h2_upgrade, upgrade);
    let client = table.optional("use-client-protocol", Value::boolean);
    set(&mut pool.use_client_protocol, client);
    table.finish();
}
