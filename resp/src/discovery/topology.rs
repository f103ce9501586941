//! The slot map of a cluster, parsed from `CLUSTER SHARDS` or `CLUSTER SLOTS`. The cluster client
//! owns one and updates it on `MOVED`; the cluster discovery uses it once.

use std::collections::HashMap;

use crate::command::slot::{SLOTS, slot};
use crate::config::{Config, Endpoint};
use crate::{Connection, Error, ErrorKind, Frame, Value, ValueKind, cmd};

/// The masters of a cluster, their replicas, and the owner of each slot, as one node reports them.
///
/// [`Discovery::topology`](crate::Discovery::topology) queries it. Use it to group keys by node
/// when you manage connections yourself; a [`ClusterClient`](crate::ClusterClient) does so on its
/// own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    nodes: Vec<Endpoint>,
    /// The index of each node in `nodes`.
    places: HashMap<Endpoint, u16>,
    /// The healthy replicas of each node.
    replicas: Vec<Vec<Endpoint>>,
    /// For each slot, the index of its node, or [`NOBODY`]. Empty while the topology is unknown.
    owners: Vec<u16>,
}

const NOBODY: u16 = u16::MAX;

/// A cluster has no more masters than slots; twice that many leaves room for stale ones.
const MAX_NODES: usize = 32_768;

/// A slot may be listed twice during a failover. More than this is hostile, and would keep a thread
/// busy.
const MAX_NAMED: usize = 262_144;

impl Topology {
    /// Returns the master that owns the slot of a key; `None` while no node serves the slot.
    #[must_use]
    pub fn owner_of(&self, key: impl AsRef<[u8]>) -> Option<&Endpoint> {
        self.owner(slot(key.as_ref()))
    }

    /// Returns the masters that own slots.
    #[must_use]
    pub fn masters(&self) -> &[Endpoint] {
        &self.nodes
    }

    /// Returns the node that owns a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Endpoint> {
        self.nodes.get(self.place_of(slot)?)
    }

    /// Returns the replicas of the node that owns a slot.
    pub(crate) fn replicas_of(&self, slot: u16) -> &[Endpoint] {
        self.place_of(slot).and_then(|place| self.replicas.get(place)).map_or(&[], Vec::as_slice)
    }

    fn place_of(&self, slot: u16) -> Option<usize> {
        self.owners.get(usize::from(slot)).map(|place| usize::from(*place))
    }

    /// Returns all replicas.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Endpoint> {
        self.replicas.iter().flatten()
    }

    /// Returns the slots that a node owns.
    pub(crate) fn slots_of(&self, node: &Endpoint) -> impl Iterator<Item = u16> {
        let place = self.places.get(node).copied();
        let slots = (0..SLOTS).zip(&self.owners);
        slots.filter(move |(_, owner)| Some(**owner) == place).map(|(slot, _)| slot)
    }

    /// Records that a slot has moved.
    pub(crate) fn set_owner(&mut self, slot: u16, node: &Endpoint) {
        if let Some(place) = self.place(node) {
            self.give(slot, slot, place);
        }
    }

    /// Returns the index of a node, and adds the node if it is new; `None` when there are too many.
    fn place(&mut self, node: &Endpoint) -> Option<u16> {
        if let Some(place) = self.places.get(node) {
            return Some(*place);
        }
        let place = u16::try_from(self.nodes.len()).ok().filter(|place| usize::from(*place) < MAX_NODES)?;
        self.places.insert(node.clone(), place);
        self.nodes.push(node.clone());
        self.replicas.push(Vec::new());
        Some(place)
    }

    fn give(&mut self, first: u16, last: u16, place: u16) {
        self.owners.resize(usize::from(SLOTS), NOBODY);
        if let Some(owners) = self.owners.get_mut(usize::from(first)..=usize::from(last)) {
            owners.fill(place);
        }
    }

    /// Parses the reply to `CLUSTER SHARDS` of the node at `asked`.
    fn from_shards(reply: Value<'_>, asked: &Endpoint) -> Result<Self, Error> {
        let wrong = || Error::unexpected_reply("shards", reply);
        if reply.kind() != ValueKind::Array {
            return Err(wrong());
        }
        let mut topology = Self::default();
        let mut named = 0;
        for shard in reply.children() {
            let (slots, nodes) = (shard.get(b"slots").ok_or_else(wrong)?, shard.get(b"nodes").ok_or_else(wrong)?);
            let is = |node: &Value<'_>, name: &[u8], text: &[u8]| {
                node.get(name).and_then(Value::as_bytes).is_some_and(|value| value == text)
            };
            let endpoint = |node: Value<'_>| {
                let port = if asked.is_tls() { node.get(b"tls-port") } else { node.get(b"port") };
                address(node.get(b"endpoint").and_then(Value::as_str), port?.as_u64()?, asked)
            };
            let masters = || nodes.children().filter(|node| is(node, b"role", b"master"));
            // During a failover, both nodes are listed as master.
            let healthy = masters().find(|node| is(node, b"health", b"online"));
            let Some(node) = healthy.or_else(|| masters().next()).and_then(endpoint) else { continue };
            let mut bounds = slots.children();
            while let (Some(first), Some(last)) = (bounds.next(), bounds.next()) {
                let place = topology.place(&node).ok_or_else(wrong)?;
                let (first, last) = range(first, last, &mut named).ok_or_else(wrong)?;
                topology.give(first, last, place);
            }
            let Some(place) = topology.places.get(&node) else { continue };
            if let Some(replicas) = topology.replicas.get_mut(usize::from(*place)) {
                let healthy = |node: &Value<'_>| is(node, b"role", b"replica") && is(node, b"health", b"online");
                replicas.extend(nodes.children().filter(healthy).filter_map(endpoint));
            }
        }
        Ok(topology)
    }

    /// Parses the reply to `CLUSTER SLOTS` of the node at `asked`.
    fn from_slots(reply: Value<'_>, asked: &Endpoint) -> Result<Self, Error> {
        let wrong = || Error::unexpected_reply("ranges of slots", reply);
        if reply.kind() != ValueKind::Array {
            return Err(wrong());
        }
        let endpoint = |node: Value<'_>| {
            let mut parts = node.children();
            let host = parts.next()?.as_str();
            Some(address(host, parts.next()?.as_u64()?, asked))
        };
        let mut topology = Self::default();
        let mut named = 0;
        for slots in reply.children() {
            let mut parts = slots.children();
            let (Some(first), Some(last), Some(master)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(wrong());
            };
            let (first, last) = range(first, last, &mut named).ok_or_else(wrong)?;
            let Some(node) = endpoint(master).ok_or_else(wrong)? else { continue };
            let known = topology.nodes.len();
            let place = topology.place(&node).ok_or_else(wrong)?;
            topology.give(first, last, place);
            // Each range of a master repeats its replicas.
            if let Some(replicas) = topology.replicas.get_mut(known) {
                replicas.extend(parts.filter_map(endpoint).flatten());
            }
        }
        Ok(topology)
    }
}

/// Parses a range of slots. `named` counts the slots listed so far.
fn range(first: Value<'_>, last: Value<'_>, named: &mut usize) -> Option<(u16, u16)> {
    let slot = |value: Value<'_>| value.as_u64().and_then(|slot| u16::try_from(slot).ok()).filter(|slot| *slot < SLOTS);
    let (first, last) = (slot(first)?, slot(last)?);
    *named = named.saturating_add(usize::from(last.checked_sub(first)?)).saturating_add(1);
    (*named <= MAX_NAMED).then_some((first, last))
}

/// Returns the address of a node that another node reports. An unknown host means the host of the
/// reporting node.
pub(super) fn address(host: Option<&str>, port: u64, asked: &Endpoint) -> Option<Endpoint> {
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    let own = match asked {
        Endpoint::Tcp { host, .. } | Endpoint::Tls { host, .. } => host.as_str(),
        _ => return None,
    };
    let host = host.filter(|host| !host.is_empty() && *host != "?").unwrap_or(own);
    Some(Endpoint::server(host.to_owned(), port, asked.is_tls()))
}

/// Queries the topology from a node.
pub(super) async fn query(config: &Config, node: &Endpoint) -> Result<(Topology, Connection), Error> {
    let mut connection = Connection::connect_to(node, config).await?;
    let topology = match connection.send(cmd::<Frame>("CLUSTER SHARDS")).await {
        Ok(reply) => Topology::from_shards(reply.value(), node)?,
        // Servers before Redis 7, or an ACL that forbids `CLUSTER SHARDS`.
        Err(error) if matches!(error.kind(), ErrorKind::UnknownCommand | ErrorKind::Syntax | ErrorKind::NoPerm) => {
            Topology::from_slots(connection.send(cmd::<Frame>("CLUSTER SLOTS")).await?.value(), node)?
        }
        Err(error) => return Err(error),
    };
    Ok((topology, connection))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, DecoderLimits};
    use bytes::BytesMut;

    fn frame(text: &str) -> Frame {
        let mut input = BytesMut::from(text.replace(' ', "\r\n").as_str());
        Decoder::new(DecoderLimits::default()).decode(&mut input).unwrap().unwrap()
    }

    /// A node as `CLUSTER SHARDS` describes it in RESP2.
    fn node(endpoint: &str, port: u16, role: &str, health: &str) -> String {
        format!("*10 +port :{port} +tls-port :{} +endpoint {endpoint} +role +{role} +health +{health} ", port + 1)
    }

    #[test]
    fn what_is_no_array_is_no_topology() {
        let asked = Endpoint::server("a".to_owned(), 1, false);
        for reply in ["_ ", ":3 ", "*-1 ", "+OK "] {
            let reply = frame(reply);
            assert!(Topology::from_shards(reply.value(), &asked).is_err(), "{reply:?}");
            assert!(Topology::from_slots(reply.value(), &asked).is_err(), "{reply:?}");
        }
    }

    #[test]
    fn shards() {
        let failed = node("+a", 1, "master", "fail");
        let (a, b, c) = (
            node("+a", 10, "master", "online"),
            node("$-1", 20, "master", "online"),
            node("+c", 30, "replica", "online"),
        );
        let text = format!("*2 *4 +slots *4 :0 :5 :7 :8 +nodes *2 {failed}{a}*4 +slots *2 :9 :16383 +nodes *2 {c}{b}");
        let reply = frame(&text);
        let topology = Topology::from_shards(reply.value(), &Endpoint::tcp("me", 5)).unwrap();
        let owner = |slot| topology.owner(slot).map(ToString::to_string);
        assert_eq!(owner(5).as_deref(), Some("a:10"), "the one that is healthy");
        assert_eq!(owner(6), None);
        assert_eq!(owner(8).as_deref(), Some("a:10"));
        assert_eq!(owner(16383).as_deref(), Some("me:20"), "the host that was asked");
        let tls = Topology::from_shards(reply.value(), &Endpoint::tls("me", 5)).unwrap();
        assert_eq!(tls.owner(0), Some(&Endpoint::tls("a", 11)));
        assert!(Topology::from_shards(frame("*1 *0 ").value(), &Endpoint::tcp("me", 5)).is_err());
    }

    #[test]
    fn ranges_of_slots_and_a_move() {
        let reply = frame("*2 *4 :0 :100 *2 +a :1 *2 +b :2 *3 :101 :16383 *2 $-1 :3 ");
        let mut topology = Topology::from_slots(reply.value(), &Endpoint::tcp("me", 5)).unwrap();
        assert_eq!(topology.owner(100), Some(&Endpoint::tcp("a", 1)));
        assert_eq!(topology.owner(101), Some(&Endpoint::tcp("me", 3)));
        topology.set_owner(100, &Endpoint::tcp("new", 7));
        assert_eq!(topology.owner(100), Some(&Endpoint::tcp("new", 7)));
        assert_eq!(topology.owner(99), Some(&Endpoint::tcp("a", 1)));
        assert_eq!(Topology::default().owner(0), None);
        assert_eq!(topology.owner_of("foo"), Some(&Endpoint::tcp("me", 3)), "slot 12182");
        let slots = topology.slots_of(&Endpoint::tcp("a", 1)).collect::<Vec<_>>();
        assert_eq!(slots, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn replicas() {
        let (a, b, c, d) = (
            node("+a", 1, "master", "online"),
            node("+b", 2, "replica", "online"),
            node("+c", 3, "replica", "loading"),
            node("$-1", 4, "replica", "online"),
        );
        let shards = format!("*1 *4 +slots *2 :0 :16383 +nodes *4 {b}{c}{a}{d}");
        let slots = "*2 *5 :0 :9 *2 +a :1 *2 +b :2 *2 $-1 :4 *4 :10 :16383 *2 +a :1 *2 +b :2 ";
        let me = Endpoint::tcp("me", 5);
        for topology in
            [Topology::from_shards(frame(&shards).value(), &me), Topology::from_slots(frame(slots).value(), &me)]
        {
            let topology = topology.unwrap();
            let expected = [Endpoint::tcp("b", 2), Endpoint::tcp("me", 4)];
            assert_eq!((topology.replicas_of(7), topology.replicas_of(12_000)), (&expected[..], &expected[..]));
            assert_eq!((topology.replicas().count(), topology.masters().len()), (2, 1));
        }
        assert_eq!(Topology::default().replicas_of(7), []);
    }

    /// The cost of parsing is linear in the length of the reply.
    #[test]
    fn hostile_replies_are_read_in_linear_time() {
        let me = Endpoint::tcp("me", 5);
        let ranges = |count: usize, range: &dyn Fn(usize) -> String| {
            format!("*{count} {}", (0..count).map(range).collect::<String>())
        };
        let mut spent = std::time::Duration::ZERO;
        let mut timed = |parse: &dyn Fn(Value<'_>, &Endpoint) -> Result<Topology, Error>, text: &str| {
            let reply = frame(text);
            let begun = on_processor();
            let topology = parse(reply.value(), &me);
            spent += on_processor().saturating_sub(begun);
            topology
        };
        let each_its_own = ranges(16_384, &|n| format!("*3 :{n} :{n} *2 +h{n} :1 "));
        let topology = timed(&Topology::from_slots, &each_its_own).unwrap();
        assert_eq!((topology.masters().len(), topology.owner(7)), (16_384, Some(&Endpoint::tcp("h7", 1))));
        let shards = ranges(16_384, &|n| {
            let node = node(&format!("+h{n}"), 1, "master", "online");
            format!("*4 +slots *2 :{n} :{n} +nodes *1 {node}")
        });
        assert_eq!(timed(&Topology::from_shards, &shards).unwrap(), topology);
        for hostile in [
            ranges(20_000, &|n| format!("*3 :0 :16383 *2 +h{n} :1 ")),
            ranges(40_000, &|n| format!("*3 :7 :7 *2 +h{n} :1 ")),
            ranges(1, &|_| "*3 :5 :4 *2 +h :1 ".to_owned()),
            ranges(1, &|_| "*3 :0 :16384 *2 +h :1 ".to_owned()),
        ] {
            timed(&Topology::from_slots, &hostile).unwrap_err();
        }
        let many = ranges(1, &|_| {
            let node = node("+h", 1, "replica", "online").repeat(10_000);
            let master = self::node("+h", 2, "master", "online");
            format!("*4 +slots *40000 {}+nodes *10001 {node}{master}", ":7 :7 ".repeat(20_000))
        });
        assert_eq!(timed(&Topology::from_shards, &many).unwrap().replicas_of(7).len(), 10_000);
        let mut topology = Topology::default();
        for n in 0..40_000 {
            topology.set_owner(7, &Endpoint::tcp(format!("h{n}"), 1));
        }
        assert_eq!(topology.masters().len(), MAX_NODES);
        assert!(spent < std::time::Duration::from_secs(2), "{spent:?}");
    }

    /// Returns the CPU time of this thread, which other load on the machine does not affect.
    fn on_processor() -> std::time::Duration {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        std::time::Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
    }
}
