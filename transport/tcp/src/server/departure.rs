//! Sends partitions of a device: piece by piece, each as soon as it has been copied to page-locked memory, while the one before it is being
//! written. One task for each partition; the writer sees small answers.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use transload_gpu::Partition;
use transload_gpu::device::{Departing, DeviceError, DevicePartition};
use transload_transport::backend;

use super::Recipient;
use super::writer::{Body, Part, Places, Sending};
use crate::wire::Kind;

/// So long what has left the device waits for page-locked memory to be read into, and looks for it so often.
const PATIENCE: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_millis(5);

/// Page-locked memory for a partition to be sent in pieces. `None` where there is none for it now.
pub(super) async fn stage(partition: DevicePartition, chunk_bytes: u64) -> Option<Departing> {
    let payload_bytes = partition.payload().bytes();
    let staged = partition.tiers().stage(payload_bytes, chunk_bytes).await;
    let staging = staged.inspect_err(
        |error| tracing::debug!(%error, payload_bytes, "a partition is not sent in pieces"),
    );
    Some(Departing::new(partition, staging.ok()?))
}

/// Gives all of the answer to the writer, and returns once that has written it, or has the rest in its hands.
pub(super) async fn send(to: &Recipient<'_>, mut departing: Departing, places: Places) {
    match give(to, &mut departing).await {
        // Until then it has its places.
        Ok(Given::All) => departing.settled().await,
        Ok(Given::Some) => {
            let (partition, sent_bytes) = departing.into_rest();
            match elsewhere(&partition).await {
                Ok(partition) => {
                    let rest = Sending::rest(partition, sent_bytes, places);
                    to.give(Body::Partition(Box::new(rest)));
                }
                Err(error) => to.give(Body::failed(error.to_string())),
            }
        }
        Err(reason) => to.give(Body::failed(reason)),
    }
}

/// How much of an answer was given.
enum Given {
    All,
    /// What was on the device; it is no longer.
    Some,
}

async fn give(to: &Recipient<'_>, departing: &mut Departing) -> Result<Given, String> {
    let header = backend::encode_header(departing.partition().header())?;
    let part = |kind, last, slices| to.give(Body::Part(Part { kind, last, slices }));
    part(Kind::Header, false, vec![Bytes::from(header)]);
    while departing.left_bytes() > 0 {
        let piece = tokio::select! {
            biased;
            () = to.cancelled.cancelled() => {
                to.give(Body::ended());
                return Ok(Given::All);
            }
            piece = departing.next() => piece,
        };
        match piece.map_err(|error| error.to_string())? {
            Some(slices) => part(Kind::Chunk, departing.left_bytes() == 0, slices),
            None => return Ok(Given::Some),
        }
    }
    Ok(Given::All)
}

/// The partition where it went from the device.
async fn elsewhere(partition: &DevicePartition) -> Result<Partition, DeviceError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match partition.tiers().viewed(partition).await {
            Err(error) if error.is_about_memory() && Instant::now() < deadline => sleep(WAIT).await,
            viewed => return viewed,
        }
    }
}
