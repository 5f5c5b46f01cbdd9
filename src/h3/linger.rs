//! Sees streams off whose owners are done with them: what they were given still arrives.

use std::future::poll_fn;

use super::error::Code;
use super::shared::Live;
use super::writer::FrameWriter;

/// A stream that has been ended, with what of it has not left yet.
pub(super) struct Linger {
    writer: FrameWriter,
    live: Live,
}

impl Linger {
    pub(super) fn new(writer: FrameWriter, live: Live) -> Self {
        Self { writer, live }
    }

    /// Returns once the peer has all, or wants no more, or has had its time.
    pub(super) async fn run(mut self) {
        let most = self.live.shared().config.linger;
        let gone = poll_fn(|cx| self.writer.poll_stopped(cx));
        match tokio::time::timeout(most, gone).await {
            // Whatever became of it, there is nothing left to do.
            Ok(_over) => {}
            Err(_elapsed) => self.writer.reset(Code::CONNECT_ERROR),
        }
    }
}
