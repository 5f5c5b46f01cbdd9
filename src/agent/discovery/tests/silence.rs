//! What counts as silence, over lines of all kinds.

use super::*;
use crate::agent::scripted::{self, Script, Scripted, joined, resource};
use crate::model::testing::workload;
use crate::tls::testing::TestCa;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

const EPOCH: u8 = 0xab;
/// Bytes that the slow line carries at once, and how long it takes for them.
const PIECE: (usize, Duration) = (8 << 10, Duration::from_millis(50));
/// Long beside a piece, and short beside all of them.
const SILENCE: Duration = Duration::from_millis(500);

/// A slow line to a control plane.
async fn slow(to: &str, tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = scripted::url(listener.local_addr().unwrap());
    let to = to.trim_start_matches("https://").to_owned();
    tasks.spawn(async move {
        let mut lines = JoinSet::new();
        while let Ok((near, _peer)) = listener.accept().await {
            let far = TcpStream::connect(&to).await.unwrap();
            lines.spawn(carry(near, far));
        }
    });
    url
}

async fn carry(near: TcpStream, far: TcpStream) {
    let (mut requests, mut to_node) = near.into_split();
    let (mut responses, mut to_control) = far.into_split();
    let up = copy(&mut requests, &mut to_control);
    let down = async {
        let mut piece = vec![0; PIECE.0];
        while let Ok(n @ 1..) = responses.read(&mut piece).await {
            let took = PIECE.1.mul_f64(n as f64 / PIECE.0 as f64);
            tokio::time::sleep(took).await;
            if to_node.write_all(&piece[..n]).await.is_err() {
                return;
            }
        }
    };
    let _ended = tokio::join!(up, down);
}

#[tokio::test]
async fn a_large_response_over_a_slow_line_is_waited_for_and_nothing_is_not() {
    let ca = TestCa::new();
    let mut large = workload("cart", &[]);
    large.canonical_name = Arc::from("x".repeat(200 << 10));
    let large = [resource(&large, "v1")];
    let timing = Timing {
        silence: SILENCE,
        ..brisk()
    };
    for (name, resources, heard) in [
        ("slow", scripted::mesh(EPOCH, 1, &large), true),
        ("silent", Default::default(), false),
    ] {
        let script = Script {
            resources,
            ..Script::default()
        };
        let control = Scripted::lateen(&ca, script).await;
        let mut tasks = JoinSet::new();
        let url = slow(&control.url, &mut tasks).await;
        let controls = joined(&ca, EPOCH, &[&url]);
        let mut client = Client::start(controls, timing, vec![EPOCH; 16]);
        let settled = |link: &Link| link.connected.is_some() || link.error.is_some();
        let link = client.links(name, settled).await;
        assert_eq!(link.connected.is_some(), heard, "{name}: {link:?}");
        if let Some(error) = link.error {
            assert!(error.contains("sends nothing"), "{name}: {error}");
        }
    }
}
