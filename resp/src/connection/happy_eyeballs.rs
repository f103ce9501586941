//! Connecting to a host with several addresses: Happy Eyeballs, RFC 8305.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long one address is tried alone before the next attempt starts: the minimum that the RFC
/// recommends.
const HEAD_START: Duration = Duration::from_millis(100);

/// Connects to the address that answers first. Each attempt has a head start over the next, and one
/// that is refused is followed by the next at once.
pub(super) async fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = interleaved(addresses);
    // Dropping the set cancels the other attempts.
    let mut running = JoinSet::new();
    let mut first_error = None;
    loop {
        if let Some(address) = waiting.pop_front() {
            running.spawn(TcpStream::connect(address));
        }
        let done = match waiting.is_empty() {
            true => running.join_next().await,
            false => match tokio::time::timeout(HEAD_START, running.join_next()).await {
                Ok(done) => done,
                Err(_) => continue,
            },
        };
        let error = match done {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => error.into(),
            None => {
                let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
                return Err(first_error.unwrap_or_else(none));
            }
        };
        first_error.get_or_insert(error);
    }
}

/// Keeps the resolver's order but alternates between IPv6 and IPv4, so that a broken family costs
/// one head start.
fn interleaved(addresses: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let all: Vec<_> = addresses.collect();
    let is_first_family = |address: &SocketAddr| all.first().is_some_and(|first| first.is_ipv6() == address.is_ipv6());
    let (first, second): (Vec<_>, Vec<_>) = all.iter().partition(|address| is_first_family(address));
    let mut second = second.into_iter();
    let mut turns = VecDeque::with_capacity(all.len());
    for address in first {
        turns.push_back(address);
        turns.extend(second.next());
    }
    turns.extend(second);
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::net::{TcpListener, TcpSocket};

    /// Returns an address that accepts no connections, because its backlog is full. The second
    /// value keeps it so.
    async fn black_hole() -> (SocketAddr, impl Drop) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = socket.listen(1).unwrap();
        let mut held = Vec::new();
        // A connection that is not established within this time is stuck in the backlog.
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
            held.push(stream.unwrap());
        }
        struct Held(#[expect(dead_code, reason = "it is held")] (TcpListener, Vec<TcpStream>));
        impl Drop for Held {
            fn drop(&mut self) {}
        }
        (address, Held((listener, held)))
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_costs_its_head_start() {
        let (dead, _held) = black_hole().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let begun = Instant::now();
        let stream = connect([dead, alive].into_iter()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_at_once() {
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let addresses = std::iter::repeat_n(refusing, 50).chain([alive]);
        let begun = Instant::now();
        assert_eq!(connect(addresses).await.unwrap().peer_addr().unwrap(), alive);
        assert!(begun.elapsed() < HEAD_START * 10, "{:?}", begun.elapsed());
        let error = connect([refusing, refusing].into_iter()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect(std::iter::empty()).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn address_families_alternate() {
        let order = |addresses: &[&str]| -> Vec<String> {
            let addresses = addresses.iter().map(|address| address.parse().unwrap());
            interleaved(addresses).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            order(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]),
            ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]
        );
        assert_eq!(order(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]), ["1.1.1.1:1", "[::1]:1", "[::2]:1"]);
        assert!(order(&[]).is_empty());
    }
}
