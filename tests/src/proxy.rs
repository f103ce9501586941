//! A TCP proxy that injects faults.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a blocked pump checks its state.
const LOOK: Duration = Duration::from_millis(5);

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to Redis.
    Requests,
    /// From Redis to the client.
    Replies,
}

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Forward,
    /// Keeps them until healed.
    Hold,
    /// Drops them.
    Swallow,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    flow: [Flow; 2],
    delay: Duration,
    refuse: bool,
    /// Hold requests from these bytes on.
    hold_before: Option<Vec<u8>>,
    /// Bytes until the connections are cut.
    budget: [Option<u64>; 2],
    /// Connections with a smaller number are half-open.
    dead_before: u64,
    open: Vec<Link>,
    accepted: u64,
    closed: bool,
}

#[derive(Debug)]
struct Link {
    id: u64,
    client: TcpStream,
    server: TcpStream,
}

/// A TCP proxy in front of Redis. It closes all connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// A proxy in front of a port of 127.0.0.1. Initially it forwards everything.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the proxy");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(Mutex::new(State {
            target: (Ipv4Addr::LOCALHOST, port).into(),
            flow: [Flow::Forward; 2],
            delay: Duration::ZERO,
            refuse: false,
            hold_before: None,
            budget: [None; 2],
            dead_before: 0,
            open: Vec::new(),
            accepted: 0,
            closed: false,
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = lock(&shared);
                if state.closed {
                    break;
                }
                let server = if state.refuse { None } else { TcpStream::connect(state.target).ok() };
                let Some(server) = server else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let id = state.accepted;
                state.accepted += 1;
                for (way, from, to) in [(Way::Requests, &client, &server), (Way::Replies, &server, &client)] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || pump(&shared, id, way, from, to));
                }
                state.open.push(Link { id, client, server });
            }
        });
        Self { addr, state }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Closes all connections. New ones work.
    pub fn cut(&self) {
        cut(&mut self.lock());
    }

    /// Closes all connections after this many more bytes in one direction.
    pub fn cut_after(&self, way: Way, bytes: u64) {
        self.lock().budget[way as usize] = Some(bytes);
    }

    /// Drops all bytes of old and new connections, without closing them.
    pub fn stall(&self) {
        self.lock().flow = [Flow::Hold; 2];
    }

    /// Forwards requests, and drops replies.
    pub fn drop_replies(&self) {
        self.lock().flow[Way::Replies as usize] = Flow::Swallow;
    }

    /// Forwards requests, and holds replies.
    pub fn hold_replies(&self) {
        self.lock().flow[Way::Replies as usize] = Flow::Hold;
    }

    /// Holds requests from the next one that begins with these bytes.
    pub fn hold_requests_before(&self, bytes: &[u8]) {
        self.lock().hold_before = Some(bytes.to_vec());
    }

    /// Whether requests are held.
    #[must_use]
    pub fn holds_requests(&self) -> bool {
        self.lock().flow[Way::Requests as usize] == Flow::Hold
    }

    /// Delays all data by this duration.
    pub fn delay(&self, by: Duration) {
        self.lock().delay = by;
    }

    /// Makes the open connections half-open; new ones work.
    pub fn half_open(&self) {
        let mut state = self.lock();
        state.dead_before = state.accepted;
    }

    /// Closes all connections, and refuses new ones.
    pub fn refuse(&self) {
        let mut state = self.lock();
        state.refuse = true;
        cut(&mut state);
    }

    /// Forwards new connections to another port of 127.0.0.1; closes the old ones.
    pub fn retarget(&self, port: u16) {
        let mut state = self.lock();
        state.target = (Ipv4Addr::LOCALHOST, port).into();
        cut(&mut state);
    }

    /// Ends all faults, and forwards held bytes.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.flow = [Flow::Forward; 2];
        state.delay = Duration::ZERO;
        state.budget = [None; 2];
        state.refuse = false;
        state.hold_before = None;
    }

    /// The number of accepted connections.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.lock().accepted
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.lock();
        state.closed = true;
        cut(&mut state);
        drop(state);
        // Wake the accepting thread.
        let _ = TcpStream::connect(self.addr);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut(state: &mut State) {
    for link in state.open.drain(..) {
        let _ = (link.client.shutdown(Shutdown::Both), link.server.shutdown(Shutdown::Both));
    }
}

/// Copies bytes in one direction until the connection ends.
fn pump(shared: &Mutex<State>, id: u64, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    let read = from.set_read_timeout(Some(LOOK));
    debug_assert!(read.is_ok(), "a timeout that is not zero");
    while let Some(flow) = flow(shared, id, way) {
        if flow == Flow::Hold {
            std::thread::sleep(LOOK);
            continue;
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => {
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        };
        std::thread::sleep(lock(shared).delay);
        let mut done = 0;
        if way == Way::Requests
            && let Some(at) = found_before(shared, &buffer[..count])
        {
            if to.write_all(&buffer[..at]).is_err() {
                return;
            }
            done = at;
        }
        // The fault may have changed since the read.
        let flow = loop {
            match self::flow(shared, id, way) {
                Some(Flow::Hold) => std::thread::sleep(LOOK),
                Some(flow) => break flow,
                None => return,
            }
        };
        if flow == Flow::Swallow {
            continue;
        }
        let (count, last) = spend(shared, way, count - done);
        let sent = to.write_all(&buffer[done..done + count]);
        if last {
            cut(&mut lock(shared));
        }
        if sent.is_err() || last {
            return;
        }
    }
}

/// What to do with the bytes of a connection; `None` if it is closed.
fn flow(shared: &Mutex<State>, id: u64, way: Way) -> Option<Flow> {
    let state = lock(shared);
    if !state.open.iter().any(|link| link.id == id) {
        None
    } else if id < state.dead_before {
        Some(Flow::Hold)
    } else {
        Some(state.flow[way as usize])
    }
}

/// The position of the bytes before which requests are held; from then on, they are held.
fn found_before(shared: &Mutex<State>, bytes: &[u8]) -> Option<usize> {
    let mut state = lock(shared);
    let wanted = state.hold_before.as_deref()?;
    let at = bytes.windows(wanted.len()).position(|window| window == wanted)?;
    state.hold_before = None;
    state.flow[Way::Requests as usize] = Flow::Hold;
    Some(at)
}

/// The number of bytes to forward, and whether to cut the connections afterwards.
fn spend(shared: &Mutex<State>, way: Way, count: usize) -> (usize, bool) {
    let mut state = lock(shared);
    let Some(budget) = &mut state.budget[way as usize] else { return (count, false) };
    if *budget > count as u64 {
        *budget -= count as u64;
        return (count, false);
    }
    let rest = usize::try_from(*budget).unwrap_or(count);
    state.budget[way as usize] = None;
    (rest, true)
}
