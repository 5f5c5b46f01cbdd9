//! Arbitrary rate limits.

use std::time::Duration;

use proptest::prelude::*;

use super::policy::key;
use super::{list, matching, origin, word};
use crate::model::limit::{Key, Limit, MOST, Rate, Rule};

pub(super) fn limit() -> impl Strategy<Value = Limit> {
    (key(), origin(), list(rule())).prop_map(|(key, origin, rules)| Limit { key, origin, rules })
}

fn rule() -> impl Strategy<Value = Rule> {
    let by = prop_oneof![
        Just(Key::None),
        Just(Key::Identity),
        Just(Key::SourceIp),
        word().prop_map(Key::Header),
    ];
    let rate = (1..=MOST, 1_000..=86_400_000_u64, 1..=MOST);
    let rate = rate.prop_map(|(requests, per, burst)| {
        Rate::new(requests, Duration::from_millis(per), burst).unwrap()
    });
    let matches = prop::collection::vec(matching(), 1..3);
    (any::<u32>(), matches, by, rate).prop_map(|(line, matches, by, rate)| Rule {
        line,
        matches,
        by,
        rate,
    })
}
