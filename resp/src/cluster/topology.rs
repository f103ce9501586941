//! Which node has which slots: what `CLUSTER SHARDS` and `CLUSTER SLOTS` say.

use super::slot::SLOTS;
use crate::config::{Config, Endpoint};
use crate::{Connection, Error, ErrorKind, Frame, Value, cmd};

/// The masters of a cluster, and who has which slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topology {
    nodes: Vec<Endpoint>,
    /// For each slot the place of its node, [`NOBODY`] for none; empty when nothing is known.
    owners: Vec<u16>,
}

const NOBODY: u16 = u16::MAX;

impl Topology {
    /// The node that has a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Endpoint> {
        self.nodes.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    /// The masters that have slots.
    pub(crate) fn nodes(&self) -> &[Endpoint] {
        &self.nodes
    }

    /// A slot has moved.
    pub(crate) fn set_owner(&mut self, slot: u16, node: &Endpoint) {
        self.give(slot, slot, node);
    }

    fn give(&mut self, first: u16, last: u16, node: &Endpoint) {
        let place = self.nodes.iter().position(|known| known == node).unwrap_or_else(|| {
            self.nodes.push(node.clone());
            self.nodes.len() - 1
        });
        self.owners.resize(usize::from(SLOTS), NOBODY);
        let place = u16::try_from(place).unwrap_or(NOBODY);
        if let Some(owners) = self.owners.get_mut(usize::from(first)..=usize::from(last)) {
            owners.fill(place);
        }
    }

    /// The reply to `CLUSTER SHARDS`, which a node gave that is reached at `asked`.
    fn from_shards(reply: Value<'_>, asked: &Endpoint) -> Result<Self, Error> {
        let wrong = || Error::unexpected_reply("shards", reply);
        let mut topology = Self::default();
        for shard in reply.children() {
            let (slots, nodes) = (shard.get(b"slots").ok_or_else(wrong)?, shard.get(b"nodes").ok_or_else(wrong)?);
            let field =
                |node: Value<'_>, name: &[u8]| node.get(name).and_then(|value| value.as_str().map(str::to_owned));
            let masters = || nodes.children().filter(|node| field(*node, b"role").as_deref() == Some("master"));
            // While another takes the place of one that has failed, both are called master.
            let healthy = masters().find(|node| field(*node, b"health").as_deref() == Some("online"));
            let Some(master) = healthy.or_else(|| masters().next()) else { continue };
            let port = |name: &[u8]| master.get(name).and_then(Value::as_u64);
            let port = if asked.is_tls() { port(b"tls-port") } else { port(b"port") };
            let host = field(master, b"endpoint");
            let Some(node) = port.and_then(|port| address(host.as_deref(), port, asked)) else { continue };
            let mut bounds = slots.children().map(|bound| bound.as_u64().and_then(|slot| u16::try_from(slot).ok()));
            while let (Some(first), Some(last)) = (bounds.next(), bounds.next()) {
                topology.give(first.ok_or_else(wrong)?, last.ok_or_else(wrong)?, &node);
            }
        }
        Ok(topology)
    }

    /// The reply to `CLUSTER SLOTS`, which a node gave that is reached at `asked`.
    fn from_slots(reply: Value<'_>, asked: &Endpoint) -> Result<Self, Error> {
        let wrong = || Error::unexpected_reply("ranges of slots", reply);
        let mut topology = Self::default();
        for range in reply.children() {
            let mut parts = range.children();
            let mut bound = || parts.next()?.as_u64().and_then(|slot| u16::try_from(slot).ok());
            let (first, last) = (bound().ok_or_else(wrong)?, bound().ok_or_else(wrong)?);
            // The master comes first.
            let mut master = parts.next().ok_or_else(wrong)?.children();
            let host = master.next().ok_or_else(wrong)?.as_str();
            let port = master.next().and_then(Value::as_u64).ok_or_else(wrong)?;
            if let Some(node) = address(host, port, asked) {
                topology.give(first, last, &node);
            }
        }
        Ok(topology)
    }
}

/// Where a node is that another one names. A host that is not known is that of the node that was asked.
pub(super) fn address(host: Option<&str>, port: u64, asked: &Endpoint) -> Option<Endpoint> {
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    let own = match asked {
        Endpoint::Tcp { host, .. } | Endpoint::Tls { host, .. } => host.as_str(),
        _ => return None,
    };
    let host = host.filter(|host| !host.is_empty() && *host != "?").unwrap_or(own);
    Some(Endpoint::server(host.to_owned(), port, asked.is_tls()))
}

/// Asks a node.
pub(super) async fn ask(config: &Config, node: &Endpoint) -> Result<(Topology, Connection), Error> {
    let mut connection = Connection::connect_to(node, config).await?;
    let topology = match connection.send(&cmd::<Frame>("CLUSTER SHARDS")).await {
        Ok(reply) => Topology::from_shards(reply.value(), node)?,
        // Before Redis 7, or a user who may not ask this way.
        Err(error) if matches!(error.kind(), ErrorKind::UnknownCommand | ErrorKind::Syntax | ErrorKind::NoPerm) => {
            Topology::from_slots(connection.send(&cmd::<Frame>("CLUSTER SLOTS")).await?.value(), node)?
        }
        Err(error) => return Err(error),
    };
    Ok((topology, connection))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, Limits};
    use bytes::BytesMut;

    fn frame(text: &str) -> Frame {
        let mut input = BytesMut::from(text.replace(' ', "\r\n").as_str());
        Decoder::new(Limits::default()).decode(&mut input).unwrap().unwrap()
    }

    /// A node as `CLUSTER SHARDS` describes it in RESP2.
    fn node(endpoint: &str, port: u16, role: &str, health: &str) -> String {
        format!("*10 +port :{port} +tls-port :{} +endpoint {endpoint} +role +{role} +health +{health} ", port + 1)
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
    }
}
