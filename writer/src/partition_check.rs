//! Whether the source was begun with as many partitions as this writer was told: else it would wait
//! at streams that nobody writes to, or leave out those that somebody does.
//!
//! The record beside the key of the stream that would be the only one tells. When it is the only
//! one, that is the source record, which is read anyway; else it is asked for here, on a connection
//! of its own, which holds up nothing.

use crate::group::pairs;
use delivery::manifest::{begun_with, record_key};
use resp::{Config, Connection, Discovery, Error, Frame, cmd};
use service::Failure;
use service::args::{ServiceArgs, other_partitions};
use std::cell::Cell;
use std::time::Duration;
use tokio::sync::Notify;

/// How often it is asked for while there is none.
const EVERY: Duration = Duration::from_secs(2);
/// How long the work waits for the first answer, before it makes anything in Redis.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What the writer was told, and whether the record says the same.
#[derive(Debug)]
pub(crate) struct PartitionCheck {
    /// The key of the stream that would be the only one.
    stream: String,
    partitions: u32,
    /// The record has not told yet.
    open: Cell<bool>,
    /// It was asked for once, whatever came of it.
    asked: Notify,
}

impl PartitionCheck {
    /// Nothing is known yet.
    pub(crate) fn new(service: &ServiceArgs) -> Self {
        let ServiceArgs { stream, partitions, .. } = service;
        Self { stream: stream.clone(), partitions: *partitions, open: Cell::new(true), asked: Notify::new() }
    }

    /// What the record says, from the reply to `HGETALL`. `Some`: why that cannot be read.
    fn hear(&self, reply: &Frame) -> Result<Option<String>, Failure> {
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

    /// Does `work` beside asking for the record until it has told. `config` leads to the key of the
    /// stream that would be the only one.
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

    /// Asks until it is told; ends only when the source was begun otherwise.
    async fn ask(&self, config: &Config) -> Failure {
        let record = record_key(&self.stream);
        let discovery = Discovery::new(config.clone());
        let mut connection = None;
        let mut told = None;
        loop {
            let complaint = match ask_for(&mut connection, &discovery, &record).await.map(|reply| self.hear(&reply)) {
                Ok(Ok(complaint)) => complaint,
                Ok(Err(failure)) => return failure,
                // Of a node that is away, those hear who have something to do there.
                Err(error) => Some(error.to_string()).filter(|_| error.is_server()),
            };
            if complaint != told
                && let Some(complaint) = &complaint
            {
                log::warn!("{record}: {complaint}; with how many partitions the source was begun is not known");
            }
            told = complaint;
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
