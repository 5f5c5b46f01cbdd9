//! Work that waits for the disk, beside the threads that serve everybody.

use tonic::Status;

/// Does it to its end, even if the caller goes away: what is half decided would be worse than an
/// answer that nobody hears.
pub(super) async fn aside<T, W>(work: W) -> Result<T, Status>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T, Status> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_died| Err(Status::internal("serving this request failed")))
}
