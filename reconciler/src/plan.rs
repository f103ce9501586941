//! What is to be done in a round: decided from the nodes' reports alone, without I/O and without a
//! clock of its own.
//!
//! A round does the first of these steps that finds something to do, and the next round looks
//! again:
//!
//! 1. Nodes that do not know each other's present address are introduced (`CLUSTER MEET`). A
//!    replica that still fetches from an address that its master had before is pointed at the
//!    present one (`CLUSTER REPLICATE`): when Redis learns the new address by gossip, it does not
//!    do this itself.
//! 2. A master that is gone, and whose replica Redis does not let take over, is replaced by that
//!    replica after a bounded wait (`CLUSTER FAILOVER TAKEOVER`).
//! 3. Nodes that no longer exist are forgotten (`CLUSTER FORGET`).
//! 4. Slots that nobody serves are assigned (`CLUSTER ADDSLOTSRANGE`).
//! 5. Masters without slots, beyond the number of masters there are to be, become replicas.
//! 6. In a cluster that has been complete for a while, two replicas swap their masters if fewer
//!    then share a machine with their master.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::view::{Line, Report, SLOTS, Source, View};

/// The desired state of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    /// How many masters there are to be; all other nodes are replicas.
    pub(crate) masters: usize,
    /// The slots of a new cluster: a range for each of its masters.
    pub(crate) slots: Vec<RangeInclusive<u16>>,
    /// How long Redis may take to replace a master, when every node answers and none is this
    /// master: its volume is lost.
    pub(crate) takeover_after: Duration,
    /// The same while a node does not answer, which may be this master.
    pub(crate) absent_after: Duration,
    /// How long the cluster must have been complete before replicas move to other machines.
    pub(crate) spread_after: Duration,
}

/// A command for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Act {
    /// Which of the configured nodes.
    pub(crate) node: usize,
    /// The command in words.
    pub(crate) command: Vec<String>,
}

/// A round's result: commands, or what the cluster still waits for, or neither when it is complete.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) acts: Vec<Act>,
    pub(crate) waits: Vec<String>,
}

impl Round {
    pub(crate) const fn is_complete(&self) -> bool {
        self.acts.is_empty() && self.waits.is_empty()
    }
}

/// Decides what to do, and remembers how long the cluster has been in its state.
#[derive(Debug)]
pub(crate) struct Planner {
    goal: Goal,
    /// The masters that are gone, and since when.
    gone: BTreeMap<String, Duration>,
    complete_since: Option<Duration>,
}

/// A node that reported.
#[derive(Clone, Copy)]
struct Node<'a> {
    nth: usize,
    seed: &'a str,
    report: &'a Report,
}

impl Node<'_> {
    fn id(&self) -> &str {
        &self.report.own.id
    }

    fn is_master(&self) -> bool {
        self.report.own.is_master()
    }

    fn has_slots(&self) -> bool {
        !self.report.own.slots.is_empty()
    }

    /// Whether it knows the other node by the address that the other has now.
    fn knows(&self, other: &Self) -> bool {
        self.report
            .line(other.id())
            .is_some_and(|line| line.address == other.report.own.address && !line.is("handshake") && !line.is("noaddr"))
    }

    fn does(&self, command: &[&str]) -> Act {
        Act { node: self.nth, command: command.iter().map(|&word| word.to_owned()).collect() }
    }

    fn meets(&self, other: &Self) -> Act {
        let address = &other.report.own.address;
        self.does(&["CLUSTER", "MEET", &address.host, &address.port.to_string(), &address.bus.to_string()])
    }

    fn replicates(&self, master: &str) -> Act {
        self.does(&["CLUSTER", "REPLICATE", master])
    }
}

impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.seed)
    }
}

impl Planner {
    pub(crate) const fn new(goal: Goal) -> Self {
        Self { goal, gone: BTreeMap::new(), complete_since: None }
    }

    /// The next round. `now` is the time since any fixed moment.
    pub(crate) fn round(&mut self, views: &[View], now: Duration) -> Round {
        let mut round = self.decide(views, now);
        if !round.is_complete() {
            self.complete_since = None;
            return round;
        }
        let since = *self.complete_since.get_or_insert(now);
        if now.saturating_sub(since) >= self.goal.spread_after {
            round.acts = spread(&nodes(views));
            if !round.acts.is_empty() {
                self.complete_since = None;
            }
        }
        round
    }

    fn decide(&mut self, views: &[View], now: Duration) -> Round {
        let nodes = nodes(views);
        let mut waits: Vec<String> =
            views.iter().filter_map(|view| Some(format!("{}: {}", view.seed, view.report.as_ref().err()?))).collect();
        let all_answer = waits.is_empty();
        let ids: BTreeSet<&str> = nodes.iter().map(Node::id).collect();

        let mut acts = introduce(&nodes, &mut waits);
        acts.extend(point_at_present_address(&nodes));
        if acts.is_empty() {
            acts = self.replace_masters(&nodes, &ids, all_answer, now, &mut waits);
        }
        if all_answer && waits.is_empty() {
            let steps: [&dyn Fn() -> Vec<Act>; 3] =
                [&|| forget(&nodes, &ids), &|| assign(&nodes, &self.goal.slots), &|| {
                    replicate(&nodes, self.goal.masters)
                }];
            for step in steps {
                if acts.is_empty() {
                    acts = step();
                }
            }
        }
        if acts.is_empty() {
            waits.extend(incomplete(&nodes, self.goal.masters));
        }
        Round { acts, waits }
    }

    /// Step 2. Redis itself replaces a master within seconds, unless the replica has been without
    /// its master for too long (or since it started), or too few masters are left to agree.
    fn replace_masters(
        &mut self,
        nodes: &[Node<'_>],
        ids: &BTreeSet<&str>,
        all_answer: bool,
        now: Duration,
        waits: &mut Vec<String>,
    ) -> Vec<Act> {
        let gone = gone_masters(nodes, ids);
        self.gone.retain(|id, _| gone.contains_key(id.as_str()));
        let limit = if all_answer { self.goal.takeover_after } else { self.goal.absent_after };
        let mut acts = Vec::new();
        for (master, replica) in gone {
            let since = *self.gone.entry(master.to_owned()).or_insert(now);
            if now.saturating_sub(since) >= limit {
                acts.push(replica.does(&["CLUSTER", "FAILOVER", "TAKEOVER"]));
            } else {
                let limit = limit.as_secs_f64();
                waits.push(format!(
                    "{replica}: its master is gone; takes over after {limit} s unless Redis acts before"
                ));
            }
        }
        acts
    }
}

/// The nodes that reported.
fn nodes(views: &[View]) -> Vec<Node<'_>> {
    let answered = views.iter().enumerate();
    answered
        .filter_map(|(nth, view)| Some(Node { nth, seed: &view.seed, report: view.report.as_ref().ok()? }))
        .collect()
}

/// Step 1: every two nodes must know each other's present addresses.
fn introduce(nodes: &[Node<'_>], waits: &mut Vec<String>) -> Vec<Act> {
    let mut acts = Vec::new();
    for (nth, one) in nodes.iter().enumerate() {
        for other in &nodes[nth + 1..] {
            if !one.knows(other) {
                if other.report.own.address.host.is_empty() {
                    waits.push(format!("{other}: it announces no address (cluster-announce-ip)"));
                } else {
                    acts.push(one.meets(other));
                }
            } else if !other.knows(one) {
                acts.push(other.meets(one));
            }
        }
    }
    acts
}

/// Step 1: replicas that fetch from an address that their master no longer has.
fn point_at_present_address(nodes: &[Node<'_>]) -> Vec<Act> {
    let is_stale = |node: &&Node<'_>| {
        let Some((master, source)) = node.report.own.master.as_deref().zip(node.report.source.as_ref()) else {
            return false;
        };
        let Some(master) = nodes.iter().find(|other| other.id() == master) else { return false };
        let address = &master.report.own.address;
        node.knows(master) && !source.is_connected && (&source.host, source.port) != (&address.host, address.port)
    };
    let stale = nodes.iter().filter(is_stale);
    stale.filter_map(|node| Some(node.replicates(node.report.own.master.as_deref()?))).collect()
}

/// The masters with slots that no node is any more and that every other node takes for failed, each
/// with the replica that has the most of its data.
fn gone_masters<'a>(nodes: &[Node<'a>], ids: &BTreeSet<&str>) -> BTreeMap<&'a str, Node<'a>> {
    let mut gone: BTreeMap<&str, Node<'_>> = BTreeMap::new();
    for node in nodes {
        let Some(master) = node.report.own.master.as_deref().filter(|master| !ids.contains(master)) else { continue };
        let lines = || nodes.iter().filter_map(|node| node.report.line(master));
        let has_offset = |node: &Node<'_>| node.report.source.as_ref().map_or(-1, |source| source.offset);
        if lines().any(|line| !line.slots.is_empty())
            && lines().all(Line::is_failed)
            && gone.get(master).is_none_or(|best| has_offset(best) < has_offset(node))
        {
            gone.insert(master, *node);
        }
    }
    gone
}

/// Step 3: every node answers, and none has this ID. An owner of slots that has a replica is that
/// one's matter.
fn forget(nodes: &[Node<'_>], ids: &BTreeSet<&str>) -> Vec<Act> {
    let masters: BTreeSet<&str> = nodes.iter().filter_map(|node| node.report.own.master.as_deref()).collect();
    let owners: BTreeSet<&str> =
        lines(nodes).filter(|line| !line.slots.is_empty()).map(|line| line.id.as_str()).collect();
    let mut acts = Vec::new();
    for node in nodes {
        for line in &node.report.others {
            let id = line.id.as_str();
            let waits_for_replica = owners.contains(id) && masters.contains(id);
            if line.is_failed() && !line.is("handshake") && !ids.contains(id) && !waits_for_replica {
                acts.push(node.does(&["CLUSTER", "FORGET", id]));
            }
        }
    }
    acts
}

fn lines<'a>(nodes: &[Node<'a>]) -> impl Iterator<Item = &'a Line> {
    nodes.iter().flat_map(|node| node.report.lines())
}

/// Step 4: slots without an owner go to the masters without slots, a range of the goal each; when
/// there is no such master, to the one with the fewest.
fn assign(nodes: &[Node<'_>], ranges: &[RangeInclusive<u16>]) -> Vec<Act> {
    let mut taken: Vec<&RangeInclusive<u16>> = lines(nodes).flat_map(|line| &line.slots).collect();
    taken.sort_by_key(|range| *range.start());
    let mut empty = nodes.iter().filter(|node| node.is_master() && !node.has_slots());
    let fewest = nodes.iter().filter(|node| node.has_slots()).min_by_key(|node| node.report.own.served());
    let mut acts = Vec::new();
    for range in ranges {
        let free = without(range, &taken);
        if free.is_empty() {
            continue;
        }
        let Some(node) = empty.next().or(fewest) else { continue };
        let ends = free.iter().flat_map(|range| [range.start().to_string(), range.end().to_string()]);
        let words = ["CLUSTER", "ADDSLOTSRANGE"].map(str::to_owned);
        acts.push(Act { node: node.nth, command: words.into_iter().chain(ends).collect() });
    }
    acts
}

/// A range without the given ranges, which are sorted.
fn without(range: &RangeInclusive<u16>, others: &[&RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    let (mut left, mut next) = (Vec::new(), Some(*range.start()));
    for other in others {
        let Some(first) = next.filter(|first| first <= range.end()) else { break };
        if *other.start() > first {
            left.push(first..=(*range.end()).min(*other.start() - 1));
        }
        next = if *other.end() < first { Some(first) } else { other.end().checked_add(1) };
    }
    left.extend(next.filter(|first| first <= range.end()).map(|first| first..=*range.end()));
    left
}

/// Step 5: a node without slots is new, or has lost its volume. It follows the master with the
/// fewest replicas, on another machine where there is a choice.
fn replicate(nodes: &[Node<'_>], masters: usize) -> Vec<Act> {
    let owners: Vec<&Node<'_>> = nodes.iter().filter(|node| node.is_master() && node.has_slots()).collect();
    let surplus = nodes.iter().filter(|node| node.is_master()).count().saturating_sub(masters);
    let mut pairs = Vec::new();
    let mut replicas: BTreeMap<&str, usize> = BTreeMap::new();
    for master in nodes.iter().filter_map(|node| node.report.own.master.as_deref()) {
        *replicas.entry(master).or_default() += 1;
    }
    for node in nodes.iter().rev().filter(|node| node.is_master() && !node.has_slots()).take(surplus) {
        let count = |owner: &Node<'_>| replicas.get(owner.id()).copied().unwrap_or(0);
        let Some(best) = owners.iter().rev().min_by_key(|owner| (count(owner), shares_machine(node, owner))) else {
            break;
        };
        *replicas.entry(best.id()).or_default() += 1;
        pairs.push((*node, **best));
    }
    while let Some((one, other)) = better_swap(&pairs) {
        let (first, second) = (pairs[one].1, pairs[other].1);
        pairs[one].1 = second;
        pairs[other].1 = first;
    }
    pairs.iter().map(|(replica, master)| replica.replicates(master.id())).collect()
}

fn shares_machine(one: &Node<'_>, other: &Node<'_>) -> bool {
    one.report.machine.is_some() && one.report.machine == other.report.machine
}

/// Two pairs of replica and master of which fewer share a machine when they exchange their masters.
fn better_swap(pairs: &[(Node<'_>, Node<'_>)]) -> Option<(usize, usize)> {
    let shared = |replica: &(Node<'_>, Node<'_>), master: &(Node<'_>, Node<'_>)| {
        usize::from(shares_machine(&replica.0, &master.1))
    };
    let all = (0..pairs.len()).flat_map(|one| (one + 1..pairs.len()).map(move |other| (one, other)));
    let mut better = all.filter(|&(one, other)| {
        let (one, other) = (&pairs[one], &pairs[other]);
        shared(one, other) + shared(other, one) < shared(one, one) + shared(other, other)
    });
    better.next()
}

/// Step 6: one swap at a time, as both masters are without a replica until it has fetched
/// everything.
fn spread(nodes: &[Node<'_>]) -> Vec<Act> {
    let of = |replica: &Node<'_>| {
        let master = replica.report.own.master.as_deref()?;
        nodes.iter().find(|node| node.id() == master).copied()
    };
    let pairs: Vec<(Node<'_>, Node<'_>)> = nodes.iter().filter_map(|node| Some((*node, of(node)?))).collect();
    let Some((one, other)) = better_swap(&pairs) else { return Vec::new() };
    vec![pairs[one].0.replicates(pairs[other].1.id()), pairs[other].0.replicates(pairs[one].1.id())]
}

/// Conditions that are still missing although there is no action to take.
fn incomplete(nodes: &[Node<'_>], masters: usize) -> Vec<String> {
    let mut waits = Vec::new();
    let count = nodes.iter().filter(|node| node.is_master()).count();
    let followed: BTreeSet<&str> = nodes.iter().filter_map(|node| node.report.own.master.as_deref()).collect();
    for node in nodes {
        for line in &node.report.others {
            if line.is_failed() {
                waits.push(format!("{node}: {} has failed", line.address));
            } else if !line.is_connected {
                waits.push(format!("{node}: no connection to {}", line.address));
            }
        }
        let served: usize = node.report.lines().map(Line::served).sum();
        if served != SLOTS {
            waits.push(format!("{node}: it knows the owners of {served} of {SLOTS} slots"));
        }
        // Redis gives it one of a master that has two.
        if node.has_slots() && !followed.contains(node.id()) && nodes.len() - count >= count {
            waits.push(format!("{node}: it has no replica yet"));
        }
        if !node.is_master() && !node.report.source.as_ref().is_some_and(|Source { is_connected, .. }| *is_connected) {
            waits.push(format!("{node}: it does not have its master's data yet"));
        }
    }
    if count > masters {
        waits.push(format!("there are {count} masters; {masters} expected"));
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node's report, from the text of `CLUSTER NODES`.
    fn view(seed: &str, nodes: &str) -> View {
        View { seed: seed.to_owned(), report: Ok(Report::parse(nodes).unwrap()) }
    }

    /// The master `m` has lost its volume and is now `n`. One of the nodes has not noticed yet, so
    /// nobody may take over yet, and `m` must stay known: its replica has the data of its slots.
    #[test]
    fn a_master_with_a_replica_is_not_forgotten_before_all_miss_it() {
        let nodes = |own: &str, m: &str| {
            let lines = [
                ("a", "a 10.0.0.1:1@2 master - 0 0 1 connected 0-8191".to_owned()),
                ("r", "r 10.0.0.2:1@2 slave m 0 0 1 connected".to_owned()),
                ("n", "n 10.0.0.3:1@2 master - 0 0 0 connected".to_owned()),
                ("m", format!("m 10.0.0.4:1@2 {m} 8192-16383")),
            ];
            lines.map(|(id, line)| if id == own { line.replace("1@2 ", "1@2 myself,") } else { line }).join("\n")
        };
        let failed = "master,fail? - 0 0 1 disconnected";
        let mut planner = Planner::new(Goal {
            masters: 2,
            slots: vec![0..=8191, 8192..=16383],
            takeover_after: Duration::from_secs(60),
            absent_after: Duration::from_secs(300),
            spread_after: Duration::from_secs(60),
        });
        let mut acts = |by_a: &str, now: u64| {
            let views = [("a", by_a), ("r", failed), ("n", failed)].map(|(own, m)| view(own, &nodes(own, m)));
            planner.round(&views, Duration::from_secs(now)).acts
        };
        assert_eq!(acts("master - 0 0 1 connected", 0), []);
        assert_eq!(acts(failed, 1), []);
        let takeover = ["CLUSTER", "FAILOVER", "TAKEOVER"].map(str::to_owned);
        assert_eq!(acts(failed, 61), [Act { node: 1, command: takeover.into() }]);
    }

    #[test]
    fn what_is_left_of_a_range_is_found() {
        let left = |others: &[RangeInclusive<u16>]| without(&(10..=20), &others.iter().collect::<Vec<_>>());
        assert_eq!(left(&[]), [10..=20]);
        assert_eq!(left(&[0..=5, 12..=13, 13..=14, 20..=30]), [10..=11, 15..=19]);
        assert_eq!(left(&[5..=10, 19..=19, 40..=50]), [11..=18, 20..=20]);
        assert_eq!(left(&[0..=16383]), []);
        assert_eq!(without(&(16380..=16383), &[&(0..=16381)]), [16382..=16383]);
    }
}
