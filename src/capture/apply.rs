//! Puts the rules into a namespace, tells whether they are still there, and removes them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use super::elements::{self, Held};
use super::netns::Netns;
use super::privilege::Exemption;
use super::replace::replace;
use super::routes;
use super::ruleset::{Family, Plan, TABLE, Table};
use super::strict;
use super::tool::{Tool, run};

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
    /// A program did not end.
    #[error("`{program}` does not end; killed")]
    Hangs {
        /// The program.
        program: &'static str,
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
    /// The namespace counts users in another way than we do: the rules would take the proxy for
    /// somebody else, and its connections back to itself.
    #[error(
        "network namespace `{name}` belongs to another user namespace, whose rules cannot name \
         this proxy's user; run the workload without mapping users"
    )]
    ForeignUsers {
        /// The namespace.
        name: String,
    },
    /// Settings of the namespace do not read.
    #[error("cannot read the namespace's settings under /proc/sys/net")]
    Sysctl {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The keeper could not do it, in its own words.
    #[error("{said}")]
    Told {
        /// What it said.
        said: String,
    },
    /// The keeper does not answer.
    #[error("nobody is there to do it")]
    Keeper {
        /// What is known.
        #[source]
        source: io::Error,
    },
    /// Sockets would not tell whose connection they accepted.
    #[error(
        "cannot set net.ipv4.tcp_fwmark_accept, by which an accepted connection tells its workload; \
         set it: sysctl -w net.ipv4.tcp_fwmark_accept=1"
    )]
    AcceptMarks {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There are no notices to be had of cgroups.
    #[error("cannot watch cgroups")]
    Cgroups(#[source] io::Error),
    /// The kernel does not say whether our table is there, or what is in its sets.
    #[error("cannot read table inet {TABLE}")]
    Elements {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A namespace that is to be strict has no link that could be filtered.
    #[error(
        "network namespace `{name}` has no veth that ends on this host, so nothing could be kept in \
         it; take `strict` off, or link it by a veth"
    )]
    NoLink {
        /// The namespace.
        name: String,
    },
    /// A namespace that is to be strict has a way out that cannot be filtered.
    #[error(
        "link `{link}` of network namespace `{name}` does not end on this host as a veth does, so \
         nothing could be kept in the namespace; take `strict` off, or the link away"
    )]
    OtherLink {
        /// The namespace.
        name: String,
        /// The link.
        link: String,
    },
    /// What a program lists does not read.
    #[error("cannot read what `{program}` lists")]
    Listing {
        /// The program.
        program: &'static str,
        /// What was wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Rules as the kernel held them right after they were applied.
#[derive(Clone, Debug)]
pub struct Applied {
    ns: Netns,
    plan: Plan,
    /// `None` when they were gone, or others, before they could be read.
    seen: Option<Seen>,
}

/// All that the kernel holds of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    /// The table without the elements of its sets.
    pub(super) table: Value,
    /// These.
    pub(super) held: Held,
}

/// Applies a plan in one transaction: until it is through the old rules hold, afterwards the new.
///
/// Connections that exist already stay as they are: those captured by earlier rules go on through
/// the proxy, those older than any rules go on beside it until they end.
///
/// # Errors
/// [`CaptureError`]; the table is then as it was.
pub async fn apply(ns: &Netns, plan: &Plan) -> Result<Applied, CaptureError> {
    same_users(ns, plan.exemption())?;
    // The way back first: without it the rules would only break connections.
    routes::ensure(ns, plan.ways()).await?;
    replace(ns, &[(Family::Inet, Some(plan.table().declared()))]).await?;
    Ok(Applied {
        ns: ns.clone(),
        plan: plan.clone(),
        seen: seen(ns, plan.table()).await?,
    })
}

impl Applied {
    /// What was applied.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Makes another plan of it, in one transaction, by elements alone where that is enough; nothing is
    /// done where they are the same.
    ///
    /// # Errors
    /// [`CaptureError`]; then the rules are as they were, and [`Self::mend`] makes the other plan of them.
    pub async fn change(&mut self, plan: &Plan) -> Result<(), CaptureError> {
        let script = plan.changing(&self.plan);
        let then = std::mem::replace(&mut self.plan, plan.clone());
        let Some(script) = script else {
            return self.mend().await;
        };
        if script.is_empty() {
            return Ok(());
        }
        let before = self.seen.take();
        match run(&self.ns, Tool::Nft, &["-f", "-"], &script).await {
            Ok(_nothing_said) => {}
            // The sets are not what they were left as.
            Err(CaptureError::Refused { .. }) => return self.mend().await,
            Err(e) => return Err(e),
        }
        let now = seen(&self.ns, plan.table()).await?;
        // What somebody else has changed since the last look is not ours, whoever looked away.
        self.seen = now.zip(before).and_then(|(now, before)| {
            let unchanged = plan.table().unchanged(then.table());
            now.agrees(&before, unchanged).then_some(now)
        });
        Ok(())
    }

    /// Whether the rules and the way back are still what was applied.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn intact(&self) -> Result<bool, CaptureError> {
        // Asked of the kernel itself, for whom no program has to be started.
        if !is_there(&self.ns)? {
            return Ok(false);
        }
        let now = seen(&self.ns, self.plan.table()).await?;
        let ways = self.plan.ways();
        Ok(now.is_some() && now == self.seen && routes::in_place(&self.ns, ways).await?)
    }

    /// Applies the same plan again, the rules first: until they are there nothing holds a program back.
    ///
    /// # Errors
    /// As [`apply`].
    pub async fn mend(&mut self) -> Result<(), CaptureError> {
        let table = self.plan.table().declared();
        replace(&self.ns, &[(Family::Inet, Some(table))]).await?;
        routes::ensure(&self.ns, self.plan.ways()).await?;
        self.seen = seen(&self.ns, self.plan.table()).await?;
        Ok(())
    }
}

/// A table of ours as it is there; `None` where it is gone or is not as planned: somebody else has been
/// there before it was read, whose doing would pass for ours from then on.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn seen(ns: &Netns, planned: &Table) -> Result<Option<Seen>, CaptureError> {
    let family = planned.family();
    let Some(table) = listed_of(ns, family).await? else {
        return Ok(None);
    };
    let held = elements::held(ns, family, planned.collections());
    let held = held.map_err(|source| CaptureError::Elements { source })?;
    let seen = held.map(|held| Seen { table, held });
    Ok(seen.filter(|seen| planned.is_listed(&seen.table) && seen.holds(planned.sizes())))
}

impl Seen {
    /// Whether the sets hold so much each.
    fn holds<'a>(&self, mut sizes: impl Iterator<Item = (&'a str, usize)>) -> bool {
        sizes.all(|(set, size)| self.held.get(set).is_some_and(|held| held.len() == size))
    }

    /// Whether all is as it was `before`, sets that are not among the `unchanged` apart.
    pub(super) fn agrees<'a>(
        &self,
        before: &Self,
        mut unchanged: impl Iterator<Item = &'a str>,
    ) -> bool {
        let same = |set: &str| self.held.get(set) == before.held.get(set);
        self.table == before.table && unchanged.all(same)
    }
}

/// Removes what [`apply`] put into a namespace, and nothing else; what is not there is left alone.
///
/// # Errors
/// [`CaptureError`] when something of ours could not be removed.
pub async fn clear(ns: &Netns) -> Result<(), CaptureError> {
    replace(ns, &[(Family::Inet, None), (Family::Bridge, None)]).await?;
    routes::remove(ns).await?;
    let host = Netns::current().map_err(|source| CaptureError::Namespace {
        name: "host".to_owned(),
        source,
    })?;
    match host == *ns {
        true => Ok(()),
        false => strict::remove(&host, ns).await,
    }
}

/// Rules that name a user mean the user namespace that owns the network namespace.
pub(super) fn same_users(ns: &Netns, exemption: Exemption) -> Result<(), CaptureError> {
    if exemption == Exemption::Mark {
        return Ok(());
    }
    // The settings of a network namespace belong to the root user of its user namespace.
    let owner = ns.within(|| fs::metadata("/proc/sys/net/ipv4/ip_forward").map(|m| m.uid()));
    let name = || ns.name().to_owned();
    let owner = owner.map_err(|source| CaptureError::Namespace {
        name: name(),
        source,
    })?;
    match owner.map_err(|source| CaptureError::Sysctl { source })? {
        0 => Ok(()),
        _ => Err(CaptureError::ForeignUsers { name: name() }),
    }
}

/// Whether a table of ours is there.
pub(super) fn is_there(ns: &Netns) -> Result<bool, CaptureError> {
    elements::is_table_there(ns).map_err(|source| CaptureError::Elements { source })
}

/// Our table of a family as the kernel holds it, without what changes by itself and the elements of its
/// sets; `None` when it is gone.
pub(super) async fn listed_of(ns: &Netns, family: Family) -> Result<Option<Value>, CaptureError> {
    let words = ["-j", "-t", "list", "table", family.name(), TABLE];
    let listing = run(ns, Tool::Nft, &words, "").await;
    let text = match listing {
        Ok(text) => text,
        Err(CaptureError::Refused { said, .. }) if said.contains("No such file") => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let mut value: Value = serde_json::from_str(&text).map_err(|source| CaptureError::Listing {
        program: Tool::Nft.name(),
        source,
    })?;
    settle(&mut value);
    Ok(Some(value))
}

/// Drops handles, which are new each time a rule is made, and what counters have counted.
fn settle(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !matches!(key.as_str(), "handle" | "metainfo" | "counter"));
            map.values_mut().for_each(settle);
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changes_by_itself_is_no_drift() {
        let listing = |handle: u32, packets: u32, port: u16| {
            let mut value = json!({ "nftables": [
                { "metainfo": { "version": "1.0.6" } },
                { "table": { "family": "inet", "name": "lateen", "handle": handle } },
                { "rule": { "handle": handle + 1, "expr": [
                    { "counter": { "packets": packets, "bytes": packets * 60 } },
                    { "redirect": { "port": port } },
                ] } },
            ] });
            settle(&mut value);
            value
        };
        let first = listing(7, 0, 15001);
        for (name, other, same) in [
            ("applied again", listing(9, 0, 15001), true),
            ("traffic", listing(7, 12, 15001), true),
            ("a rule changed", listing(7, 0, 15002), false),
        ] {
            assert_eq!(first == other, same, "{name}");
        }
    }
}
