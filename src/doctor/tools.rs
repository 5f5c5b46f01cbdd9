//! The programs that capture runs, and whether the kernel takes the rules.

use super::Finding;
use super::codes::Code;
use super::program::{Ran, run};
use super::settings::Roles;
use crate::capture::{self, Exemption, Netns, PreflightError};
use crate::causes::chain;
use crate::config::daemon::Config;

/// The oldest nft that takes the rules, and the one that knows `socket cgroupv2`.
const OLDEST: [u32; 3] = [0, 9, 3];
const OLDEST_FOR_UNITS: [u32; 3] = [0, 9, 9];

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    nft: Option<Ran>,
    ip: Option<Ran>,
    /// Why the rules are not taken, where somebody who may set them tried.
    refused: Option<String>,
}

impl Facts {
    /// Tries the rules on this network, without setting them, where this process may.
    pub(super) fn read(config: Option<&Config>) -> Self {
        let nft = run("nft", &["--version"]);
        let tried = matches!(nft, Ran::Said(_)) && rustix::process::geteuid().is_root();
        Self {
            refused: tried.then(|| config.and_then(|_| refused())).flatten(),
            nft: Some(nft),
            ip: Some(run("ip", &["-V"])),
        }
    }

    pub(super) fn check(&self, roles: Roles) -> Vec<Finding> {
        if !roles.captures() {
            return Vec::new();
        }
        let mut found = Vec::new();
        match &self.nft {
            Some(Ran::Missing) => {
                let seen = "nft is not installed: the capture rules cannot be set";
                found.push(Finding::new(Code::NftMissing, seen, install("nftables")));
            }
            Some(Ran::Said(text)) => found.extend(age(text)),
            Some(Ran::Failed(_)) | None => {}
        }
        if self.ip == Some(Ran::Missing) {
            let seen = "ip is not installed: the capture routes cannot be set";
            found.push(Finding::new(Code::IpMissing, seen, install("iproute2")));
        }
        if let Some(reason) = &self.refused {
            let remedy = "modprobe -a nf_conntrack nft_ct nft_nat nft_redir nft_reject_inet nft_socket nft_tproxy";
            found.push(Finding::new(Code::RulesRefused, reason.clone(), remedy));
        }
        found
    }
}

/// How a package is had.
fn install(package: &str) -> String {
    format!(
        "apt-get install {package}, or dnf install {}",
        match package {
            "iproute2" => "iproute",
            other => other,
        }
    )
}

fn age(said: &str) -> Option<Finding> {
    let version = version(said)?;
    if version >= OLDEST_FOR_UNITS {
        return None;
    }
    let said = said.trim();
    let seen = match version < OLDEST {
        true => format!("{said} is older than 0.9.3: it does not take the capture rules"),
        false => format!("{said} is older than 0.9.9: capture by `unit` and `cgroup` cannot work"),
    };
    Some(Finding::new(Code::NftOld, seen, install("nftables")))
}

/// The numbers in `nftables v1.0.6 (Lester Gooch #5)`.
fn version(said: &str) -> Option<[u32; 3]> {
    let word = said
        .split_whitespace()
        .find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = word.split('.').map(|n| n.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    Some([next(), next(), next()])
}

/// Has the kernel judge the rules of a workload's network.
fn refused() -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let network = Netns::current().ok()?;
    // Whom they exempt is nothing that could be refused.
    let plan = capture::plan(&Exemption::Uid(1));
    match runtime.block_on(capture::preflight(&network, &plan)) {
        Ok(_tools) => None,
        // What is missing has been found already.
        Err(PreflightError::Tool(_)) => None,
        Err(e) => Some(chain(&e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_named() {
        let node = Roles {
            node: true,
            known: true,
            ..Roles::default()
        };
        let said = |text: &str| Some(Ran::Said(text.to_owned()));
        let nft = || said("nftables v1.0.6 (Lester Gooch #5)\n");
        let ip = || said("ip utility, iproute2-6.1.0\n");
        for (name, nft, ip, refused, want) in [
            ("all is there", nft(), ip(), None, None),
            (
                "no nft",
                Some(Ran::Missing),
                ip(),
                None,
                Some(Code::NftMissing),
            ),
            (
                "no ip",
                nft(),
                Some(Ran::Missing),
                None,
                Some(Code::IpMissing),
            ),
            (
                "an old nft",
                said("nftables v0.9.0 (Fearless Fosdick)"),
                ip(),
                None,
                Some(Code::NftOld),
            ),
            (
                "too old for units",
                said("nftables v0.9.8 (E.D.S.)"),
                ip(),
                None,
                Some(Code::NftOld),
            ),
            (
                "a kernel without nat",
                nft(),
                ip(),
                Some("no".to_owned()),
                Some(Code::RulesRefused),
            ),
        ] {
            let facts = Facts { nft, ip, refused };
            let codes: Vec<_> = facts.check(node).iter().map(|f| f.code).collect();
            assert_eq!(codes, Vec::from_iter(want), "{name}");
        }
    }
}
