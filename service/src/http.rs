//! A small HTTP server with bounded memory and bounded time per client.
//!
//! `tiny_http::Server` starts a thread for every connection, reads request heads of any size for
//! any time, and stops accepting after the first failed `accept`. Its public API offers no way to
//! limit that. This module therefore accepts connections and reads requests itself, on one thread,
//! with limits on their number, size and duration. `tiny_http` only encodes the responses.

use std::collections::VecDeque;
use std::io::{self, Cursor};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};
use tiny_http::{HTTPVersion, Header, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Maximum number of open connections. One more closes the oldest, so idle connections cannot block
/// new requests.
const CONNECTIONS: usize = 64;
/// Maximum size of a request head.
const HEAD: usize = 8 * 1024;
/// Maximum time from accepting a connection to its complete head.
const READ_TIME: Duration = Duration::from_secs(5);
/// Maximum time for the client to read the response.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Maximum time for the client to close its side afterwards. Closing earlier, with unread bytes of
/// the client, would reset the connection and could lose the response.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// Delay after a failed `accept` (for example, out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The parts of a request head that the pages need.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    /// Without the query.
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
    /// Its `Content-Security-Policy`.
    policy: &'static str,
}

/// The policy of a response that is not an HTML page: it allows nothing.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

impl Answer {
    pub(crate) const fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, policy: NO_PAGE }
    }

    /// Sets the `Content-Security-Policy` of an HTML page.
    pub(crate) const fn with_policy(mut self, policy: &'static str) -> Self {
        self.policy = policy;
        self
    }

    fn refused(status: u16, reason: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{reason}\n"))
    }
}

/// The pages that a server serves. Implementations must not block.
pub(crate) trait Pages: Send + Sync + 'static {
    fn answer(&self, head: &Head<'_>) -> Answer;
}

/// A bound listener that does not serve yet.
pub(crate) struct Http {
    listener: TcpListener,
}

impl Http {
    /// Binds the first usable address; port 0 picks a free port.
    pub(crate) fn bind(addrs: &[SocketAddr]) -> io::Result<Self> {
        let listener = TcpListener::bind(addrs)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// The bound address, with the port that was picked.
    pub(crate) fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped. Needs a tokio runtime with I/O and time.
    pub(crate) async fn serve(self, pages: Arc<impl Pages>) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let mut open: VecDeque<JoinHandle<()>> = VecDeque::with_capacity(CONNECTIONS);
        let mut refused = false;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    refused = false;
                    open.retain(|connection| !connection.is_finished());
                    if open.len() == CONNECTIONS
                        && let Some(oldest) = open.pop_front()
                    {
                        oldest.abort();
                    }
                    let pages = Arc::clone(&pages);
                    open.push_back(tokio::spawn(async move {
                        if let Err(error) = converse(stream, &*pages).await {
                            debug!("http: {error}");
                        }
                    }));
                    // Let the new connection run once before the next `accept`: a request that has
                    // already arrived gets its response however many clients connect.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    if !refused {
                        warn!("http: no connection can be accepted: {error}");
                    }
                    refused = true;
                    // Closing the oldest connection frees a descriptor.
                    if let Some(oldest) = open.pop_front() {
                        oldest.abort();
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves one request.
async fn converse(mut stream: TcpStream, pages: &impl Pages) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1024);
    let read = tokio::time::timeout(READ_TIME, read_head(&mut stream, &mut buffer)).await;
    let (answer, with_body) = match read {
        Ok(Ok(true)) => match parse(&buffer) {
            Some(head) => (pages.answer(&head), head.method != "HEAD"),
            None => (Answer::refused(400, "this is not an HTTP/1 request"), true),
        },
        Ok(Ok(false)) if buffer.len() < HEAD => return Ok(()),
        Ok(Ok(false)) => (Answer::refused(431, "the head of the request is too large"), true),
        Ok(Err(error)) => return Err(error),
        Err(_) => (Answer::refused(408, "the request takes too long"), true),
    };
    drop(buffer);
    let response = encode(answer, with_body)?;
    tokio::time::timeout(WRITE_TIME, async {
        stream.write_all(&response).await?;
        stream.shutdown().await
    })
    .await??;
    drop(response);
    let mut rest = [0; 1024];
    let linger = async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
    let _ = tokio::time::timeout(LINGER_TIME, linger).await;
    Ok(())
}

/// Reads up to the first empty line. Returns `false` if the client closed the connection first, or
/// if the head exceeds [`HEAD`] bytes.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let searched = buffer.len().saturating_sub(3);
        let room = HEAD.saturating_sub(buffer.len());
        if room == 0 || stream.take(room as u64).read_buf(buffer).await? == 0 {
            return Ok(false);
        }
        let new = buffer.get(searched..).unwrap_or_default();
        if new.windows(4).any(|end| end == b"\r\n\r\n") || new.windows(2).any(|end| end == b"\n\n") {
            return Ok(true);
        }
    }
}

/// Method and path of an HTTP/1 request.
fn parse(head: &[u8]) -> Option<Head<'_>> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let line = str::from_utf8(line).ok()?.trim_end_matches('\r');
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let known = matches!(version, "HTTP/1.0" | "HTTP/1.1") && words.next().is_none();
    if !known || method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) || !target.starts_with('/')
    {
        return None;
    }
    let target = target.split('#').next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(Head { method, path, query })
}

/// Encodes the response. HTTP/1.0 tells the client that the connection closes afterwards.
fn encode(answer: Answer, with_body: bool) -> io::Result<Vec<u8>> {
    let header = |name: &str, value: &str| Header::from_bytes(name, value).map_err(|()| io::ErrorKind::InvalidData);
    let mut headers = vec![
        header("Content-Type", answer.content_type)?,
        header("Cache-Control", "no-store")?,
        header("Content-Security-Policy", answer.policy)?,
        header("X-Content-Type-Options", "nosniff")?,
        header("Referrer-Policy", "no-referrer")?,
    ];
    if answer.status == 405 {
        headers.push(header("Allow", "GET, HEAD")?);
    }
    let body = answer.body.into_bytes();
    let mut bytes = Vec::with_capacity(body.len().saturating_add(1024));
    let length = body.len();
    Response::new(StatusCode(answer.status), headers, Cursor::new(body), Some(length), None).raw_print(
        &mut bytes,
        HTTPVersion(1, 0),
        &[],
        !with_body,
        None,
    )?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
