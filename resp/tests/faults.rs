//! A connection that breaks at every byte of a session, in each direction: no call hangs, no reply
//! goes to another command, and errors tell the truth. `links.rs` tests what reconnects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use resp::streams::{GroupFrom, XAck, XAdd, XGroupCreate, XLen, XPending, XReadGroup};
use resp::{Config, Connection, Error, ErrorKind, Frame, Sent, StreamId, cmd};
use support::Server;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The connection is gone.
    Cut,
    /// Nothing moves any more in the direction of the fault.
    Stall,
    /// Written bytes vanish, and nothing comes back.
    BlackHole,
}

/// A socket that passes a number of bytes in each direction.
struct Faulty {
    socket: UnixStream,
    fault: Fault,
    read_left: usize,
    write_left: usize,
    /// Counts what passed, to measure a session.
    passed: Arc<[AtomicUsize; 2]>,
}

impl Faulty {
    /// What happens at the limit.
    fn end<T>(&self) -> Poll<io::Result<T>> {
        match self.fault {
            Fault::Cut => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Fault::Stall | Fault::BlackHole => Poll::Pending,
        }
    }

    /// A black hole takes both directions.
    fn vanishes(&self) -> bool {
        matches!(self.fault, Fault::BlackHole) && (self.read_left == 0 || self.write_left == 0)
    }
}

impl AsyncRead for Faulty {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_left == 0 || self.vanishes() {
            return self.end();
        }
        let mut part = vec![0; buf.remaining().min(self.read_left)];
        let mut part = ReadBuf::new(&mut part);
        std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, &mut part))?;
        self.read_left -= part.filled().len();
        self.passed[0].fetch_add(part.filled().len(), Ordering::Relaxed);
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.vanishes() {
            return Poll::Ready(Ok(buf.len()));
        }
        if self.write_left == 0 {
            return self.end();
        }
        let part = &buf[..buf.len().min(self.write_left)];
        let n = std::task::ready!(Pin::new(&mut self.socket).poll_write(cx, part))?;
        self.write_left -= n;
        self.passed[1].fetch_add(n, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The result of each step, up to the failure.
#[derive(Debug, Default)]
struct Done {
    added: Option<Result<(), Error>>,
    read: Option<Result<(), Error>>,
    acknowledged: Option<Result<(), Error>>,
}

const ID: StreamId = StreamId::new(7, 1);

/// Adds, reads and acknowledges one entry over a faulty socket.
async fn session(config: &Config, socket: Faulty, key: &str) -> Done {
    let mut done = Done::default();
    let Ok(mut connection) = Connection::from_transport(socket, config).await else { return done };
    let unless_closed = |connection: &Connection, error: &Error| {
        assert!(error.closes_connection(), "{error}");
        assert!(connection.is_closed());
    };

    let added = connection.send(XAdd::new(key, ID, &[("line", key)])).await;
    done.added = Some(added.map(|id| assert_eq!(id, ID)));
    if let Some(Err(error)) = &done.added {
        unless_closed(&connection, error);
        // After an error, no later call hangs or succeeds.
        assert_eq!(connection.send(cmd::<Frame>("PING")).await.unwrap_err().kind(), ErrorKind::Closed);
        return done;
    }
    let read = connection.send(XReadGroup::new(key, "g", "c", GroupFrom::New)).await;
    done.read = Some(read.map(|read| {
        assert_eq!(read.ids().collect::<Vec<_>>(), [ID]);
        assert_eq!(read.entries().first().unwrap().field(b"line"), Some(key.as_bytes()));
    }));
    if let Some(Err(error)) = &done.read {
        unless_closed(&connection, error);
        return done;
    }
    let acknowledged = connection.send(XAck::new(key, "g", [ID])).await;
    done.acknowledged = Some(acknowledged.map(|count| assert_eq!(count, 1)));
    done
}

/// Compares what a step reports with the data in the server.
fn judge(step: &Option<Result<(), Error>>, happened: bool, what: &str) {
    match step {
        Some(Ok(())) => assert!(happened, "{what}: confirmed, but not done"),
        Some(Err(error)) if error.sent() == Sent::No => assert!(!happened, "{what}: done, though not sent: {error}"),
        Some(Err(_)) => {}
        None => assert!(!happened, "{what}: done, though never asked for"),
    }
}

async fn at_every_byte(fault: Fault, resp2: bool) {
    let server = Server::start();
    let config = server.config().resp2(resp2).command_timeout(Some(Duration::from_millis(60)));
    let config = config.connect_timeout(Duration::from_millis(60));
    let mut healthy = server.connect().await;
    let path = server.folder().join("redis.sock");

    // The number of bytes per direction without a fault.
    healthy.send(XGroupCreate::new("key-00000", "g", ID.previous().unwrap()).make_stream()).await.unwrap();
    let passed = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let socket = UnixStream::connect(&path).await.unwrap();
    let whole = Faulty { socket, fault, read_left: usize::MAX, write_left: usize::MAX, passed: Arc::clone(&passed) };
    let patient = config.clone().command_timeout(Some(Duration::from_secs(10)));
    let done = session(&patient.connect_timeout(Duration::from_secs(10)), whole, "key-00000").await;
    assert!(matches!(done.acknowledged, Some(Ok(()))), "{done:?}");
    let [read, written] = [0, 1].map(|way| passed[way].load(Ordering::Relaxed));

    let faults = (0..read).map(|n| (n, usize::MAX)).chain((0..written).map(|n| (usize::MAX, n)));
    let faults: Vec<_> = faults.enumerate().collect();
    for some in faults.chunks(50) {
        let sessions: Vec<_> = some
            .iter()
            .map(|&(number, (read_left, write_left))| {
                let (config, path, passed) = (config.clone(), path.clone(), Arc::clone(&passed));
                tokio::spawn(async move {
                    let key = format!("key-{:05}", number + 1);
                    // A connection for the setup, without faults.
                    let mut healthy = Connection::connect(&Config::new(resp::Endpoint::unix(&path))).await.unwrap();
                    let create = XGroupCreate::new(&key, "g", StreamId::ZERO).make_stream();
                    healthy.send(&create).await.unwrap();
                    let socket = UnixStream::connect(&path).await.unwrap();
                    let socket = Faulty { socket, fault, read_left, write_left, passed };
                    let done = tokio::time::timeout(Duration::from_secs(20), session(&config, socket, &key));
                    let done = done.await.unwrap_or_else(|_| panic!("hangs at {read_left} {write_left}"));
                    // This reply proves that the server has read everything before.
                    let added = healthy.send(XLen::new(&key)).await.unwrap() == 1;
                    let pending = healthy.send(XPending::new(&key, "g")).await.unwrap().count == 1;
                    let at = format!("{fault:?} after {read_left} read, {write_left} written");
                    judge(&done.added, added, &format!("XADD, {at}"));
                    if let Some(Err(error)) = &done.read
                        && error.sent() == Sent::No
                    {
                        assert!(!pending, "XREADGROUP, {at}");
                    }
                    judge(&done.acknowledged, matches!(done.read, Some(Ok(()))) && !pending, &format!("XACK, {at}"));
                    assert!(!matches!(done.acknowledged, Some(Ok(()))), "all done, {at}");
                })
            })
            .collect();
        for session in sessions {
            session.await.unwrap();
        }
    }
}

#[tokio::test]
async fn cut_at_every_byte() {
    at_every_byte(Fault::Cut, false).await;
}

#[tokio::test]
async fn cut_at_every_byte_of_resp2() {
    at_every_byte(Fault::Cut, true).await;
}

#[tokio::test]
async fn stalled_at_every_byte() {
    at_every_byte(Fault::Stall, false).await;
}

#[tokio::test]
async fn black_holed_at_every_byte() {
    at_every_byte(Fault::BlackHole, false).await;
}
