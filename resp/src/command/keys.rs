//! The positions of keys in an untyped command, by its name. [`Cmd`](super::Cmd) uses it for
//! routing.

use super::Routing;

/// How to find the keys of a command.
enum Keys {
    /// No key, and all nodes answer alike.
    None,
    /// No key, and the command is about one node.
    OneNode,
    /// The argument at this index.
    At(usize),
    /// This many arguments, from this index.
    Some(usize, usize),
    /// Every n-th argument, from this index to the end.
    Every(usize, usize),
    /// The argument at this index is the number of keys that follow; another key may come before
    /// it.
    Counted(Option<usize>, usize),
    /// The first half of the arguments after `STREAMS`.
    Streams,
}

/// Returns the routing of a command, given its words with the name first.
pub(super) fn routing<'a>(words: impl Iterator<Item = &'a [u8]>) -> Routing {
    let words: Vec<&[u8]> = words.collect();
    let name = |at: usize| String::from_utf8_lossy(words.get(at).copied().unwrap_or_default()).to_ascii_uppercase();
    let of = |keys: &mut dyn Iterator<Item = &&'a [u8]>| Routing::of_keys(keys);
    match keys(&name(0), &name(1)) {
        Keys::None => Routing::Anywhere,
        Keys::OneNode => Routing::OneNode,
        Keys::At(at) => of(&mut words.iter().skip(at).take(1)),
        Keys::Some(at, count) => of(&mut words.iter().skip(at).take(count)),
        Keys::Every(at, step) => of(&mut words.iter().skip(at).step_by(step)),
        Keys::Counted(before, at) => {
            let count = name(at).parse().unwrap_or(0);
            let before = before.and_then(|before| words.get(before));
            of(&mut before.into_iter().chain(words.iter().skip(at.saturating_add(1)).take(count)))
        }
        Keys::Streams => {
            let behind = words
                .iter()
                .position(|word| word.eq_ignore_ascii_case(b"STREAMS"))
                .map_or(words.len(), |at| at.saturating_add(1));
            let streams = words.get(behind..).unwrap_or_default();
            of(&mut streams.iter().take(streams.len() / 2))
        }
    }
}

fn keys(name: &str, second: &str) -> Keys {
    match name {
        "AUTH" | "COMMAND" | "DISCARD" | "ECHO" | "EXEC" | "HELLO" | "LOLWUT" | "MULTI" | "PING" | "PUBLISH"
        | "TIME" | "UNWATCH" => Keys::None,
        "CLUSTER" if matches!(second, "INFO" | "KEYSLOT" | "NODES" | "SHARDS" | "SLOTS") => Keys::None,
        "ACL" | "ASKING" | "BGREWRITEAOF" | "BGSAVE" | "CLIENT" | "CLUSTER" | "COMMANDLOG" | "CONFIG" | "DBSIZE"
        | "DEBUG" | "FAILOVER" | "FLUSHALL" | "FLUSHDB" | "FUNCTION" | "INFO" | "KEYS" | "LASTSAVE" | "LATENCY"
        | "MODULE" | "MONITOR" | "PSYNC" | "PUBSUB" | "QUIT" | "RANDOMKEY" | "READONLY" | "READWRITE" | "REPLCONF"
        | "REPLICAOF" | "RESET" | "ROLE" | "SAVE" | "SCAN" | "SCRIPT" | "SENTINEL" | "SHUTDOWN" | "SLAVEOF"
        | "SLOWLOG" | "SWAPDB" | "SYNC" | "WAIT" | "WAITAOF" => Keys::OneNode,
        "DEL" | "UNLINK" | "EXISTS" | "TOUCH" | "MGET" | "WATCH" | "PFCOUNT" | "PFMERGE" | "SDIFF" | "SDIFFSTORE"
        | "SINTER" | "SINTERSTORE" | "SUNION" | "SUNIONSTORE" => Keys::Every(1, 1),
        "MSET" | "MSETNX" => Keys::Every(1, 2),
        "COPY" | "GEOSEARCHSTORE" | "LCS" | "LMOVE" | "RENAME" | "RENAMENX" | "RPOPLPUSH" | "SMOVE" | "ZRANGESTORE" => {
            Keys::Some(1, 2)
        }
        "BITOP" => Keys::Every(2, 1),
        "EVAL" | "EVALSHA" | "EVAL_RO" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" => Keys::Counted(None, 2),
        "LMPOP" | "SINTERCARD" | "ZDIFF" | "ZINTER" | "ZINTERCARD" | "ZMPOP" | "ZUNION" => Keys::Counted(None, 1),
        "ZDIFFSTORE" | "ZINTERSTORE" | "ZUNIONSTORE" => Keys::Counted(Some(1), 2),
        "XREAD" | "XREADGROUP" => Keys::Streams,
        "MEMORY" if second != "USAGE" => Keys::OneNode,
        "XINFO" | "XGROUP" | "OBJECT" | "MEMORY" => Keys::At(2),
        _ => Keys::At(1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::slot;
    use super::*;

    #[test]
    fn keys_are_found() {
        let routing = |text: &str| super::routing(text.split(' ').map(str::as_bytes));
        for (command, key) in [
            ("GET a", "a"),
            ("get a", "a"),
            ("XADD a * f v", "a"),
            ("XINFO STREAM a", "a"),
            ("XREADGROUP GROUP g c COUNT 5 STREAMS a >", "a"),
            ("xread streams {a}1 {a}2 0 0", "a"),
            ("EVAL script 2 {a}1 {a}2 b", "a"),
            ("MSET {a}1 b {a}2 c", "a"),
            ("DEL {a}1 {a}2", "a"),
            ("ZUNIONSTORE {a}1 2 {a}2 {a}3 WEIGHTS 1 2", "a"),
            ("MEMORY USAGE a", "a"),
            ("SOMETHING.NEW a b", "a"),
        ] {
            assert_eq!(routing(command), Routing::Slot(slot(key.as_bytes())), "{command}");
        }
        for command in ["PING", "CLUSTER SHARDS", "cluster nodes", "EVAL script 0 a", "XREAD", ""] {
            assert_eq!(routing(command), Routing::Anywhere, "{command}");
        }
        for command in [
            "SCAN 0",
            "scan 0",
            "KEYS *",
            "DBSIZE",
            "INFO",
            "CONFIG GET a",
            "CLIENT TRACKING ON",
            "CLUSTER FAILOVER",
            "CLUSTER MYID",
            "MEMORY DOCTOR",
            "SCRIPT LOAD x",
            "FLUSHALL",
            "COMMANDLOG GET 1",
            "ROLE",
        ] {
            assert_eq!(routing(command), Routing::OneNode, "{command}");
        }
        for command in ["DEL a b", "RENAME a b", "XREAD STREAMS a b 0 0", "MSET a 1 b 2", "ZINTERSTORE a 1 b"] {
            assert_eq!(routing(command), Routing::CrossSlot, "{command}");
        }
    }
}
