//! Tests with real sockets, and with well-behaved and hostile clients.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

/// Larger than the socket buffers, so that a client that does not read blocks the server.
const LARGE: usize = 8 << 20;
/// A test that takes longer than this fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixed;

impl Pages for Fixed {
    fn answer(&self, head: &Head<'_>) -> Answer {
        match head.path {
            "/healthz" => Answer::new(200, "text/plain", "ok\n".to_owned()),
            "/large" => Answer::new(200, "text/plain", "x".repeat(LARGE)),
            _ => Answer::new(404, "text/plain", "no\n".to_owned()),
        }
    }
}

fn server() -> SocketAddr {
    let http = Http::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let addr = http.addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(http.serve(Arc::new(Fixed)))
    });
    addr
}

fn open(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes, and returns the whole response.
fn ask(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = open(addr);
    // The server may close the connection before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8(said).unwrap()
}

fn healthy(addr: SocketAddr) {
    let said = ask(addr, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(said.starts_with("HTTP/1.0 200 OK\r\n") && said.ends_with("\r\n\r\nok\n"), "{said:?}");
}

/// Whether the server still holds this connection: it waits for the rest of the request, or for the
/// client to read.
fn is_held(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let (mut buffer, mut len) = (vec![0; 1 << 16], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return len >= LARGE,
            Ok(read) => len += read,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn answers_are_complete() {
    let addr = server();
    healthy(addr);
    let head = ask(addr, b"HEAD /healthz HTTP/1.1\r\n\r\n");
    assert!(head.contains("Content-Length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head:?}");
    assert!(ask(addr, b"GET /no HTTP/1.0\n\n").starts_with("HTTP/1.0 404"));
    assert!(ask(addr, b"GET /healthz?a=b HTTP/1.1\r\n\r\n").starts_with("HTTP/1.0 200"));
    let large = ask(addr, b"GET /large HTTP/1.1\r\n\r\n");
    assert_eq!(large.split_once("\r\n\r\n").unwrap().1.len(), LARGE);
}

#[test]
fn incomplete_requests_do_not_block_others() {
    let addr = server();
    let held: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = open(addr);
            // The server may have closed older connections already.
            let _ = stream.write_all(b"GET /healthz HTT");
            stream
        })
        .collect();
    healthy(addr);
    // The response came while these clients were connected, not after their timeout.
    assert!(is_held(held.last().unwrap()));
    // The server closed the oldest connection long before its timeout: the read fails or ends, and
    // does not time out.
    let mut first = &held[0];
    let ended = match first.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    };
    assert!(ended);
}

#[test]
fn clients_that_never_read_do_not_block_others() {
    let addr = server();
    let held: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = open(addr);
            let _ = stream.write_all(b"GET /large HTTP/1.1\r\n\r\n");
            stream
        })
        .collect();
    healthy(addr);
    // The response came while these clients were connected, not after their timeout.
    assert!(is_held(held.last().unwrap()));
}

#[test]
fn an_endless_head_is_refused() {
    let addr = server();
    let mut request = b"GET /healthz HTTP/1.1\r\n".to_vec();
    request.resize(10 << 20, b'x');
    let mut stream = open(addr);
    // The server stops reading long before the end, so this fails, or blocks only while the
    // connection is open.
    let _ = stream.write_all(&request);
    let said = ask(addr, &request[..HEAD]);
    assert!(said.starts_with("HTTP/1.0 431"), "{said:?}");
    healthy(addr);
}

#[test]
fn a_slow_client_is_disconnected() {
    let addr = server();
    let mut stream = open(addr);
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let begun = Instant::now();
    let mut said = Vec::new();
    while begun.elapsed() < PATIENCE {
        let _ = stream.write_all(b"G");
        match (&stream).take(1024).read_to_end(&mut said) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    assert!(begun.elapsed() < READ_TIME + Duration::from_secs(5), "{:?}", begun.elapsed());
    let said = String::from_utf8_lossy(&said);
    assert!(said.is_empty() || said.starts_with("HTTP/1.0 408"), "{said:?}");
}

#[test]
fn garbage_is_refused() {
    let addr = server();
    for garbage in [
        &b"\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"\xff\xfe / HTTP/1.1\n\n",
        b"*1\r\n$4\r\nPING\r\n\r\n",
    ] {
        let said = ask(addr, garbage);
        assert!(said.starts_with("HTTP/1.0 400"), "{said:?}");
    }
    assert_eq!(ask(addr, b"GET /healthz"), "");
    healthy(addr);
}

#[test]
fn the_number_of_threads_is_constant() {
    let threads = || std::fs::read_dir("/proc/self/task").map(Iterator::count).ok();
    let addr = server();
    healthy(addr);
    let before = threads();
    let _held: Vec<TcpStream> = (0..200).map(|_| open(addr)).collect();
    healthy(addr);
    // Other tests of this process start a thread each.
    if let (Some(before), Some(after)) = (before, threads()) {
        assert!(after < before + 50, "{before} → {after}");
    }
}
