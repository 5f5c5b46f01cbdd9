//! A full disk under the state directory (`spec/control-plane.md` §6.6, `spec/reliability.md` §4.2
//! row 7). The disk is a small one in memory, in a mount namespace of this test.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use lateen::tls::Request as Csr;
use lateen::wire::REVISION;
use lateen::wire::proto::citadel::IstioCertificateRequest;
use lateen::wire::proto::citadel::istio_certificate_service_client::IstioCertificateServiceClient;
use tonic::Request;

use crate::support::{Delta, LATEEN, Running, Site, eventually, mesh, token_for};

/// A control plane whose state is on a disk of 8 MiB.
struct Small {
    site: Site,
    /// Holds the mount.
    holder: Running,
    inside: PathBuf,
}

impl Small {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("disk");
        fs::create_dir(&inside).unwrap();
        let mut site = Site::with_state(dir, &inside.join("state"), PathBuf::new());
        let script = format!(
            "mount -t tmpfs -o size=8m tmpfs {0} && touch {0}/mounted && exec sleep 600",
            inside.display()
        );
        let mut unshare = Command::new("unshare");
        if !rustix::process::getuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        let holder = site.spawn(unshare.args(["--mount", "sh", "-c", &script]));
        let seen = PathBuf::from(format!("/proc/{}/root", holder.pid()));
        let seen = seen.join(inside.strip_prefix("/").unwrap());
        eventually("a small disk", || {
            let mounted = seen.join("mounted").exists();
            let log = site.log();
            async move { mounted.then_some(()).ok_or(log) }
        })
        .await;
        site.state = seen.join("state");
        Self {
            site,
            holder,
            inside: seen,
        }
    }

    fn start(&self) -> Running {
        let mut enter = Command::new("nsenter");
        if !rustix::process::getuid().is_root() {
            enter.args(["--user", "--preserve-credentials"]);
        }
        let target = self.holder.pid().to_string();
        enter.args([
            "--mount",
            "--target",
            &target,
            LATEEN,
            "run",
            "--control",
            "--config",
        ]);
        self.site.spawn(enter.arg(self.site.config()))
    }

    fn fill(&self) -> PathBuf {
        let path = self.inside.join("fill");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4_096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
        path
    }
}

/// Whether a bearer of `edge-1` is given the certificate of its workload.
async fn certificate(site: &Site, bearer: &str) -> bool {
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let mut request = Request::new(IstioCertificateRequest {
        csr: Csr::new(&id).unwrap().csr_pem(),
        validity_duration: 3_600,
        metadata: None,
    });
    let value = format!("Bearer {bearer}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let channel = site.channel().await.unwrap();
    let mut client = IstioCertificateServiceClient::new(channel);
    client.create_certificate(request).await.is_ok()
}

/// Waits until the edit is in force.
async fn in_force(stream: &mut Delta, serial: u64) {
    let want = format!("/{serial}/");
    while !stream
        .next()
        .await
        .unwrap()
        .system_version_info
        .contains(&want)
    {}
}

#[tokio::test]
async fn a_full_disk_stops_joining_and_nothing_else() {
    let small = Small::new().await;
    let site = &small.site;
    let mut running = small.start();
    site.up(&mut running).await;
    let (bearer, token) = (
        site.bearer().await,
        site.token(false, &token_for("edge-1")).await,
    );
    let token = token.unwrap();
    let mut stream = site.stream(&bearer).await.unwrap();
    stream.ask(REVISION).await;
    stream.next().await.unwrap();

    // Serial numbers are reserved on disk some at a time: from here on there are some.
    assert!(certificate(site, &bearer).await, "leaves are signed");

    let fill = small.fill();
    let refused = site.token(false, &token_for("edge-2")).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("No space left"), "{refused}");
    let joined = site.join("edge-1", &token);
    let said = String::from_utf8_lossy(&joined.stderr).into_owned();
    assert_eq!(joined.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left"), "{said}");
    for serial in 2..20 {
        site.write_mesh("mesh.toml", &mesh(serial));
        in_force(&mut stream, serial).await;
    }
    let mut another = site.stream(&bearer).await.unwrap();
    another.ask(REVISION).await;
    another.next().await.unwrap();
    assert!(certificate(site, &bearer).await, "leaves are still signed");
    site.logged("what is not kept", |log| {
        log.contains("cannot save the mesh files in force")
    })
    .await;

    // What is on disk is whole, whenever the process ends.
    running.kill();
    let mut running = small.start();
    site.up(&mut running).await;
    fs::remove_file(fill).unwrap();
    let joined = site.join("edge-1", &token);
    assert!(
        joined.status.success(),
        "the token was not spent: {joined:?}"
    );
    site.token(false, &token_for("edge-2")).await.unwrap();
    let mut stream = site.stream(&bearer).await.unwrap();
    stream.ask(REVISION).await;
    site.write_mesh("mesh.toml", &mesh(20));
    in_force(&mut stream, 20).await;
    let number = site.status().await.unwrap().revision;
    running.kill();

    site.write_mesh("broken.toml", "[[node]\n");
    let mut running = small.start();
    let status = site.up(&mut running).await;
    assert!(status.stale && status.revision > number, "{status:?}");
    assert_eq!(
        site.tokens()
            .await
            .iter()
            .filter(|t| t.kind == "join")
            .count(),
        2
    );
    let mut stream = site.stream(&bearer).await.unwrap();
    stream.ask(REVISION).await;
    in_force(&mut stream, 20).await;
    assert!(
        Path::new(&small.inside)
            .join("state/control/store")
            .exists()
    );
}
