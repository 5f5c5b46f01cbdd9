//! Puts the rules into a namespace, tells whether they are still there, and removes them.

use std::io;

use serde_json::Value;

use super::netns::Netns;
use super::ruleset::{MARK_MASK, Plan, RETURN_MARK, ROUTE_TABLE, RULE_PREFERENCE, TABLE};
use super::tool::run;

/// Why capture is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A program this needs is not installed.
    #[error(
        "`{program}` is not installed; on Debian and Ubuntu: apt-get install nftables iproute2"
    )]
    NoTool {
        /// The program.
        program: &'static str,
    },
    /// A program could not be run.
    #[error("cannot run `{program}`")]
    Tool {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program refused, in its own words.
    #[error("`{program}` refused: {said}")]
    Refused {
        /// The program.
        program: &'static str,
        /// Its standard error.
        said: String,
    },
    /// The namespace may not be entered.
    #[error("cannot enter network namespace `{name}`")]
    Namespace {
        /// The namespace.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What `nft` lists does not read.
    #[error("cannot read what nft lists")]
    Listing {
        /// What was wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The process is on its way out.
    #[error("this process is stopping")]
    Stopping,
}

/// Rules as the kernel held them right after they were applied.
#[derive(Clone, Debug)]
pub struct Applied {
    ns: Netns,
    plan: Plan,
    table: Value,
}

/// Applies a plan in one transaction: until it is through the old rules hold, afterwards the new.
///
/// # Errors
/// [`CaptureError`]; the table is then as it was.
pub async fn apply(ns: &Netns, plan: &Plan) -> Result<Applied, CaptureError> {
    // The way back first: without it the rules would only break connections.
    for route in &plan.routes {
        let words: Vec<&str> = route.split(' ').collect();
        match run(ns, "ip", &words, String::new()).await {
            Ok(_done) => {}
            Err(CaptureError::Refused { said, .. }) if said.contains("File exists") => {}
            // A namespace without IPv6 needs no IPv6 way back.
            Err(CaptureError::Refused { .. }) if route.starts_with("-6") => {}
            Err(e) => return Err(e),
        }
    }
    run(ns, "nft", &["-f", "-"], plan.nft.clone()).await?;
    let table = listed(ns).await?.unwrap_or(Value::Null);
    Ok(Applied {
        ns: ns.clone(),
        plan: plan.clone(),
        table,
    })
}

impl Applied {
    /// Whether the rules are still what was applied.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn intact(&self) -> Result<bool, CaptureError> {
        let now = listed(&self.ns).await?;
        Ok(now.as_ref() == Some(&self.table) && way_back(&self.ns).await?)
    }

    /// Applies the same plan again.
    ///
    /// # Errors
    /// As [`apply`].
    pub async fn mend(&mut self) -> Result<(), CaptureError> {
        *self = apply(&self.ns, &self.plan).await?;
        Ok(())
    }
}

/// Removes what [`apply`] put into a namespace; what is not there is left alone.
///
/// # Errors
/// [`CaptureError`] when something of ours could not be removed.
pub async fn clear(ns: &Netns) -> Result<(), CaptureError> {
    // Naming the table first makes its removal legal where there is none.
    let nft = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
    run(ns, "nft", &["-f", "-"], nft).await?;
    for family in ["-4", "-6"] {
        let preference = RULE_PREFERENCE.to_string();
        let table = ROUTE_TABLE.to_string();
        for words in [
            vec![family, "rule", "del", "pref", &preference],
            vec![family, "route", "flush", "table", &table],
        ] {
            match run(ns, "ip", &words, String::new()).await {
                // There was none.
                Ok(_) | Err(CaptureError::Refused { .. }) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// Our table as the kernel holds it, without what changes by itself; `None` when it is gone.
async fn listed(ns: &Netns) -> Result<Option<Value>, CaptureError> {
    let listing = run(
        ns,
        "nft",
        &["-j", "list", "table", "inet", TABLE],
        String::new(),
    )
    .await;
    let text = match listing {
        Ok(text) => text,
        Err(CaptureError::Refused { said, .. }) if said.contains("No such file") => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let mut value: Value =
        serde_json::from_str(&text).map_err(|source| CaptureError::Listing { source })?;
    settle(&mut value);
    Ok(Some(value))
}

/// Drops handles, which are new each time a rule is made.
fn settle(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("handle");
            map.remove("metainfo");
            map.values_mut().for_each(settle);
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        _ => {}
    }
}

/// Whether answers still find their way back; judged by IPv4, which every namespace has.
async fn way_back(ns: &Netns) -> Result<bool, CaptureError> {
    let rules = run(ns, "ip", &["-4", "rule", "show"], String::new()).await?;
    let wanted = format!("fwmark {RETURN_MARK:#x}/{MARK_MASK:#x} lookup {ROUTE_TABLE}");
    let preference = format!("{RULE_PREFERENCE}:");
    let ours = |line: &str| line.starts_with(&preference) && line.contains(&wanted);
    Ok(rules.lines().any(ours))
}
