//! Puts the host's rules in place, changes them, and tells whether they are still there.

use std::fs;

use crate::capture::apply::{self, is_there, same_users};
use crate::capture::elements;
use crate::capture::elements::change::{change, is_after};
use crate::capture::error::CaptureError;
use crate::capture::netns::Netns;
use crate::capture::replace;
use crate::capture::routes;
use crate::capture::ruleset::host::ACCEPT_MARKS;
use crate::capture::ruleset::{Family, HostPlan};
use crate::capture::tool::{Tool, run};

/// Rules as the kernel held them right after they were applied.
#[derive(Clone, Debug)]
pub struct Applied {
    ns: Netns,
    plan: HostPlan,
    /// `None` when they were gone, or others, before they could be read.
    seen: Option<Seen>,
}

/// All that the kernel holds of them.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    own: apply::Seen,
    bridge: Option<apply::Seen>,
}

/// Applies a plan in one transaction, whatever our table held before.
///
/// # Errors
/// [`CaptureError`]; the table is then as it was.
pub async fn apply(ns: &Netns, plan: &HostPlan) -> Result<Applied, CaptureError> {
    replace(ns, plan).await?;
    Ok(Applied {
        ns: ns.clone(),
        plan: plan.clone(),
        seen: seen(ns, plan).await?,
    })
}

impl Applied {
    /// Makes another plan of it, in one transaction; nothing is done where they are the same.
    ///
    /// # Errors
    /// [`CaptureError`]; the table is then as it was.
    pub async fn change(&mut self, plan: &HostPlan) -> Result<(), CaptureError> {
        if self.turn_over(plan)? {
            return Ok(());
        }
        let elements = match plan.changing(&self.plan) {
            Some(script) if script.is_empty() => return Ok(()),
            Some(script) => {
                run(&self.ns, Tool::Nft, &["-f", "-"], &script).await?;
                true
            }
            None => {
                replace(&self.ns, plan).await?;
                false
            }
        };
        let now = seen(&self.ns, plan).await?;
        // What somebody else has changed since the last look is not ours, whoever looked away.
        let rest = now.filter(|now| !elements || self.seen_beside(plan, now));
        self.plan = plan.clone();
        self.seen = rest;
        Ok(())
    }

    /// Applies the same plan again, the rules first.
    ///
    /// # Errors
    /// As [`apply`]; also when what the rules name has gone meanwhile.
    pub async fn mend(&mut self) -> Result<(), CaptureError> {
        replace::replace(&self.ns, &self.plan.tables()).await?;
        prepare(&self.ns, &self.plan).await?;
        self.seen = seen(&self.ns, &self.plan).await?;
        Ok(())
    }

    /// Whether all that does not differ between the plans is as it was seen.
    fn seen_beside(&self, plan: &HostPlan, now: &Seen) -> bool {
        let Some(then) = &self.seen else {
            return false;
        };
        let unchanged = plan.table().unchanged(self.plan.table());
        let bridges = plan.bridge().zip(self.plan.bridge());
        let bridge = match (bridges, &now.bridge, &then.bridge) {
            (Some((plan, before)), Some(now), Some(then)) => {
                now.agrees(then, plan.unchanged(before))
            }
            (_, now, then) => now.is_none() && then.is_none(),
        };
        now.own.agrees(&then.own, unchanged) && bridge
    }

    /// Changes the maps of cgroups, without `nft`, where that makes the plan of it: units start and stop by
    /// the hundred a second, and are to be captured at once. Whether it was enough.
    fn turn_over(&mut self, plan: &HostPlan) -> Result<bool, CaptureError> {
        let Some(turnovers) = plan.turnovers(&self.plan) else {
            return Ok(false);
        };
        if turnovers.is_empty() {
            return Ok(true);
        }
        // What the kernel refuses of it `nft` tries in its own way, and says why if it cannot.
        if change(&self.ns, &turnovers).is_err() {
            return Ok(false);
        }
        self.plan = plan.clone();
        let before = self.seen.take();
        let held = elements::held(&self.ns, Family::Inet, plan.table().collections());
        let held = held.map_err(|source| CaptureError::Elements { source })?;
        // Where somebody else has changed them too, they are not what was applied.
        self.seen = before.zip(held).and_then(|(before, held)| {
            let table = before.own.table;
            let own = apply::Seen { table, held };
            let bridge = before.bridge;
            is_after(&before.own.held, &own.held, &turnovers).then_some(Seen { own, bridge })
        });
        Ok(true)
    }

    /// Whether the rules, the routes and the setting are still what was applied.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn intact(&self) -> Result<bool, CaptureError> {
        // Asked of the kernel itself, for whom no program has to be started.
        if !is_there(&self.ns)? {
            return Ok(false);
        }
        let now = seen(&self.ns, &self.plan).await?;
        Ok(now.is_some()
            && now == self.seen
            && marks_are_accepted(&self.ns)?
            && routes::in_place(&self.ns, self.plan.ways()).await?)
    }
}

/// Puts all of it in place, in one transaction once all that it rests on is there.
async fn replace(ns: &Netns, plan: &HostPlan) -> Result<(), CaptureError> {
    prepare(ns, plan).await?;
    replace::replace(ns, &plan.tables()).await
}

/// All that the rules rest on.
async fn prepare(ns: &Netns, plan: &HostPlan) -> Result<(), CaptureError> {
    same_users(ns, plan.exemption())?;
    if !marks_are_accepted(ns)? {
        let written = ns.within(|| fs::write(setting(), "1"));
        let written = written.map_err(|source| namespace(ns, source))?;
        written.map_err(|source| CaptureError::AcceptMarks { source })?;
    }
    routes::ensure(ns, plan.ways()).await
}

fn setting() -> String {
    format!("/proc/sys/{ACCEPT_MARKS}")
}

fn marks_are_accepted(ns: &Netns) -> Result<bool, CaptureError> {
    let read = ns.within(|| fs::read_to_string(setting()));
    let read = read.map_err(|source| namespace(ns, source))?;
    let value = read.map_err(|source| CaptureError::AcceptMarks { source })?;
    Ok(value.trim() != "0")
}

fn namespace(ns: &Netns, source: std::io::Error) -> CaptureError {
    CaptureError::Namespace {
        name: ns.name().to_owned(),
        source,
    }
}

async fn seen(ns: &Netns, plan: &HostPlan) -> Result<Option<Seen>, CaptureError> {
    let Some(own) = apply::seen(ns, plan.table()).await? else {
        return Ok(None);
    };
    let Some(bridge) = plan.bridge() else {
        return Ok(Some(Seen { own, bridge: None }));
    };
    let bridge = apply::seen(ns, bridge).await?;
    Ok(bridge.map(|bridge| Seen {
        own,
        bridge: Some(bridge),
    }))
}
