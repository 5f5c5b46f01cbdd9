//! A request that has become a byte stream of its own, such as a WebSocket.

use std::future::Future;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::account::Account;
use crate::causes::chain;

/// Carries bytes both ways until both ends have finished, or it is `revoked`.
pub(super) async fn carry(
    client: OnUpgrade,
    endpoint: OnUpgrade,
    mut account: Account,
    revoked: impl Future<Output = String>,
) {
    let opened = match tokio::try_join!(client, endpoint) {
        Ok((client, endpoint)) => (TokioIo::new(client), TokioIo::new(endpoint)),
        Err(e) => return account.broke(&e),
    };
    let (mut client, mut endpoint): (TokioIo<Upgraded>, TokioIo<Upgraded>) = opened;
    let carried = tokio::select! {
        carried = copy_bidirectional(&mut client, &mut endpoint) => carried,
        why = revoked => return account.cut(&format!("policy has changed: {why}")),
    };
    match carried {
        Ok((from_client, to_client)) => {
            account.streamed(from_client, to_client);
            account.complete();
        }
        Err(e) => account.cut(&chain(&e)),
    }
}
