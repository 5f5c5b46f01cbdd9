//! Rate limits in the form that waypoints apply: as they are written.

use std::sync::Arc;

use crate::model::attached::PolicyKey;
use crate::model::declaration::RateLimit;
use crate::model::limit::Limit;

pub(super) fn of(written: &RateLimit) -> Limit {
    Limit {
        key: key(written),
        origin: written.origin.clone(),
        rules: written.rules.clone(),
    }
}

pub(super) fn key(written: &RateLimit) -> PolicyKey {
    PolicyKey {
        namespace: Arc::clone(&written.namespace),
        name: Arc::clone(&written.name),
    }
}
