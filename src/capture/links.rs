//! The links of a namespace, as `ip` lists them.

use serde::Deserialize;

use super::error::CaptureError;
use super::netns::Netns;
use super::tool::{Tool, run};

/// A link.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    pub(super) ifname: String,
    /// The other end, by its number there.
    #[serde(default)]
    pub(super) link_index: Option<u32>,
    /// There where the other end is in another namespace.
    #[serde(default)]
    link_netnsid: Option<i64>,
    /// What it is a port of.
    #[serde(default)]
    pub(super) master: Option<String>,
    /// In the kernel's words: `ether`, `loopback`.
    #[serde(default)]
    link_type: String,
    #[serde(default)]
    linkinfo: Info,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Info {
    #[serde(default)]
    info_kind: String,
}

impl Link {
    /// Whether it is one of a pair whose other is elsewhere.
    pub(super) fn is_pair(&self) -> bool {
        self.link_netnsid.is_some() && self.linkinfo.info_kind == "veth"
    }

    /// Whether its frames leave the namespace by itself: it is a device, or has its other end or what
    /// it is on elsewhere. What is on another link here leaves by that one.
    pub(super) fn leads_out(&self) -> bool {
        let device = self.linkinfo.info_kind.is_empty() && self.link_type != "loopback";
        self.link_netnsid.is_some() || device
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.linkinfo.info_kind == "bridge"
    }
}

/// Lists them.
pub(super) async fn links(ns: &Netns) -> Result<Vec<Link>, CaptureError> {
    let text = run(ns, Tool::Ip, &["-d", "-j", "link", "show"], "").await?;
    parse(&text).map_err(|source| CaptureError::Listing {
        program: Tool::Ip.name(),
        source,
    })
}

/// Reads what `ip` prints.
pub(super) fn parse(text: &str) -> Result<Vec<Link>, serde_json::Error> {
    serde_json::from_str(text)
}
