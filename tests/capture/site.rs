//! The room as a host: `cart` is its network, and programs on it belong to units and users.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use lateen::capture::host::{Outcome, Standing, Workloads};
use lateen::capture::kept::link::Link;
use lateen::capture::ruleset::{Cgroup, HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT};
use lateen::capture::{Mark, Place, Sockets, Target, Terms, Wanted, original_destination};
use rustix::mount::{MountFlags, mount};
use rustix::thread::CapabilitySet;
use socket2::SockRef;
use tokio::io::{AsyncWriteExt as _, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::keeper::SOCKET;
use crate::proxy::SINK;
use crate::room::{CART, PROXY, Room, Users, eventually};

/// Where the rules look for cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Users of the host's workloads.
pub(crate) const WEB: u32 = 1001;
/// Nobody's workload.
pub(crate) const STRANGER: u32 = 1002;
/// Ports that every unit and user of the tests declares one of.
pub(crate) const CART_PORT: u16 = 8080;
/// Enough for what a case does before it looks.
const SEEN: usize = 4096;

/// A connection that came to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Outbound(Option<Mark>, SocketAddr),
    Plaintext(SocketAddr),
    Tunnel,
}

/// A host with cgroups of its own below the root.
pub(crate) struct Site<'a> {
    pub(crate) room: &'a Room,
    slice: String,
}

impl<'a> Site<'a> {
    /// `None` where the rules could not tell programs apart, having said so.
    pub(crate) fn of(room: &'a Room) -> Option<Self> {
        let test = std::env::args().skip_while(|word| word != "--exact").nth(1);
        let test = test.unwrap_or_default();
        if room.users == Users::One {
            eprintln!("skipped: {test} in a user namespace of one user, where all are the same");
            return None;
        }
        let none = None::<&std::ffi::CStr>;
        if let Err(e) = mount("none", CGROUPS, "cgroup2", MountFlags::empty(), none) {
            eprintln!("skipped: {test} without cgroup v2 to be had at {CGROUPS}: {e}");
            return None;
        }
        let slice = format!("lateen_{}.slice", process::id());
        if let Err(e) = fs::create_dir(Path::new(CGROUPS).join(&slice)) {
            eprintln!("skipped: {test} without cgroups to be made: {e}");
            return None;
        }
        Some(Self { room, slice })
    }

    /// The name of a unit of this host, unlike those of other tests.
    pub(crate) fn unit_name(&self, name: &str) -> Arc<str> {
        Arc::from(format!("{name}-{}.service", process::id()))
    }

    /// A unit as a target.
    pub(crate) fn unit(&self, name: &str) -> Target {
        Target::Unit(self.unit_name(name))
    }

    fn directory(&self, name: &str) -> PathBuf {
        let slice = Path::new(CGROUPS).join(&self.slice);
        slice.join(&*self.unit_name(name))
    }

    /// A unit's cgroup as it is now.
    pub(crate) fn cgroup(&self, name: &str) -> Cgroup {
        let directory = self.directory(name);
        Cgroup {
            path: Arc::from(directory.strip_prefix(CGROUPS).unwrap().to_str().unwrap()),
            id: fs::metadata(&directory).unwrap().ino(),
        }
    }

    /// What systemd does before it starts a unit's programs.
    pub(crate) fn start(&self, name: &str) {
        fs::create_dir(self.directory(name)).unwrap();
    }

    /// What systemd does when a unit's last program is gone.
    pub(crate) fn stop(&self, name: &str) {
        // What the proxy started while this process was in the unit may have to end first.
        eventually("the unit's last program gone", || {
            fs::remove_dir(self.directory(name))
        });
    }

    /// Does something as a program of a unit: sockets made in it belong to its cgroup for good.
    pub(crate) fn within<T: Send>(&self, unit: &str, work: impl FnOnce() -> T + Send) -> T {
        self.within_as(unit, 1000, CapabilitySet::NET_RAW, work)
    }

    /// The same as any user, which may have capabilities.
    pub(crate) fn within_as<T: Send>(
        &self,
        unit: &str,
        user: u32,
        capabilities: CapabilitySet,
        work: impl FnOnce() -> T + Send,
    ) -> T {
        let join = |directory: &Path| {
            let path = directory.join("cgroup.procs");
            fs::write(&path, process::id().to_string()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        };
        join(&self.directory(unit));
        let outcome = self.room.program(user, capabilities, work);
        join(Path::new(CGROUPS));
        outcome
    }

    pub(crate) fn terms(&self) -> Terms {
        self.room.exemption().into()
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        let slice = Path::new(CGROUPS).join(&self.slice);
        for entry in fs::read_dir(&slice).into_iter().flatten().flatten() {
            // Files of the slice's own stay with it.
            let _not_a_cgroup = fs::remove_dir(entry.path());
        }
        let _left = fs::remove_dir(slice);
    }
}

/// A workload of the host, which declares a port.
pub(crate) fn wanted(nth: usize, target: Target, port: u16) -> Wanted {
    Wanted {
        mark: Mark::all().nth(nth).unwrap(),
        target,
        addresses: CART.map(|ip| ip.parse::<IpAddr>().unwrap()).into(),
        ports: [port].into(),
        udp_ports: [].into(),
    }
}

/// A proxy on the host's network, which keeps the rules there.
pub(crate) struct HostProxy {
    came: Receiver<Came>,
    wants: watch::Sender<Workloads>,
    outcome: watch::Receiver<Arc<Outcome>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl HostProxy {
    /// Starts one that has the powers itself; the rules are in place on return.
    pub(crate) fn start(room: &Room, terms: Terms, workloads: Vec<Wanted>) -> Self {
        let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_RAW;
        let workloads = Some(Arc::from(workloads));
        Self::with(room, needed, Sockets::own(terms), None, workloads)
    }

    /// Starts one that does not know its workloads yet.
    pub(crate) fn unaware(room: &Room, terms: Terms) -> Self {
        let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_RAW;
        Self::with(room, needed, Sockets::own(terms), None, Workloads::None)
    }

    /// Starts one that has no powers and asks the keeper.
    pub(crate) fn kept(room: &Room, workloads: Vec<Wanted>) -> Self {
        let (sockets, link) = Sockets::kept(Path::new(SOCKET));
        let workloads = Some(Arc::from(workloads));
        Self::with(room, CapabilitySet::empty(), sockets, Some(link), workloads)
    }

    fn with(
        room: &Room,
        powers: CapabilitySet,
        sockets: Sockets,
        link: Option<Link>,
        workloads: Workloads,
    ) -> Self {
        let (tell, came) = sync_channel(SEEN);
        let (hand, handed) = sync_channel(1);
        let stop = CancellationToken::new();
        let (wants, wanted) = watch::channel(workloads);
        let (ns, users, token) = (room.cart.clone(), room.users, stop.clone());
        let thread = thread::spawn(move || {
            // Its host is the room's.
            ns.settle().unwrap();
            users.become_user(PROXY, powers);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let mut tasks = JoinSet::new();
                if let Some(link) = link {
                    tasks.spawn(link.run(CancellationToken::new()));
                }
                let place = sockets.host().await.unwrap();
                let part = Part {
                    place,
                    sockets,
                    tell,
                };
                for port in [OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT] {
                    let listener = part.sockets.listen(&part.place, port).await.unwrap();
                    let listener = TcpListener::from_std(listener).unwrap();
                    tasks.spawn(part.clone().accept(listener, port));
                }
                let kept = part.sockets.keep_host(&part.place, wanted, None).await;
                let (keeping, outcome) = kept.unwrap();
                hand.send(outcome).unwrap();
                keeping.run(token).await;
                tasks.shutdown().await;
            });
        });
        let proxy = Self {
            came,
            wants,
            outcome: handed.recv().unwrap(),
            stop,
            thread: Some(thread),
        };
        proxy.settled();
        proxy
    }

    /// Waits until the rules are those of all workloads.
    fn settled(&self) {
        let Some(count) = self.wants.borrow().as_ref().map(|w| w.len()) else {
            return;
        };
        eventually("rules of the host", || {
            let now = self.outcome.borrow().clone();
            match now.failed.is_none() && now.workloads.len() == count {
                true => Ok(()),
                false => Err(now),
            }
        });
    }

    /// Captures others from now on.
    pub(crate) fn capture(&self, workloads: Vec<Wanted>) {
        self.wants.send_replace(Some(Arc::from(workloads)));
        self.settled();
    }

    /// How a workload is.
    pub(crate) fn standing(&self, nth: usize) -> Option<Standing> {
        let mark = Mark::all().nth(nth).unwrap();
        self.outcome.borrow().workloads.get(&mark).cloned()
    }

    /// Waits until a workload is so.
    pub(crate) fn eventually(&self, nth: usize, want: &Standing) -> std::time::Duration {
        eventually("the workload's standing", || match self.standing(nth) {
            Some(now) if now == *want => Ok(()),
            now => Err(now),
        })
    }

    /// What came since the last look, in order.
    pub(crate) fn came(&self) -> Vec<Came> {
        self.came.try_iter().collect()
    }

    /// Waits until just this has come: whoever connects and says nothing has not been looked at yet.
    pub(crate) fn eventually_came(&self, want: &[Came]) {
        let mut came = Vec::new();
        eventually("connections", || {
            came.extend(self.came());
            match came == want {
                true => Ok(()),
                false => Err(came.clone()),
            }
        });
    }

    /// Ends it, with all its sockets; the rules stay.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for HostProxy {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
    }
}

#[derive(Clone)]
struct Part {
    place: Place,
    sockets: Sockets,
    tell: SyncSender<Came>,
}

impl Part {
    async fn accept(self, listener: TcpListener, port: u16) {
        let mut tasks = JoinSet::new();
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let part = self.clone();
            tasks.spawn(async move {
                // A connection that fails is seen to fail by its client.
                let _failed = part.handle(stream, peer, port).await;
            });
        }
    }

    async fn handle(self, mut stream: TcpStream, peer: SocketAddr, port: u16) -> io::Result<()> {
        if port == HBONE_PORT {
            self.tell.send(Came::Tunnel).unwrap();
            stream.write_all(b"tunnel\n").await?;
            let (mut read, mut write) = stream.split();
            copy(&mut read, &mut write).await?;
            return Ok(());
        }
        let to = original_destination(&stream)?;
        let mark = Mark::of(SockRef::from(&stream).mark()?);
        let (came, from, known) = match port {
            OUTBOUND_PORT => (Came::Outbound(mark, to), None, mark.is_some()),
            _ => (Came::Plaintext(to), Some(peer.ip()), true),
        };
        self.tell.send(came).unwrap();
        if !known || [OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT, SINK].contains(&to.port()) {
            return Ok(());
        }
        // A host that is its own client needs no other's address.
        let local = from.is_some_and(|ip| CART.contains(&&*ip.to_canonical().to_string()));
        let from = from.filter(|_| !local);
        let mut next = self.sockets.connect(&self.place, to, from).await?;
        copy_bidirectional(&mut stream, &mut next).await?;
        Ok(())
    }
}
