//! Puts back what was in a network before rules were applied there.

use serde::{Deserialize, Serialize};

use super::apply::{CaptureError, clear};
use super::netns::Netns;
use super::routes;
use super::ruleset::TABLE;
use super::tool::{Tool, run};

/// Our table as it was; none where there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before(Option<String>);

/// What is there now.
///
/// # Errors
/// When it cannot be read.
pub async fn before(ns: &Netns) -> Result<Before, CaptureError> {
    match run(ns, Tool::Nft, &["list", "table", "inet", TABLE], "").await {
        Ok(text) => Ok(Before(Some(text))),
        Err(CaptureError::Refused { said, .. }) if said.contains("No such file") => {
            Ok(Before(None))
        }
        Err(e) => Err(e),
    }
}

/// Puts it back. Rules that name what is not there any more are not to be had again: then there are
/// none, and whoever is locked out gets in.
///
/// # Errors
/// [`CaptureError`] when there is something else now.
pub async fn restore(ns: &Netns, before: &Before) -> Result<(), CaptureError> {
    let Before(Some(text)) = before else {
        return clear(ns).await;
    };
    let script = format!("table inet {TABLE}\ndelete table inet {TABLE}\n{text}");
    if let Err(e) = run(ns, Tool::Nft, &["-f", "-"], &script).await {
        clear(ns).await?;
        return Err(e);
    }
    routes::ensure(ns, text.contains("guest_addresses")).await
}
