//! Wakes parked sources: one read that blocks in Redis waits for all of them, behind what their
//! groups have been given. It changes nothing in Redis.

use super::Shared;
use super::source::Source;
use resp::streams::XRead;
use resp::{BlockTimeout, Connection, Error, Frame, StreamId, cmd};
use service::{Connector, Stop};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// How long it blocks at most.
const BLOCK: Duration = Duration::from_secs(2);
/// Sources are waited for in reads of this many, so that a busy one costs Redis less.
const GATHER: Duration = Duration::from_millis(5);
/// How soon another request to end the read follows one that came before the read.
const AGAIN: Duration = Duration::from_millis(20);
/// Sources with entries that are longer than this are not waited for: the read would bring one of
/// each. The [survey](super::survey) wakes them.
pub(crate) const LONG: usize = 64 << 10;

/// Wakes sources until the service stops.
pub(crate) async fn run(shared: &Shared<'_>, mut reading: Connector, mut ending: Connector) -> Result<(), Stop> {
    let (mut connection, mut side) = (reading.connect().await?, ending.connect().await?);
    loop {
        match wait(shared, &mut connection, &mut side).await {
            Ok(()) => {}
            Err(error) => {
                shared.connections.lost(&error);
                tokio::time::sleep(Duration::from_millis(100)).await;
                (connection, side) = (reading.connect().await?, ending.connect().await?);
            }
        }
    }
}

/// One read.
async fn wait(shared: &Shared<'_>, connection: &mut Connection, side: &mut Connection) -> Result<(), Error> {
    let parked: Vec<(Rc<Source>, StreamId)> = {
        let is_waited_for = |source: &Rc<Source>| Some((Rc::clone(source), source.parked.get()?));
        shared
            .sources
            .all()
            .filter(|source| !source.has_long_entries.get())
            .filter_map(|one| is_waited_for(&one))
            .collect()
    };
    let Some(((first, behind), more)) = parked.split_first() else {
        shared.parked.notified().await;
        tokio::time::sleep(GATHER).await;
        return Ok(());
    };
    let read = XRead::new(&first.group.stream, *behind).count(1);
    let read = more.iter().fold(read, |read, (source, behind)| read.and(&source.group.stream, *behind));
    let id = connection.client_id();
    // Without an ID, the read cannot be ended.
    let read = read.block(BlockTimeout::For(if id.is_some() { BLOCK } else { AGAIN.saturating_mul(5) }));
    let mut reading = pin!(connection.send_blocking(&read));
    let reply = tokio::select! {
        reply = &mut reading => reply?,
        () = shared.parked.notified(), if id.is_some() => {
            // More are parked: those that come together are waited for together.
            let mut pause = GATHER;
            loop {
                tokio::select! {
                    reply = &mut reading => break reply?,
                    () = tokio::time::sleep(pause) => {}
                }
                let id = id.unwrap_or_default();
                side.send(&cmd::<Frame>("CLIENT").arg("UNBLOCK").arg(id).arg("TIMEOUT")).await?;
                pause = AGAIN;
            }
        }
    };
    for (key, _) in reply.streams() {
        if let Some(source) = std::str::from_utf8(key).ok().and_then(|key| shared.sources.with_key(key)) {
            source.wake();
        }
    }
    if !reply.is_empty() {
        // Each read costs Redis something for each key, so a busy source does not cause one for
        // each of its lines.
        tokio::time::sleep(Duration::from_micros(10).saturating_mul(u32::try_from(parked.len()).unwrap_or(1000))).await;
    }
    Ok(())
}
