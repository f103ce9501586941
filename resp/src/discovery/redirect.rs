//! Error replies of a cluster node that send a command elsewhere, or put it off. The cluster
//! client and the cluster discovery act on them.

use super::topology;
use crate::config::Endpoint;
use crate::{Error, Frame};

/// How many redirects in a row are followed before the cluster counts as inconsistent.
pub(crate) const MAX_REDIRECTS: u32 = 16;

/// What a node replies when it does not execute a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// The slot has moved to another node.
    Moved {
        /// The slot.
        slot: u16,
        /// The node that has it.
        to: Endpoint,
    },
    /// The slot is migrating. Only this command goes to the other node, after `ASKING`.
    Ask {
        /// The node that gets it.
        to: Endpoint,
    },
    /// The keys of the command are split between two nodes for now: retry later.
    TryAgain,
    /// The node cannot execute the command now: retry after a refresh of the topology.
    Down,
}

impl Redirect {
    /// Parses a reply of the node at `from`; `None` when the reply is no redirect.
    pub(crate) fn of(reply: &Frame, from: &Endpoint) -> Option<Self> {
        Self::parse(reply.value().as_error()?, from)
    }

    /// Parses an error that was built from such a reply.
    pub(crate) fn of_error(error: &Error, from: &Endpoint) -> Option<Self> {
        Self::parse(error.message().as_bytes(), from)
    }

    fn parse(error: &[u8], from: &Endpoint) -> Option<Self> {
        let mut words = std::str::from_utf8(error).ok()?.split(' ');
        match words.next()? {
            "MOVED" => {
                let slot = words.next()?.parse().ok()?;
                Some(Self::Moved { slot, to: address(words.next()?, from)? })
            }
            "ASK" => Some(Self::Ask { to: address(words.nth(1)?, from)? }),
            "TRYAGAIN" => Some(Self::TryAgain),
            "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "READONLY" => Some(Self::Down),
            _ => None,
        }
    }
}

/// Parses `host:port`. An IPv6 host has no brackets, and an unknown host is left empty.
fn address(text: &str, from: &Endpoint) -> Option<Endpoint> {
    let (host, port) = text.trim_end().rsplit_once(':')?;
    topology::address(Some(host), port.parse().ok()?, from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        let from = Endpoint::tcp("me", 1);
        let parse = |text: &str| Redirect::parse(text.as_bytes(), &from);
        let moved = |slot, to| Some(Redirect::Moved { slot, to });
        assert_eq!(parse("MOVED 3999 127.0.0.1:6381"), moved(3999, Endpoint::tcp("127.0.0.1", 6381)));
        assert_eq!(parse("MOVED 3999 :6381"), moved(3999, Endpoint::tcp("me", 6381)));
        assert_eq!(parse("MOVED 1 ::1:6381"), moved(1, Endpoint::tcp("::1", 6381)));
        assert_eq!(parse("ASK 3999 h:7"), Some(Redirect::Ask { to: Endpoint::tcp("h", 7) }));
        assert_eq!(parse("TRYAGAIN Multiple keys request during rehashing of slot"), Some(Redirect::TryAgain));
        for down in [
            "CLUSTERDOWN Hash slot not served",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down",
            "READONLY You can't write against a read only replica.",
        ] {
            assert_eq!(parse(down), Some(Redirect::Down), "{down}");
        }
        for answer in
            ["ERR MOVED 1 h:1", "MOVED", "MOVED x h:1", "MOVED 1 h", "MOVED 1 h:0", "ASK 1", "ASK 1 h:99999", ""]
        {
            assert_eq!(parse(answer), None, "{answer}");
        }
        let tls = Redirect::parse(b"MOVED 1 h:2", &Endpoint::tls("me", 1));
        assert_eq!(tls, moved(1, Endpoint::tls("h", 2)), "a connection with TLS is followed by one with TLS");
    }
}
