//! What rate limits a request counts with at a waypoint (`spec/waypoint-l7.md` §9). How much of them is
//! used up, the waypoint alone knows.

use super::filtered::Client;
use super::request::Read;
use super::{Step, step};
use crate::model::limit::Limit;
use crate::model::route::Matcher;
use crate::model::waypoint::{Bound, Resources};

/// Tells each rule that counts it.
///
/// # Errors
/// Why it is not answered for: a limit is not there.
pub(super) fn limited(
    told: &Resources,
    bound: &Bound,
    client: &Client,
    request: &Read,
    steps: &mut Vec<Step>,
) -> Result<(), String> {
    let Some(attached) = told.attached_to(bound) else {
        return Ok(());
    };
    let limits = told.limits_of(attached);
    let missing = |key| format!("the waypoint was not told of rate-limit {key}");
    let asked = request.asked(bound.asked(), client.namespace());
    for limit in limits.map_err(missing)? {
        for (at, rule) in limit.rules.iter().enumerate() {
            let mut matches = rule.matches.iter();
            if matches.any(|of| Matcher::new(of).takes(&asked)) {
                steps.push(step("limit", counted(&limit, at)));
            }
        }
    }
    Ok(())
}

fn counted(limit: &Limit, at: usize) -> String {
    let rule = &limit.rules[at];
    format!(
        "counted by rate-limit {} ({}): {} in {:?} of {}, {} at once",
        limit.key,
        limit.place(at),
        rule.rate.requests(),
        rule.rate.per(),
        rule.by,
        rule.rate.burst()
    )
}
