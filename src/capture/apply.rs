//! Puts the rules into a namespace, tells whether they are still there, and removes them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use super::elements::{self, Held};
use super::error::CaptureError;
use super::listing::listed_of;
use super::netns::Netns;
use super::privilege::Exemption;
use super::replace::replace;
use super::routes;
use super::ruleset::{Family, Plan, Table};
use super::strict;
use super::tool::{Tool, run};

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
