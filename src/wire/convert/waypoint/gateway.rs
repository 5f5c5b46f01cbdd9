//! The waypoint itself, and the retries that rules have by default.

use std::collections::BTreeSet;

use super::super::{Fault, Reason, enumeration, port};
use super::parts::{duration, each, for_so_long, lasting, number, part};
use super::set;
use super::traffic::{encode_locality, locality};
use crate::model::authentication::Fetching;
use crate::model::authorization::Trusted;
use crate::model::declaration::{Origin, WaypointFor};
use crate::model::policy::Pattern;
use crate::model::route::{PathNormalization, Retry, RetryOn};
use crate::model::traffic::LocalityPolicy;
use crate::model::waypoint::{GatewayConfig, Options, WaypointName};
use crate::wire::proto::waypoint as proto;
use proto::gateway::WaypointFor as For;
use proto::options::PathNormalization as Paths;
use proto::retry::On;

pub(super) fn encode(gateway: &GatewayConfig) -> proto::Gateway {
    let options = &gateway.options;
    proto::Gateway {
        namespace: gateway.name.namespace.to_string(),
        name: gateway.name.name.to_string(),
        waypoint_for: match gateway.waypoint_for {
            WaypointFor::Service => For::Service,
            WaypointFor::Workload => For::Workload,
            WaypointFor::All => For::All,
            WaypointFor::None => For::None,
        }
        .into(),
        hbone_port: gateway.hbone_port.into(),
        options: Some(proto::Options {
            xfcc_include_client_identity: options.xfcc_include_client_identity,
            sniff_timeout: Some(lasting(options.sniff_timeout)),
            default_retry: Some(encode_retry(&options.default_retry)),
            locality: Some(encode_locality(&options.locality)),
            jwks_stale_limit: Some(lasting(options.fetching.stale_limit)),
            jwks_local_ranges: {
                let ranges = options.fetching.local_ranges.iter();
                ranges.map(ToString::to_string).collect()
            },
            paths: match options.paths {
                PathNormalization::None => Paths::None,
                PathNormalization::Base => Paths::Base,
                PathNormalization::MergeSlashes => Paths::MergeSlashes,
                PathNormalization::DecodeAndMergeSlashes => Paths::DecodeAndMergeSlashes,
            }
            .into(),
            trusted_proxies: options
                .trusted
                .proxies
                .iter()
                .map(ToString::to_string)
                .collect(),
            trusted_proxy_count: options.trusted.count,
        }),
        workload_set: Some(set::encode(&gateway.name, &gateway.workload_set)),
    }
}

pub(super) fn decode(
    waypoint: &WaypointName,
    origin: Origin,
    given: proto::Gateway,
) -> Result<GatewayConfig, Fault> {
    if *given.namespace != *waypoint.namespace || *given.name != *waypoint.name {
        let own = format!("{}/{}", given.namespace, given.name);
        return Err(Fault::new("name", Reason::OtherName(own)));
    }
    Ok(GatewayConfig {
        name: waypoint.clone(),
        origin,
        waypoint_for: match enumeration("waypoint_for", given.waypoint_for)? {
            For::Service => WaypointFor::Service,
            For::Workload => WaypointFor::Workload,
            For::All => WaypointFor::All,
            For::None => WaypointFor::None,
            For::Unspecified => return Err(Fault::new("waypoint_for", Reason::Missing)),
        },
        hbone_port: port("hbone_port", given.hbone_port)?,
        options: part("options", given.options, options)?,
        workload_set: set::decode("workload_set", waypoint, given.workload_set)?,
    })
}

fn options(given: proto::Options) -> Result<Options, Fault> {
    Ok(Options {
        xfcc_include_client_identity: given.xfcc_include_client_identity,
        sniff_timeout: for_so_long("sniff_timeout", given.sniff_timeout)?,
        default_retry: part("default_retry", given.default_retry, retry)?,
        locality: match given.locality {
            Some(given) => locality(given),
            None => LocalityPolicy::usual(),
        },
        fetching: Fetching {
            stale_limit: duration("jwks_stale_limit", given.jwks_stale_limit)?
                .unwrap_or_else(|| Fetching::usual().stale_limit),
            local_ranges: each("jwks_local_ranges", given.jwks_local_ranges, |range| {
                let read = range.parse();
                read.map_err(|_none| Fault::new("range", Reason::Value(range)))
            })?,
        },
        paths: match enumeration("paths", given.paths)? {
            Paths::Unspecified => return Err(Fault::new("paths", Reason::Missing)),
            Paths::None => PathNormalization::None,
            Paths::Base => PathNormalization::Base,
            Paths::MergeSlashes => PathNormalization::MergeSlashes,
            Paths::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
        },
        trusted: Trusted {
            proxies: each("trusted_proxies", given.trusted_proxies, |text| {
                let pattern = Pattern::parse(&text);
                pattern.map_err(|_none| Fault::new("proxy", Reason::Value(text)))
            })?,
            count: given.trusted_proxy_count,
        },
    })
}

pub(super) fn encode_retry(retry: &Retry) -> proto::Retry {
    let on = |on: &RetryOn| i32::from(encode_on(*on));
    proto::Retry {
        attempts: retry.attempts,
        on: retry.on.iter().map(on).collect(),
        codes: retry.codes.iter().copied().map(u32::from).collect(),
        backoff: retry.backoff.map(lasting),
        per_try_timeout: retry.per_try_timeout.map(lasting),
        ignore_previous_hosts: retry.ignore_previous_hosts,
        remote_localities: retry.remote_localities,
    }
}

pub(super) fn retry(given: proto::Retry) -> Result<Retry, Fault> {
    let codes = each("codes", given.codes, |code| number("code", code))?;
    let on: Result<BTreeSet<_>, Fault> = given.on.into_iter().map(decode_on).collect();
    Ok(Retry {
        attempts: given.attempts,
        on: on?,
        codes: codes.into_iter().collect(),
        backoff: duration("backoff", given.backoff)?,
        per_try_timeout: duration("per_try_timeout", given.per_try_timeout)?,
        ignore_previous_hosts: given.ignore_previous_hosts,
        remote_localities: given.remote_localities,
    })
}

fn encode_on(on: RetryOn) -> On {
    match on {
        RetryOn::ServerError => On::ServerError,
        RetryOn::GatewayError => On::GatewayError,
        RetryOn::Conflict => On::Conflict,
        RetryOn::ConnectFailure => On::ConnectFailure,
        RetryOn::RefusedStream => On::RefusedStream,
        RetryOn::Reset => On::Reset,
        RetryOn::ResetBeforeRequest => On::ResetBeforeRequest,
        RetryOn::RateLimited => On::RateLimited,
        RetryOn::Cancelled => On::Cancelled,
        RetryOn::DeadlineExceeded => On::DeadlineExceeded,
        RetryOn::Internal => On::Internal,
        RetryOn::ResourceExhausted => On::ResourceExhausted,
        RetryOn::Unavailable => On::Unavailable,
        RetryOn::AttemptTimeout => On::AttemptTimeout,
    }
}

fn decode_on(value: i32) -> Result<RetryOn, Fault> {
    Ok(match enumeration("on", value)? {
        On::Unspecified => return Err(Fault::new("on", Reason::Missing)),
        On::ServerError => RetryOn::ServerError,
        On::GatewayError => RetryOn::GatewayError,
        On::Conflict => RetryOn::Conflict,
        On::ConnectFailure => RetryOn::ConnectFailure,
        On::RefusedStream => RetryOn::RefusedStream,
        On::Reset => RetryOn::Reset,
        On::ResetBeforeRequest => RetryOn::ResetBeforeRequest,
        On::RateLimited => RetryOn::RateLimited,
        On::Cancelled => RetryOn::Cancelled,
        On::DeadlineExceeded => RetryOn::DeadlineExceeded,
        On::Internal => RetryOn::Internal,
        On::ResourceExhausted => RetryOn::ResourceExhausted,
        On::Unavailable => RetryOn::Unavailable,
        On::AttemptTimeout => RetryOn::AttemptTimeout,
    })
}
