//! What a user can do about a fault, in words. `docs/messages.md` lists them.

use std::io;

use resp::ErrorKind;

/// What can be done about an error of Redis or of the connection to it.
#[must_use]
pub const fn redis(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::WrongPass => "give user and password that this Redis knows",
        ErrorKind::NoAuth => "give a password: --redis-password-file, or in --redis-url",
        ErrorKind::NoPerm => "give the user the rights that streams need (ACL SETUSER)",
        ErrorKind::Protocol => "is this the address of a Redis?",
        ErrorKind::NotMaster => "wait for the end of the failover, or look at the Sentinels' log",
        ErrorKind::UnknownMaster => "correct the master's name in --redis-url, or let the Sentinels watch it",
        ErrorKind::Moved => "wait for the end of the move; with a Redis Cluster, --redis-url is redis-cluster://",
        ErrorKind::WrongType => "choose another --stream, or delete the key",
        _ => "start Redis, look at its log, or correct --redis-url",
    }
}

/// What can be done about an error of a file.
#[must_use]
pub fn io(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create it, or correct the path",
        io::ErrorKind::PermissionDenied => "let the service's user read and write it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => "free some space",
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing",
        _ => "look at the disk and the kernel's log",
    }
}
