//! `lateen doctor` in a rig of its own, on a host that is made sick on purpose.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lateen::rig::Rig;

use crate::support::{LATEEN, eventually, text};

const RIG: &str = r#"
[[host]]
name = "sick"
addresses = ["10.79.0.1/16"]

[[host]]
name = "well"
addresses = ["10.79.0.2/16"]
"#;

/// Nobody listens at the first, nothing is the second, and the third is found by a narrow way.
const SETTINGS: &str = r#"
node = "sick"
roles = ["control", "node"]
user = "nobody-of-that-name"
state-dir = "/run/state"
[control]
addresses = ["https://10.79.0.2:15012", "https://no-such-name.invalid", "https://10.79.0.2:7000"]
mesh-dir = "/run/mesh"
"#;

/// What is planted first, and what that is called.
const FAULTS: [(&str, &str); 15] = [
    (
        "mesh-invalid",
        "mkdir -p /run/mesh && echo '[[nod]]' > /run/mesh/mesh.toml",
    ),
    (
        "disk-low",
        "mkdir /run/state && mount -t tmpfs -o size=32m tmpfs /run/state",
    ),
    ("state-exposed", "chmod 0755 /run/state"),
    (
        "clock-behind",
        "mkdir /run/state/agent && echo 9999999999 > /run/state/agent/clock",
    ),
    ("path-mtu-small", "ip link set dev br0 mtu 1200"),
    (
        "firewall-drops",
        "nft 'add table inet wall; add chain inet wall in { type filter hook input priority 0; policy drop; }; \
         add rule inet wall in ct state established accept; add rule inet wall in iif lo accept'",
    ),
    (
        "forward-drops",
        "nft 'add chain inet wall through { type filter hook forward priority 0; policy drop; }'",
    ),
    (
        "foreign-mesh",
        "nft 'add table ip nat; add chain ip nat ISTIO_OUTPUT'",
    ),
    (
        "reverse-path-strict",
        "for conf in /proc/sys/net/ipv4/conf/*; do echo 1 > $conf/rp_filter; done",
    ),
    (
        "ndots-high",
        "printf 'nameserver 127.0.0.1\\nsearch a.example b.example\\noptions ndots:5 timeout:1 attempts:1\\n' \
         > /run/resolv.conf && mount --bind /run/resolv.conf /etc/resolv.conf",
    ),
    (
        "keeper-gone",
        "mkdir /run/lateen && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/run/lateen/keeper.sock\")'",
    ),
    // These follow from the settings.
    ("user-missing", "true"),
    ("not-joined", "true"),
    ("control-unreachable", "true"),
    ("control-unresolved", "true"),
];

/// What is planted then, on the same host with other settings.
const MORE: [(&str, &str); 6] = [
    (
        "disk-full",
        "umount /run/state && mount -t tmpfs -o size=2m,mode=0700 tmpfs /run/state",
    ),
    (
        "identity-unreadable",
        "mkdir -p /run/state/agent/identity/current && cd /run/state/agent/identity/current && \
         umask 077 && echo x > key.der && echo x > chain.pem && echo x > roots.pem && echo {} > mesh.json",
    ),
    ("state-owner", "true"),
    ("resolver-none", "echo > /run/resolv.conf"),
    ("nft-missing", "hide nft"),
    ("ip-missing", "hide ip"),
];

/// Hides a program from whoever looks for it, wherever it is.
const HIDE: &str = "hide() { for at in /usr/sbin /sbin /usr/bin /bin; do \
                    if [ -f $at/$1 ]; then mount --bind /dev/null $at/$1; fi; done; }\n";

struct Ward {
    rig: Rig,
    visitors: Vec<Child>,
}

impl Ward {
    fn open() -> Self {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("doctor");
        let _none_yet = fs::remove_dir_all(&home);
        let state = home.join(std::process::id().to_string());
        let rig = Rig::up(RIG, Path::new(LATEEN), &state).expect("a rig can be built here");
        Self {
            rig,
            visitors: Vec::new(),
        }
    }

    fn settings(&self, text: &str) {
        fs::write(self.rig.state().join("lateen.toml"), text).unwrap();
    }

    /// Starts something that stays.
    fn visit(&mut self, mut command: Command) {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        self.visitors
            .push(quiet.stderr(Stdio::null()).spawn().unwrap());
    }

    fn plant(&self, fault: &str) {
        let mut shell = self.rig.command("sick", None, "sh");
        let planted = shell
            .args(["-ec", &format!("{HIDE}{fault}")])
            .output()
            .unwrap();
        assert!(planted.status.success(), "{fault}: {planted:?}");
    }

    /// The codes found, and the exit code.
    fn examine(&self) -> (BTreeSet<String>, Option<i32>) {
        let mut doctor = self.rig.command("sick", None, LATEEN);
        let settings = self.rig.state().join("lateen.toml");
        let doctor = doctor
            .args(["doctor", "-o", "json", "--config"])
            .arg(settings);
        let output = doctor.output().unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", text(&output.stdout)));
        let found = answer["findings"].as_array().unwrap();
        for finding in found {
            for key in ["code", "severity", "seen", "remedy"] {
                let told = finding[key].as_str().is_some_and(|text| !text.is_empty());
                assert!(told, "{key}: {finding}");
            }
        }
        let codes = found.iter().map(|f| f["code"].as_str().unwrap().to_owned());
        (codes.collect(), output.status.code())
    }

    fn finds(&self, faults: &[(&str, &str)]) {
        let (found, code) = self.examine();
        let missed: Vec<_> = faults.iter().filter(|(c, _)| !found.contains(*c)).collect();
        assert!(missed.is_empty(), "missed {missed:?}, found {found:?}");
        assert_eq!(code, Some(1));
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        for visitor in &mut self.visitors {
            let _gone = visitor.kill();
            let _gone = visitor.wait();
        }
    }
}

#[test]
fn every_fault_that_is_planted_is_named() {
    let mut ward = Ward::open();
    ward.settings(
        "node = \"sick\"\nroles = [\"node\"]\nuser = 4242\nstate-dir = \"/run/none-yet\"\n",
    );
    let (before, _) = ward.examine();
    let planted = FAULTS.iter().chain(&MORE).map(|(code, _)| *code);
    let early: Vec<_> = planted.filter(|code| before.contains(*code)).collect();
    // That much is so before anything is planted.
    assert_eq!(early, ["not-joined"], "{before:?}");

    ward.settings(SETTINGS);
    for (_, fault) in FAULTS {
        ward.plant(fault);
    }
    let mut echo = ward.rig.command("well", None, LATEEN);
    echo.args(["sample", "tcp-echo", "--listen", "10.79.0.2:7000"]);
    ward.visit(echo);
    let mut squatter = ward.rig.command("sick", None, "python3");
    squatter.args(["-c", "import socket, time\ns = socket.socket()\ns.bind(('', 15020))\ns.listen()\ntime.sleep(600)"]);
    ward.visit(squatter);
    eventually("the programs listen", || {
        let (found, _) = ward.examine();
        match found.contains("port-taken") && found.contains("path-mtu-small") {
            true => Ok(()),
            false => Err(found),
        }
    });
    ward.finds(&FAULTS);

    ward.settings("node = \"sick\"\nroles = [\"node\"]\nuser = 4242\nstate-dir = \"/run/state\"\n");
    for (_, fault) in MORE {
        ward.plant(fault);
    }
    ward.finds(&MORE);

    ward.settings("user = 0\nroles = [\"node\"]\n");
    ward.finds(&[("user-is-root", "")]);
    ward.settings("rolez = [\"node\"]\n");
    ward.finds(&[("settings-invalid", "")]);
}
