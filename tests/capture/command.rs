//! `lateen capture` as an operator runs it: what it prints, and that a change nobody confirms takes
//! itself back.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use lateen::capture::host::Standing;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::room::{PROXY, Room, Users, cases, eventually, sh};
use crate::site::{CART_PORT, HostProxy, Site, WEB, wanted};

const SETTINGS: &str = "/run/lateen.toml";
/// What of the rules is the same whenever it is listed.
const TABLE: &str = "nft -s list table inet lateen 2>&1 || true; ip -4 rule; ip -6 rule";

fn command(words: &[&str]) -> Command {
    let settings = format!(
        "node = \"n\"\nuser = {PROXY}\nruntime-dir = \"/run/lateen\"\nstate-dir = \"/run/state\"\n"
    );
    std::fs::write(SETTINGS, settings).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command.arg("capture").args(words);
    // The others read no settings.
    if matches!(words.first(), Some(&("plan" | "apply" | "confirm"))) {
        command.args(["--config", SETTINGS]);
    }
    command
}

fn run(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[track_caller]
fn succeed(words: &[&str]) -> String {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    said(&output)
}

#[track_caller]
fn refuse(words: &[&str], code: i32, because: &str) {
    let output = run(words);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    assert!(said.contains(because), "{words:?}: {said}");
}

cases! {
    fn what_nobody_confirms_takes_itself_back(room: &Room) {
        let before = room.sh(TABLE);
        let said = succeed(&["apply", "--netns", "cart", "--confirm", "1s"]);
        assert!(said.contains("lateen capture confirm"), "{said}");
        assert_ne!(room.sh(TABLE), before);
        refuse(&["apply", "--netns", "cart", "--confirm", "1s"], 1, "wait to be confirmed");
        eventually("the namespace as it was", || match room.sh(TABLE) {
            now if now == before => Ok(()),
            now => Err(now),
        });
        refuse(&["confirm"], 1, "taken back");
    }

    fn what_is_confirmed_stays(room: &Room) {
        succeed(&["apply", "--netns", "cart", "--confirm", "1s"]);
        succeed(&["confirm"]);
        let applied = room.sh(TABLE);
        refuse(&["confirm"], 1, "nothing waits");
        // Whoever would have taken it back ends without having done so.
        eventually("nobody waits to take it back", || {
            match sh("pgrep -f 'capture [r]evert /run/lateen' || true") {
                now if now.is_empty() => Ok(()),
                now => Err(now),
            }
        });
        assert_eq!(room.sh(TABLE), applied);
        succeed(&["clear", "--netns", "cart"]);
        assert_ne!(room.sh(TABLE), applied);
    }

    fn what_was_there_before_comes_back(room: &Room) {
        succeed(&["apply", "--netns", "cart"]);
        room.sh("nft add rule inet lateen outbound tcp dport 7 accept");
        let before = room.sh(TABLE);
        succeed(&["apply", "--netns", "cart", "--confirm", "1s"]);
        assert_ne!(room.sh(TABLE), before);
        eventually("the rules of before", || match room.sh(TABLE) {
            now if now == before => Ok(()),
            now => Err(now),
        });
    }

    fn it_is_taken_back_also_when_whoever_applied_it_is_gone(room: &Room) {
        let before = room.sh(TABLE);
        let mut applying = command(&["apply", "--netns", "cart", "--confirm", "1s"])
            .process_group(0)
            .spawn()
            .unwrap();
        let group = Pid::from_child(&applying);
        assert!(applying.wait().unwrap().success());
        assert_ne!(room.sh(TABLE), before);
        // As the end of a terminal does it; who waits is none of them.
        let _nobody_left = kill_process_group(group, Signal::KILL);
        eventually("the namespace as it was", || match room.sh(TABLE) {
            now if now == before => Ok(()),
            now => Err(now),
        });
    }

    fn the_hosts_network_is_planned_applied_and_cleared(room: &Room) {
        if room.users == Users::One { return }
        let user = WEB.to_string();
        let named = ["--user", &user, "--address", "10.1.0.1", "--port", "80"];
        let plan = succeed(&[&["plan"], &named[..]].concat());
        for line in [
            "sysctl -w net.ipv4.tcp_fwmark_accept=1",
            "ip -4 rule add pref 32764 fwmark 0x111/0xfff lookup 100",
            "elements = { 1001 : 0x600 }",
            "elements = { 10.1.0.1 . 80 }",
            "tcp dport { 22, 15012 } accept",
        ] {
            assert!(plan.contains(line), "{line} in {plan}");
        }
        let json = succeed(&[&["plan", "-o", "json"], &named[..]].concat());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["sysctl"][0], "net.ipv4.tcp_fwmark_accept=1");
        assert!(json["nft"].is_string() && json["ip"].is_array());
        let before = sh(TABLE);
        succeed(&[&["apply", "--confirm", "1s"], &named[..]].concat());
        assert_ne!(sh(TABLE), before);
        eventually("the host as it was", || match sh(TABLE) {
            now if now == before => Ok(()),
            now => Err(now),
        });
        succeed(&[&["apply"], &named[..]].concat());
        succeed(&["clear", "--host"]);
        assert_eq!(sh(TABLE), before);
        // The plan is what is applied.
        std::fs::write("/run/plan.sh", &plan).unwrap();
        sh("ip link set lo down; sh -e /run/plan.sh");
        assert_ne!(sh(TABLE), before);
    }

    fn what_cannot_be_captured_is_refused_with_the_reason(room: &Room) {
        if room.users == Users::One { return }
        refuse(&["apply"], 2, "--netns NAME");
        refuse(&["apply", "--netns", "cart", "--user", "1001"], 2, "two networks");
        refuse(&["apply", "--user", "0"], 1, "root");
        refuse(&["apply", "--user", "1337"], 1, "the proxy's own");
        refuse(&["apply", "--user", "1001", "--port", "80"], 2, "--address");
        refuse(&["clear"], 2, "--host");
        refuse(&["apply", "--netns", "/proc/self/ns/net"], 2, "host's own network");
        // There are no cgroups to be seen in this room.
        sh("mount -t tmpfs tmpfs /sys/fs/cgroup");
        refuse(&["apply", "--unit", "cart.service"], 1, "capture by `user`");
    }

    fn a_unit_waits_until_it_is_captured(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let wait = |timeout: &str| {
            let unit = site.unit_name("cart");
            let mut waiting = command(&["wait", "--unit", &unit, "--timeout", timeout]);
            room.cart.within(|| waiting.output()).unwrap().unwrap()
        };
        site.start("cart");
        let output = wait("1s");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let proxy = HostProxy::start(room, site.terms(), vec![wanted(0, site.unit("cart"), CART_PORT)]);
        assert!(wait("10s").status.success());
        site.stop("cart");
        site.start("cart");
        let output = wait("10s");
        assert!(output.status.success(), "{}", said(&output));
        proxy.eventually(0, &Standing::Captured);

    }
}
