//! A model of the nodes of a Redis Cluster, in which pods die, come back at other addresses, and
//! lose their volumes at random: from every such state the planner must lead to a complete cluster,
//! and never give up data that still exists.
//!
//! The model includes what makes repairs hard. Each node has its own view, which may be stale.
//! Gossip corrects an address without pointing the replica at it. A replica that started without
//! its master is never elected, and no replica is elected without a majority of the masters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::plan::{Act, Goal, Planner};
use crate::view::{Address, Line, Report, Source, View, range};

type Id = u64;
/// A port stands for an address: each start of a pod has another one.
type At = u16;

const RANGES: [&str; 3] = ["0-5700", "5701-10922", "10923-16383"];
const PODS: usize = 6;
const TICK: Duration = Duration::from_secs(5);

fn goal() -> Goal {
    Goal {
        masters: RANGES.len(),
        slots: RANGES.iter().map(|text| range(text).unwrap()).collect(),
        takeover_after: Duration::from_secs(60),
        absent_after: Duration::from_secs(300),
        spread_after: Duration::from_secs(60),
    }
}

#[derive(Debug, Clone)]
struct Pod {
    id: Id,
    at: At,
    is_up: bool,
    machine: usize,
    epoch: u64,
    master: Option<Id>,
    /// Where it fetches its data.
    source: At,
    /// Whether it has been in sync since it started.
    is_fresh: bool,
    known: BTreeMap<Id, (At, Option<Id>)>,
    /// Who serves each range, by the highest epoch that this node has heard of.
    owners: [Option<(Id, u64)>; RANGES.len()],
}

struct Model {
    pods: Vec<Pod>,
    next: u64,
    random: u64,
    events: Vec<String>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut model =
            Self { pods: Vec::new(), next: 1, random: seed.wrapping_mul(2).wrapping_add(1), events: Vec::new() };
        for _ in 0..PODS {
            let pod = model.fresh_pod();
            model.pods.push(pod);
        }
        model
    }

    fn fresh_pod(&mut self) -> Pod {
        let (id, at) = (self.unique(), self.address());
        let machine = self.below(2);
        let owners = [None; RANGES.len()];
        Pod {
            id,
            at,
            is_up: true,
            machine,
            epoch: 0,
            master: None,
            source: 0,
            is_fresh: false,
            known: BTreeMap::new(),
            owners,
        }
    }

    fn unique(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn address(&mut self) -> At {
        u16::try_from(self.unique()).unwrap()
    }

    /// A random number below `end` (xorshift).
    fn below(&mut self, end: u64) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % end).unwrap()
    }

    fn die(&mut self, pod: usize, with_volume: bool) {
        self.events.push(format!("{pod} dies{}", if with_volume { " with its volume" } else { "" }));
        self.pods[pod].is_up = false;
        if with_volume {
            let fresh = self.fresh_pod();
            self.pods[pod] = Pod { is_up: false, ..fresh };
        }
    }

    fn start(&mut self, pod: usize) {
        self.events.push(format!("{pod} starts"));
        let (at, machine) = (self.address(), self.below(2));
        let pod = &mut self.pods[pod];
        (pod.is_up, pod.at, pod.machine, pod.is_fresh) = (true, at, machine, false);
        if let Some(master) = pod.master {
            pod.source = pod.known.get(&master).map_or(0, |known| known.0);
        }
    }

    fn alive(&self, id: Id) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.is_up && pod.id == id)
    }

    /// Whether a node reaches another one at the address that it has of it.
    fn reaches(&self, from: &Pod, id: Id) -> bool {
        self.alive(id).is_some_and(|pod| from.known.get(&id).is_some_and(|known| known.0 == pod.at))
    }

    /// Five seconds of the nodes' own work.
    fn tick(&mut self) {
        for _ in 0..3 {
            self.gossip();
        }
        self.elect();
        self.migrate();
        for nth in 0..PODS {
            let master = self.pods[nth].master.and_then(|master| self.alive(master)).map(|pod| pod.at);
            let pod = &mut self.pods[nth];
            if pod.is_up && master.is_some_and(|at| at == pod.source) {
                pod.is_fresh = true;
            }
        }
    }

    fn gossip(&mut self) {
        for x in 0..PODS {
            for y in 0..PODS {
                let (from, to) = (&self.pods[x], &self.pods[y]);
                let is_linked = from.is_up && to.is_up && (self.reaches(from, to.id) || self.reaches(to, from.id));
                if x == y || !is_linked {
                    continue;
                }
                let (from, heard) = (self.pods[y].clone(), self.pods[y].known.clone());
                self.hear(x, &from);
                // Of others: nodes that it does not know, and better addresses of those that it
                // does not reach.
                for (id, (at, master)) in heard {
                    let reachable = self.reaches(&from, id);
                    let known = self.pods[x].known.get(&id).map(|known| known.0);
                    if id != self.pods[x].id && reachable && known != Some(at) {
                        self.pods[x].known.insert(id, (at, master));
                    }
                }
            }
        }
    }

    /// A node hears another one speak of itself.
    fn hear(&mut self, nth: usize, from: &Pod) {
        let pod = &mut self.pods[nth];
        pod.known.insert(from.id, (from.at, from.master));
        pod.epoch = pod.epoch.max(from.epoch * u64::from(pod.owners.iter().flatten().all(|owner| owner.0 != pod.id)));
        for (mine, theirs) in pod.owners.iter_mut().zip(from.owners) {
            let Some((id, epoch)) = theirs.filter(|(id, _)| *id == from.id) else { continue };
            if mine.is_none_or(|(_, known)| epoch > known) {
                let before = mine.replace((id, epoch)).map(|before| before.0);
                // The slots that it had, or that its master had, are served by another one.
                if before == Some(pod.id) || (before.is_some() && before == pod.master) {
                    (pod.master, pod.source, pod.is_fresh) = (Some(id), from.at, false);
                }
            }
        }
    }

    /// Masters with slots by a node's knowledge, and how many of them reach it.
    fn has_majority(&self, pod: &Pod) -> bool {
        let owners: BTreeSet<Id> = pod.owners.iter().flatten().map(|owner| owner.0).collect();
        2 * owners.iter().filter(|&&id| self.reaches(pod, id)).count() > owners.len()
    }

    fn elect(&mut self) {
        for nth in 0..PODS {
            let pod = &self.pods[nth];
            if let Some(master) = pod.master
                && pod.is_up
                && pod.is_fresh
                && !self.reaches(pod, master)
                && self.has_majority(pod)
            {
                self.promote(nth);
            }
        }
    }

    fn promote(&mut self, nth: usize) {
        let epoch = self.pods.iter().map(|pod| pod.epoch).max().unwrap() + 1;
        self.events.push(format!("{nth} takes over"));
        let pod = &mut self.pods[nth];
        let master = pod.master.take();
        pod.epoch = epoch;
        for owner in &mut pod.owners {
            if owner.map(|owner| owner.0) == master {
                *owner = Some((pod.id, epoch));
            }
        }
    }

    /// A master without a replica gets one of a master that has two.
    fn migrate(&mut self) {
        let of = |pods: &[Pod], master: Id| {
            (0..PODS).filter(|&nth| pods[nth].is_up && pods[nth].master == Some(master)).collect::<Vec<_>>()
        };
        for nth in 0..PODS {
            let pod = self.pods[nth].clone();
            let has_slots = pod.owners.iter().flatten().any(|owner| owner.0 == pod.id);
            if !pod.is_up || !has_slots || !of(&self.pods, pod.id).is_empty() {
                continue;
            }
            let donor = self.pods.iter().map(|pod| of(&self.pods, pod.id)).find(|replicas| replicas.len() > 1);
            if let Some(&replica) = donor.as_ref().and_then(|replicas| replicas.first())
                && self.reaches(&self.pods[replica], pod.id)
            {
                let replica = &mut self.pods[replica];
                (replica.master, replica.source, replica.is_fresh) = (Some(pod.id), pod.at, false);
            }
        }
    }

    fn views(&self) -> Vec<View> {
        let view = |(nth, pod): (usize, &Pod)| {
            let report = if pod.is_up { Ok(self.report(pod)) } else { Err("no answer".to_owned()) };
            View { seed: format!("pod-{nth}"), report }
        };
        self.pods.iter().enumerate().map(view).collect()
    }

    fn report(&self, pod: &Pod) -> Report {
        let line = |id: Id, at: At, master: Option<Id>, is_connected: bool| {
            let owned = pod.owners.iter().zip(RANGES).filter(|(owner, _)| owner.is_some_and(|owner| owner.0 == id));
            let mut flags = vec![if master.is_none() { "master" } else { "slave" }.to_owned()];
            flags.extend((!is_connected).then(|| if self.has_majority(pod) { "fail" } else { "fail?" }.to_owned()));
            Line {
                id: id.to_string(),
                address: Address { host: "10.0.0.1".to_owned(), port: at, bus: at },
                flags,
                master: master.map(|master| master.to_string()),
                is_connected,
                slots: owned.map(|(_, text)| range(text).unwrap()).collect(),
            }
        };
        let source = pod.master.map(|master| Source {
            host: "10.0.0.1".to_owned(),
            port: pod.source,
            is_connected: pod.is_fresh && self.alive(master).is_some_and(|master| master.at == pod.source),
            offset: -1,
        });
        let others = pod.known.iter().map(|(id, (at, master))| line(*id, *at, *master, self.reaches(pod, *id)));
        let machine = Some(pod.machine.to_string());
        Report { own: line(pod.id, pod.at, pod.master, true), others: others.collect(), source, machine }
    }

    /// Carries a command out as Redis does, or refuses it as Redis does.
    fn perform(&mut self, act: &Act) {
        let words: Vec<&str> = act.command.iter().map(String::as_str).collect();
        self.events.push(format!("{}: {}", act.node, words.join(" ")));
        let id = |word: &str| word.parse::<Id>().unwrap();
        match words[1..] {
            ["MEET", _, port, _] => {
                let other = self.pods.iter().find(|pod| pod.is_up && pod.at.to_string() == port).cloned();
                if let Some(other) = other {
                    self.hear(act.node, &other);
                }
            }
            ["REPLICATE", master] => {
                let pod = &mut self.pods[act.node];
                let serves = pod.owners.iter().flatten().any(|owner| owner.0 == pod.id);
                if let Some(&(at, None)) = pod.known.get(&id(master))
                    && !serves
                {
                    (pod.master, pod.source, pod.is_fresh) = (Some(id(master)), at, false);
                }
            }
            ["FAILOVER", "TAKEOVER"] => self.promote(act.node),
            ["FORGET", other] => {
                let pod = &mut self.pods[act.node];
                pod.known.remove(&id(other));
                for owner in &mut pod.owners {
                    *owner = owner.filter(|owner| owner.0 != id(other));
                }
            }
            ["ADDSLOTSRANGE", ref ends @ ..] => {
                let pod = &mut self.pods[act.node];
                for pair in ends.chunks(2) {
                    let nth = RANGES.iter().position(|text| *text == pair.join("-")).expect("a whole range");
                    assert!(pod.owners[nth].is_none(), "slot is busy");
                    pod.owners[nth] = Some((pod.id, pod.epoch));
                    assert!(pod.master.is_none());
                }
            }
            _ => panic!("{words:?}"),
        }
    }

    /// Whether a pod still has the data of a range: its owner, or a replica of it.
    fn exists(&self, nth: usize) -> bool {
        self.pods
            .iter()
            .any(|pod| pod.owners[nth].is_some_and(|(owner, _)| owner == pod.id || pod.master == Some(owner)))
    }
}

/// One round of planner and nodes; whether the cluster is complete.
fn step(model: &mut Model, planner: &mut Planner, now: &mut Duration) -> bool {
    let round = planner.round(&model.views(), *now);
    for act in &round.acts {
        let range = RANGES.iter().position(|text| act.command[2..].join("-") == *text);
        if let Some(nth) = range {
            assert!(!model.exists(nth), "{act:?} gives up data that exists: {:#?}", model.events);
        }
        model.perform(act);
    }
    model.tick();
    *now += TICK;
    round.is_complete()
}

fn heal(model: &mut Model, planner: &mut Planner, now: &mut Duration, seed: u64) {
    let mut complete = 0;
    for _ in 0..300 {
        complete = if step(model, planner, now) { complete + 1 } else { 0 };
        // Longer than it takes until replicas are spread.
        if complete > 20 {
            break;
        }
    }
    let views = model.views();
    assert!(complete > 20, "seed {seed}: {:#?}\n{:#?}\n{views:#?}", model.events, planner.round(&views, *now));
    let mut followed = BTreeMap::new();
    let mut shared = 0;
    for pod in &model.pods {
        assert_eq!(pod.known.len(), PODS - 1, "seed {seed}");
        match pod.master {
            None => assert_eq!(pod.owners.iter().flatten().filter(|owner| owner.0 == pod.id).count(), 1, "seed {seed}"),
            Some(master) => {
                let master = model.alive(master).expect("its master");
                assert_eq!(pod.source, master.at, "seed {seed}");
                *followed.entry(master.id).or_insert(0) += 1;
                shared += usize::from(master.machine == pod.machine);
            }
        }
    }
    assert!(followed.len() == RANGES.len() && followed.values().all(|&count| count == 1), "seed {seed}: {followed:?}");
    // As few replicas as possible are on the machine of their master.
    let on_first =
        |is_master: bool| model.pods.iter().filter(|pod| pod.master.is_none() == is_master && pod.machine == 0).count();
    let best = (on_first(true) + on_first(false)).abs_diff(RANGES.len());
    assert_eq!(shared, best, "seed {seed}: replicas that share a machine with their master");
}

#[test]
fn from_every_state_the_cluster_becomes_complete_again() {
    for seed in 0..50 {
        let mut model = Model::new(seed);
        let mut planner = Planner::new(goal());
        let mut now = Duration::ZERO;
        heal(&mut model, &mut planner, &mut now, seed);
        for _ in 0..3 {
            for _ in 0..1 + model.below(6) {
                let pod = model.below(PODS as u64);
                match model.below(4) {
                    0 => (0..PODS).for_each(|pod| {
                        let with_volume = model.below(6) == 0;
                        model.die(pod, with_volume);
                    }),
                    1 => model.die(pod, true),
                    2 => model.die(pod, false),
                    _ if !model.pods[pod].is_up => model.start(pod),
                    _ => {}
                }
                for _ in 0..model.below(4) {
                    step(&mut model, &mut planner, &mut now);
                }
            }
            for pod in 0..PODS {
                if !model.pods[pod].is_up {
                    model.start(pod);
                }
            }
            heal(&mut model, &mut planner, &mut now, seed);
        }
    }
}
