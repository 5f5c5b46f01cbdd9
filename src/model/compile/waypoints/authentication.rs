//! Request authentications in the form that waypoints evaluate.

use super::targets::Attachable as _;
use crate::model::authentication::Authentication;
use crate::model::declaration::RequestAuthentication;

pub(super) fn of(policy: &RequestAuthentication) -> Authentication {
    Authentication {
        key: policy.key(),
        origin: policy.origin.clone(),
        rules: policy.rules.clone(),
    }
}
