//! Routes.

use std::sync::Arc;

use super::super::{Fault, Reason, port, required, service_key};
use super::gateway::{encode_retry, retry};
use super::parts::{
    duration, each, encode_fraction, for_so_long, format, fraction, given, lasting, maybe, number,
    part, string, strings, text, texts,
};
use super::{FORMAT, filter, matching};
use crate::model::declaration::Origin;
use crate::model::route::{
    Abort, Backend, Fault as Faults, PersistBy, Persistence, Route, RouteKey, Rule, Target,
    Timeouts,
};
use crate::wire::proto::waypoint as proto;
use proto::fault::abort::Answer;
use proto::persistence::By;
use proto::target::Is;

pub(super) fn encode(route: &Route) -> proto::Route {
    proto::Route {
        format: FORMAT,
        server_names: strings(&route.server_names),
        rules: route.rules.iter().map(encode_rule).collect(),
    }
}

pub(super) fn decode(key: RouteKey, origin: Origin, route: proto::Route) -> Result<Route, Fault> {
    format(route.format)?;
    Ok(Route {
        key,
        origin,
        server_names: texts(route.server_names),
        rules: each("rules", route.rules, decode_rule)?,
    })
}

fn encode_rule(rule: &Rule<Target>) -> proto::Rule {
    proto::Rule {
        name: rule.name.to_string(),
        line: rule.line,
        matches: rule.matches.iter().map(matching::encode).collect(),
        filters: rule.filters.iter().map(filter::encode).collect(),
        backends: rule.backends.iter().map(encode_backend).collect(),
        request_timeout: rule.timeouts.request.map(lasting),
        backend_request_timeout: rule.timeouts.backend_request.map(lasting),
        retry: rule.retry.as_ref().map(encode_retry),
        persistence: rule.persistence.as_ref().map(encode_persistence),
        fault: (rule.fault != Faults::default()).then(|| encode_faults(&rule.fault)),
    }
}

fn decode_rule(rule: proto::Rule) -> Result<Rule<Target>, Fault> {
    Ok(Rule {
        name: Arc::from(rule.name),
        line: rule.line,
        matches: each("matches", rule.matches, matching::decode)?,
        filters: each("filters", rule.filters, filter::decode)?,
        backends: each("backends", rule.backends, decode_backend)?,
        timeouts: Timeouts {
            request: duration("request_timeout", rule.request_timeout)?,
            backend_request: duration("backend_request_timeout", rule.backend_request_timeout)?,
        },
        retry: maybe("retry", rule.retry, retry)?,
        persistence: maybe("persistence", rule.persistence, decode_persistence)?,
        fault: maybe("fault", rule.fault, decode_faults)?.unwrap_or_default(),
    })
}

fn encode_backend(backend: &Backend<Target>) -> proto::Backend {
    proto::Backend {
        to: Some(encode_target(&backend.to)),
        weight: backend.weight,
        filters: backend.filters.iter().map(filter::encode).collect(),
    }
}

fn decode_backend(backend: proto::Backend) -> Result<Backend<Target>, Fault> {
    Ok(Backend {
        to: part("to", backend.to, target)?,
        weight: backend.weight,
        filters: each("filters", backend.filters, filter::decode)?,
    })
}

pub(super) fn encode_target(target: &Target) -> proto::Target {
    proto::Target {
        is: Some(match target {
            Target::Service { key, port, subset } => Is::Service(proto::target::Service {
                namespace: key.namespace.to_string(),
                hostname: key.hostname.to_string(),
                port: (*port).into(),
                subset: string(subset.as_ref()),
            }),
            Target::Invalid(why) => Is::Invalid(why.to_string()),
        }),
    }
}

pub(super) fn target(target: proto::Target) -> Result<Target, Fault> {
    Ok(match given("is", target.is)? {
        Is::Service(service) => {
            let name = format!("{}/{}", service.namespace, service.hostname);
            Target::Service {
                key: service_key("service", &name)?,
                port: port("port", service.port)?,
                subset: text(service.subset),
            }
        }
        Is::Invalid(why) => Target::Invalid(Arc::from(why)),
    })
}

fn encode_persistence(persistence: &Persistence) -> proto::Persistence {
    proto::Persistence {
        by: Some(match &persistence.by {
            PersistBy::Cookie {
                name,
                path,
                permanent,
            } => By::Cookie(proto::persistence::Cookie {
                name: name.to_string(),
                path: path.to_string(),
                permanent: *permanent,
            }),
            PersistBy::Header { name } => By::Header(name.to_string()),
        }),
        absolute_timeout: persistence.absolute_timeout.map(lasting),
    }
}

fn decode_persistence(persistence: proto::Persistence) -> Result<Persistence, Fault> {
    Ok(Persistence {
        by: match given("by", persistence.by)? {
            By::Cookie(cookie) => PersistBy::Cookie {
                name: required("cookie", cookie.name)?,
                path: Arc::from(cookie.path),
                permanent: cookie.permanent,
            },
            By::Header(name) => PersistBy::Header {
                name: required("header", name)?,
            },
        },
        absolute_timeout: duration("absolute_timeout", persistence.absolute_timeout)?,
    })
}

fn encode_faults(faults: &Faults) -> proto::Fault {
    proto::Fault {
        delay: faults.delay.map(|(wait, share)| proto::fault::Delay {
            wait: Some(lasting(wait)),
            share: Some(encode_fraction(share)),
        }),
        abort: faults.abort.map(|(abort, share)| proto::fault::Abort {
            share: Some(encode_fraction(share)),
            answer: Some(match abort {
                Abort::Http(status) => Answer::Http(status.into()),
                Abort::Grpc(status) => Answer::Grpc(status.into()),
            }),
        }),
    }
}

fn decode_faults(faults: proto::Fault) -> Result<Faults, Fault> {
    let delay = |delay: proto::fault::Delay| {
        let wait = for_so_long("wait", delay.wait)?;
        Ok((wait, part("share", delay.share, fraction)?))
    };
    let abort = |abort: proto::fault::Abort| {
        let answer = match abort.answer {
            Some(Answer::Http(status)) => Abort::Http(number("http", status)?),
            Some(Answer::Grpc(status)) => Abort::Grpc(number("grpc", status)?),
            None => return Err(Fault::new("answer", Reason::Missing)),
        };
        Ok((answer, part("share", abort.share, fraction)?))
    };
    Ok(Faults {
        delay: maybe("delay", faults.delay, delay)?,
        abort: maybe("abort", faults.abort, abort)?,
    })
}
