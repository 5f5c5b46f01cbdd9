//! The kernel, and how it is set.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::Finding;
use super::codes::Code;
use super::settings::Roles;

/// The least that capture takes (nftables with `inet` nat).
const OLDEST: (u32, u32) = (5, 2);
/// The least that knows `socket cgroupv2`.
const OLDEST_FOR_UNITS: (u32, u32) = (5, 13);
/// With what tells whose a datagram is.
const OLDEST_FOR_DATAGRAMS: (u32, u32) = (5, 19);
/// Descriptors below which a proxy runs out of them before it refuses connections itself: it takes 16,384 at
/// a port, each of which takes two.
pub(super) const DESCRIPTORS: u64 = 65_536;
/// Shares of the connection tracking table, in percent.
const FILLING: u64 = 80;
const FULL: u64 = 97;

/// Where cgroups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cgroups {
    /// Version 2, on /sys/fs/cgroup.
    Unified,
    /// Version 2 beside version 1, elsewhere.
    Hybrid,
    /// Version 1 alone, or none.
    Version1,
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) release: Option<String>,
    pub(super) cgroups: Option<Cgroups>,
    pub(super) ipv6: Option<bool>,
    /// Whether `tcp_fwmark_accept` is there.
    pub(super) fwmark_accept: Option<bool>,
    /// Connections tracked, and the most there can be.
    pub(super) conntrack: Option<(u64, u64)>,
    /// Interfaces whose reverse-path filter is strict.
    pub(super) strict: Vec<String>,
    /// Whether those regard marks.
    pub(super) marks_regarded: bool,
    /// The most descriptors that a process here can be allowed.
    pub(super) descriptors: Option<u64>,
    /// The most that this process is, where it is one that runs.
    pub(super) own: Option<u64>,
}

impl Facts {
    pub(super) fn read() -> Self {
        let name = rustix::system::uname();
        let there = |path: &str| fs::exists(path).ok();
        // Without /proc/sys nothing follows from what is not there.
        let sysctls = there("/proc/sys/net/ipv4") == Some(true);
        let known = |path: &str| there(path).filter(|_| sysctls);
        Self {
            release: Some(name.release().to_string_lossy().into_owned()),
            cgroups: fs::read_to_string("/proc/self/mountinfo")
                .ok()
                .map(|text| cgroups(&text)),
            ipv6: known("/proc/sys/net/ipv6"),
            fwmark_accept: known("/proc/sys/net/ipv4/tcp_fwmark_accept"),
            conntrack: number("/proc/sys/net/netfilter/nf_conntrack_count")
                .zip(number("/proc/sys/net/netfilter/nf_conntrack_max")),
            strict: strict(),
            marks_regarded: number("/proc/sys/net/ipv4/conf/all/src_valid_mark") == Some(1),
            descriptors: number("/proc/sys/fs/nr_open"),
            own: None,
        }
    }

    /// And what this process may, which is one that runs.
    pub(super) fn of_this_process() -> Self {
        Self {
            // None is no limit.
            own: Some(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)),
            ..Self::read()
        }
    }

    pub(super) fn check(&self, roles: Roles) -> Vec<Finding> {
        let mut found: Vec<Finding> = Vec::new();
        found.extend(self.tables());
        if roles.captures() {
            found.extend(self.release.as_deref().and_then(age));
            found.extend(self.capture());
        }
        found
    }

    /// What is about every role.
    fn tables(&self) -> Vec<Finding> {
        let conntrack = self.conntrack.and_then(|(count, most)| filled(count, most));
        let few = self.descriptors.filter(|most| *most < DESCRIPTORS).map(|most| {
            let seen = format!("no process may have more than {most} descriptors (fs.nr_open); each connection takes two");
            Finding::new(Code::FewDescriptors, seen, "sysctl -w fs.nr_open=1048576")
        });
        let own = self.own.filter(|most| *most < DESCRIPTORS).map(|most| {
            let seen =
                format!("this process may have {most} descriptors; each connection takes two");
            let remedy =
                "LimitNOFILE=1048576 in its unit, or before it is started: ulimit -n 1048576";
            Finding::new(Code::FewDescriptors, seen, remedy)
        });
        conntrack.into_iter().chain(few).chain(own).collect()
    }

    /// What only capture needs.
    fn capture(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let cmdline = "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line and reboot, or write \
                       `capture = { user = \"NAME\" }` instead of `unit`";
        match self.cgroups {
            Some(Cgroups::Hybrid) => {
                let seen = "cgroup v2 is not mounted on /sys/fs/cgroup, where nft looks: capture by `unit` and \
                            `cgroup` cannot work";
                found.push(Finding::new(Code::CgroupHybrid, seen, cmdline));
            }
            Some(Cgroups::Version1) => {
                let seen = "there is no cgroup v2: capture by `unit` and `cgroup` cannot work";
                found.push(Finding::new(Code::CgroupV1, seen, cmdline));
            }
            Some(Cgroups::Unified) | None => {}
        }
        if self.ipv6 == Some(false) {
            let seen = "the kernel has no IPv6: workloads are reached by IPv4 alone";
            let remedy =
                "nothing, if that is meant; else take ipv6.disable=1 off the kernel's command line";
            found.push(Finding::new(Code::Ipv6Off, seen, remedy));
        }
        if self.fwmark_accept == Some(false) {
            let seen = "the kernel has no net.ipv4.tcp_fwmark_accept: workloads that share this host's \
                        network cannot be told apart";
            found.push(Finding::new(
                Code::NoFwmarkAccept,
                seen,
                "install a newer kernel",
            ));
        }
        if !self.strict.is_empty() && !self.marks_regarded {
            let seen = format!(
                "the reverse-path filter of {} is strict and does not regard marks: what is bent to the proxy is dropped",
                self.strict.join(", ")
            );
            let remedy = "sysctl -w net.ipv4.conf.all.src_valid_mark=1";
            found.push(Finding::new(Code::ReversePathStrict, seen, remedy));
        }
        found
    }
}

fn age(release: &str) -> Option<Finding> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return None;
    };
    let version: (u32, u32) = (major, minor);
    let remedy = "install a newer kernel";
    if version < OLDEST {
        let seen = format!("Linux {release} is older than 5.2: the capture rules cannot be set");
        return Some(Finding::new(Code::KernelOld, seen, remedy));
    }
    if version < OLDEST_FOR_UNITS {
        let seen = format!(
            "Linux {release} is older than 5.13: capture by `unit` and `cgroup` cannot work"
        );
        return Some(Finding::new(Code::KernelOldForUnits, seen, remedy));
    }
    (version < OLDEST_FOR_DATAGRAMS).then(|| {
        let seen = format!(
            "Linux {release} is older than 5.19: UDP of units and users goes past the mesh"
        );
        Finding::new(Code::KernelOldForDatagrams, seen, remedy)
    })
}

fn filled(count: u64, most: u64) -> Option<Finding> {
    let percent = count.saturating_mul(100).checked_div(most)?;
    let code = match () {
        () if percent >= FULL => Code::ConntrackFull,
        () if percent >= FILLING => Code::ConntrackFilling,
        () => return None,
    };
    let seen =
        format!("{count} of {most} connections are tracked; when it is full new ones are dropped");
    let remedy = format!(
        "sysctl -w net.netfilter.nf_conntrack_max={}",
        most.saturating_mul(4)
    );
    Some(Finding::new(code, seen, remedy))
}

/// By /proc/self/mountinfo (proc(5)).
fn cgroups(mounts: &str) -> Cgroups {
    let of = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let kind = kind.split(' ').next()?.to_owned();
        Some((place.split(' ').nth(4)?.to_owned(), kind))
    };
    let mut second = mounts
        .lines()
        .filter_map(of)
        .filter(|(_, kind)| kind == "cgroup2");
    let places: Vec<String> = second.by_ref().map(|(place, _)| place).collect();
    match places.iter().any(|place| place == "/sys/fs/cgroup") {
        true => Cgroups::Unified,
        false if places.is_empty() => Cgroups::Version1,
        false => Cgroups::Hybrid,
    }
}

/// Interfaces that are strict; the stricter of `all` and the interface holds (ip-sysctl).
fn strict() -> Vec<String> {
    let directory = "/proc/sys/net/ipv4/conf";
    let filter = |name: &str| number(&format!("{directory}/{name}/rp_filter")).unwrap_or(0);
    let all = filter("all");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    let ours = |name: &String| !["all", "default", "lo"].contains(&name.as_str());
    let mut names: Vec<String> = names
        .filter(ours)
        .filter(|n| filter(n).max(all) == 1)
        .collect();
    names.sort();
    names
}

/// A file with one number.
pub(super) fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Roles = Roles {
        control: false,
        node: true,
        waypoint: false,
        known: true,
    };

    fn facts() -> Facts {
        Facts {
            release: Some("6.1.0-18-amd64".to_owned()),
            cgroups: Some(Cgroups::Unified),
            ipv6: Some(true),
            fwmark_accept: Some(true),
            conntrack: Some((100, 1000)),
            strict: Vec::new(),
            marks_regarded: false,
            descriptors: Some(1_048_576),
            own: Some(u64::MAX),
        }
    }

    #[test]
    fn each_fault_is_named() {
        let with = |change: fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            facts
        };
        for (name, facts, want) in [
            ("a good host", facts(), vec![]),
            (
                "an old kernel",
                with(|f| f.release = Some("4.19.0".to_owned())),
                vec![Code::KernelOld],
            ),
            (
                "too old for units",
                with(|f| f.release = Some("5.10.0-28".to_owned())),
                vec![Code::KernelOldForUnits],
            ),
            (
                "too old for datagrams of units",
                with(|f| f.release = Some("5.15.0-91".to_owned())),
                vec![Code::KernelOldForDatagrams],
            ),
            (
                "a kernel of an unknown kind",
                with(|f| f.release = Some("unknown".to_owned())),
                vec![],
            ),
            (
                "both kinds of cgroups",
                with(|f| f.cgroups = Some(Cgroups::Hybrid)),
                vec![Code::CgroupHybrid],
            ),
            (
                "old cgroups",
                with(|f| f.cgroups = Some(Cgroups::Version1)),
                vec![Code::CgroupV1],
            ),
            (
                "no IPv6",
                with(|f| f.ipv6 = Some(false)),
                vec![Code::Ipv6Off],
            ),
            (
                "no marks on accepted sockets",
                with(|f| f.fwmark_accept = Some(false)),
                vec![Code::NoFwmarkAccept],
            ),
            (
                "a table that fills",
                with(|f| f.conntrack = Some((800, 1000))),
                vec![Code::ConntrackFilling],
            ),
            (
                "a full table",
                with(|f| f.conntrack = Some((1000, 1000))),
                vec![Code::ConntrackFull],
            ),
            ("no table", with(|f| f.conntrack = Some((0, 0))), vec![]),
            (
                "a strict filter",
                with(|f| f.strict = vec!["eth0".to_owned()]),
                vec![Code::ReversePathStrict],
            ),
            (
                "a strict filter that regards marks",
                with(|f| {
                    f.strict = vec!["eth0".to_owned()];
                    f.marks_regarded = true;
                }),
                vec![],
            ),
            (
                "few descriptors",
                with(|f| f.descriptors = Some(20_000)),
                vec![Code::FewDescriptors],
            ),
            (
                "few for this process",
                with(|f| f.own = Some(1024)),
                vec![Code::FewDescriptors],
            ),
        ] {
            let codes: Vec<_> = facts.check(NODE).iter().map(|f| f.code).collect();
            assert_eq!(codes, want, "{name}");
        }
    }

    #[test]
    fn capture_is_the_concern_of_nodes() {
        let facts = Facts {
            cgroups: Some(Cgroups::Version1),
            ..facts()
        };
        let control = Roles {
            node: false,
            control: true,
            ..NODE
        };
        assert_eq!(facts.check(control), Vec::new());
    }

    #[test]
    fn mounts_tell_the_kind_of_cgroups() {
        let v1 = "35 24 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let beside = "36 24 0:31 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        let alone = "36 24 0:31 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n";
        for (name, mounts, want) in [
            ("unified", alone.to_owned(), Cgroups::Unified),
            ("hybrid", format!("{v1}{beside}"), Cgroups::Hybrid),
            ("old", v1.to_owned(), Cgroups::Version1),
            ("none", String::new(), Cgroups::Version1),
        ] {
            assert_eq!(cgroups(&mounts), want, "{name}");
        }
    }
}
