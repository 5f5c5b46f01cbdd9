//! How systemd has the units of lateen on this host.

use std::collections::BTreeMap;

use super::Finding;
use super::codes::Code;
use super::kernel::DESCRIPTORS;
use super::program::run;
use super::settings::Roles;

/// Restarts that somebody should look at.
const RESTARTS: u64 = 5;
/// What is asked of each unit (systemctl(1)).
const PROPERTIES: &str = "Id,LoadState,ActiveState,Result,NRestarts,UnitFileState,NeedDaemonReload,StatusText,LimitNOFILE";

/// One unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unit {
    name: String,
    /// `active`, `activating`, `inactive`, `failed` and the like.
    active: String,
    /// What its last run ended with.
    result: String,
    restarts: u64,
    /// `enabled`, `disabled` and the like.
    file: String,
    changed: bool,
    status: String,
    /// The most that it may have; none where there is no limit.
    descriptors: Option<u64>,
}

impl Unit {
    fn runs(&self) -> bool {
        matches!(&*self.active, "active" | "activating" | "reloading")
    }

    fn starts(&self) -> bool {
        self.runs() || self.file == "enabled"
    }

    fn check(&self) -> Option<Finding> {
        let name = &self.name;
        let (code, seen, remedy) = match () {
            () if self.active == "failed" => (
                Code::UnitFailed,
                format!("{name} has failed ({}){}", self.result, self.said()),
                format!("journalctl -u {name} -n 50; then systemctl restart {name}"),
            ),
            () if self.restarts >= RESTARTS => (
                Code::UnitRestarting,
                format!(
                    "{name} was restarted {} times{}",
                    self.restarts,
                    self.said()
                ),
                format!("journalctl -u {name} -n 50"),
            ),
            () if self.changed => (
                Code::UnitChanged,
                format!("the file of {name} has changed since systemd read it"),
                format!("systemctl daemon-reload && systemctl restart {name}"),
            ),
            () if self.runs() && self.file == "disabled" => (
                Code::UnitNotEnabled,
                format!("{name} runs, and will not after a reboot"),
                format!("systemctl enable {name}"),
            ),
            () if self.starts() && self.descriptors.is_some_and(|most| most < DESCRIPTORS) => (
                Code::FewDescriptors,
                format!(
                    "{name} may have {} descriptors; each connection takes two",
                    self.descriptors.unwrap_or_default()
                ),
                format!(
                    "systemctl edit {name}: LimitNOFILE=1048576 in [Service]; then systemctl restart {name}"
                ),
            ),
            () => return None,
        };
        Some(Finding::new(code, seen, remedy))
    }

    /// What the process said of itself last.
    fn said(&self) -> String {
        match self.status.is_empty() {
            true => String::new(),
            false => format!(", last saying `{}`", self.status),
        }
    }
}

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    units: Vec<Unit>,
}

impl Facts {
    pub(super) fn read() -> Self {
        let listing = [
            "show",
            "--all",
            "--property",
            PROPERTIES,
            "lateen.service",
            "lateen-*.service",
        ];
        let asked = run("systemctl", &listing);
        Self {
            units: asked.said().map(|text| units(&text)).unwrap_or_default(),
        }
    }

    /// What this host is by its units.
    pub(super) fn roles(&self) -> Roles {
        let starts = |names: &[&str]| {
            let is = |u: &Unit| u.starts() && names.iter().any(|name| u.name.starts_with(name));
            self.units.iter().any(is)
        };
        let control = starts(&["lateen.service", "lateen-control.service"]);
        let node = starts(&["lateen.service", "lateen-node.service"]);
        let waypoint = starts(&["lateen-waypoint@"]);
        Roles {
            control,
            node,
            waypoint,
            known: control || node || waypoint,
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.units.iter().filter_map(Unit::check).collect();
        let starts = |name: &str| self.units.iter().any(|u| u.name == name && u.starts());
        let whole = "lateen.service";
        for other in ["lateen-control.service", "lateen-node.service"] {
            if starts(whole) && starts(other) {
                let seen = format!(
                    "{whole} and {other} are both to start, and have the same role: each stops the other"
                );
                let remedy = format!("systemctl disable --now {other}");
                found.push(Finding::new(Code::UnitsConflict, seen, remedy));
            }
        }
        found.extend(self.shared());
        found
    }

    /// Units that do not stop each other and share what one process has alone.
    fn shared(&self) -> Option<Finding> {
        let keeper = "lateen-keeper.service";
        let units = self.units.iter().filter(|u| u.starts() && u.name != keeper);
        let names: Vec<&str> = units.map(|unit| &*unit.name).collect();
        let stops = |name: &&str| ["lateen-control.service", "lateen-node.service"].contains(name);
        if names.len() < 2 || (names.contains(&"lateen.service") && names.iter().any(stops)) {
            return None;
        }
        let (last, first) = names.split_last()?;
        let seen = format!(
            "{} and {last} are all to start, and have one state directory, one admin socket and the same ports: \
             only one of them comes up",
            first.join(", ")
        );
        let remedy = format!(
            "systemctl disable --now {last}, and let another have its role: lateen.service is a control plane and \
             a node, and further `--waypoint NAMESPACE/NAME` are for its ExecStart (systemctl edit)"
        );
        Some(Finding::new(Code::UnitsConflict, seen, remedy))
    }
}

/// By the blocks that `systemctl show` prints, without those of units that are not there.
fn units(text: &str) -> Vec<Unit> {
    let unit = |block: &str| {
        let lines = block.lines().filter_map(|line| line.split_once('='));
        let properties: BTreeMap<&str, &str> = lines.collect();
        let of = |name: &str| properties.get(name).copied().unwrap_or_default().to_owned();
        (of("LoadState") == "loaded").then(|| Unit {
            name: of("Id"),
            active: of("ActiveState"),
            result: of("Result"),
            restarts: of("NRestarts").parse().unwrap_or(0),
            file: of("UnitFileState"),
            changed: of("NeedDaemonReload") == "yes",
            status: of("StatusText"),
            descriptors: of("LimitNOFILE").parse().ok(),
        })
    };
    text.split("\n\n").filter_map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, active: &str) -> Unit {
        Unit {
            name: name.to_owned(),
            active: active.to_owned(),
            result: "success".to_owned(),
            file: "enabled".to_owned(),
            ..Unit::default()
        }
    }

    #[test]
    fn each_fault_is_named() {
        let node = || unit("lateen-node.service", "active");
        for (name, units, want) in [
            ("it runs", vec![node()], vec![]),
            (
                "it does not",
                vec![unit("lateen-node.service", "inactive")],
                vec![],
            ),
            (
                "it failed",
                vec![unit("lateen-node.service", "failed")],
                vec![Code::UnitFailed],
            ),
            (
                "again and again",
                vec![Unit {
                    restarts: 5,
                    ..node()
                }],
                vec![Code::UnitRestarting],
            ),
            (
                "not after a reboot",
                vec![Unit {
                    file: "disabled".to_owned(),
                    ..node()
                }],
                vec![Code::UnitNotEnabled],
            ),
            (
                "an edited file",
                vec![Unit {
                    changed: true,
                    ..node()
                }],
                vec![Code::UnitChanged],
            ),
            (
                "twice the same",
                vec![node(), unit("lateen.service", "inactive")],
                vec![Code::UnitsConflict],
            ),
            (
                "two that share a host",
                vec![node(), unit("lateen-control.service", "active")],
                vec![Code::UnitsConflict],
            ),
            (
                "a waypoint beside a node",
                vec![
                    node(),
                    unit("lateen-waypoint@shop:waypoint.service", "active"),
                ],
                vec![Code::UnitsConflict],
            ),
            (
                "with its keeper",
                vec![node(), unit("lateen-keeper.service", "active")],
                vec![],
            ),
            (
                "a few descriptors",
                vec![Unit {
                    descriptors: Some(1024),
                    ..node()
                }],
                vec![Code::FewDescriptors],
            ),
        ] {
            let facts = Facts { units };
            let codes: Vec<_> = facts.check().iter().map(|f| f.code).collect();
            assert_eq!(codes, want, "{name}");
        }
    }

    #[test]
    fn units_are_read_and_say_what_the_host_is() {
        let text = "Id=lateen-node.service\nLoadState=loaded\nActiveState=activating\nResult=success\nNRestarts=2\n\
                    UnitFileState=enabled\nNeedDaemonReload=no\nLimitNOFILE=524288\nStatusText=starting, waiting for a = b\n\n\
                    Id=lateen.service\nLoadState=not-found\nActiveState=inactive\n";
        let facts = Facts { units: units(text) };
        let [node] = &facts.units[..] else {
            panic!("{:?}", facts.units);
        };
        assert_eq!(
            (node.restarts, &*node.status, node.descriptors),
            (2, "starting, waiting for a = b", Some(524_288))
        );
        let roles = facts.roles();
        assert!(roles.node && roles.known && !roles.control && !roles.waypoint);
    }
}
