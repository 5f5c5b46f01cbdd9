//! Puts back what was in a network before rules were applied there.

use serde::{Deserialize, Serialize};

use super::apply::{CaptureError, clear};
use super::netns::Netns;
use super::routes;
use super::ruleset::TABLE;
use super::tool::{Tool, run};

/// Our tables as they were; none where there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    inet: Option<String>,
    /// For guests of bridges.
    bridge: Option<String>,
}

/// What is there now.
///
/// # Errors
/// When it cannot be read.
pub async fn before(ns: &Netns) -> Result<Before, CaptureError> {
    Ok(Before {
        inet: table(ns, "inet").await?,
        bridge: table(ns, "bridge").await?,
    })
}

async fn table(ns: &Netns, family: &str) -> Result<Option<String>, CaptureError> {
    match run(ns, Tool::Nft, &["list", "table", family, TABLE], "").await {
        Ok(text) => Ok(Some(text)),
        Err(CaptureError::Refused { said, .. }) if said.contains("No such file") => Ok(None),
        Err(e) => Err(e),
    }
}

/// Puts it back. Rules that name what is not there any more are not to be had again: then there are
/// none, and whoever is locked out gets in.
///
/// # Errors
/// [`CaptureError`] when there is something else now.
pub async fn restore(ns: &Netns, before: &Before) -> Result<(), CaptureError> {
    let Some(text) = &before.inet else {
        return clear(ns).await;
    };
    let mut script = format!("table inet {TABLE}\ndelete table inet {TABLE}\n{text}");
    if before.bridge.is_some() || table(ns, "bridge").await?.is_some() {
        script.push_str(&format!(
            "table bridge {TABLE}\ndelete table bridge {TABLE}\n"
        ));
    }
    script.push_str(before.bridge.as_deref().unwrap_or_default());
    if let Err(e) = run(ns, Tool::Nft, &["-f", "-"], &script).await {
        clear(ns).await?;
        return Err(e);
    }
    routes::ensure(ns, routes::Ways::of(text)).await
}
