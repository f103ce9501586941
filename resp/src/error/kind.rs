//! The categories of errors, and how error replies are classified.

/// What went wrong, in the categories that a program acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system or the peer broke the connection, or it could not be made.
    Io,
    /// A call took longer, or nothing moved for longer, than the configuration allows.
    Timeout,
    /// The connection was closed by an earlier error.
    Closed,
    /// The peer does not speak RESP, or exceeds a limit.
    Protocol,
    /// A reply is well-formed, but not of the shape that the command has.
    UnexpectedReply,
    /// The library was used wrongly: a reply was awaited that no command asked for.
    Usage,
    /// A URL or another setting is not valid: see [`ConfigError`].
    Config,
    /// TLS failed: its configuration, the handshake, or the server's consent to our certificate,
    /// which TLS 1.3 tells afterwards.
    Tls,
    /// `NOGROUP`: the stream or its consumer group does not exist.
    NoGroup,
    /// `BUSYGROUP`: the consumer group exists already.
    BusyGroup,
    /// `WRONGTYPE`: the key holds something else.
    WrongType,
    /// The key does not exist, and the command needs it.
    NoSuchKey,
    /// The ID is equal or smaller than the stream's last one.
    IdTooSmall,
    /// `OOM`: the server is over its `maxmemory`.
    Oom,
    /// `READONLY`: a replica refuses writes.
    ReadOnly,
    /// `LOADING`: the server reads its data from disk.
    Loading,
    /// `BUSY`: a script holds up the server.
    Busy,
    /// `MASTERDOWN`: a replica without its master.
    MasterDown,
    /// `MISCONF`: the server cannot persist, and refuses writes.
    MisConf,
    /// The server is no master (any more), though Sentinels name it as one: a failover is under
    /// way, or they have not noticed yet.
    NotMaster,
    /// No Sentinel knows a master of this name.
    UnknownMaster,
    /// `NOREPLICAS`: fewer good replicas than `min-replicas-to-write`.
    NoReplicas,
    /// The server has as many clients as it takes.
    MaxClients,
    /// `NOAUTH`: a password is needed.
    NoAuth,
    /// `WRONGPASS`: user or password is wrong.
    WrongPass,
    /// `NOPERM`: the user may not do this.
    NoPerm,
    /// `MOVED`: the slot lies on another node of the cluster.
    Moved,
    /// The server has no database of this number.
    NoSuchDatabase,
    /// `ASK`: the slot is on its way to another node of the cluster.
    Ask,
    /// `CLUSTERDOWN`: the cluster has no majority or misses slots.
    ClusterDown,
    /// `TRYAGAIN`: keys of one command lie on two nodes for the moment.
    TryAgain,
    /// `CROSSSLOT`: keys of one command lie in several slots.
    CrossSlot,
    /// `EXECABORT`: a command of the transaction was refused, so nothing was done.
    ExecAbort,
    /// The server began no transaction (`MULTI` was refused, or a command was not queued), so the
    /// commands may have been executed, one by one and not as a whole.
    NotAtomic,
    /// A key that the connection watched was changed, so nothing was done: read it again, and try
    /// again.
    WatchFailed,
    /// The server does not know the command or subcommand.
    UnknownCommand,
    /// The server does not know an option, or the arguments are not what it takes.
    Syntax,
    /// `NOPROTO`: the server does not speak this version of RESP.
    NoProto,
    /// Any other error reply: see [`Error::code`].
    Other,
}

impl ErrorKind {
    /// Whether the same attempt can succeed later without anybody changing the program or its
    /// configuration.
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

    /// Whether the connection cannot be used any more.
    #[must_use]
    pub const fn closes_connection(self) -> bool {
        matches!(self, Self::Io | Self::Timeout | Self::Closed | Self::Protocol | Self::Tls)
    }
}

/// Whether the server can have executed a command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Surely not: it never left this process as a whole.
    No,
    /// Perhaps: it was sent, and what became of it is known only from the error, if at all.
    Maybe,
}

/// The kind and the code of an error reply.
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
        "EXECABORT" => Kind::ExecAbort,
        "NOPROTO" => Kind::NoProto,
        _ => classify_text(text),
    };
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    (kind, if is_code { code } else { "ERR" })
}

/// Errors of the code `ERR` are told apart by their text. The texts are those of Redis 5 to 8 and
/// Valkey.
fn classify_text(text: &str) -> ErrorKind {
    let text = text.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    if has("equal or smaller than the target stream top item") || has("smaller than the target stream top item") {
        ErrorKind::IdTooSmall
    } else if has("no such key") || has("requires the key to exist") {
        ErrorKind::NoSuchKey
    } else if has("exec without multi") {
        ErrorKind::NotAtomic
    } else if has("unknown command") || has("unknown subcommand") {
        ErrorKind::UnknownCommand
    } else if has("syntax error")
        // What follows the options must be an ID, so an option that is not known is taken for one.
        || has("invalid stream id")
        || has("wrong number of arguments")
        || has("unsupported option")
        || has("unrecognized option")
        || has("unknown option")
        || has("unknown argument")
    {
        ErrorKind::Syntax
    } else if has("db index is out of range") || has("invalid db index") {
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
