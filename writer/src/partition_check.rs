//! Checks that the source was started with the number of partitions that this writer was configured
//! with. Otherwise the writer would wait for streams that nobody writes to, or ignore streams that
//! are written.
//!
//! The record beside the unpartitioned key contains the number. With one partition, this is the
//! source record, which is loaded anyway. Otherwise this module loads it on its own connection,
//! which delays nothing.

use crate::group::pairs;
use delivery::manifest::{begun_with, record_key};
use resp::{Config, Connection, Discovery, Error, Frame, cmd};
use service::Failure;
use service::args::{ServiceArgs, other_partitions};
use std::cell::Cell;
use std::time::Duration;
use tokio::sync::Notify;

/// How often the record is requested until it exists.
const EVERY: Duration = Duration::from_secs(2);
/// How long the work waits for the first reply before it creates anything in Redis.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The configured number of partitions, and whether the record confirms it.
#[derive(Debug)]
pub(crate) struct PartitionCheck {
    /// The key of the unpartitioned stream.
    stream: String,
    partitions: u32,
    /// The record has not confirmed the number yet.
    open: Cell<bool>,
    /// Notified after the first request, whatever its result.
    asked: Notify,
}

impl PartitionCheck {
    /// Nothing is known yet.
    pub(crate) fn new(service: &ServiceArgs) -> Self {
        let ServiceArgs { stream, partitions, .. } = service;
        Self { stream: stream.clone(), partitions: *partitions, open: Cell::new(true), asked: Notify::new() }
    }

    /// Compares with the record, a reply to `HGETALL`. `Some`: why the record cannot be parsed.
    fn compare(&self, reply: &Frame) -> Result<Option<String>, Failure> {
        match begun_with(pairs(reply)) {
            Ok(Some(begun)) if begun != self.partitions => {
                let Self { stream, partitions, .. } = self;
                Err(Failure::config(other_partitions(stream, *partitions, begun)))
            }
            Ok(begun) => {
                self.open.set(begun.is_none());
                Ok(None)
            }
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// Runs `work` while requesting the record until it confirms the number. `config` leads to the
    /// unpartitioned key.
    pub(crate) async fn beside(
        &self,
        config: &Config,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let refused = self.ask(config);
        tokio::pin!(refused);
        tokio::select! {
            failure = &mut refused => return Err(failure),
            () = self.asked.notified() => {}
            () = tokio::time::sleep(AT_ONCE) => {}
        }
        tokio::select! {
            biased;
            done = work => done,
            failure = &mut refused => Err(failure),
        }
    }

    /// Requests the record repeatedly. Returns only if the number of partitions differs.
    async fn ask(&self, config: &Config) -> Failure {
        let record = record_key(&self.stream);
        let discovery = Discovery::new(config.clone());
        let mut connection = None;
        let mut logged = None;
        loop {
            let complaint = match ask_for(&mut connection, &discovery, &record).await.map(|reply| self.compare(&reply))
            {
                Ok(Ok(complaint)) => complaint,
                Ok(Err(failure)) => return failure,
                // If the node is unreachable, the stages that need it report that.
                Err(error) => Some(error.to_string()).filter(|_| error.is_server()),
            };
            if complaint != logged
                && let Some(complaint) = &complaint
            {
                log::warn!("{record}: {complaint}; the number of partitions of the source is unknown");
            }
            logged = complaint;
            self.asked.notify_one();
            if !self.open.get() {
                drop(connection);
                return std::future::pending().await;
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn ask_for(held: &mut Option<Connection>, discovery: &Discovery, record: &str) -> Result<Frame, Error> {
    let mut connection = match held.take().filter(|connection| !connection.is_closed()) {
        Some(connection) => connection,
        None => discovery.connect().await?,
    };
    let reply = connection.send(&cmd::<Frame>("HGETALL").arg(record)).await?;
    *held = Some(connection);
    Ok(reply)
}
