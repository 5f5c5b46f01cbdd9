//! Request authentications in the form that waypoints evaluate.

use std::sync::Arc;

use crate::model::attached::PolicyKey;
use crate::model::authentication::Authentication;
use crate::model::declaration::RequestAuthentication;

pub(super) fn of(policy: &RequestAuthentication) -> Authentication {
    Authentication {
        key: key(policy),
        origin: policy.origin.clone(),
        rules: policy.rules.clone(),
    }
}

pub(super) fn key(policy: &RequestAuthentication) -> PolicyKey {
    PolicyKey {
        namespace: Arc::clone(&policy.namespace),
        name: Arc::clone(&policy.name),
    }
}
