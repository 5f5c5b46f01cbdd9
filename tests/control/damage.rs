//! Torn files: where going on would be a guess it stops and names the file, elsewhere the file is
//! set aside and named, and nothing is made anew in silence (`spec/control-plane.md` §6.6).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lateen::identity::token::Token;

use crate::support::{Site, mesh, token_for};

/// What a control plane does about damage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Stops,
    SetsAside,
}
use Outcome::{SetsAside, Stops};

/// Cuts a file in half, as a power cut may have.
fn tear(path: &Path) {
    let bytes = fs::read(path).unwrap();
    assert!(bytes.len() > 1, "{} has something to lose", path.display());
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// The only file of a directory but for `others`.
fn one_of(dir: &Path, others: &[&str]) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut left = entries.filter(|p| !others.iter().any(|o| p.ends_with(o)));
    left.next().unwrap()
}

#[tokio::test]
async fn every_kind_of_file_can_be_torn() {
    let site = Site::new();
    let mut running = site.start();
    let number = site.up(&mut running).await.revision.unwrap();
    let token = |text: String| text.parse::<Token>().unwrap().id;
    let kept = token(site.token(false, &token_for("edge-2")).await.unwrap());
    let joining = site.token(false, &token_for("edge-1")).await.unwrap();
    let torn = token(joining.clone());
    site.bearer().await;
    let joined = site.join("edge-1", &joining);
    assert!(joined.status.success(), "{joined:?}");
    running.stop();
    running.ended().await;
    let good = site.path("good");
    copy(&site.state, &good);
    let control = site.state.join("control");
    let bearer = one_of(&control.join("bearers"), &[]);
    let input = fs::canonicalize(control.join("revision/input")).unwrap();
    for (file, broken_mesh, want) in [
        (control.join("epoch"), false, Stops),
        (control.join("ca/root.pem"), false, Stops),
        (control.join("ca/root.key"), false, Stops),
        (control.join("ca/issuing-1.pem"), false, Stops),
        (control.join("ca/issuing-1.key"), false, Stops),
        (control.join("bearer.key"), false, Stops),
        (bearer, false, Stops),
        (control.join("tokens").join(&torn), false, SetsAside),
        (control.join("nodes/edge-1"), false, SetsAside),
        (control.join("revision/state"), false, SetsAside),
        (input.join("mesh.toml"), false, SetsAside),
        // It was the only copy of a mesh that passes.
        (input.join("mesh.toml"), true, Stops),
        (control.join("store/conf"), false, SetsAside),
    ] {
        let name = format!("{} {broken_mesh}", file.display());
        fs::remove_dir_all(&site.state).unwrap();
        copy(&good, &site.state);
        fs::write(site.path("log"), "").unwrap();
        let text = if broken_mesh { "[[node]\n" } else { &mesh(1) };
        site.write_mesh("mesh.toml", text);
        tear(&file);
        let mut running = site.start();
        if want == Stops {
            assert_eq!(running.ended().await.code(), Some(1), "{name}");
            let untouched = fs::metadata(&file).is_ok();
            assert!(untouched || broken_mesh, "{name}: left where it is");
        } else {
            let status = site.up(&mut running).await;
            assert!(status.revision > Some(number), "{name}: {status:?}");
            let listed = site.tokens().await;
            let there = listed.iter().any(|t| t.id == kept && t.state == "unused");
            assert!(there, "{name}: {listed:?}");
        }
        // Either it or its directory.
        let paths = file.ancestors().take(2);
        let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        site.logged(&name, |log| paths.iter().any(|path| log.contains(path)))
            .await;
    }
}

/// Rows 52 and 53 of §10: a state directory of which a part is gone.
#[tokio::test]
async fn what_is_gone_is_not_made_anew_in_silence() {
    let site = Site::new();
    let mut running = site.start();
    site.up(&mut running).await;
    site.bearer().await;
    running.kill();
    let control = site.state.join("control");
    fs::rename(control.join("bearer.key"), site.path("bearer.key")).unwrap();
    let mut running = site.start();
    site.up(&mut running).await;
    site.logged("every bearer token is void", |log| {
        log.contains("bearer.key")
    })
    .await;
    running.kill();
    fs::rename(control.join("ca"), site.path("ca")).unwrap();
    let mut running = site.start();
    assert_eq!(running.ended().await.code(), Some(1));
    assert!(!control.join("ca").exists(), "nothing is made in its place");
    for path in [control.join("epoch"), control.join("ca/authority.json")] {
        let path = path.display().to_string();
        site.logged(&path, |log| log.contains(&path)).await;
    }
}
