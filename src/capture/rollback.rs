//! Puts back what was in a network before rules were applied there.

use serde::{Deserialize, Serialize};

use super::apply::clear;
use super::error::CaptureError;
use super::netns::Netns;
use super::replace::replace;
use super::routes;
use super::ruleset::{Family, TABLE};
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
        inet: table(ns, Family::Inet).await?,
        bridge: table(ns, Family::Bridge).await?,
    })
}

async fn table(ns: &Netns, family: Family) -> Result<Option<String>, CaptureError> {
    match run(ns, Tool::Nft, &["list", "table", family.name(), TABLE], "").await {
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
    let tables = [
        (Family::Inet, before.inet.clone()),
        (Family::Bridge, before.bridge.clone()),
    ];
    if let Err(e) = replace(ns, &tables).await {
        clear(ns).await?;
        return Err(e);
    }
    routes::ensure(ns, routes::Ways::of(text)).await
}
