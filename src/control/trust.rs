//! What the mesh believes, as it is told to nodes (`spec/control-plane.md` §2.6).

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ca::{Authority, Ring, Root, RootState};
use super::compile::Input;
use crate::clock::milliseconds;
use crate::identity::TrustDomain;
use crate::wire::proto::lateen::trust_root::State;
use crate::wire::proto::lateen::{TrustBundle, TrustRoot};

/// The bundle in force, in which these trust domains are believed besides the authority's own.
pub fn bundle(authority: &Authority, aliases: &[TrustDomain]) -> TrustBundle {
    let ring = authority.ring();
    TrustBundle {
        epoch: authority.epoch().to_vec(),
        sequence: ring.sequence,
        roots: ring.roots.iter().map(root).collect(),
        crls: ring.crls.clone(),
        reissue_before_ms: milliseconds(ring.reissue_before),
        trust_domains: [authority.trust_domain()]
            .into_iter()
            .chain(aliases)
            .map(ToString::to_string)
            .collect(),
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
/// subscribed to before what is in `encoded` was read; the mesh's settings name the aliases.
pub async fn follow(
    authority: Arc<Authority>,
    mut rings: watch::Receiver<Arc<Ring>>,
    mut inputs: watch::Receiver<Option<Arc<Input>>>,
    encoded: watch::Sender<Bytes>,
    shutdown: CancellationToken,
) {
    loop {
        let input = inputs.borrow_and_update().clone();
        let now = of(&authority, input.as_deref());
        encoded.send_if_modified(|was| {
            let new = *was != now;
            *was = now;
            new
        });
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = rings.changed() => if changed.is_err() { return },
            changed = inputs.changed() => if changed.is_err() { return },
        }
    }
}

/// The bundle in force, encoded, with the aliases that the mesh names.
pub fn of(authority: &Authority, input: Option<&Input>) -> Bytes {
    let aliases = input.map(|i| &i.mesh.settings.trust_domain_aliases);
    let aliases = aliases.map_or(&[][..], Vec::as_slice);
    Bytes::from(bundle(authority, aliases).encode_to_vec())
}
