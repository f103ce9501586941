//! What a node of the cluster reports: the replies of `CLUSTER NODES`, `ROLE` and `CONFIG GET`.

use std::fmt;
use std::ops::RangeInclusive;

/// How many slots there are.
pub(crate) const SLOTS: usize = 16384;

/// What one of the configured nodes reported in a round.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The node as it is configured: `host:port`.
    pub(crate) seed: String,
    /// Its report, or why there is none.
    pub(crate) report: Result<Report, String>,
}

/// The report of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// The line of `CLUSTER NODES` about the node itself.
    pub(crate) own: Line,
    /// The lines about all other nodes.
    pub(crate) others: Vec<Line>,
    /// Where a replica fetches its data.
    pub(crate) source: Option<Source>,
    /// The machine that the node runs on, where it is known.
    pub(crate) machine: Option<String>,
}

/// A line of `CLUSTER NODES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) address: Address,
    pub(crate) flags: Vec<String>,
    /// The ID of its master; `None` for a master.
    pub(crate) master: Option<String>,
    pub(crate) is_connected: bool,
    pub(crate) slots: Vec<RangeInclusive<u16>>,
}

/// The address that a node announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) bus: u16,
}

/// Where a replica fetches its data, as `ROLE` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_connected: bool,
    /// How much of the replication stream the replica has.
    pub(crate) offset: i64,
}

impl Report {
    /// Reads the text of `CLUSTER NODES`; `None` when it is not one.
    pub(crate) fn parse(nodes: &str) -> Option<Self> {
        let (mut own, mut others) = (None, Vec::new());
        for line in nodes.lines().filter(|line| !line.is_empty()) {
            let line = Line::parse(line)?;
            if line.is("myself") {
                own = Some(line);
            } else {
                others.push(line);
            }
        }
        Some(Self { own: own?, others, source: None, machine: None })
    }

    /// All lines, the node's own one first.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &Line> {
        std::iter::once(&self.own).chain(&self.others)
    }

    /// The line about the node with this ID.
    pub(crate) fn line(&self, id: &str) -> Option<&Line> {
        self.lines().find(|line| line.id == id)
    }
}

impl Line {
    /// ID, `host:port@bus,hostname`, flags, master, two times, epoch, link, slots.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [id, address, flags, master, _, _, _, link, slots @ ..] = &words[..] else { return None };
        // A slot that is being moved stands in brackets: its owner lists it, too.
        let slots =
            slots.iter().filter(|slot| !slot.starts_with('[')).map(|slot| range(slot)).collect::<Option<_>>()?;
        Some(Self {
            id: (*id).to_owned(),
            address: Address::parse(address)?,
            flags: flags.split(',').map(str::to_owned).collect(),
            master: (*master != "-").then(|| (*master).to_owned()),
            is_connected: *link == "connected",
            slots,
        })
    }

    pub(crate) fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|one| one == flag)
    }

    /// Whether the node that reports this line takes the other one for failed.
    pub(crate) fn is_failed(&self) -> bool {
        self.is("fail") || self.is("fail?") || self.is("noaddr")
    }

    pub(crate) fn is_master(&self) -> bool {
        self.is("master")
    }

    /// How many slots it serves.
    pub(crate) fn served(&self) -> usize {
        self.slots.iter().map(ExactSizeIterator::len).sum()
    }
}

impl Address {
    /// Host and port, the port of the bus behind `@`, then names behind commas; the host may be an
    /// IPv6 address.
    fn parse(text: &str) -> Option<Self> {
        let (address, bus) = text.split(',').next()?.split_once('@')?;
        let (host, port) = address.rsplit_once(':')?;
        Some(Self { host: host.to_owned(), port: port.parse().ok()?, bus: bus.parse().ok()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `5` or `0-5460`.
pub(crate) fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && usize::from(last) < SLOTS).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
        aa 10.0.0.1:6379@16379,redis-cluster-0.redis-cluster myself,master - 0 0 1 connected 0-5460 7000 [93-<-bb]\n\
        bb 10.0.0.2:6379@16379,redis-cluster-1.redis-cluster,shard-id=x master,fail? - 1 2 2 disconnected 5461-6999\n\
        cc :0@0 slave,noaddr aa 0 0 3 disconnected\n\
        dd fd00::7:6379@16379 handshake - 0 0 0 connected\n";

    #[test]
    fn a_report_is_read() {
        let report = Report::parse(NODES).unwrap();
        assert_eq!((report.own.id.as_str(), report.own.served(), report.own.is_failed()), ("aa", 5462, false));
        assert_eq!(report.own.slots, [0..=5460, 7000..=7000]);
        let [b, c, d] = &report.others[..] else { panic!("{report:?}") };
        assert_eq!(b.address, Address { host: "10.0.0.2".to_owned(), port: 6379, bus: 16379 });
        assert!(b.is_failed() && b.is_master() && !b.is_connected);
        assert_eq!((c.master.as_deref(), c.is_failed(), c.is_master()), (Some("aa"), true, false));
        assert_eq!((d.address.host.as_str(), d.is("handshake")), ("fd00::7", true));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for text in ["", "aa\n", "aa x myself,master - 0 0 1 connected\n", "aa h:1@2 master - 0 0 1 connected 0-5\n"] {
            assert_eq!(Report::parse(text), None, "{text}");
        }
        for text in ["", "-1", "7-5", "0-16384", "x"] {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
