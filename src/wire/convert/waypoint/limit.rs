//! Rate limits.

use super::super::{Fault, Reason, required};
use super::parts::{each, for_so_long, format, given, lasting};
use super::{FORMAT, matching};
use crate::model::attached::PolicyKey;
use crate::model::declaration::Origin;
use crate::model::limit::{Key, Limit, Rate, Rule};
use crate::wire::proto::waypoint as proto;
use proto::rate_limit_rule::{Identity, Key as By, SourceIp, Together};

pub(super) fn encode(limit: &Limit) -> proto::RateLimit {
    proto::RateLimit {
        format: FORMAT,
        rules: limit.rules.iter().map(encode_rule).collect(),
    }
}

pub(super) fn decode(
    key: PolicyKey,
    origin: Origin,
    limit: proto::RateLimit,
) -> Result<Limit, Fault> {
    format(limit.format)?;
    Ok(Limit {
        key,
        origin,
        rules: each("rules", limit.rules, decode_rule)?,
    })
}

fn encode_rule(rule: &Rule) -> proto::RateLimitRule {
    proto::RateLimitRule {
        line: rule.line,
        matches: rule.matches.iter().map(matching::encode).collect(),
        key: Some(match &rule.by {
            Key::None => By::Together(Together {}),
            Key::Identity => By::Identity(Identity {}),
            Key::SourceIp => By::SourceIp(SourceIp {}),
            Key::Header(name) => By::Header(name.to_string()),
        }),
        requests: rule.rate.requests(),
        per: Some(lasting(rule.rate.per())),
        burst: rule.rate.burst(),
    }
}

fn decode_rule(rule: proto::RateLimitRule) -> Result<Rule, Fault> {
    let per = for_so_long("per", rule.per)?;
    let rate = Rate::new(rule.requests, per, rule.burst);
    let text = || format!("{} in {per:?}, {} at once", rule.requests, rule.burst);
    if rule.matches.is_empty() {
        return Err(Fault::new("matches", Reason::Missing));
    }
    Ok(Rule {
        line: rule.line,
        rate: rate.ok_or_else(|| Fault::new("requests", Reason::Value(text())))?,
        matches: each("matches", rule.matches, matching::decode)?,
        by: match given("key", rule.key)? {
            By::Together(Together {}) => Key::None,
            By::Identity(Identity {}) => Key::Identity,
            By::SourceIp(SourceIp {}) => Key::SourceIp,
            By::Header(name) => Key::Header(required("header", name)?),
        },
    })
}
