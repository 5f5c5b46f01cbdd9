//! Where a case plays: a workload's namespace `cart`, joined by one link to the namespace of the
//! process itself, which is everything outside.

use std::env;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use lateen::capture::{Exemption, Netns, Plan, Target, plan};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, configure_capability_in_ambient_set,
    move_into_link_name_space, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// Addresses of the workload.
pub(crate) const CART: [&str; 2] = ["10.1.0.2", "fd01::2"];
/// Addresses outside.
pub(crate) const OUTSIDE: [&str; 2] = ["10.1.0.1", "fd01::1"];
/// Whom the proxy runs as.
pub(crate) const PROXY: u32 = 1337;
/// Whom the keeper runs as.
pub(crate) const KEEPER: u32 = 1338;
/// Whom the workload runs as.
const WORKLOAD: u32 = 1000;
/// Longest wait for a condition.
const PATIENCE: Duration = Duration::from_secs(10);
/// Set in processes that are in a room, to its kind.
const INSIDE: &str = "LATEEN_TEST_ROOM";

const BUILD: &str = "
    mount -t tmpfs tmpfs /run
    ip link set lo up
    ip netns add cart
    ip link add outside type veth peer name eth0 netns cart
    ip address add 10.1.0.1/24 dev outside
    ip address add fd01::1/64 dev outside nodad
    ip link set outside up
    ip -n cart link set eth0 addrgenmode none
    ip -n cart address add 10.1.0.2/24 dev eth0
    ip -n cart address add fd01::2/64 dev eth0 nodad
    ip -n cart link set eth0 up
    ip -n cart link set lo up
    ip -n cart route add default via 10.1.0.1
    ip -n cart route add default via fd01::1
";

/// How many users there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Users {
    Many,
    One,
}

pub(crate) struct Room {
    pub(crate) users: Users,
    pub(crate) cart: Netns,
}

/// Defines tests that run in rooms.
macro_rules! cases {
    ($($(#[$meta:meta])* fn $name:ident($room:ident: &Room) $body:block)+) => {
        $(
            $(#[$meta])*
            #[test]
            fn $name() {
                let path = concat!(module_path!(), "::", stringify!($name));
                crate::room::enter(path, |$room: &Room| $body);
            }
        )+
    };
}
pub(crate) use cases;

/// Plays a case in each kind of room there can be.
pub(crate) fn enter(path: &str, case: impl FnOnce(&Room)) {
    match env::var_os(INSIDE) {
        Some(kind) if kind == "many" => case(&Room::build(Users::Many)),
        Some(_one) => case(&Room::build(Users::One)),
        None => {
            if geteuid().is_root() {
                again(path, "-nm", "many");
            }
            again(path, "-Urnm", "one");
        }
    }
}

/// Runs this test again, alone in a process with namespaces of its own.
fn again(path: &str, namespaces: &str, kind: &str) {
    let (_crate, test) = path.split_once("::").unwrap();
    let output = Command::new("unshare")
        .args([namespaces, "--"])
        .arg(env::current_exe().unwrap())
        // On one thread libtest starts no other, as `become_proxy` wants it.
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(INSIDE, kind)
        .output()
        .expect("`unshare` of util-linux can be run");
    let said = said(&output);
    assert!(
        said.contains("running 1 test"),
        "network namespaces cannot be had here (unshare {namespaces}), so capture is NOT tested; \
         allow user namespaces, or run the tests as root: {said}"
    );
    assert!(output.status.success(), "in a room of {kind}: {said}");
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs a script that must succeed; what it printed.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `done` holds; how long that took.
pub(crate) fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut done: impl FnMut() -> Result<(), T>,
) -> Duration {
    let start = Instant::now();
    loop {
        let last = match done() {
            Ok(()) => return start.elapsed(),
            Err(last) => last,
        };
        assert!(start.elapsed() < PATIENCE, "{what}: last seen {last:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}

impl Room {
    fn build(users: Users) -> Self {
        sh(BUILD);
        let cart = Target::Netns("cart".into()).attach().unwrap();
        Self { users, cart }
    }

    pub(crate) fn exemption(&self) -> Exemption {
        match self.users {
            Users::Many => Exemption::Uid(PROXY),
            Users::One => Exemption::Mark,
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.exemption())
    }

    /// Writes a setting of the workload's namespace.
    pub(crate) fn set(&self, setting: &str, value: &str) {
        let path = format!("/proc/sys/net/{setting}");
        let written = self.cart.within(|| fs::write(&path, value)).unwrap();
        written.unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// Runs a script in the workload's namespace; what it printed.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.cart.within(|| sh(script)).unwrap()
    }

    /// Does something as a program of the workload, which has NET_RAW, as containers do.
    pub(crate) fn workload<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.program(WORKLOAD, CapabilitySet::NET_RAW, work)
    }

    /// Does something as a command that probes the workload: the proxy's user, without powers.
    pub(crate) fn probe<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.program(PROXY, CapabilitySet::empty(), work)
    }

    fn program<T: Send>(
        &self,
        user: u32,
        capabilities: CapabilitySet,
        work: impl FnOnce() -> T + Send,
    ) -> T {
        let act = || {
            // For good: without SYS_ADMIN there is no way home, and the thread ends here.
            let cart = File::open("/run/netns/cart").unwrap();
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(cart.as_fd(), network).unwrap();
            self.users.become_user(user, capabilities);
            work()
        };
        thread::scope(|scope| scope.spawn(act).join().unwrap())
    }
}

impl Users {
    /// Makes this thread run as another user with just these capabilities, as far as there are
    /// other users.
    pub(crate) fn become_user(self, user: u32, capabilities: CapabilitySet) {
        if self == Self::Many {
            let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
            set_keep_capabilities(true).unwrap();
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
        }
        let sets = CapabilitySets {
            effective: capabilities,
            permitted: capabilities,
            inheritable: capabilities,
        };
        set_capabilities(None, sets).unwrap();
        for capability in capabilities {
            configure_capability_in_ambient_set(capability, true).unwrap();
        }
    }
}
