//! What every contender is made to do, and which figures that gives.

pub(crate) mod beside;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod open_loop;
pub(crate) mod same_host;
pub(crate) mod spread;
pub(crate) mod throughput;
mod waypoint;

use crate::contender::Contender;
use crate::fault::Fault;
use crate::rig::Stage;
use crate::settings::Settings;

/// Which way a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// One number that a work gives.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// What it is of the work; empty where the work's name says it.
    pub(crate) name: &'static str,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Which way it is good.
    pub(crate) better: Better,
    /// Whether what it adds to `none` is a figure too.
    pub(crate) added: bool,
}

impl Figure {
    /// A figure.
    pub(crate) fn new(name: &'static str, unit: &'static str, better: Better) -> Self {
        Self {
            name,
            unit,
            better,
            added: false,
        }
    }

    /// Also tells what a contender adds to no mesh.
    pub(crate) fn with_added(self) -> Self {
        Self {
            added: true,
            ..self
        }
    }
}

/// Where a work is done.
pub(crate) struct Site<'a> {
    /// The rig.
    pub(crate) stage: &'a Stage,
    /// By whom.
    pub(crate) contender: &'a Contender,
    /// For how long.
    pub(crate) seconds: u32,
}

/// A work's figures in their order; none where a contender has no such thing.
type Readings = Result<Vec<Option<f64>>, Fault>;

/// One thing to do.
pub(crate) struct Work {
    /// Its name, without commas: a wish for rows is a list of parts of names between commas.
    pub(crate) name: String,
    /// What it gives.
    pub(crate) figures: Vec<Figure>,
    /// Whether once is enough.
    pub(crate) once: bool,
    run: Box<dyn Fn(&Site<'_>) -> Readings>,
}

impl Work {
    /// A work.
    pub(crate) fn new(
        name: impl Into<String>,
        figures: Vec<Figure>,
        run: impl Fn(&Site<'_>) -> Readings + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            figures,
            once: false,
            run: Box::new(run),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// What did not work.
    pub(crate) fn run(&self, site: &Site<'_>) -> Readings {
        (self.run)(site)
    }
}

/// Who the contenders of a pass are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// A mesh for each.
    Meshes,
    /// The ways through one lateen mesh: by no waypoint, and by a waypoint of each.
    Waypoints,
}

/// Works that are done on one rig, whose contenders have done nothing before.
pub(crate) struct Pass {
    /// Who does them.
    pub(crate) scene: Scene,
    /// The congestion control of all connections.
    pub(crate) congestion: String,
    /// What is done.
    pub(crate) works: Vec<Work>,
}

/// Everything that is wanted, in the order of the table but for memory, which comes first: it is
/// measured in processes that have carried nothing.
pub(crate) fn passes(settings: &Settings, congestions: &[String]) -> Vec<Pass> {
    let first = congestions.first().cloned().unwrap_or_default();
    let mut passes = vec![Pass {
        scene: Scene::Meshes,
        congestion: first.clone(),
        works: vec![idle::work()],
    }];
    for congestion in congestions {
        let mut works = throughput::works(congestion);
        if *congestion == first {
            works.extend(http::works());
            works.push(beside::work());
            works.extend(settings.rates.iter().map(|rate| open_loop::work(*rate)));
            works.push(spread::work());
            works.extend(same_host::works());
        }
        let congestion = congestion.clone();
        passes.push(Pass {
            scene: Scene::Meshes,
            congestion,
            works,
        });
    }
    passes.push(Pass {
        scene: Scene::Waypoints,
        congestion: first,
        works: waypoint::works(),
    });
    for pass in &mut passes {
        pass.works.retain(|work| settings.wants(&work.name));
    }
    passes.retain(|pass| !pass.works.is_empty());
    passes
}
