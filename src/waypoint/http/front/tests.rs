//! What is handed on of a connection, byte by byte and at its own pace.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const CHAT: &[u8] =
    b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

fn front() -> (DuplexStream, Front<DuplexStream>, Arc<Gate>) {
    let (client, server) = duplex(1 << 16);
    let gate = Arc::<Gate>::default();
    let silence = Duration::from_secs(300);
    (client, Front::new(server, Arc::clone(&gate), silence), gate)
}

/// What can be read now.
async fn now(front: &mut Front<DuplexStream>) -> Vec<u8> {
    let mut read = Vec::new();
    let mut some = [0; 1 << 12];
    while let Ok(Ok(count @ 1..)) = timeout(Duration::from_millis(1), front.read(&mut some)).await {
        read.extend_from_slice(&some[..count]);
    }
    read
}

fn is_stand_in(read: &[u8], gate: &Gate) -> bool {
    let text = String::from_utf8_lossy(read);
    text.starts_with("- * HTTP/1.1\r\n") && text.contains(gate.mark.to_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn heads_are_handed_on_whole_and_bodies_as_they_come() {
    let (mut client, mut front, _gate) = front();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for byte in &head[..head.len() - 1] {
        client.write_all(&[*byte]).await.unwrap();
        assert_eq!(now(&mut front).await, b"");
    }
    client.write_all(b"\n5\r\nhe").await.unwrap();
    assert_eq!(now(&mut front).await, [&head[..], b"5\r\nhe"].concat());
    client.write_all(b"llo\r\n0\r\n\r\nGET / HT").await.unwrap();
    assert_eq!(
        now(&mut front).await,
        b"llo\r\n0\r\n\r\n",
        "not half of the next"
    );
    client.write_all(&GET[8..]).await.unwrap();
    assert_eq!(now(&mut front).await, GET);
    drop(client);
    assert_eq!(front.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_stood_in_for_and_nothing_follows() {
    let (mut client, mut front, gate) = front();
    client.write_all(GET).await.unwrap();
    client
        .write_all(b"GET /#x HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    client.write_all(GET).await.unwrap();
    let read = now(&mut front).await;
    let (first, second) = read.split_at(GET.len());
    assert_eq!(first, GET);
    assert!(is_stand_in(second, &gate));
    client.write_all(GET).await.unwrap();
    assert_eq!(now(&mut front).await, b"");
}

#[tokio::test(start_paused = true)]
async fn a_head_is_whole_in_time_or_refused() {
    let (mut client, mut front, gate) = front();
    let idle = timeout(Duration::from_secs(1800), front.read(&mut [0; 8])).await;
    assert!(idle.is_err(), "before it begins it has time");
    client.write_all(&GET[..9]).await.unwrap();
    let early = timeout(Duration::from_secs(9), front.read(&mut [0; 8])).await;
    assert!(early.is_err());
    client.write_all(&GET[9..12]).await.unwrap();
    let mut some = [0; 256];
    let late = timeout(Duration::from_secs(2), front.read(&mut some)).await;
    let read = late.unwrap().unwrap();
    assert!(is_stand_in(&some[..read], &gate));
    assert_eq!(gate.lock().fault, Some(Fault::Slow));
}

#[tokio::test(start_paused = true)]
async fn each_head_has_its_own_time() {
    let (mut client, mut front, _gate) = front();
    for _ in 0..3 {
        client.write_all(&GET[..9]).await.unwrap();
        assert!(
            timeout(Duration::from_secs(9), front.read(&mut [0; 8]))
                .await
                .is_err()
        );
        client.write_all(&GET[9..]).await.unwrap();
        assert_eq!(now(&mut front).await, GET);
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_websocket_waits_for_the_answer() {
    for (name, early, switched, want) in [
        (
            "it becomes one",
            &b"\x81\x01a"[..],
            true,
            Some(&b"\x81\x01a"[..]),
        ),
        (
            "it does not",
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            false,
            None,
        ),
    ] {
        let (mut client, mut front, gate) = front();
        client.write_all(CHAT).await.unwrap();
        client.write_all(early).await.unwrap();
        assert_eq!(now(&mut front).await, CHAT, "{name}");
        gate.decide(switched);
        let read = now(&mut front).await;
        match want {
            Some(want) => assert_eq!(read, want, "{name}"),
            None => assert!(is_stand_in(&read, &gate), "{name}"),
        }
    }
    let (mut client, mut front, gate) = front();
    client.write_all(CHAT).await.unwrap();
    assert_eq!(now(&mut front).await, CHAT);
    gate.decide(false);
    client.write_all(GET).await.unwrap();
    assert_eq!(
        now(&mut front).await,
        GET,
        "a request after the answer is one"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_decision_is_woken() {
    let (mut client, mut front, gate) = front();
    client.write_all(CHAT).await.unwrap();
    assert_eq!(now(&mut front).await, CHAT);
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    let decided = async {
        tokio::task::yield_now().await;
        gate.decide(true);
    };
    let ((), read) = tokio::join!(decided, front.read_exact(&mut heard));
    read.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_ends_the_connection() {
    let (mut client, mut front, _gate) = front();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(head).await.unwrap();
    assert_eq!(now(&mut front).await, head);
    client.write_all(b"x\r\n").await.unwrap();
    client.write_all(GET).await.unwrap();
    now(&mut front).await;
    assert_eq!(front.read(&mut [0; 8]).await.unwrap(), 0, "its end");
}

#[test]
fn only_the_mark_makes_a_stand_in() {
    let gate = Gate::default();
    let request = |mark: &str| {
        let request = http::Request::get("/").header(MARK, mark);
        request.body(()).unwrap().into_parts().0
    };
    let mark = gate.mark.to_str().unwrap().to_owned();
    assert_eq!(gate.fault(&request(&mark)), None, "nothing was refused");
    gate.lock().fault = Some(Fault::Slow);
    assert_eq!(gate.fault(&request(&mark)), Some(Fault::Slow));
    assert_eq!(gate.fault(&request("0")), None, "a client's own");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_waited_for_only_so_long() {
    for (name, switches, uploads, cut) in [
        ("still", false, false, true),
        ("sends on", false, true, false),
        ("has switched", true, false, false),
    ] {
        let (mut client, mut front, gate) = front();
        if switches {
            client.write_all(CHAT).await.unwrap();
            now(&mut front).await;
            gate.decide(true);
            now(&mut front).await;
        } else {
            let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999\r\n\r\n";
            client.write_all(head).await.unwrap();
            now(&mut front).await;
        }
        // More than anybody holds.
        let answer = vec![0; 1 << 17];
        let mut written = 0;
        for minute in 0..20 {
            let write = timeout(Duration::from_secs(60), front.write(&answer[written..]));
            match write.await {
                Ok(Ok(count)) => written += count,
                Ok(Err(e)) => {
                    assert!(cut && minute >= 5, "{name}: {e} after {minute} minutes");
                    assert_eq!(e.kind(), io::ErrorKind::TimedOut, "{name}");
                    written = answer.len();
                    break;
                }
                Err(_elapsed) => {}
            }
            if uploads {
                client.write_all(b"more").await.unwrap();
                now(&mut front).await;
            }
        }
        assert_eq!(written == answer.len(), cut, "{name}");
    }
}
