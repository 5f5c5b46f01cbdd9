//! Becoming the proxy, and being refused to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use lateen::capture::{CaptureError, Netns, PrivilegeError, apply, privilege};
use rustix::process::getuid;

use crate::room::{KEEPER, PROXY, Room, Users, cases, eventually, sh};

cases! {
    fn started_as_root_the_proxy_has_no_capability_and_the_keeper_two(room: &Room) {
        let mut proxy = lateen(PROXY).spawn().unwrap();
        let id = proxy.id();
        eventually("a proxy that can gain nothing", || match field(id, "NoNewPrivs") {
            now if now == "1" => Ok(()),
            now => Err(now),
        });
        // NET_ADMIN and SYS_ADMIN, by their numbers 12 and 21.
        let two = format!("{:016x}", (1 << 12) | (1 << 21));
        let none = "0".repeat(16);
        let [watcher] = children(id)[..] else {
            panic!("no keeper beside the proxy")
        };
        let [keeper] = children(watcher)[..] else {
            panic!("no keeper")
        };
        let users = |many: u32| if room.users == Users::Many { many } else { 0 };
        for (name, process, user, have) in [
            ("proxy", id, users(PROXY), &none),
            ("keeper", keeper, users(KEEPER), &two),
        ] {
            for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
                assert_eq!(field(process, set), *have, "{name}: {set}");
            }
            assert_eq!(field(process, "Uid"), vec![user.to_string(); 4].join(" "), "{name}");
            assert_eq!(field(process, "Gid"), vec![user.to_string(); 4].join(" "), "{name}");
            assert_eq!(field(process, "NoNewPrivs"), "1", "{name}");
            if room.users == Users::Many {
                assert_eq!(field(process, "Groups"), "", "{name}");
            }
        }
        assert_eq!(field(id, "CapBnd"), none);
        // However it ends, nothing of it is left.
        proxy.kill().unwrap();
        proxy.wait().unwrap();
        for process in [watcher, keeper] {
            eventually("the keeper ends with its proxy", || {
                // Nobody may be there to wait for it.
                match field(process, "State") {
                    now if now.is_empty() || now.starts_with('Z') => Ok(()),
                    now => Err(now),
                }
            });
        }
    }

    fn root_is_no_proxy_among_many_users(room: &Room) {
        if room.users == Users::Many {
            let output = lateen(0).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("the proxy cannot run as root"), "{said}");
        }
        let exemption = privilege::exemption(0);
        assert_eq!(exemption.is_err(), room.users == Users::Many, "{exemption:?}");
        assert_eq!(privilege::exemption(PROXY).unwrap(), room.exemption());
    }

    fn what_is_missing_is_named(room: &Room) {
        let refused = room.workload(|| privilege::become_both(PROXY, PROXY).unwrap_err());
        let PrivilegeError::Missing { missing, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!(missing, "CAP_NET_ADMIN CAP_SYS_ADMIN");
    }

    fn a_process_with_threads_cannot_change_its_user(room: &Room) {
        let other = std::thread::spawn(std::thread::park);
        let refused = privilege::become_proxy(PROXY, PROXY).unwrap_err();
        assert!(matches!(refused, PrivilegeError::Threads { .. }), "{refused}");
        other.thread().unpark();
        other.join().unwrap();
        assert!(getuid().is_root(), "{:?}", room.users);
    }

    fn rules_that_name_users_are_refused_where_users_are_others(room: &Room) {
        let mut stranger = Command::new("unshare")
            .args(["-Un", "sleep", "60"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = format!("/proc/{}", stranger.id());
        let mine = sh("readlink /proc/self/ns/net");
        eventually("a namespace of its own", || {
            let its = sh(&format!("readlink {process}/ns/net"));
            if its == mine { Err(its) } else { Ok(()) }
        });
        // As a container's engine does it: its root is somebody else here. One user has no other
        // to give away.
        let map = match room.users {
            Users::Many => "0 100000 65536",
            Users::One => "0 0 1",
        };
        std::fs::write(format!("{process}/uid_map"), map).unwrap();
        let ns = Netns::named(&format!("{process}/ns/net")).unwrap();
        let outcome = run(apply(&ns, &room.plan()));
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        match room.users {
            Users::Many => assert!(matches!(outcome, Err(CaptureError::ForeignUsers { .. })), "{outcome:?}"),
            Users::One => assert!(outcome.is_ok(), "{outcome:?}"),
        }
    }

    fn a_panic_inside_a_namespace_ends_outside_of_it(room: &Room) {
        let home = Netns::current().unwrap();
        let inside = room.cart.within(|| Netns::current().unwrap()).unwrap();
        assert_eq!(inside, room.cart);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            room.cart.within(|| panic!("on purpose")).unwrap();
        }));
        assert!(panicked.is_err());
        assert_eq!(Netns::current().unwrap(), home);
    }
}

/// A line of a process's status; empty once it is gone.
fn field(process: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let words = line.unwrap_or_default().split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let listed = std::fs::read_to_string(path).unwrap_or_default();
    let ids = listed.split_whitespace().map(|id| id.parse().unwrap());
    ids.collect()
}

/// The real binary as a node that has not joined yet.
fn lateen(user: u32) -> Command {
    let config = format!(
        "roles = [\"node\"]\nuser = {user}\nkeeper-user = {KEEPER}\nstate-dir = \"/run/state\"\nruntime-dir = \"/run/lateen\"\n"
    );
    std::fs::write("/run/lateen.toml", config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command.args(["run", "--config", "/run/lateen.toml"]);
    command
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}
