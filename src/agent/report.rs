//! Tells the control plane how the local workloads are (`spec/control-plane.md` §7.2).

pub(super) mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::channel::{ChannelError, Controls};
use crate::wire::proto::lateen::node_service_client::NodeServiceClient;
use crate::wire::proto::lateen::workload_report::Capture;
use crate::wire::proto::lateen::{NodeReport, WorkloadReport};

/// How long a report is good for.
const LEASE: Duration = Duration::from_secs(15);
/// Changes that come together are told together.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes of a reason.
const DETAIL: usize = 256;

/// How far the capture of one workload has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureState {
    /// Its traffic goes through this node.
    Captured,
    /// It was, and has been let go.
    Released,
    /// It should be and is not, for this reason.
    Failed(String),
}

/// The states by workload uid.
pub type CaptureStates = BTreeMap<Arc<str>, CaptureState>;

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
    mut captures: watch::Receiver<CaptureStates>,
) -> Result<(), ReportError> {
    let channel = controls.connect(control).await?.channel;
    let (reports, outgoing) = mpsc::channel(1);
    let mut told = captures.borrow_and_update().clone();
    let mut seq = 1;
    // The channel is empty, so the first report fits.
    let _fits = reports.try_send(report(seq, true, &CaptureStates::new(), &told));
    let answer = NodeServiceClient::new(channel)
        .report(ReceiverStream::new(outgoing))
        .await
        .map_err(ReportError::Status)?;
    let mut acks = answer.into_inner();
    loop {
        let mut full = false;
        tokio::select! {
            ack = acks.message() => match ack.map_err(ReportError::Status)? {
                None => return Ok(()),
                Some(ack) if ack.need_full => full = true,
                Some(_noted) => continue,
            },
            changed = captures.changed() => {
                changed.map_err(|_gone| ReportError::Stopping)?;
                tokio::time::sleep(GATHER).await;
            }
            () = tokio::time::sleep(LEASE / 3) => {}
        }
        let now = captures.borrow_and_update().clone();
        seq += 1;
        let next = if full {
            report(seq, true, &CaptureStates::new(), &now)
        } else {
            report(seq, false, &told, &now)
        };
        told = now;
        if reports.send(next).await.is_err() {
            return Ok(());
        }
    }
}

/// What has changed from `told` to `now`; everything when `full`.
fn report(seq: u64, full: bool, told: &CaptureStates, now: &CaptureStates) -> NodeReport {
    let news = now
        .iter()
        .filter(|(uid, state)| told.get(*uid) != Some(*state));
    let workloads = news.map(|(uid, state)| {
        let (capture, detail) = match state {
            CaptureState::Captured => (Capture::Captured, ""),
            CaptureState::Released => (Capture::Released, ""),
            CaptureState::Failed(reason) => (Capture::Failed, reason.as_str()),
        };
        WorkloadReport {
            uid: uid.to_string(),
            capture: capture.into(),
            detail: shortened(detail),
            ..WorkloadReport::default()
        }
    });
    NodeReport {
        seq,
        full,
        lease_ms: u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX),
        workloads: workloads.collect(),
        ..NodeReport::default()
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(DETAIL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_told() {
        let captured = CaptureState::Captured;
        let failed = CaptureState::Failed("é".repeat(200));
        let told = CaptureStates::from([
            ("a".into(), captured.clone()),
            ("b".into(), captured.clone()),
        ]);
        let now = CaptureStates::from([("a".into(), captured), ("b".into(), failed)]);
        let delta = report(2, false, &told, &now);
        assert_eq!(delta.workloads.len(), 1);
        assert_eq!(delta.workloads[0].uid, "b");
        assert!(delta.workloads[0].detail.len() <= DETAIL);
        assert!(report(3, false, &now, &now).workloads.is_empty());
        assert_eq!(
            report(4, true, &CaptureStates::new(), &now).workloads.len(),
            2
        );
    }
}
