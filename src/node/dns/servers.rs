//! Which servers know the rest of the world: those that a workload's programs would ask, and where it
//! has none of its own, the host's.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::resolve::nameservers;

/// How long what a file says is taken for what it says.
const LOOK: Duration = Duration::from_secs(1);
/// Octets of a file that are read.
const LONGEST: u64 = 64 << 10;
/// What the host's programs ask.
const OF_HOST: &str = "/etc/resolv.conf";
/// Where `ip netns` has the files of namespaces, and names them.
const OF_NAMESPACES: &str = "/etc/netns";
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A server, and from where it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// It is on the host's loopback, which no workload's network leads to.
    pub(super) on_host: bool,
}

/// A file of resolv.conf(5).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// The host's own.
    Host(PathBuf),
    /// One that the host has for a workload.
    Workload(PathBuf),
    /// The one below another root, of which every part is that root's.
    Root(PathBuf),
}

/// The servers of one network, as long as their file says so.
#[derive(Debug)]
pub(crate) struct Servers {
    /// The first that is there counts.
    places: Vec<Place>,
    /// Where we answer ourselves: to ask there would never end.
    own: Vec<SocketAddr>,
    read: Mutex<Option<(Instant, Arc<[Server]>)>>,
}

impl Servers {
    /// Those of a workload in a namespace, by the name or path of that.
    pub(crate) fn of_namespace(name: &str) -> Self {
        let own = of_namespace(name);
        let host = Place::Host(PathBuf::from(OF_HOST));
        Self::of(own.into_iter().chain([host]).collect(), Vec::new())
    }

    /// Those of the host itself, where we answer at `own`.
    pub(crate) fn of_host(own: Vec<SocketAddr>) -> Self {
        Self::of(vec![Place::Host(PathBuf::from(OF_HOST))], own)
    }

    fn of(places: Vec<Place>, own: Vec<SocketAddr>) -> Self {
        Self {
            places,
            own,
            read: Mutex::default(),
        }
    }

    /// Always these.
    #[cfg(test)]
    pub(super) fn these(addresses: &[SocketAddr]) -> Self {
        let servers = Self::of(Vec::new(), Vec::new());
        let these = addresses.iter().map(|address| Server {
            address: *address,
            on_host: true,
        });
        let far = Instant::now() + Duration::from_secs(24 * 3600);
        *servers.read.lock().unwrap() = Some((far, these.collect()));
        servers
    }

    /// Those that are to be asked now, in order.
    pub(super) async fn current(&self) -> Arc<[Server]> {
        let read = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, servers)) = &*read()
            && at.elapsed() < LOOK
        {
            return Arc::clone(servers);
        }
        let places = self.places.clone();
        let found = spawn_blocking(move || find(&places)).await;
        let mut found = found.unwrap_or_default();
        found.retain(|server| !self.own.contains(&server.address));
        let found: Arc<[Server]> = found.into();
        *read() = Some((Instant::now(), Arc::clone(&found)));
        found
    }
}

fn of_namespace(name: &str) -> Option<Place> {
    let named = match name.contains('/') {
        false => Some(name),
        true => NAMED
            .iter()
            .find_map(|directory| name.strip_prefix(directory)?.strip_prefix('/')),
    };
    if let Some(named) = named {
        let path = Path::new(OF_NAMESPACES).join(named).join("resolv.conf");
        return Some(Place::Workload(path));
    }
    // Of a process, whose root may be another.
    let process = name.strip_suffix("/ns/net")?;
    process
        .starts_with("/proc/")
        .then(|| Place::Root(Path::new(process).join("root")))
}

/// The servers of the first file that can be read; none where there is no file.
fn find(places: &[Place]) -> Vec<Server> {
    let mut texts = places
        .iter()
        .filter_map(|place| Some((place, text(place).ok()?)));
    let Some((place, text)) = texts.next() else {
        return Vec::new();
    };
    let of_host = matches!(place, Place::Host(_));
    let server = |address: SocketAddr| Server {
        address,
        on_host: of_host && address.ip().is_loopback(),
    };
    nameservers(&text).into_iter().map(server).collect()
}

fn text(place: &Place) -> io::Result<String> {
    let file = match place {
        Place::Host(path) | Place::Workload(path) => File::open(path)?,
        Place::Root(root) => {
            let root = File::open(root)?;
            // Neither a link out of there nor a pipe that nobody writes to.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            File::from(openat2(
                root,
                "etc/resolv.conf",
                flags,
                Mode::empty(),
                inside,
            )?)
        }
    };
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn each_namespace_has_its_file_where_that_is_known() {
        let workload = |path: &str| Some(Place::Workload(PathBuf::from(path)));
        for (name, want) in [
            ("cart", workload("/etc/netns/cart/resolv.conf")),
            ("/run/netns/cart", workload("/etc/netns/cart/resolv.conf")),
            (
                "/var/run/netns/cart",
                workload("/etc/netns/cart/resolv.conf"),
            ),
            ("/proc/77/ns/net", Some(Place::Root("/proc/77/root".into()))),
            ("/run/netnsx/cart", None),
            ("/srv/elsewhere", None),
        ] {
            assert_eq!(of_namespace(name), want, "{name}");
        }
    }

    #[test]
    fn the_first_file_that_is_there_counts() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let own = write(
            "own",
            "nameserver 127.0.0.1\nsearch x\nnameserver 192.0.2.1\n",
        );
        let host = write("host", "nameserver 127.0.0.53\nnameserver 192.0.2.2\n");
        let inside = directory.path().join("root");
        write("root/run/real", "nameserver 192.0.2.3\n");
        fs::create_dir_all(inside.join("etc")).unwrap();
        std::os::unix::fs::symlink("/run/real", inside.join("etc/resolv.conf")).unwrap();
        let missing = || Place::Workload(directory.path().join("missing"));
        for (name, places, want) in [
            ("none", vec![missing()], &[][..]),
            (
                "its own, on its own loopback too",
                vec![Place::Workload(own.clone()), Place::Host(host.clone())],
                &[("127.0.0.1:53", false), ("192.0.2.1:53", false)],
            ),
            (
                "the host's, on the host's loopback",
                vec![missing(), Place::Host(host.clone())],
                &[("127.0.0.53:53", true), ("192.0.2.2:53", false)],
            ),
            (
                "below its root, and not above",
                vec![Place::Root(inside)],
                &[("192.0.2.3:53", false)],
            ),
            (
                "a directory is no file",
                vec![
                    Place::Workload(directory.path().to_owned()),
                    Place::Host(host),
                ],
                &[("127.0.0.53:53", true), ("192.0.2.2:53", false)],
            ),
        ] {
            let got = find(&places);
            let got: Vec<_> = got
                .iter()
                .map(|s| (s.address.to_string(), s.on_host))
                .collect();
            let got: Vec<_> = got.iter().map(|(a, on_host)| (&**a, *on_host)).collect();
            assert_eq!(got, want, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_and_we_are_never_asked_ourselves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\nnameserver 127.0.0.1\n").unwrap();
        let own = vec!["127.0.0.1:53".parse().unwrap()];
        let servers = Servers::of(vec![Place::Host(path.clone())], own);
        let addresses = async || {
            let current = servers.current().await;
            current
                .iter()
                .map(|s| s.address.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(addresses().await, ["192.0.2.1:53"]);
        fs::write(&path, "nameserver 192.0.2.2\n").unwrap();
        assert_eq!(addresses().await, ["192.0.2.1:53"], "not at once");
        tokio::time::advance(LOOK).await;
        assert_eq!(addresses().await, ["192.0.2.2:53"]);
    }
}
