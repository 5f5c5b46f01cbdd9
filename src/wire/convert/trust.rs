//! `lateen.v1.TrustBundle` as what peers are judged by (`spec/control-plane.md` §2.6, §6.5).

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use prost::Message as _;
use rustls_pki_types::CertificateDer;

use crate::tls::{Bundle, Roots, SvidError};
use crate::wire::proto::lateen::TrustBundle;

/// Why a bundle is not believed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It does not decode.
    #[error("the trust bundle does not decode")]
    Undecodable(#[from] prost::DecodeError),
    /// It is another mesh's.
    #[error("the trust bundle is of another mesh; to change meshes, join again")]
    Epoch,
    /// It is older than the one in force.
    #[error("the trust bundle goes back: {reason}")]
    Back {
        /// By what that shows.
        reason: String,
    },
    /// Its certificates or lists are unusable.
    #[error("the trust bundle is unusable")]
    Unusable(#[from] SvidError),
}

/// Reads an encoded bundle of the mesh with this epoch, which is to follow `held`.
///
/// # Errors
/// [`BundleError`], by the reason why it must not.
pub fn decode_bundle(
    encoded: &[u8],
    epoch: &[u8],
    held: &Bundle,
) -> Result<(TrustBundle, Bundle), BundleError> {
    let told = TrustBundle::decode(encoded)?;
    if told.epoch != epoch {
        return Err(BundleError::Epoch);
    }
    let bundle = bundle(&told)?;
    match bundle.goes_back_from(held) {
        Some(reason) => Err(BundleError::Back { reason }),
        None => Ok((told, bundle)),
    }
}

/// What a message says, of whichever mesh.
///
/// # Errors
/// [`SvidError`] for roots or lists that are unusable.
pub fn bundle(told: &TrustBundle) -> Result<Bundle, SvidError> {
    let roots = told.roots.iter();
    let roots = roots.map(|r| CertificateDer::from(r.der.clone()));
    let roots = Arc::new(Roots::new(roots.collect())?);
    let millis = u64::try_from(told.reissue_before_ms).unwrap_or_default();
    let reissue_before = UNIX_EPOCH + Duration::from_millis(millis);
    let bundle = Bundle::new(told.sequence, roots, &told.crls, reissue_before)?;
    // What is no trust domain is nobody's.
    let domains = told.trust_domains.iter().filter_map(|td| td.parse().ok());
    Ok(bundle.believing(domains.collect()))
}
