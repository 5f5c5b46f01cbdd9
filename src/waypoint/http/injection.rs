//! Faults on purpose (`spec/waypoint-l7.md` §3.3): a wait, then an answer instead of the backend's.

use http::StatusCode;

use super::account::Account;
use super::reply::Reply;
use crate::model::route::{Abort, Fault};

/// Holds a request up where the fault says so.
///
/// # Errors
/// The answer where it is to be answered so.
pub(super) async fn commit(fault: &Fault, account: &mut Account) -> Result<(), Reply> {
    if let Some(delay) = fault.delays(rand::random()) {
        account.delayed();
        tokio::time::sleep(delay).await;
    }
    match fault.aborts(rand::random()) {
        Some(abort) => Err(aborted(abort)),
        None => Ok(()),
    }
}

fn aborted(abort: Abort) -> Reply {
    match abort {
        Abort::Http(status) => {
            let status = StatusCode::from_u16(status);
            Reply::fault(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), None)
        }
        Abort::Grpc(status) => Reply::fault(StatusCode::OK, Some(status)),
    }
}
