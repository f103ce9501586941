//! Connections that a user opens. The transport layer calls the [`Connector`] instead of the
//! network.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Endpoint;

/// A byte stream in both directions.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Opens connections instead of the library: see [`Config::connector`](super::Config::connector).
#[derive(Clone)]
pub(crate) struct Connector(Arc<dyn Fn(Endpoint) -> Connecting + Send + Sync>);

impl Connector {
    pub(super) fn new<F, C, T>(connect: F) -> Self
    where
        F: Fn(Endpoint) -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self(Arc::new(move |endpoint| {
            let connecting = connect(endpoint);
            Box::pin(async move {
                let io: Box<dyn Io> = Box::new(connecting.await?);
                Ok(io)
            })
        }))
    }

    pub(crate) async fn connect(&self, server: &Endpoint) -> io::Result<Box<dyn Io>> {
        (self.0)(server.clone()).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
