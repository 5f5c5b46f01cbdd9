//! `lateen.v1.HealthCheck`.

use std::sync::Arc;
use std::time::Duration;

use super::{Fault, Reason, port, required};
use crate::model::declaration::{HealthCheck, Probe};
use crate::wire::proto::lateen as proto;
use crate::wire::proto::lateen::health_check as kind;

pub(super) fn encode(check: &HealthCheck) -> proto::HealthCheck {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let probe = match &check.probe {
        Probe::Http { path, port } => kind::Probe::Http(kind::Http {
            path: path.to_string(),
            port: u32::from(*port),
        }),
        Probe::Tcp { port } => kind::Probe::Tcp(kind::Tcp {
            port: u32::from(*port),
        }),
        Probe::Exec { command } => kind::Probe::Exec(kind::Exec {
            command: command.iter().map(ToString::to_string).collect(),
        }),
    };
    proto::HealthCheck {
        probe: Some(probe),
        interval_ms: millis(check.interval),
        timeout_ms: millis(check.timeout),
        rise: check.rise,
        fall: check.fall,
        start_timeout_ms: millis(check.start_timeout),
    }
}

/// What a node cannot carry out it must not take for a check that passes.
pub(super) fn decode(given: proto::HealthCheck) -> Result<HealthCheck, Fault> {
    let probe = given
        .probe
        .ok_or_else(|| Fault::new("probe", Reason::Missing))?;
    let time = |field, millis| match millis {
        0 => Err(Fault::new(field, Reason::Missing)),
        millis => Ok(Duration::from_millis(millis)),
    };
    let count = |field, count| match count {
        0 => Err(Fault::new(field, Reason::Missing)),
        count => Ok(count),
    };
    Ok(HealthCheck {
        probe: self::probe(probe)?,
        interval: time("interval_ms", given.interval_ms)?,
        timeout: time("timeout_ms", given.timeout_ms)?,
        rise: count("rise", given.rise)?,
        fall: count("fall", given.fall)?,
        start_timeout: Duration::from_millis(given.start_timeout_ms),
    })
}

fn probe(given: kind::Probe) -> Result<Probe, Fault> {
    let own_port = |value| match port("port", value)? {
        0 => Err(Fault::new("port", Reason::Missing)),
        port => Ok(port),
    };
    Ok(match given {
        kind::Probe::Http(http) => Probe::Http {
            path: required("path", http.path)?,
            port: own_port(http.port)?,
        },
        kind::Probe::Tcp(tcp) => Probe::Tcp {
            port: own_port(tcp.port)?,
        },
        kind::Probe::Exec(exec) => {
            let command: Vec<Arc<str>> = exec.command.into_iter().map(Arc::from).collect();
            if command.first().is_none_or(|program| program.is_empty()) {
                return Err(Fault::new("command", Reason::Missing));
            }
            Probe::Exec { command }
        }
    })
}
