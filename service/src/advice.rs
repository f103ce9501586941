//! Advice: what a user can do about a fault, one phrase per kind of error.
//!
//! Messages, `/readyz` and `check` append it. `docs/messages.md` lists all of it.

use std::io;

use resp::ErrorKind;
use rustix::io::Errno;

pub(crate) use crate::reasons::{CERTIFICATES, NO_EVICTION, evicts, redis_url};
pub use crate::reasons::{listening, noun, reason};

/// Advice about an error from Redis or from the connection to it.
#[must_use]
pub const fn redis(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::WrongPass => "check the user and the password",
        ErrorKind::NoAuth => "set a password with --redis-password-file or in --redis-url",
        ErrorKind::NoPerm => "grant the user the permissions that streams need (ACL SETUSER)",
        ErrorKind::Protocol => "correct --redis-url: is it a Redis server, with TLS (rediss://) or without (redis://)?",
        ErrorKind::NotMaster => "wait until the failover ends, or check the Sentinels' log",
        ErrorKind::UnknownMaster => "correct the master's name in --redis-url, or let the Sentinels watch it",
        ErrorKind::Moved => "wait until the slot has moved; for a Redis Cluster, use redis-cluster:// in --redis-url",
        ErrorKind::WrongType => "choose another --stream, or delete the key",
        ErrorKind::Oom => "raise maxmemory, or start a writer to drain the stream",
        ErrorKind::MisConf => "check Redis' disk and log: it cannot save its data",
        ErrorKind::ReadOnly => "use the address of the primary",
        ErrorKind::NoReplicas => "start the replicas, or lower min-replicas-to-write",
        ErrorKind::Loading => "wait until Redis has loaded its data",
        ErrorKind::Busy => "stop the running script (SCRIPT KILL)",
        ErrorKind::MaxClients => "raise maxclients, or close other connections",
        ErrorKind::ClusterDown | ErrorKind::MasterDown => "start the missing nodes",
        ErrorKind::NoSuchDatabase => "correct the database in --redis-url",
        ErrorKind::NotAtomic => {
            "allow the user MULTI, EXEC, DISCARD and WATCH (ACL SETUSER), on a server that supports them"
        }
        ErrorKind::UnknownCommand => "use Redis 6.2 or later, or Valkey",
        ErrorKind::Tls => "correct ca=, cert= and key= in --redis-url, or the certificates",
        ErrorKind::Timeout => "check the network, and what blocks Redis (its log, SLOWLOG)",
        _ => "start Redis, check its log, or correct --redis-url",
    }
}

/// Advice about an I/O error on a file.
#[must_use]
pub fn io(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        return "correct the path: a symbolic link in it leads back to itself";
    }
    match error.kind() {
        io::ErrorKind::NotFound => "create it, or correct the path",
        io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput => "use a regular file",
        io::ErrorKind::InvalidFilename => "give a shorter path",
        io::ErrorKind::NotADirectory => "correct the path: a component of it is not a folder",
        io::ErrorKind::PermissionDenied => "allow the service's user to read and write it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => "free some space",
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing",
        _ => "check the disk and the kernel's log",
    }
}

/// Advice about an error on a file that is only read.
#[must_use]
pub fn reading(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "allow the service's user to read it, and to enter its folder",
        _ => io(error),
    }
}
