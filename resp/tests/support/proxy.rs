//! A proxy whose first connection fails after a number of bytes. Later connections do not fail.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// What happens at the limit of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection closes.
    Cut,
    /// This direction stalls.
    Stall,
    /// Both directions accept bytes that never arrive.
    BlackHole,
}

/// A direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

pub(crate) struct Proxy {
    pub(crate) path: PathBuf,
    /// Bytes that passed on the first connection, by [`Way`].
    pub(crate) passed: Arc<[AtomicUsize; 2]>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Listens at `path`, in front of the server at `server`.
    pub(crate) fn start(path: PathBuf, server: &Path, fault: Fault, way: Way, after: usize) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let passed = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let mut serving = JoinSet::new();
        let (server, counts) = (server.to_owned(), Arc::clone(&passed));
        serving.spawn(async move {
            let mut links = JoinSet::new();
            for number in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                let server = UnixStream::connect(&server).await.unwrap();
                let counts = Arc::clone(&counts);
                let left = |this| if number == 0 && this == way { after } else { usize::MAX };
                let (to_server, to_client) = (left(Way::ToServer), left(Way::ToClient));
                links.spawn(async move {
                    let hole = AtomicBool::new(false);
                    let (from_client, into_client) = client.into_split();
                    let (from_server, into_server) = server.into_split();
                    let pass = Pass { fault, hole: &hole };
                    let [server_count, client_count] = &*counts;
                    let count = |counter| (number == 0).then_some(counter);
                    tokio::select! {
                        () = pass.on(from_client, into_server, to_server, count(server_count)) => {}
                        () = pass.on(from_server, into_client, to_client, count(client_count)) => {}
                    }
                });
            }
        });
        Self { path, passed, _serving: serving }
    }
}

#[derive(Clone, Copy)]
struct Pass<'a> {
    fault: Fault,
    hole: &'a AtomicBool,
}

impl Pass<'_> {
    /// Forwards bytes until the connection ends.
    async fn on(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut left: usize, count: Option<&AtomicUsize>) {
        let mut buf = vec![0; 16 << 10];
        loop {
            if left == 0 {
                match self.fault {
                    Fault::Cut => return,
                    Fault::Stall => pending().await,
                    Fault::BlackHole => self.hole.store(true, Ordering::Relaxed),
                }
            }
            let Ok(len @ 1..) = from.read(&mut buf).await else { return };
            if self.hole.load(Ordering::Relaxed) {
                continue;
            }
            let len = len.min(left);
            if to.write_all(&buf[..len]).await.is_err() {
                return;
            }
            left -= len;
            if let Some(count) = count {
                count.fetch_add(len, Ordering::Relaxed);
            }
        }
    }
}
