//! Byte streams over TCP, TLS, Unix sockets, or what the user provides. [`Wire`](super::Wire) owns
//! one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::config::{Config, Endpoint, Io};
use crate::{Error, ErrorKind};

/// A byte stream to a server.
pub(super) enum Transport {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Other(Box<dyn Io>),
}

/// Connects to one server, without a timeout of its own.
pub(super) async fn connect(endpoint: &Endpoint, config: &Config) -> Result<Transport, Error> {
    if let Some(connector) = &config.connector {
        return Ok(Transport::Other(connector.connect(endpoint).await.map_err(Error::io)?));
    }
    match endpoint {
        Endpoint::Tcp { host, port } => Ok(Transport::Tcp(tcp(host, *port, config).await?)),
        #[cfg(feature = "tls")]
        Endpoint::Tls { host, port } => tls(host, *port, config).await,
        #[cfg(not(feature = "tls"))]
        Endpoint::Tls { .. } => {
            Err(Error::new(ErrorKind::Tls, "this build has no TLS: enable the cargo feature \"tls\""))
        }
        #[cfg(unix)]
        Endpoint::Unix { path } => Ok(Transport::Unix(UnixStream::connect(path).await.map_err(Error::io)?)),
        #[cfg(not(unix))]
        Endpoint::Unix { .. } => Err(Error::new(ErrorKind::Io, "this system has no Unix sockets")),
        Endpoint::Sentinel { .. } | Endpoint::Cluster { .. } => {
            Err(Error::new(ErrorKind::Usage, "the endpoint names several servers"))
        }
    }
}

async fn tcp(host: &str, port: u16, config: &Config) -> Result<TcpStream, Error> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(Error::io)?;
    let stream = super::happy_eyeballs::connect(addresses).await.map_err(Error::io)?;
    stream.set_nodelay(true).map_err(Error::io)?;
    if let Some(after) = config.keepalive {
        let keepalive = socket2::TcpKeepalive::new().with_time(after);
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd", windows))]
        let keepalive = keepalive.with_interval(after.checked_div(3).unwrap_or(after));
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive).map_err(Error::io)?;
        // Sent data must be acknowledged in the same time, or the link counts as dead.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket.set_tcp_user_timeout(Some(after.saturating_mul(2))).map_err(Error::io)?;
    }
    Ok(stream)
}

#[cfg(feature = "tls")]
async fn tls(host: &str, port: u16, config: &Config) -> Result<Transport, Error> {
    let tls = config.tls.clone();
    let name = tls.name(host)?;
    // Reading certificate files must not block other tasks.
    let tls = tokio::task::spawn_blocking(move || tls.build()).await.map_err(|error| Error::io(error.into()))??;
    let tcp = tcp(host, port, config).await?;
    match tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await {
        Ok(stream) => Ok(Transport::Tls(Box::new(stream))),
        Err(error) => Err(Error::io(error)),
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Tcp($stream) => $call,
            #[cfg(unix)]
            Transport::Unix($stream) => $call,
            #[cfg(feature = "tls")]
            Transport::Tls($stream) => $call,
            Transport::Other($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
