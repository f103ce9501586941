//! Links that break at every byte of a session, in each direction, below clients that reconnect: no
//! call hangs, no reply goes to another command, errors tell the truth, and all work is done in the
//! end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resp::streams::{GroupFrom, XAck, XAdd, XGroupCreate, XLen, XPending, XReadGroup};
use resp::{Backoff, ClientOptions, Command, Config, Connection, ConsumerOptions, Endpoint, Error, ErrorKind, Frame};
use resp::{Client, Sent, StreamId, cmd};
use support::Server;
use support::proxy::{Fault, Proxy, Way};
use tokio::task::JoinSet;

const ID: StreamId = StreamId::new(7, 1);

/// Long enough on a busy machine; if not, the failed call is retried.
const PATIENCE: Duration = Duration::from_millis(150);

fn impatient(path: PathBuf) -> Config {
    let config = Config::new(Endpoint::unix(path)).connect_timeout(PATIENCE);
    config.command_timeout(Some(PATIENCE)).block_grace(PATIENCE)
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(1), Duration::from_millis(10))
}

/// One session over its own proxy, with its own key.
struct Case {
    /// The first connection through it fails.
    broken: Config,
    /// The server itself.
    healthy: Connection,
    key: String,
    at: String,
}

/// Sends a command together with the `ECHO` of another caller: neither gets the other's reply.
async fn send<C: Command>(client: &Client, command: &C, at: &str) -> Result<C::Reply, Error> {
    let text = format!("echo of {}", command.name());
    let echo = cmd::<Frame>("ECHO").arg(&text);
    let (reply, echo) = tokio::join!(client.send(command), client.send(&echo));
    if let Ok(echo) = echo {
        assert_eq!(echo.value().as_str(), Some(&*text), "{at}");
    }
    if let Err(error) = &reply {
        assert!(error.is_transient() || error.is_server(), "{at}: {error}");
    }
    reply
}

/// Adds, reads and acknowledges one entry through the shared client.
async fn client(case: Case) {
    let Case { broken, mut healthy, key, at } = case;
    healthy.send(XGroupCreate::new(&key, "g", StreamId::ZERO).make_stream()).await.unwrap();
    let client = loop {
        match ClientOptions::new(broken.clone()).backoff(backoff()).connect().await {
            Ok(client) => break client,
            Err(error) => assert_eq!((error.sent(), error.is_transient()), (Sent::No, true), "{at}: {error}"),
        }
    };

    let fields = [("line", key.as_bytes())];
    let add = XAdd::new(&key, ID, &fields);
    let mut maybe = false;
    loop {
        match send(&client, &add, &at).await {
            Ok(id) => break assert_eq!(id, ID, "{at}"),
            // The retry was refused because the entry exists: an earlier attempt has reported that
            // it may.
            Err(error) if error.kind() == ErrorKind::IdTooSmall => break assert!(maybe, "{at}: {error}"),
            Err(error) => maybe |= error.sent() == Sent::Maybe,
        }
    }
    assert_eq!(healthy.send(XLen::new(&key)).await.unwrap(), 1, "{at}");

    let mut maybe = false;
    loop {
        // Entries of a lost reply are pending, not new.
        let from = if maybe { GroupFrom::Pending(StreamId::ZERO) } else { GroupFrom::New };
        match send(&client, &XReadGroup::new(&key, "g", "c", from), &at).await {
            Ok(read) if read.is_empty() => assert!(std::mem::take(&mut maybe), "{at}: delivered, though not sent"),
            Ok(read) => {
                assert_eq!(read.ids().collect::<Vec<_>>(), [ID], "{at}");
                break assert_eq!(read.entries().first().unwrap().field(b"line"), Some(key.as_bytes()), "{at}");
            }
            Err(error) => maybe |= error.sent() == Sent::Maybe,
        }
    }

    let mut maybe = false;
    loop {
        match send(&client, &XAck::new(&key, "g", [ID]), &at).await {
            Ok(1) => break,
            Ok(count) => break assert!(count == 0 && maybe, "{at}: {count} acknowledged"),
            Err(error) => maybe |= error.sent() == Sent::Maybe,
        }
    }
    assert_eq!(healthy.send(XPending::new(&key, "g")).await.unwrap().count, 0, "{at}");
}

/// Consumes three entries.
async fn consumer(case: Case) {
    let Case { broken, mut healthy, key, at } = case;
    for n in 1..=3 {
        healthy.send(XAdd::new(&key, StreamId::new(n, 0), &[("line", format!("{key} {n}"))])).await.unwrap();
    }
    let mut consumer = loop {
        let options = ConsumerOptions::new(broken.clone(), &key, "g", "c").count(2).block(Duration::from_millis(10));
        match options.backoff(backoff()).connect().await {
            Ok(consumer) => break consumer,
            Err(error) => assert!(error.is_transient(), "{at}: {error}"),
        }
    };
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        let batch = consumer.next().await.unwrap().unwrap();
        for entry in &batch {
            let line = format!("{key} {}", entry.id.ms);
            assert_eq!(entry.field(b"line"), Some(line.as_bytes()), "{at}");
            seen.insert(entry.id);
        }
        consumer.ack(batch.ids());
    }
    consumer.stopper().stop();
    assert!(consumer.next().await.unwrap().is_none(), "{at}");
    // Unconfirmed acknowledgements are kept.
    while let Err(error) = consumer.flush().await {
        assert!(error.is_transient(), "{at}: {error}");
    }
    // It waits for its last acknowledgements no longer than the command timeout.
    while let Err(error) = consumer.flush().await {
        assert!(error.is_transient(), "{at}: {error}");
    }
    assert_eq!((consumer.unconfirmed(), healthy.send(XPending::new(&key, "g")).await.unwrap().count), (0, 0), "{at}");
}

async fn at_every_byte<S>(fault: Fault, session: fn(Case) -> S)
where
    S: Future<Output = ()> + Send + 'static,
{
    let server = Arc::new(Server::start());
    let folder = tempfile::tempdir().unwrap();
    let run = |number: usize, way: Way, after: usize| {
        let (server, path) = (Arc::clone(&server), folder.path().join(number.to_string()));
        async move {
            let proxy = Proxy::start(path, &server.folder().join("redis.sock"), fault, way, after);
            let at = format!("{fault:?} after {after} bytes {way:?}");
            let case = Case {
                broken: impatient(proxy.path.clone()),
                healthy: server.connect().await,
                key: format!("key-{number:05}"),
                at: at.clone(),
            };
            let done = tokio::time::timeout(Duration::from_secs(60), session(case)).await;
            assert!(done.is_ok(), "hangs: {at}");
            [0, 1].map(|way| proxy.passed[way].load(Ordering::Relaxed))
        }
    };

    // The number of bytes per direction without a fault.
    let [to_server, to_client] = run(0, Way::ToServer, usize::MAX).await;
    assert!(to_server > 300 && to_client > 200, "{to_server} {to_client}");
    let faults = (0..to_server).map(|n| (Way::ToServer, n)).chain((0..to_client).map(|n| (Way::ToClient, n)));
    let mut running = JoinSet::new();
    for (number, (way, after)) in faults.enumerate() {
        if running.len() == 64 {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(run(number + 1, way, after));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_client_is_cut_at_every_byte() {
    at_every_byte(Fault::Cut, client).await;
}

#[tokio::test]
async fn a_client_is_stalled_at_every_byte() {
    at_every_byte(Fault::Stall, client).await;
}

#[tokio::test]
async fn a_client_is_black_holed_at_every_byte() {
    at_every_byte(Fault::BlackHole, client).await;
}

#[tokio::test]
async fn a_consumer_is_cut_at_every_byte() {
    at_every_byte(Fault::Cut, consumer).await;
}

#[tokio::test]
async fn a_consumer_is_stalled_at_every_byte() {
    at_every_byte(Fault::Stall, consumer).await;
}

#[tokio::test]
async fn a_consumer_is_black_holed_at_every_byte() {
    at_every_byte(Fault::BlackHole, consumer).await;
}
