//! Whether too much has been asked already (`spec/waypoint-l7.md` §9).
//!
//! A request counts with every rule that is for it, and passes if all let it. One that does not is
//! counted with none, or whoever is refused by one rule would use up what others have of another.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, header};

use super::Found;
use super::authorization::{asked, http};
use crate::hbone::Connector;
use crate::model::limit::{Limit, Standing};
use crate::waypoint::Arrival;
use crate::waypoint::http::{Reply, as_routed};
use crate::waypoint::limits::Counted;
use crate::waypoint::routing::Seen;

/// What the answer tells of the strictest rule: how many it lets through at once, how many are left, and
/// in how many seconds all are there again.
const LIMIT: &str = "x-ratelimit-limit";
const REMAINING: &str = "x-ratelimit-remaining";
const RESET: &str = "x-ratelimit-reset";

/// The rule that answers for a request.
#[derive(Clone, Debug)]
pub(in crate::waypoint) struct Strictest {
    pub(in crate::waypoint) limit: Arc<Limit>,
    rule: usize,
    standing: Standing,
}

/// Counts a request.
pub(super) fn request<C: Connector>(
    (arrival, seen): (&Arrival<C>, &Seen),
    limits: &[Arc<Counted>],
    parts: &Parts,
    authority: &Authority,
    found: &mut Found,
) -> Result<(), Reply> {
    if limits.is_empty() {
        return Ok(());
    }
    let routed = as_routed(arrival, parts, authority);
    let http = http(parts, authority, found.token.as_ref());
    let asked = asked((arrival, seen), Some(http), None);
    let taking = limits
        .iter()
        .flat_map(|limit| limit.taking(|m| m.takes(&routed)));
    let mut tokens = Vec::new();
    let mut strictest: Option<Strictest> = None;
    for taking in taking {
        let (standing, token) = taking.take(&taking.rule.by.subject(&asked));
        if standing.wait.is_none() {
            tokens.push(token);
        }
        let before = strictest.as_ref().map(|s| s.standing);
        if before.is_none_or(|before| before.stricter(standing) != before) {
            strictest = Some(Strictest {
                limit: Arc::clone(taking.limit),
                rule: taking.at,
                standing,
            });
        }
    }
    let Some(strictest) = strictest else {
        return Ok(());
    };
    strictest.tell(&mut found.answer);
    let refused = strictest.standing.wait;
    found.limit = Some(strictest.clone());
    let Some(wait) = refused else {
        return Ok(());
    };
    for token in tokens {
        token.give_back();
    }
    found
        .answer
        .insert(header::RETRY_AFTER, seconds(wait).into());
    Err(Reply::limited(strictest.to_string()))
}

impl Strictest {
    /// Whether it has refused.
    pub(in crate::waypoint) fn refuses(&self) -> bool {
        self.standing.wait.is_some()
    }

    fn tell(&self, answer: &mut HeaderMap) {
        let Standing {
            limit,
            remaining,
            reset,
            wait: _,
        } = self.standing;
        for (name, value) in [
            (LIMIT, HeaderValue::from(limit)),
            (REMAINING, HeaderValue::from(remaining)),
            (RESET, HeaderValue::from(seconds(reset))),
        ] {
            answer.insert(name, value);
        }
    }
}

impl std::fmt::Display for Strictest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.limit.place(self.rule);
        let left = self.standing.remaining;
        write!(f, "rate-limit {} ({place}), {left} left", self.limit.key)
    }
}

/// In whole seconds, none too few.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
