//! What this host is told to be, and whether that is understood.

use std::path::{Path, PathBuf};

use super::Finding;
use super::codes::Code;
use crate::config;
use crate::config::daemon::{Config, Role};
use crate::config::diagnose::Style;

/// What this host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// A control plane.
    pub control: bool,
    /// A node.
    pub node: bool,
    /// An instance of a waypoint.
    pub waypoint: bool,
    /// Whether anybody has said so: else it is looked at as if it were a node.
    pub known: bool,
}

impl Roles {
    /// Whether workloads are captured here.
    pub(super) fn captures(self) -> bool {
        self.node || !self.known
    }

    /// Whether it follows a control plane.
    pub(super) fn follows(self) -> bool {
        self.node || self.waypoint
    }

    fn and(self, other: Self) -> Self {
        Self {
            control: self.control || other.control,
            node: self.node || other.node,
            waypoint: self.waypoint || other.waypoint,
            known: self.known || other.known,
        }
    }
}

/// What is known of the settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    config: Option<Config>,
    roles: Roles,
    /// Why lateen.toml does not pass.
    fault: Option<String>,
    /// How many errors the mesh directory has, where there is a control plane here.
    mesh: Option<(PathBuf, usize)>,
    looked: bool,
}

impl Facts {
    /// Those in the file `path`; `units` is what the units on this host say it is.
    pub(super) fn read(path: Option<&Path>, units: Roles) -> Self {
        let mut facts = Self {
            looked: true,
            roles: units,
            ..Self::default()
        };
        match Config::load(path) {
            Ok(config) => {
                facts.roles = facts.roles.and(told(&config));
                facts.mesh = facts
                    .roles
                    .control
                    .then(|| mesh(config.control().mesh_dir()));
                facts.config = Some(config);
            }
            Err(report) => {
                facts.fault = Some(report.text(&Style::for_stream(false, true, 100)));
            }
        }
        facts
    }

    /// Those of a process that starts with them, which judges the mesh directory itself.
    pub(super) fn given(config: Config, roles: Roles) -> Self {
        Self {
            config: Some(config),
            roles,
            ..Self::default()
        }
    }

    pub(super) fn roles(&self) -> Roles {
        self.roles
    }

    pub(super) fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Some(fault) = &self.fault {
            let seen = format!(
                "lateen.toml does not pass, and no role starts:\n{}",
                fault.trim_end()
            );
            found.push(Finding::new(
                Code::SettingsInvalid,
                seen,
                "edit it as it says",
            ));
        } else if self.looked && !self.roles.known {
            let seen = "neither `roles` in lateen.toml nor a unit says what this host is; looked at as a node";
            let remedy = "systemctl enable --now lateen-node";
            found.push(Finding::new(Code::NoRole, seen, remedy));
        }
        if let Some((directory, errors)) = self.mesh.as_ref().filter(|(_, errors)| *errors > 0) {
            let directory = directory.display();
            let seen = format!(
                "the mesh directory {directory} has {errors} errors, so that nothing of it comes into force"
            );
            found.push(Finding::new(
                Code::MeshInvalid,
                seen,
                format!("lateen check {directory}"),
            ));
        }
        found
    }
}

fn told(config: &Config) -> Roles {
    let roles = config.roles();
    Roles {
        control: roles.contains(&Role::Control),
        node: roles.contains(&Role::Node),
        waypoint: false,
        known: !roles.is_empty(),
    }
}

fn mesh(directory: &Path) -> (PathBuf, usize) {
    (
        directory.to_owned(),
        config::load(directory).report.errors(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(settings: &str, mesh: &str, units: Roles) -> Vec<Code> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lateen.toml");
        let mesh_dir = dir.path().join("mesh");
        std::fs::create_dir(&mesh_dir).unwrap();
        std::fs::write(mesh_dir.join("mesh.toml"), mesh).unwrap();
        let settings = settings.replace("MESH", &mesh_dir.display().to_string());
        std::fs::write(&path, settings).unwrap();
        let facts = Facts::read(Some(&path), units);
        facts.check().iter().map(|f| f.code).collect()
    }

    #[test]
    fn each_fault_is_named() {
        let control = "roles = [\"control\"]\n[control]\nmesh-dir = \"MESH\"\n";
        let unit = Roles {
            node: true,
            known: true,
            ..Roles::default()
        };
        for (name, settings, mesh, units, want) in [
            ("a node", "roles = [\"node\"]", "", Roles::default(), vec![]),
            ("a node by its unit", "", "", unit, vec![]),
            ("nobody says", "", "", Roles::default(), vec![Code::NoRole]),
            (
                "a typo",
                "rolez = 1",
                "",
                Roles::default(),
                vec![Code::SettingsInvalid],
            ),
            (
                "a mesh that does not pass",
                control,
                "[[nod]]",
                Roles::default(),
                vec![Code::MeshInvalid],
            ),
            (
                "a mesh that does",
                control,
                "[[node]]\nname = \"a\"\n",
                Roles::default(),
                vec![],
            ),
        ] {
            assert_eq!(codes(settings, mesh, units), want, "{name}");
        }
    }
}
