//! Bytes that no client would send.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// After so long without a byte there will be none: servers that wait for more wait for longer.
const SILENCE: Duration = Duration::from_secs(4);

/// What is said on connections of their own, all at once.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Raw {
    pub(crate) to: String,
    pub(crate) says: Vec<Vec<u8>>,
}

impl Raw {
    /// What is answered to each, up to the end of the connection or a long silence, each byte a character.
    pub(super) async fn answers(self) -> Value {
        let mut all = JoinSet::new();
        for (at, says) in self.says.into_iter().enumerate() {
            let to = self.to.clone();
            all.spawn(async move { (at, answered(&to, &says).await) });
        }
        let mut answers = all.join_all().await;
        answers.sort();
        let answers = answers.into_iter().map(|(_, answer)| answer);
        json!(answers.collect::<Vec<String>>())
    }
}

async fn answered(to: &str, says: &[u8]) -> String {
    let mut heard = Vec::new();
    let Ok(mut tcp) = TcpStream::connect(to).await else {
        return "no connection".to_owned();
    };
    let (mut from, mut into) = tcp.split();
    // Some are refused before all is said.
    let _refused = into.write_all(says).await;
    let mut buffer = vec![0; 16 << 10];
    loop {
        match tokio::time::timeout(SILENCE, from.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => heard.extend_from_slice(&buffer[..read]),
            Ok(_ended) => break,
            Err(_elapsed) => break,
        }
    }
    heard.into_iter().map(char::from).collect()
}
