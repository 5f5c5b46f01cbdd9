//! What the mesh believes, as it is told to nodes (`spec/control-plane.md` §2.6).

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ca::{Authority, Ring, Root, RootState};
use crate::clock::milliseconds;
use crate::wire::proto::lateen::trust_root::State;
use crate::wire::proto::lateen::{TrustBundle, TrustRoot};

/// The bundle in force.
pub fn bundle(authority: &Authority) -> TrustBundle {
    let ring = authority.ring();
    TrustBundle {
        epoch: authority.epoch().to_vec(),
        sequence: ring.sequence,
        roots: ring.roots.iter().map(root).collect(),
        crls: ring.crls.clone(),
        reissue_before_ms: milliseconds(ring.reissue_before),
        trust_domains: vec![authority.trust_domain().to_string()],
    }
}

fn root(root: &Root) -> TrustRoot {
    let state = match root.state {
        RootState::Active => State::Active,
        RootState::Added => State::Added,
        RootState::Retiring => State::Retiring,
    };
    TrustRoot {
        der: root.certificate.to_vec(),
        spki_sha256: root.spki.to_vec(),
        state: state.into(),
    }
}

/// The bundle in force, encoded, and each one after it, until `shutdown`. `rings` are the authority's,
/// subscribed to before what is in `encoded` was read.
pub async fn follow(
    authority: Arc<Authority>,
    mut rings: watch::Receiver<Arc<Ring>>,
    encoded: watch::Sender<Bytes>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = rings.changed() => if changed.is_err() { return },
        }
        encoded.send_replace(encode(&authority));
    }
}

/// The bundle in force, encoded.
pub fn encode(authority: &Authority) -> Bytes {
    Bytes::from(bundle(authority).encode_to_vec())
}
