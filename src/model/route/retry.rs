//! When a request is asked again, and after which wait (`spec/waypoint-l7.md` §2.7, §3.2).

use std::time::Duration;

use http::HeaderMap;

use super::{Retry, RetryOn};

/// The base of a wait where none is asked for.
const BACKOFF: Duration = Duration::from_millis(25);
/// A wait is at most so many times its base.
const LONGEST: u32 = 10;

/// How an attempt ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection came about, or not in time.
    Connect,
    /// The peer refused the stream before it looked at the request (RFC 9113 §8.7).
    RefusedStream,
    /// The connection or the stream ended.
    Reset {
        /// Whether the request, or the beginning of it, was on its way by then.
        sent: bool,
    },
    /// The attempt took longer than one may.
    AttemptTimeout,
}

impl Failure {
    /// Whether it is one of those that a condition names.
    fn is(self, on: RetryOn) -> bool {
        match on {
            // To the client all of them are 503 or 504.
            RetryOn::ServerError | RetryOn::GatewayError | RetryOn::Reset => true,
            RetryOn::ConnectFailure => self == Self::Connect,
            RetryOn::RefusedStream => self == Self::RefusedStream,
            RetryOn::ResetBeforeRequest => {
                matches!(self, Self::Connect | Self::Reset { sent: false })
            }
            RetryOn::AttemptTimeout => self == Self::AttemptTimeout,
            RetryOn::Conflict
            | RetryOn::RateLimited
            | RetryOn::Cancelled
            | RetryOn::DeadlineExceeded
            | RetryOn::Internal
            | RetryOn::ResourceExhausted
            | RetryOn::Unavailable => false,
        }
    }
}

impl Retry {
    /// Whether it is asked again after a failure, attempts permitting.
    pub fn after_failure(&self, failure: Failure) -> bool {
        self.on.iter().any(|on| failure.is(*on))
    }

    /// Whether it is asked again after an answer of this status and these fields, attempts
    /// permitting. An answer that a rate limit made is taken as it is, unless such are meant.
    pub fn after_answer(&self, status: u16, headers: &HeaderMap) -> bool {
        if headers.contains_key("x-envoy-ratelimited") {
            return self.on.contains(&RetryOn::RateLimited);
        }
        let grpc = headers
            .get("grpc-status")
            .and_then(|value| value.to_str().ok());
        let meant = |on: &RetryOn| match on {
            RetryOn::ServerError => (500..600).contains(&status),
            RetryOn::GatewayError => (502..=504).contains(&status),
            RetryOn::Conflict => status == 409,
            RetryOn::Cancelled => grpc == Some("1"),
            RetryOn::DeadlineExceeded => grpc == Some("4"),
            RetryOn::ResourceExhausted => grpc == Some("8"),
            RetryOn::Internal => grpc == Some("13"),
            RetryOn::Unavailable => grpc == Some("14"),
            RetryOn::ConnectFailure
            | RetryOn::RefusedStream
            | RetryOn::Reset
            | RetryOn::ResetBeforeRequest
            | RetryOn::RateLimited
            | RetryOn::AttemptTimeout => false,
        };
        self.codes.contains(&status) || self.on.iter().any(meant)
    }

    /// The wait before the retry that is the `nth`, counted from 1, by a draw evenly from 0 to
    /// below 1.
    pub fn wait(&self, nth: u32, draw: f64) -> Duration {
        let base = self.backoff.unwrap_or(BACKOFF);
        let times = 2_u32.saturating_pow(nth).saturating_sub(1).min(LONGEST);
        let longest = base.saturating_mul(times);
        let wait = longest.mul_f64(draw.clamp(0.0, 1.0));
        wait.max(self.backoff.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
