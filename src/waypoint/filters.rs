//! What is asked of a request before it goes on, in the order of `spec/waypoint-l7.md` §1.7:
//! authorization, authentication, limits, faults. Each filter sees the request as it will be
//! routed, and may answer it instead.
//!
//! None of them is there yet: policies with `target-refs` are not in force at a waypoint.

use http::request::Parts;

use super::Arrival;
use super::http::Reply;
use crate::hbone::Connector;

/// Lets a request through, or says what to answer it.
///
/// # Errors
/// The answer.
pub(super) fn request<C: Connector>(_arrival: &Arrival<C>, _parts: &Parts) -> Result<(), Reply> {
    Ok(())
}
