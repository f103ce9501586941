//! Addresses of servers, Sentinels and clusters, as discovery and transports use them.

use std::fmt;
use std::path::PathBuf;

/// The address of a server, or of the Sentinels or cluster nodes that know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// Plain TCP.
    Tcp {
        /// A host name or an IP address, IPv6 without brackets.
        host: String,
        /// The port, 6379 by convention.
        port: u16,
    },
    /// TLS over TCP. Needs the cargo feature `tls`.
    Tls {
        /// A host name or an IP address, IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
    /// The current master of a name that Sentinels monitor. Every new connection queries them, so a
    /// failover is followed, and verifies the server with `ROLE`, which the user's ACL must allow.
    ///
    /// A [`Client`](crate::Client) and a [`Consumer`](crate::Consumer) also keep a connection to
    /// each Sentinel, and leave the old master as soon as one announces another (`+switch-master`).
    /// If the Sentinels' ACL forbids the subscription, the client queries them once a second. A
    /// [`Connection`](crate::Connection) stays open: Sentinels close it when they demote a master
    /// that they can reach.
    Sentinel {
        /// The addresses of the Sentinels: each [`Endpoint::Tcp`] or [`Endpoint::Tls`].
        sentinels: Vec<Self>,
        /// The name of the master.
        master: String,
        /// Whether the master itself uses TLS.
        tls: bool,
    },
    /// A Redis Cluster: see [`ClusterClient`](crate::ClusterClient). A
    /// [`Connection`](crate::Connection) goes to the owner of the configuration's
    /// [key](crate::Config::for_key).
    Cluster {
        /// Some nodes, each [`Endpoint::Tcp`] or [`Endpoint::Tls`], from which the client learns
        /// the others.
        seeds: Vec<Self>,
        /// Whether the nodes use TLS.
        tls: bool,
    },
}

impl Endpoint {
    /// Plain TCP.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// TLS over TCP.
    #[must_use]
    pub fn tls(host: impl Into<String>, port: u16) -> Self {
        Self::Tls { host: host.into(), port }
    }

    /// A Unix socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix { path: path.into() }
    }

    /// The master of this name, discovered by Sentinels over plain TCP: see [`Endpoint::Sentinel`].
    #[must_use]
    pub fn sentinel(sentinels: impl IntoIterator<Item = (impl Into<String>, u16)>, master: impl Into<String>) -> Self {
        let sentinels = sentinels.into_iter().map(|(host, port)| Self::tcp(host, port)).collect();
        Self::Sentinel { sentinels, master: master.into(), tls: false }
    }

    /// A Redis Cluster over plain TCP, by some of its nodes: see [`Endpoint::Cluster`].
    #[must_use]
    pub fn cluster(seeds: impl IntoIterator<Item = (impl Into<String>, u16)>) -> Self {
        Self::Cluster { seeds: seeds.into_iter().map(|(host, port)| Self::tcp(host, port)).collect(), tls: false }
    }

    /// A server over TCP, with or without TLS.
    pub(crate) fn server(host: String, port: u16, tls: bool) -> Self {
        if tls { Self::Tls { host, port } } else { Self::Tcp { host, port } }
    }

    /// Returns whether connections to the server use TLS.
    pub(crate) const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls { .. } | Self::Sentinel { tls: true, .. } | Self::Cluster { tls: true, .. })
    }

    pub(super) fn authority(host: &str, port: u16) -> String {
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

fn list(f: &mut fmt::Formatter<'_>, endpoints: &[Endpoint]) -> fmt::Result {
    for (nth, endpoint) in endpoints.iter().enumerate() {
        if nth > 0 {
            f.write_str(",")?;
        }
        fmt::Display::fmt(endpoint, f)?;
    }
    Ok(())
}

/// `host:port`, the path, the Sentinels and the master's name (`host:port,host:port/master`), or
/// the cluster's seeds (`host:port,host:port`).
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } | Self::Tls { host, port } => f.write_str(&Self::authority(host, *port)),
            Self::Unix { path } => path.display().fmt(f),
            Self::Sentinel { sentinels, master, .. } => {
                list(f, sentinels)?;
                write!(f, "/{master}")
            }
            Self::Cluster { seeds, .. } => list(f, seeds),
        }
    }
}
