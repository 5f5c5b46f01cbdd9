//! The `[control]` table: where the control plane is, and, on its own host, what it is.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::identifier;
use crate::config::read::{Table, Value, scalar};

/// The port of a control plane.
const PORT: u16 = 15012;
/// Files by which a directory is known for that of an authority.
const AUTHORITY: [&str; 2] = ["ca-key.pem", "ca-cert.pem"];
/// Control planes a node knows of.
const MOST_ADDRESSES: usize = 16;

/// Where a control plane is: `https://HOST:PORT`, the port 15012 unless given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlUrl {
    host: Arc<str>,
    port: u16,
}

/// Why a text is not the URL of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected https://HOST or https://HOST:PORT")]
pub struct ControlUrlError;

impl ControlUrl {
    /// The name or address; of an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ControlUrl {
    type Err = ControlUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("https://").ok_or(ControlUrlError)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(ControlUrlError)?;
                host.parse::<Ipv6Addr>().map_err(|_shape| ControlUrlError)?;
                (host, port)
            }
            None => {
                let (host, port) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
                if host.parse::<IpAddr>().is_err() && scalar::name_fault(host).is_some() {
                    return Err(ControlUrlError);
                }
                (host, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0),
            None => port.is_empty().then_some(PORT),
        };
        Ok(Self {
            host: Arc::from(host),
            port: port.ok_or(ControlUrlError)?,
        })
    }
}

impl fmt::Display for ControlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

/// The `[control]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    addresses: Vec<ControlUrl>,
    name: Arc<str>,
    names: Vec<Arc<str>>,
    listen: SocketAddr,
    mesh_dir: PathBuf,
    authority: Option<PathBuf>,
    primary: Option<ControlUrl>,
    join_token_file: Option<PathBuf>,
    bearer: Option<Bearer>,
}

/// How a node is known to another's control plane, such as an istiod, and knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    token_file: PathBuf,
    root_file: PathBuf,
    server_name: Option<Arc<str>>,
    cluster_id: Arc<str>,
}

impl Bearer {
    /// The file with the bearer token.
    pub fn token_file(&self) -> &Path {
        &self.token_file
    }

    /// The file with the roots that the control plane's certificate must lead to.
    pub fn root_file(&self) -> &Path {
        &self.root_file
    }

    /// The name in that certificate; that of the address unless set.
    pub fn server_name(&self) -> Option<&Arc<str>> {
        self.server_name.as_ref()
    }

    /// The cluster that the token is of; `Kubernetes` unless set.
    pub fn cluster_id(&self) -> &Arc<str> {
        &self.cluster_id
    }
}

impl Control {
    /// Without a table in the file; a control plane is called what its node is called.
    pub(super) fn named(node: &Arc<str>) -> Self {
        Self {
            addresses: Vec::new(),
            name: Arc::clone(node),
            names: Vec::new(),
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT),
            mesh_dir: PathBuf::from("/etc/lateen/mesh"),
            authority: None,
            primary: None,
            join_token_file: None,
            bearer: None,
        }
    }

    /// What the file does not name and `directory` has. A machine that does not join has no use for
    /// a token.
    pub(super) fn take_credentials(&mut self, directory: &Path) {
        let token = directory.join("join-token");
        if self.join_token_file.is_none() && self.bearer.is_none() && token.is_file() {
            self.join_token_file = Some(token);
        }
        // One is enough: that the others are missing is for whoever reads them to say.
        let some = AUTHORITY.iter().any(|name| directory.join(name).is_file());
        if self.authority.is_none() && some {
            self.authority = Some(directory.to_owned());
        }
    }

    /// Control planes to join and to be served by, in the order they are tried. Empty on the
    /// control plane's own host.
    pub fn addresses(&self) -> &[ControlUrl] {
        &self.addresses
    }

    /// The control plane's own name; the node's unless set.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Host names and addresses in its certificate, by which nodes reach it.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Where it listens; `[::]:15012` unless set.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The mesh directory; `/etc/lateen/mesh` unless set.
    pub fn mesh_dir(&self) -> &Path {
        &self.mesh_dir
    }

    /// The directory of a certificate authority that is brought along; the control plane makes its
    /// own unless set.
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// The control plane that enrols nodes and takes certificates back; this one does unless set.
    pub fn primary(&self) -> Option<&ControlUrl> {
        self.primary.as_ref()
    }

    /// The file with this node's join token.
    pub fn join_token_file(&self) -> Option<&Path> {
        self.join_token_file.as_deref()
    }

    /// How this node is known to a control plane that it does not join; `None` where it joins.
    pub fn bearer(&self) -> Option<&Bearer> {
        self.bearer.as_ref()
    }
}

pub(super) fn read(value: &Value<'_>, node: &Arc<str>) -> Control {
    let default = Control::named(node);
    let Some(table) = value.titled("`[control]`") else {
        return default;
    };
    let control = Control {
        addresses: table.optional("addresses", addresses).unwrap_or_default(),
        name: table
            .optional("name", scalar::name)
            .map_or(default.name, |name| name.value),
        names: table
            .optional("names", |value| value.list(host))
            .unwrap_or_default(),
        listen: table
            .optional("listen", super::socket_address)
            .unwrap_or(default.listen),
        mesh_dir: table
            .optional("mesh-dir", super::path)
            .unwrap_or(default.mesh_dir),
        authority: table.optional("ca-dir", super::path),
        primary: primary(&table),
        join_token_file: table.optional("join-token-file", super::path),
        bearer: bearer(&table),
    };
    table.finish();
    control
}

/// Another control plane that enrols; without an authority under the same root the two would be two
/// meshes.
fn primary(table: &Table<'_>) -> Option<ControlUrl> {
    let value = table.value("primary")?;
    if table.value("ca-dir").is_none() {
        let message = "`primary` is of no use without `ca-dir`".to_owned();
        let finding = Diagnostic::new(Code::MissingKey, value.place().clone(), message);
        let help = "add `ca-dir = \"/etc/lateen/ca\"`, with an intermediate of the root that the primary's is of too: control planes that make their own authorities are of different meshes";
        table.missing(vec!["ca-dir"], finding.label("alone").help(help));
    }
    url(&value)
}

/// The keys that mean something only together.
fn bearer(table: &Table<'_>) -> Option<Bearer> {
    let [token, root, name, cluster] = ["token-file", "root-file", "server-name", "cluster-id"]
        .map(|key| table.value(key).map(|value| (key, value)));
    let (Some((_, token)), Some((_, root))) = (&token, &root) else {
        for (key, value) in [&token, &root, &name, &cluster].into_iter().flatten() {
            incomplete(table, key, value);
        }
        return None;
    };
    if let Some(join) = table.value("join-token-file") {
        join.reject(
            Code::ConflictingKeys,
            "has no use beside `token-file`",
            "one too many",
            "keep `join-token-file` for a control plane of Lateen, or `token-file` and `root-file` for another",
        );
    }
    if table.value("addresses").is_none() {
        let message = "`token-file` is for a control plane that is not named".to_owned();
        let finding = Diagnostic::new(Code::MissingKey, token.place().clone(), message);
        let help = "add `addresses = [\"https://istiod.example:15012\"]`";
        table.missing(vec!["addresses"], finding.help(help));
    }
    let server_name = name.and_then(|(_, value)| host(&value));
    let cluster_id = cluster.and_then(|(_, value)| identifier(&value));
    Some(Bearer {
        token_file: super::path(token)?,
        root_file: super::path(root)?,
        server_name,
        cluster_id: cluster_id.unwrap_or_else(|| Arc::from("Kubernetes")),
    })
}

/// A key that lacks its companion.
fn incomplete(table: &Table<'_>, key: &str, value: &Value<'_>) {
    let (missing, example) = match key {
        "token-file" => ("root-file", "/etc/lateen/istio-root.pem"),
        _ => ("token-file", "/etc/lateen/istio.token"),
    };
    let message = format!("`{key}` is of no use without `{missing}`");
    let finding = Diagnostic::new(Code::MissingKey, value.place().clone(), message);
    let help = format!(
        "add `{missing} = \"{example}\"` for a control plane such as istiod; a node of a Lateen control plane joins, and needs neither"
    );
    table.missing(vec![missing], finding.label("alone").help(help));
}

fn url(value: &Value<'_>) -> Option<ControlUrl> {
    scalar::parsed(
        value,
        "the URL of a control plane",
        "https://control.example:15012",
    )
}

fn addresses(value: &Value<'_>) -> Option<Vec<ControlUrl>> {
    let addresses: Vec<ControlUrl> = value.list(url)?;
    let distinct: BTreeSet<_> = addresses.iter().collect();
    if distinct.len() < addresses.len() || addresses.len() > MOST_ADDRESSES {
        value.bad(
            "names a control plane twice, or too many of them",
            "not a usable list",
            format!("name each once, and at most {MOST_ADDRESSES}"),
        );
        return None;
    }
    Some(addresses)
}

/// A host name or an address.
fn host(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    match text.parse::<IpAddr>() {
        Ok(address) => Some(Arc::from(address.to_string())),
        Err(_name) => scalar::name(value).map(|name| name.value),
    }
}
