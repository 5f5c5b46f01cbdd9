//! Rate limits in the form that waypoints apply: as they are written.

use super::targets::Attachable as _;
use crate::model::declaration::RateLimit;
use crate::model::limit::Limit;

pub(super) fn of(written: &RateLimit) -> Limit {
    Limit {
        key: written.key(),
        origin: written.origin.clone(),
        rules: written.rules.clone(),
    }
}
