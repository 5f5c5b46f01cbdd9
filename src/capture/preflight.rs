//! Whether a namespace can be captured on this host, before anything is changed.

use super::error::CaptureError;
use super::netns::Netns;
use super::ruleset::Plan;
use super::tool::{Tool, run};

/// What the host has, for the log and for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The version of `nft`, in its own words.
    pub nft: String,
    /// The version of `ip`, in its own words.
    pub ip: String,
}

/// What the host lacks.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// A program is missing or does not run.
    #[error("capture cannot work on this host")]
    Tool(#[from] CaptureError),
    /// The kernel, or an nft too old, takes the rules for wrong.
    #[error(
        "{nft} or this kernel does not take the capture rules: {said}; needed are nftables 0.9.3 and \
         Linux 5.2, for units nftables 0.9.9 and Linux 5.13, and the modules nf_conntrack, nft_ct, \
         nft_nat, nft_redir, nft_reject_inet, nft_socket, for guests nft_tproxy \
         (modprobe them, or install the package that has them)"
    )]
    Rules {
        /// Version of nft.
        nft: String,
        /// Its standard error.
        said: String,
    },
    /// Nothing may be changed there.
    #[error("not allowed to set rules in network namespace `{name}`: CAP_NET_ADMIN is missing")]
    NotPermitted {
        /// The namespace.
        name: String,
    },
}

/// Checks that the programs are there and that the kernel takes the rules in this namespace;
/// nothing is changed.
///
/// # Errors
/// [`PreflightError`], with the remedy.
pub async fn preflight(ns: &Netns, plan: &Plan) -> Result<Tools, PreflightError> {
    accepts(ns, &plan.nft()).await
}

/// The same for any script.
///
/// # Errors
/// [`PreflightError`], with the remedy.
pub async fn accepts(ns: &Netns, script: &str) -> Result<Tools, PreflightError> {
    let nft = version(run(ns, Tool::Nft, &["--version"], "").await?);
    let ip = version(run(ns, Tool::Ip, &["-V"], "").await?);
    // The kernel is asked as well: it judges the whole transaction, and drops it at the end.
    match run(ns, Tool::Nft, &["-c", "-f", "-"], script).await {
        Ok(_accepted) => Ok(Tools { nft, ip }),
        Err(CaptureError::Refused { said, .. }) if said.contains("Operation not permitted") => {
            let name = ns.name().to_owned();
            Err(PreflightError::NotPermitted { name })
        }
        Err(CaptureError::Refused { said, .. }) => Err(PreflightError::Rules { nft, said }),
        Err(e) => Err(e.into()),
    }
}

fn version(said: String) -> String {
    said.trim().to_owned()
}
