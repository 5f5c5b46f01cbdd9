//! Tells the control plane how the local workloads are (`spec/control-plane.md` §7.2).

pub(super) mod streams;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

use super::channel::{ChannelError, Controls};
use super::keep::clock::ClockFile;
use crate::wire::proto::lateen::node_service_client::NodeServiceClient;
use facts::Facts;

pub(super) mod facts;
mod message;
mod state;

pub use state::{CaptureState, LocalStates, ProbeState, Verdict, WorkloadState};

/// How long a report is good for.
const LEASE: Duration = Duration::from_secs(15);
/// Changes that come together are told together.
const GATHER: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the control plane ended the reports: {}", .0.message())]
    Status(tonic::Status),
    #[error("the node is stopping")]
    Stopping,
}

/// One stream of reports to one control plane, to its end.
async fn stream(
    controls: &Controls,
    control: usize,
    mut states: watch::Receiver<LocalStates>,
    mut facts: Facts,
) -> Result<(), ReportError> {
    let channel = controls.connect(control).await?.channel;
    let (reports, outgoing) = mpsc::channel(1);
    let mut told = states.borrow_and_update().clone();
    let mut seq = 1;
    // The channel is empty, so the first report fits.
    let _fits = reports.try_send(facts.tell(message::full(seq, &told), None));
    let answer = NodeServiceClient::new(channel)
        .report(ReceiverStream::new(outgoing))
        .await
        .map_err(ReportError::Status)?;
    let mut acks = answer.into_inner();
    let mut apart = None;
    loop {
        let mut full = false;
        tokio::select! {
            ack = acks.message() => match ack.map_err(ReportError::Status)? {
                None => return Ok(()),
                Some(ack) => {
                    let now = heard(&facts.clock, ack.server_time_ms).await;
                    if let (None, Some(apart)) = (apart, now) {
                        warn!(code = "clock-apart", seconds = apart.as_secs(),
                            "this machine's clock and its control plane's are far apart");
                    }
                    apart = now;
                    if !ack.need_full {
                        continue;
                    }
                    full = true;
                }
            },
            changed = states.changed() => {
                changed.map_err(|_gone| ReportError::Stopping)?;
                tokio::time::sleep(GATHER).await;
            }
            () = facts.applied() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(LEASE / 3) => {}
        }
        let now = states.borrow_and_update().clone();
        seq += 1;
        let next = match full {
            true => message::full(seq, &now),
            false => message::delta(seq, &told, &now),
        };
        told = now;
        if reports.send(facts.tell(next, apart)).await.is_err() {
            return Ok(());
        }
    }
}

/// Takes note of a control plane's time; how far it is from ours where that is too far.
async fn heard(clock: &ClockFile, milliseconds: i64) -> Option<Duration> {
    let clock = clock.clone();
    let noted = tokio::task::spawn_blocking(move || clock.heard(milliseconds));
    noted.await.ok().flatten()
}
