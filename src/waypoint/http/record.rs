//! What access logs and labels may ask for of a request: kept only where somebody does.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::account::Flag;
use crate::model::telemetry::{Facts, Request, Response, Upstream};
use crate::telemetry::access_log::Entry;

/// The fields of a request and its answer.
#[derive(Default)]
pub(super) struct Record {
    pub(super) scheme: &'static str,
    pub(super) request: HeaderMap,
    pub(super) response: HeaderMap,
    pub(super) trailers: Option<HeaderMap>,
    /// The endpoint asked last.
    pub(super) endpoint: Option<SocketAddr>,
    /// The address and port asked for.
    pub(super) asked: Option<SocketAddr>,
}

/// What else is known of a request at its end.
pub(super) struct Ended<'a> {
    pub(super) entry: &'a Entry,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) authority: &'a str,
    pub(super) protocol: &'static str,
    pub(super) route: &'a str,
    pub(super) cluster: Option<&'a str>,
    pub(super) peer: Option<&'a str>,
    pub(super) own: Option<&'a str>,
    pub(super) flag: Flag,
    pub(super) details: &'a str,
    pub(super) failure: Option<&'a str>,
    /// None where nothing was answered.
    pub(super) code: Option<u16>,
    pub(super) grpc_status: Option<u16>,
    pub(super) took: Duration,
    /// Bytes of the heads and of the bodies, of the request and of its answer.
    pub(super) heads: (u64, u64),
    pub(super) bodies: (u64, u64),
}

impl Record {
    /// All of it together.
    pub(super) fn facts<'a>(&'a self, ended: &Ended<'a>) -> Facts<'a> {
        let entry = ended.entry;
        let destination = self.asked.unwrap_or(entry.destination);
        let named = |text: &'a str| (text != "-").then_some(text);
        Facts {
            started: SystemTime::now() - ended.took,
            took: ended.took,
            peer: ended.peer,
            own: ended.own,
            request: Some(Request {
                method: ended.method,
                target: ended.target,
                authority: ended.authority,
                scheme: self.scheme,
                protocol: ended.protocol,
                headers: &self.request,
                head: ended.heads.0,
            }),
            response: ended.code.map(|code| Response {
                code,
                grpc_status: ended.grpc_status,
                headers: &self.response,
                trailers: self.trailers.as_ref(),
                head: ended.heads.1,
            }),
            flags: named(ended.flag).unwrap_or_default(),
            details: Some(ended.details),
            upstream: self.endpoint.map(|endpoint| Upstream {
                address: Some(endpoint),
                local: None,
                cluster: ended.cluster,
                failure: ended.failure,
            }),
            route: named(ended.route),
            received: ended.bodies.0,
            sent: ended.bodies.1,
            ..Facts::of_connection(entry.source, destination)
        }
    }
}

/// Why a waypoint answered by itself, in Envoy's words (`spec/waypoint-l7.md` §1.9).
pub(super) fn details(flag: Flag, reason: &str) -> Cow<'static, str> {
    Cow::Borrowed(match flag {
        "NR" => "route_not_found",
        "NC" => "cluster_not_found",
        "UH" => "no_healthy_upstream",
        "UF" => "upstream_reset_before_response_started{remote_connection_failure}",
        "UC" => "upstream_reset_before_response_started{connection_termination}",
        "UR" => "upstream_reset_before_response_started{remote_reset}",
        "UO" => "upstream_reset_before_response_started{overflow}",
        "UT" => "upstream_response_timeout",
        "FI" => "fault_filter_abort",
        "SI" => "stream_idle_timeout",
        "DPE" => "http.invalid_request",
        "DC" => "downstream_remote_disconnect",
        _ => {
            // Policies begin their reasons with it.
            let word = reason.split_once(": ").map_or(reason, |(word, _)| word);
            return match word.is_empty() || word.contains(' ') {
                true => Cow::Borrowed("direct_response"),
                false => Cow::Owned(word.to_owned()),
            };
        }
    })
}

/// Bytes of a head, as HTTP/1.1 writes it: how HTTP/2 packs it nobody tells.
pub(super) fn size(line: usize, headers: &HeaderMap) -> u64 {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + ": \r\n".len()
    };
    let fields: usize = headers.iter().map(field).sum();
    (line + fields + "\r\n".len()) as u64
}

/// Bytes of the line that a request of HTTP/1.1 begins with.
pub(super) fn request_line(method: &str, target: &str) -> usize {
    method.len() + target.len() + "  HTTP/1.1\r\n".len()
}

/// The same of an answer.
pub(super) fn status_line(status: StatusCode) -> usize {
    let reason = status.canonical_reason().map_or(0, str::len);
    "HTTP/1.1 200 \r\n".len() + reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_waypoint_answers_is_told_in_envoy_s_words() {
        for (flag, reason, want) in [
            ("NR", "no rule takes it", "route_not_found"),
            (
                "-",
                "rbac_access_denied_matched_policy[none]: no policy allows it",
                "rbac_access_denied_matched_policy[none]",
            ),
            ("-", "", "direct_response"),
            ("-", "as the rule says", "direct_response"),
            ("UAEX", "ext_authz_denied", "ext_authz_denied"),
        ] {
            assert_eq!(details(flag, reason), want, "{flag} {reason}");
        }
    }

    #[test]
    fn heads_are_as_large_as_they_are_written() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "a".parse().unwrap());
        headers.append("x", "1".parse().unwrap());
        headers.append("x", "22".parse().unwrap());
        let text = "GET /b HTTP/1.1\r\nhost: a\r\nx: 1\r\nx: 22\r\n\r\n";
        let size = size(request_line("GET", "/b"), &headers);
        assert_eq!(size, text.len() as u64);
        let text = "HTTP/1.1 404 Not Found\r\n";
        assert_eq!(status_line(StatusCode::NOT_FOUND), text.len());
    }
}
