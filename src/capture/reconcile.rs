//! Keeps the rules of one namespace as they should be.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::apply::{Applied, apply};
use super::elements;
use super::error::CaptureError;
use super::netns::Netns;
use super::ruleset::{self, Datagrams, Family, Plan, SETS, WantedDatagrams};
use super::strict::{self, Strict};
use super::terms::Terms;
use super::watch::Changes;

/// Between attempts while the rules cannot be applied or read.
const RETRY: Duration = Duration::from_millis(500);

/// How the rules of a namespace are.
#[derive(Clone, Debug)]
pub enum State {
    /// Not applied yet.
    Pending,
    /// As they should be, as far as the last look told.
    InPlace,
    /// Not as they should be; tried again until they are.
    Failed(Arc<CaptureError>),
}

/// The component that applies a plan and puts it back whenever somebody changes it.
#[derive(Debug)]
pub struct Reconcile {
    ns: Netns,
    plan: Plan,
    changes: Changes,
    strict: Option<(Strict, Changes)>,
    /// Which datagrams come to the proxy, where any do.
    datagrams: Option<watch::Receiver<WantedDatagrams>>,
    /// The host that may still have filters of a time when this was strict.
    was_strict: Option<Netns>,
    state: watch::Sender<State>,
}

impl Reconcile {
    /// Prepares to keep `plan` in place in `ns`; the receiver tells how it goes.
    ///
    /// # Errors
    /// When the namespace may not be entered, or the kernel's notices not be had there.
    pub fn new(ns: Netns, plan: Plan) -> io::Result<(Self, watch::Receiver<State>)> {
        // From here on no change goes unnoticed, those between applying and looking included.
        let changes = Changes::new(&ns)?;
        let (state, receiver) = watch::channel(State::Pending);
        let reconcile = Self {
            ns,
            plan,
            changes,
            strict: None,
            datagrams: None,
            was_strict: None,
            state,
        };
        Ok((reconcile, receiver))
    }

    /// Prepares to keep the rules of a workload's own namespace in place, on these terms, with those
    /// for questions for names where `dns` asks for them, and with those for datagrams where `datagrams`
    /// tells of any: until it does, what is captured stays so.
    ///
    /// # Errors
    /// As [`Self::new`], and where it is the host's own network.
    pub fn on(
        terms: &Terms,
        ns: Netns,
        dns: bool,
        datagrams: Option<watch::Receiver<WantedDatagrams>>,
    ) -> io::Result<(Self, watch::Receiver<State>)> {
        let here = Netns::current()?;
        if here == ns {
            // All of the host would be captured, and whoever operates it locked out.
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "that is the host's own network, whose rules are others",
            ));
        }
        let plan = Plan::excluding(terms.exemption, &terms.exclusions);
        let plan = if dns { plan.with_dns() } else { plan };
        let plan = match datagrams {
            Some(_) => plan.with_udp(&terms.exclusions, &Datagrams::default()),
            None => plan,
        };
        let (mut reconcile, state) = Self::new(ns.clone(), plan)?;
        reconcile.datagrams = datagrams;
        if terms.strict {
            let strict = Strict::new(here, ns, terms.exclusions.clone());
            reconcile = reconcile.strict(strict)?;
        } else {
            reconcile.was_strict = Some(here);
        }
        Ok((reconcile, state))
    }

    /// Keeps the filters on the host's side of the namespace's links in place as well.
    ///
    /// # Errors
    /// When the kernel's notices are not to be had on the host.
    pub fn strict(mut self, strict: Strict) -> io::Result<Self> {
        let changes = Changes::new(strict.host())?;
        self.strict = Some((strict, changes));
        Ok(self)
    }

    /// Applies the plan, whatever is there, and puts it back within a second of any change, until
    /// `shutdown`. The rules stay then: what they capture is refused, not leaked.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut applied = None;
        loop {
            let outcome = self.settle(&mut applied).await;
            let failed = outcome.is_err();
            self.publish(outcome);
            self.rest();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changes.next() => {}
                () = beyond(&mut self.strict) => {}
                () = told(&mut self.datagrams) => {}
                () = tokio::time::sleep(RETRY), if failed => {}
            }
        }
    }

    /// Leaves the rules as they should be.
    async fn settle(&mut self, applied: &mut Option<Applied>) -> Result<(), CaptureError> {
        self.take_up_datagrams(applied.is_none())?;
        match applied {
            Some(applied) => {
                applied.change(&self.plan).await?;
                if applied.intact().await? && self.is_strict().await? {
                    return Ok(());
                }
                warn!(
                    netns = self.ns.name(),
                    "capture rules were changed by somebody else, putting them back"
                );
                applied.mend().await?;
            }
            None => {
                let now = apply(&self.ns, &self.plan).await?;
                if let Some(host) = &self.was_strict {
                    strict::remove(host, &self.ns).await?;
                }
                *applied = Some(now);
            }
        }
        match &self.strict {
            Some((strict, _)) => strict.apply().await,
            None => Ok(()),
        }
    }

    /// Plans for the datagrams that were told of last. Rules that others have left capture what they did
    /// until it is known what is to be: between the two nothing may pass by.
    fn take_up_datagrams(&mut self, first: bool) -> Result<(), CaptureError> {
        let Some(datagrams) = &mut self.datagrams else {
            return Ok(());
        };
        let told = datagrams.borrow_and_update().clone();
        let wanted = match (told, first) {
            (Some(told), _) => told,
            (None, false) => return Ok(()),
            (None, true) => Arc::new(captured(&self.ns, &SETS)?),
        };
        self.plan = self.plan.clone().holding(&wanted);
        Ok(())
    }

    async fn is_strict(&self) -> Result<bool, CaptureError> {
        match &self.strict {
            Some((strict, _)) => strict.intact().await,
            None => Ok(true),
        }
    }

    fn rest(&mut self) {
        self.changes.rest();
        if let Some((_, beyond)) = &mut self.strict {
            beyond.rest();
        }
    }

    fn publish(&self, outcome: Result<(), CaptureError>) {
        let state = match outcome {
            Ok(()) => State::InPlace,
            Err(e) => State::Failed(Arc::new(e)),
        };
        self.state.send_if_modified(|old| {
            let news = !matches!((&*old, &state), (State::InPlace, State::InPlace));
            *old = state;
            news
        });
    }
}

/// The datagrams that the rules in force capture, as these sets of theirs say, such as are there.
pub(super) fn captured(ns: &Netns, sets: &[&str]) -> Result<Datagrams, CaptureError> {
    let held = sets
        .iter()
        .map(|set| elements::held(ns, Family::Inet, [*set]));
    let held: Result<Vec<_>, _> = held.collect();
    let held = held.map_err(|source| CaptureError::Elements { source })?;
    let held: BTreeMap<_, _> = held.into_iter().flatten().flatten().collect();
    let keys = held.iter().flat_map(|(set, elements)| {
        let keys = elements::keys(elements);
        keys.map(move |key| (&**set, key))
    });
    Ok(ruleset::read(keys))
}

/// Returns when other datagrams are told of; never where none are captured, or nobody tells any more.
///
/// # Cancel safety
/// What was told stays so.
pub(super) async fn told(datagrams: &mut Option<watch::Receiver<WantedDatagrams>>) {
    if let Some(datagrams) = datagrams
        && datagrams.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Returns when something may have changed on the host's side.
///
/// # Cancel safety
/// A notice that was not told of stays in its socket.
async fn beyond(strict: &mut Option<(Strict, Changes)>) {
    match strict {
        Some((_, changes)) => changes.next().await,
        None => std::future::pending().await,
    }
}
