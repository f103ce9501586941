//! Advice: what a user can do about a fault, one phrase per kind of error.
//!
//! Messages, `/readyz` and `check` append it. `docs/messages.md` lists all of it.

use std::io;

use resp::ErrorKind;

pub(crate) use crate::reasons::{NO_EVICTION, evicts, redis_url};
pub use crate::reasons::{listening, noun, reason};

/// Advice about an error from Redis or from the connection to it.
#[must_use]
pub const fn redis(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::WrongPass => "give user and password that this Redis knows",
        ErrorKind::NoAuth => "give a password: --redis-password-file, or in --redis-url",
        ErrorKind::NoPerm => "give the user the rights that streams need (ACL SETUSER)",
        ErrorKind::Protocol => {
            "correct --redis-url: is this a Redis, and does it speak TLS (rediss://) or not (redis://)?"
        }
        ErrorKind::NotMaster => "wait for the end of the failover, or look at the Sentinels' log",
        ErrorKind::UnknownMaster => "correct the master's name in --redis-url, or let the Sentinels watch it",
        ErrorKind::Moved => "wait for the end of the move; with a Redis Cluster, --redis-url is redis-cluster://",
        ErrorKind::WrongType => "choose another --stream, or delete the key",
        ErrorKind::Oom => "raise maxmemory, or let writers take what waits",
        ErrorKind::MisConf => "look at Redis' disk and log, it cannot save its data",
        ErrorKind::ReadOnly => "use the address of the primary",
        ErrorKind::NoReplicas => "start the replicas, or lower min-replicas-to-write",
        ErrorKind::Loading => "wait until Redis has read its data",
        ErrorKind::Busy => "end what runs in Redis (SCRIPT KILL)",
        ErrorKind::MaxClients => "raise maxclients, or close connections of others",
        ErrorKind::ClusterDown | ErrorKind::MasterDown => "start the nodes that are missing",
        ErrorKind::NoSuchDatabase => "correct the database in --redis-url",
        ErrorKind::NotAtomic => {
            "let the user run MULTI, EXEC, DISCARD and WATCH (ACL SETUSER), on a server that has them"
        }
        ErrorKind::UnknownCommand => "use Redis 6.2 or later, or Valkey",
        ErrorKind::Tls => "correct ca=, cert= and key= in --redis-url, or the certificates",
        ErrorKind::Timeout => "look at the network, and at what holds Redis up (its log, SLOWLOG)",
        _ => "start Redis, look at its log, or correct --redis-url",
    }
}

/// Advice about an I/O error on a file.
#[must_use]
pub fn io(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create it, or correct the path",
        io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput => "a regular file must be there",
        io::ErrorKind::InvalidFilename => "give a shorter path",
        io::ErrorKind::NotADirectory => "correct the path, a part of it is not a folder",
        io::ErrorKind::PermissionDenied => "let the service's user read and write it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => "free some space",
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing",
        _ => "look at the disk and the kernel's log",
    }
}
