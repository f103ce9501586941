//! The categories of errors, and how error replies are classified.

/// The category of an error, for programs to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection was broken by the operating system or the peer, or could not be made.
    Io,
    /// A call took longer, or no byte moved for longer, than the configuration allows.
    Timeout,
    /// An earlier error closed the connection.
    Closed,
    /// The peer does not send valid RESP, or exceeds a limit.
    Protocol,
    /// The reply does not have the shape that the command expects.
    UnexpectedReply,
    /// The library was used incorrectly, for example receiving a reply that no command requested.
    Usage,
    /// A URL or another setting is invalid: see [`ConfigError`](super::ConfigError).
    Config,
    /// TLS failed: the configuration, the handshake, or the server's check of the client
    /// certificate, which TLS 1.3 reports after the handshake.
    Tls,
    /// `NOGROUP`: the stream or its consumer group does not exist.
    NoGroup,
    /// `BUSYGROUP`: the consumer group already exists.
    BusyGroup,
    /// `WRONGTYPE`: the key has another type.
    WrongType,
    /// The key does not exist, but the command needs it.
    NoSuchKey,
    /// The ID is not larger than the stream's last ID.
    IdTooSmall,
    /// `OOM`: the server exceeds its `maxmemory`.
    Oom,
    /// `READONLY`: a replica refuses writes.
    ReadOnly,
    /// `LOADING`: the server is loading its data.
    Loading,
    /// `BUSY`: a script blocks the server.
    Busy,
    /// `MASTERDOWN`: a replica has lost its master.
    MasterDown,
    /// `MISCONF`: the server cannot persist data, and refuses writes.
    MisConf,
    /// The server is not a master, though a Sentinel names it as one, or it became a replica while
    /// a command blocked: a failover is in progress.
    NotMaster,
    /// No Sentinel knows a master of this name.
    UnknownMaster,
    /// `NOREPLICAS`: there are fewer healthy replicas than `min-replicas-to-write`.
    NoReplicas,
    /// The server has reached its maximum number of clients.
    MaxClients,
    /// `NOAUTH`: a password is required.
    NoAuth,
    /// `WRONGPASS`: the user or password is wrong.
    WrongPass,
    /// `NOPERM`: the ACL forbids the command.
    NoPerm,
    /// `MOVED`: another node owns the slot.
    Moved,
    /// The database number is out of range.
    NoSuchDatabase,
    /// `ASK`: the slot is migrating to another node.
    Ask,
    /// `CLUSTERDOWN`: the cluster has no majority, or slots are not served.
    ClusterDown,
    /// `TRYAGAIN`: the keys of the command are split between two nodes during a migration.
    TryAgain,
    /// `CROSSSLOT`: the keys of the command are in different slots.
    CrossSlot,
    /// `EXECABORT`: a command of the transaction was refused, so nothing was executed. If the
    /// server refused `EXEC` itself, the kind is that of the reason, such as [`Busy`](Self::Busy).
    ExecAbort,
    /// The server began no transaction (`MULTI` was refused, or a command was not queued), so it
    /// may have executed the commands one by one.
    NotAtomic,
    /// A watched key changed, so nothing was executed: read it again, then retry.
    WatchFailed,
    /// The server does not know the command or subcommand.
    UnknownCommand,
    /// The server does not know an option, or the arguments are invalid.
    Syntax,
    /// `NOPROTO`: the server does not support this RESP version.
    NoProto,
    /// Any other error reply: see [`Error::code`](super::Error::code).
    Other,
}

impl ErrorKind {
    /// Returns whether a retry can succeed without a change of the program or its configuration.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Io
                | Self::Timeout
                | Self::Closed
                | Self::Oom
                | Self::ReadOnly
                | Self::Loading
                | Self::Busy
                | Self::MasterDown
                | Self::MisConf
                | Self::NotMaster
                | Self::NoReplicas
                | Self::MaxClients
                | Self::ClusterDown
                | Self::Ask
                | Self::TryAgain
                | Self::WatchFailed
        )
    }

    /// Returns whether the connection is unusable after this error.
    #[must_use]
    pub const fn closes_connection(self) -> bool {
        matches!(self, Self::Io | Self::Timeout | Self::Closed | Self::Protocol | Self::Tls)
    }
}

/// Whether the server may have executed a failed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// It was not: the command never left this process completely.
    No,
    /// It may have been: the command was sent. Only the error tells more, if at all.
    Maybe,
}

/// Returns the kind and the code of an error reply.
pub(super) fn classify(text: &str) -> (ErrorKind, &str) {
    use ErrorKind as Kind;
    let code = text.split(' ').next().unwrap_or_default();
    let kind = match code {
        "NOGROUP" => Kind::NoGroup,
        "BUSYGROUP" => Kind::BusyGroup,
        "WRONGTYPE" => Kind::WrongType,
        "OOM" => Kind::Oom,
        "READONLY" => Kind::ReadOnly,
        "LOADING" => Kind::Loading,
        "BUSY" => Kind::Busy,
        "MASTERDOWN" => Kind::MasterDown,
        "MISCONF" => Kind::MisConf,
        "NOREPLICAS" => Kind::NoReplicas,
        "NOAUTH" => Kind::NoAuth,
        "WRONGPASS" => Kind::WrongPass,
        "NOPERM" => Kind::NoPerm,
        "MOVED" => Kind::Moved,
        "ASK" => Kind::Ask,
        "CLUSTERDOWN" => Kind::ClusterDown,
        "TRYAGAIN" => Kind::TryAgain,
        "CROSSSLOT" => Kind::CrossSlot,
        // The server refused EXEC itself: the reason says whether a retry can help.
        "EXECABORT" => {
            text.split_once("because of: ").map_or(Kind::ExecAbort, |(_, reason)| match classify(reason).0 {
                Kind::Other => Kind::ExecAbort,
                reason => reason,
            })
        }
        "NOPROTO" => Kind::NoProto,
        _ => classify_text(text),
    };
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    (kind, if is_code { code } else { "ERR" })
}

/// Classifies errors of the codes `ERR` and `UNBLOCKED` by their text. The texts are those of Redis
/// 5 to 8 and Valkey.
fn classify_text(text: &str) -> ErrorKind {
    let text = text.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    if has("equal or smaller than the target stream top item") || has("smaller than the target stream top item") {
        ErrorKind::IdTooSmall
    } else if has("no such key") || has("requires the key to exist") || has("stream key no longer exists") {
        ErrorKind::NoSuchKey
    } else if has("unblock from blocking operation, instance state changed") {
        // The master became a replica while the command blocked.
        ErrorKind::NotMaster
    } else if has("exec without multi") {
        ErrorKind::NotAtomic
    } else if has("unknown command") || has("unknown subcommand") {
        ErrorKind::UnknownCommand
    } else if has("syntax error")
        // The argument after the options must be an ID, so an unknown option is reported as an
        // invalid ID.
        || has("invalid stream id")
        || has("wrong number of arguments")
        || has("unsupported option")
        || has("unrecognized option")
        || has("unknown option")
        || has("unknown argument")
    {
        ErrorKind::Syntax
    } else if has("db index is out of range") || has("invalid db index") || has("select is not allowed in cluster mode")
    {
        ErrorKind::NoSuchDatabase
    } else if has("max number of clients") {
        ErrorKind::MaxClients
    } else if has("invalid password") || has("without any password configured") || has("no password is set") {
        ErrorKind::WrongPass
    } else if has("operation not permitted") {
        ErrorKind::NoAuth
    } else {
        ErrorKind::Other
    }
}
