//! Partitions in a Redis Cluster: each master has some of the streams, and fails, hangs, loses
//! slots, or loses acknowledged entries.

use std::path::PathBuf;
use std::time::Duration;

use e2e::rig::{STREAM, len};
use e2e::{Cluster, Growth, Launch, Program, RedisServer, Rig, Service, Value, check, text, wait};
use redis::TypedCommands;
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::streams::StreamReadOptions;

/// Enough that every master has at least one.
const PARTITIONS: usize = 6;
/// The number of lines if the growth of the input is not stopped.
const LINES: u64 = 160_000;
/// The duration of that growth.
const TIME: Duration = Duration::from_secs(40);

/// The writers of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writers {
    /// One writer for all partitions.
    One,
    /// One writer per partition, each with its own output and the partition's group to itself.
    Each,
}

/// The key of a partition's stream.
fn stream(partition: usize) -> String {
    format!("{STREAM}:{{{partition}}}")
}

/// The lines of one partition in `bytes`, which are whole lines from the beginning of a content.
fn part(bytes: &[u8], partition: usize) -> Vec<u8> {
    const SMALL: usize = 64 << 10;
    const LARGE: usize = 1 << 20;
    const ALL_SMALL: usize = 16 << 20;
    let mut at = 0;
    let mut part = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let block = if at < ALL_SMALL { at / SMALL } else { ALL_SMALL / SMALL + (at - ALL_SMALL) / LARGE };
        if block % PARTITIONS == partition {
            part.extend_from_slice(line);
        }
        at += line.len();
    }
    part
}

/// A growing input, a reader of all partitions, and their writers.
struct Stage<'a> {
    reader: Service,
    writers: Vec<Service>,
    /// The launch configurations of the reader and of the writers.
    launches: (Launch, Vec<Launch>),
    /// The number of generations that the reader must begin.
    generations: usize,
    outputs: Vec<PathBuf>,
    growth: Growth,
    /// The bytes by which the input grows.
    bytes: Vec<u8>,
    rig: &'a Rig,
}

impl<'a> Stage<'a> {
    fn start(rig: &'a Rig, cluster: &Cluster, writers: Writers, seed: u64) -> Self {
        let owners: Vec<usize> = (0..PARTITIONS).map(|partition| cluster.owner(&stream(partition))).collect();
        assert!((0..3).all(|master| owners.contains(&master)), "every master has a partition: {owners:?}");
        let bytes = text::numbered(0..LINES, seed);
        let (url, count) = (cluster.url(), PARTITIONS.to_string());
        let reader = rig.reader().set("--redis-url", &url).set("--partitions", &count);
        let writer = rig.writer().set("--redis-url", &url).set("--partitions", &count);
        let outputs = match writers {
            Writers::One => vec![rig.output.clone()],
            Writers::Each => (0..PARTITIONS).map(|nth| rig.folder.join(&format!("out/output-{nth}.txt"))).collect(),
        };
        let launch = |(nth, output): (usize, &PathBuf)| {
            let writer = writer.clone().set("--output", output).set("--consumer", format!("writer-{nth}"));
            match writers {
                Writers::One => writer,
                Writers::Each => writer.set("--partition", nth.to_string()).set("--consume", "exclusive"),
            }
        };
        let launches = (reader, outputs.iter().enumerate().map(launch).collect::<Vec<_>>());
        let reader = launches.0.start();
        let writers = launches.1.iter().map(Launch::start).collect();
        let growth = Growth::of(&rig.input, bytes.clone(), TIME, seed);
        Self { reader, writers, launches, generations: PARTITIONS, outputs, growth, bytes, rig }
    }

    /// Bytes in all outputs.
    fn written(&self) -> u64 {
        self.outputs.iter().map(|output| len(output)).sum()
    }

    /// Stops or kills all services, and starts them again.
    fn restart_services(&mut self, end: fn(&mut Service)) {
        end(&mut self.reader);
        self.writers.iter_mut().for_each(end);
        self.reader = self.launches.0.start();
        self.writers = self.launches.1.iter().map(Launch::start).collect();
        // All generations have begun, and the new reader counts from zero.
        self.generations = 0;
    }

    /// Waits until new lines arrive.
    fn wait_flow(&self) {
        let goal = (self.written() + 150_000).min(self.bytes.len() as u64);
        wait::progress_to(goal, || self.written()).unwrap_or_else(|at| panic!("the outputs stand still at {at}"));
    }

    /// Stops the growth of the input at the end of a line.
    fn end_growth(&mut self) {
        self.growth.stop();
        let written = usize::try_from(self.growth.written()).unwrap();
        // Only once: later, the test itself appends whole lines.
        if len(&self.rig.input) != written as u64 {
            return;
        }
        if written > 0 && self.bytes[written - 1] != b'\n' {
            let newline = self.bytes[written..].iter().position(|&byte| byte == b'\n').unwrap();
            self.rig.append_input(&self.bytes[written..=written + newline]);
        }
        self.bytes.truncate(usize::try_from(len(&self.rig.input)).unwrap());
    }

    /// Whether the outputs have all lines of a partition in the input. Call it after
    /// [`Self::end_growth`].
    fn has_all_of(&self, partition: usize) -> bool {
        let goal = part(&self.bytes, partition);
        match &self.outputs[..] {
            [output] => {
                let written = std::fs::read(output).unwrap_or_default();
                let numbers = |bytes: &[u8]| -> Vec<Option<u64>> {
                    bytes.split_inclusive(|&byte| byte == b'\n').map(text::number_of).collect()
                };
                let mut written = numbers(&written);
                written.sort_unstable();
                numbers(&goal).iter().all(|number| written.binary_search(number).is_ok())
            }
            outputs => len(&outputs[partition]) == goal.len() as u64,
        }
    }

    fn with_outputs(&self, launch: Launch) -> Launch {
        self.outputs.iter().fold(launch, |launch, output| launch.word("--output").word(output))
    }

    /// Merges all outputs into the order of the source.
    fn merge(&self) -> PathBuf {
        let mut merge = self.with_outputs(self.rig.command(Program::Writer).word("merge")).run();
        assert_eq!(merge.code(), Some(0), "{}", merge.log());
        merge.process().stdout_path()
    }

    /// Waits until everything is delivered, and checks the result.
    fn finish(mut self, cluster: &Cluster) {
        self.end_growth();
        let goal = self.bytes.len() as u64;
        wait::progress_to(goal, || self.written())
            .unwrap_or_else(|at| panic!("the outputs stand still at {at} of {goal}"));
        for partition in 0..PARTITIONS {
            let stream = stream(partition);
            wait::until("nothing is pending", || {
                let server = &cluster.servers[cluster.owner(&stream)];
                let Ok(Ok(pending)) = server.try_call(&["XPENDING", &stream, "writers"]) else { return false };
                pending.list()[0].int() == 0
            });
        }
        for writer in &mut self.writers {
            assert_eq!(writer.metric("writer_gap_bytes_total"), 0.0, "{}", writer.log());
        }
        let generations = self.reader.metric("reader_generations_total");
        assert_eq!(generations, self.generations as f64, "sent again with the same IDs");
        self.reader.stop();
        self.writers.iter_mut().for_each(Service::stop);

        check::assert_identical(&self.rig.input, &self.merge());
        let verify = self.rig.command(Program::Writer).word("verify").word("--input").word(&self.rig.input);
        self.with_outputs(verify).run_ok();
        if let [_, _, ..] = &self.outputs[..] {
            for (partition, output) in self.outputs.iter().enumerate() {
                assert!(std::fs::read(output).unwrap() == part(&self.bytes, partition), "{}", output.display());
            }
        }
    }
}

/// Every master fails in turn, and returns as a replica.
fn all_masters_are_killed_in_turn(writers: Writers) {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let Some(mut cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let stage = Stage::start(&rig, &cluster, writers, seed);
    let mut masters = [0, 1, 2];
    rng.shuffle(&mut masters);
    for master in masters {
        stage.wait_flow();
        wait::random_moment(&mut rng, 0..300);
        cluster.servers[master].kill9();
        cluster.wait_replaced(master);
        wait::random_moment(&mut rng, 0..300);
        cluster.servers[master].start_again();
        cluster.wait_complete();
    }
    stage.wait_flow();
    stage.finish(&cluster);
}

#[test]
fn all_masters_are_killed_in_turn_under_a_writer_for_each_partition() {
    all_masters_are_killed_in_turn(Writers::Each);
}

#[test]
fn all_masters_are_killed_in_turn_under_one_writer() {
    all_masters_are_killed_in_turn(Writers::One);
}

fn slots_of_partitions_move(writers: Writers) {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let stage = Stage::start(&rig, &cluster, writers, seed);
    // The streams, and the record with their number.
    let mut keys: Vec<String> = (0..PARTITIONS).map(stream).chain([STREAM.to_owned()]).collect();
    for _ in 0..5 {
        stage.wait_flow();
        rng.shuffle(&mut keys);
        // Migrate two slots at the same time.
        let moves: Vec<(String, usize, usize)> = keys[..2]
            .iter()
            .map(|key| {
                let from = cluster.owner(key);
                let to = (from + rng.usize(1..3)) % 3;
                let slot = cluster.slot(key);
                cluster.begin_move(&slot, from, to);
                wait::random_moment(&mut rng, 0..200);
                // Migrate one key first, so that the keys of transactions are temporarily on two
                // nodes.
                if rng.bool() {
                    cluster.move_key(key.as_bytes(), from, to);
                    wait::random_moment(&mut rng, 0..200);
                }
                (slot, from, to)
            })
            .collect();
        for (slot, from, to) in moves {
            cluster.finish_move(&slot, from, to);
            wait::random_moment(&mut rng, 0..200);
        }
    }
    stage.wait_flow();
    stage.finish(&cluster);
}

#[test]
fn slots_of_partitions_move_under_a_writer_for_each_partition() {
    slots_of_partitions_move(Writers::Each);
}

#[test]
fn slots_of_partitions_move_under_one_writer() {
    slots_of_partitions_move(Writers::One);
}

#[test]
fn partitions_are_resharded_with_redis_cli() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let stage = Stage::start(&rig, &cluster, Writers::Each, seed);
    stage.wait_flow();
    let of_master = |master: usize| (0..PARTITIONS).filter(|&nth| cluster.owner(&stream(nth)) == master).count();
    let before = of_master(1);
    // The first slots of that master contain all its partitions.
    if !cluster.reshard_some(1, 0, 4600) {
        eprintln!("SKIPPED redis-cli --cluster reshard: there is no redis-cli");
        return;
    }
    assert!(before > 1 && of_master(1) == 0, "they are on another master now");
    stage.wait_flow();
    stage.finish(&cluster);
}

#[test]
fn frozen_masters_return_after_their_replicas_were_promoted() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let stage = Stage::start(&rig, &cluster, if rng.bool() { Writers::One } else { Writers::Each }, seed);
    let first = rng.usize(..3);
    for master in [first, (first + rng.usize(1..3)) % 3] {
        stage.wait_flow();
        wait::random_moment(&mut rng, 0..300);
        cluster.servers[master].freeze();
        cluster.wait_replaced(master);
        wait::random_moment(&mut rng, 0..1500);
        cluster.servers[master].thaw();
        cluster.wait_complete();
    }
    stage.wait_flow();
    stage.finish(&cluster);
}

#[test]
fn entries_lost_in_a_failover_are_sent_again() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let Some(mut cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let mut stage = Stage::start(&rig, &cluster, Writers::Each, seed);
    stage.wait_flow();
    let lost = rng.usize(..PARTITIONS);
    let master = cluster.owner(&stream(lost));
    let replica = cluster.partner(master);
    // Allow the replica to be promoted however old its data is.
    cluster.servers[replica].config_set("cluster-replica-validity-factor", "0");
    cluster.servers[replica].freeze();
    // Replies on their way to the replica must not arrive after the thaw.
    cluster.servers[master].call(&["CLIENT", "KILL", "TYPE", "REPLICA"]);
    let output = stage.outputs[lost].clone();
    let lines = || text::lines_in(&std::fs::read(&output).unwrap());
    let before = lines();
    wait::until("lines are acknowledged that only the master has", || lines() > before + 2000);
    let acknowledged = lines() - before;
    cluster.servers[master].kill9();
    cluster.servers[replica].thaw();
    cluster.wait_replaced(master);
    cluster.servers[master].start_again();
    let again = stage.writers[lost].wait_for_metric("writer_redelivered_total", |again| again > 0.0);
    println!("{acknowledged} lines were lost, {again} entries came again so far");
    stage.wait_flow();
    stage.writers[lost].wait_for_metric("writer_redelivered_total", |again| again >= acknowledged as f64);
    stage.finish(&cluster);
}

/// How a master and its replica fail, so that nobody serves its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Killed,
    Frozen,
}

fn a_dead_node_holds_up_no_other_partition(writers: Writers, away: Away) {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let Some(mut cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    cluster.serve_in_part();
    let mut stage = Stage::start(&rig, &cluster, writers, seed);
    stage.wait_flow();
    let begun = |count| count == PARTITIONS as f64;
    stage.reader.wait_for_metric("reader_generations_total", begun);
    // The master that also has the record with the file IDs.
    let master = cluster.owner(STREAM);
    let (dead, alive): (Vec<usize>, Vec<usize>) =
        (0..PARTITIONS).partition(|&partition| cluster.owner(&stream(partition)) == master);
    let pair = [cluster.partner(master), master];
    for server in pair {
        match away {
            Away::Killed => cluster.servers[server].kill9(),
            Away::Frozen => cluster.servers[server].freeze(),
        }
    }
    let grow = || {
        let goal = len(&rig.input) + 1_000_000;
        wait::progress_to(goal, || len(&rig.input)).unwrap();
    };
    grow();
    match away {
        Away::Killed => stage.restart_services(Service::kill9),
        Away::Frozen if rng.bool() => stage.restart_services(Service::stop),
        Away::Frozen => {}
    }
    grow();
    stage.end_growth();
    for &partition in &alive {
        wait::until("a partition that has its node is delivered to its end", || stage.has_all_of(partition));
    }
    for &partition in &dead {
        assert!(!stage.has_all_of(partition), "{} is on an unreachable node", stream(partition));
    }
    let names_one = |service: &mut Service, names: &[usize]| {
        wait::until("readyz names the stream whose node is unreachable", || {
            let (code, said) = service.readyz();
            code == 503 && names.iter().any(|&nth| said.contains(&format!("stream {}:", stream(nth))))
        });
    };
    names_one(&mut stage.reader, &dead);
    match writers {
        Writers::One => names_one(&mut stage.writers[0], &dead),
        Writers::Each => {
            dead.iter().for_each(|&nth| names_one(&mut stage.writers[nth], &[nth]));
            for &nth in &alive {
                assert_eq!(stage.writers[nth].readyz().0, 200, "{}", stage.writers[nth].readyz().1);
            }
        }
    }
    for server in pair {
        match away {
            Away::Killed => cluster.servers[server].start_again(),
            Away::Frozen => cluster.servers[server].thaw(),
        }
    }
    cluster.wait_complete();
    wait::until("the reader is ready again", || stage.reader.readyz().0 == 200);
    let record = format!("{{{STREAM}}}:source");
    let count = PARTITIONS.to_string();
    wait::until("the record tells again how many partitions there are", || {
        let told = cluster.servers[cluster.owner(STREAM)].call(&["HGET", &record, "partitions"]);
        told != Value::Nil && told.text() == count
    });
    stage.finish(&cluster);
}

#[test]
fn a_dead_node_holds_up_no_other_partition_of_one_writer() {
    a_dead_node_holds_up_no_other_partition(Writers::One, Away::Killed);
}

#[test]
fn a_dead_node_holds_up_no_writer_of_another_partition() {
    a_dead_node_holds_up_no_other_partition(Writers::Each, Away::Killed);
}

#[test]
fn a_frozen_node_holds_up_no_other_partition_of_one_writer() {
    a_dead_node_holds_up_no_other_partition(Writers::One, Away::Frozen);
}

/// A node that answers and refuses one command. It loses nothing, so entries pile up before the
/// unacknowledged ones.
fn a_node_that_refuses_holds_up_no_other_partition(command: &str) {
    let seed = e2e::seed();
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let mut stage = Stage::start(&rig, &cluster, Writers::One, seed);
    stage.wait_flow();
    let node = fastrand::Rng::with_seed(seed).usize(..3);
    let (refused, others): (Vec<usize>, Vec<usize>) =
        (0..PARTITIONS).partition(|&partition| cluster.owner(&stream(partition)) == node);
    cluster.servers[node].call(&["ACL", "SETUSER", "default", &format!("-{command}")]);
    let goal = len(&rig.input) + 2_000_000;
    wait::progress_to(goal, || len(&rig.input)).unwrap();
    stage.end_growth();
    for &partition in &others {
        wait::until("a partition that is not refused is delivered to its end", || stage.has_all_of(partition));
    }
    let service = if command == "xack" { &mut stage.writers[0] } else { &mut stage.reader };
    wait::until("readyz names a stream that is refused", || {
        let (code, said) = service.readyz();
        code == 503 && refused.iter().any(|&nth| said.contains(&format!("stream {}:", stream(nth))))
    });
    cluster.servers[node].call(&["ACL", "SETUSER", "default", &format!("+{command}")]);
    stage.finish(&cluster);
}

#[test]
fn a_node_that_takes_no_lines_holds_up_no_other_partition() {
    a_node_that_refuses_holds_up_no_other_partition("xadd");
}

#[test]
fn a_node_that_takes_no_acknowledgement_holds_up_no_other_partition() {
    a_node_that_refuses_holds_up_no_other_partition("xack");
}

#[test]
fn a_lost_file_id_is_known_while_its_partition_is_unreachable() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    cluster.serve_in_part();
    let mut stage = Stage::start(&rig, &cluster, Writers::Each, seed);
    // The record with the file IDs, the partitions that know one, and those that do not are each on
    // a different master.
    let [base, unaware, aware] = [0, 1, 2];
    let keys = [(STREAM.to_owned(), base)].into_iter().chain((0..PARTITIONS).map(|nth| (stream(nth), 1 + nth % 2)));
    for (key, to) in keys {
        let from = cluster.owner(&key);
        if from != to {
            cluster.move_slot(&cluster.slot(&key), from, to);
            cluster.wait_agreed();
        }
    }
    let pair = |master| [cluster.partner(master), master];
    let freeze = |master| pair(master).iter().for_each(|&server| cluster.servers[server].freeze());
    let thaw = |master| pair(master).iter().for_each(|&server| cluster.servers[server].thaw());
    stage.wait_flow();
    let begun = |count| count == PARTITIONS as f64;
    stage.reader.wait_for_metric("reader_generations_total", begun);
    stage.end_growth();
    let first = stage.bytes.clone();
    wait::until("all is written", || (0..PARTITIONS).all(|nth| stage.has_all_of(nth)));

    freeze(unaware);
    let second = text::numbered(LINES..LINES + 20_000, seed);
    let (little, rest) = second.split_at(300_000);
    std::fs::rename(&rig.input, rig.folder.join("in/input.txt.1")).unwrap();
    rig.write_input(little);
    let before = part(&first, 1).len() as u64;
    wait::until("the next content has begun", || len(&stage.outputs[1]) > before);
    stage.reader.kill9();
    cluster.servers[base].call(&["DEL", &format!("{{{STREAM}}}:source")]);
    freeze(aware);
    thaw(unaware);
    rig.append_input(rest);
    stage.reader = stage.launches.0.start();
    let all = |nth| (part(&first, nth).len() + part(&second, nth).len()) as u64;
    rig.wait_len_of(&stage.outputs[0], all(0));
    thaw(aware);
    for (nth, output) in stage.outputs.iter().enumerate() {
        rig.wait_len_of(output, all(nth));
    }
    stage.reader.stop();
    stage.writers.iter_mut().for_each(Service::stop);
    let merged = stage.merge();
    assert!(std::fs::read(merged).unwrap() == [first, second].concat(), "both contents, one after the other");
}

/// A consumer of another library, which knows only the field `line`.
struct Stock {
    connection: ClusterConnection,
    stream: String,
    /// The received lines.
    bytes: Vec<u8>,
    /// The received entries that it has not acknowledged.
    ids: Vec<String>,
}

impl Stock {
    const GROUP: &str = "stock";

    /// Creates its own group at the first entry.
    fn join(cluster: &Cluster, stream: &str) -> Self {
        let seeds = cluster.servers.iter().map(RedisServer::url);
        let mut connection = ClusterClient::new(seeds).unwrap().get_connection().unwrap();
        connection.xgroup_create_mkstream(stream, Self::GROUP, "0").unwrap();
        Self { connection, stream: stream.to_owned(), bytes: Vec::new(), ids: Vec::new() }
    }

    /// Reads this many lines.
    fn read(&mut self, lines: usize) {
        let goal = text::lines_in(&self.bytes) + lines;
        while text::lines_in(&self.bytes) < goal {
            let left = goal - text::lines_in(&self.bytes);
            let options = StreamReadOptions::default().group(Self::GROUP, "one").count(left.min(500)).block(1000);
            let reply = self.connection.xread_options(&[&self.stream], &[">"], &options).unwrap();
            for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
                self.bytes.extend(entry.get::<Vec<u8>>("line").unwrap());
                self.bytes.push(b'\n');
                self.ids.push(entry.id);
            }
        }
    }

    fn acknowledge(&mut self) {
        let acknowledged = self.connection.xack(&self.stream, Self::GROUP, &self.ids).unwrap();
        assert_eq!(acknowledged, self.ids.len());
        self.ids.clear();
    }

    /// The ID of the oldest entry in the stream.
    fn oldest(&mut self) -> Option<String> {
        let reply = self.connection.xrange_count(&self.stream, "-", "+", 1).unwrap();
        reply.ids.into_iter().next().map(|entry| entry.id)
    }
}

#[test]
fn a_consumer_of_another_library_gets_every_line_of_a_partition() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let nth = fastrand::Rng::with_seed(seed).usize(..PARTITIONS);
    let stream = stream(nth);
    let mut stock = Stock::join(&cluster, &stream);
    let mut stage = Stage::start(&rig, &cluster, Writers::Each, seed);
    stage.wait_flow();
    wait::progress_to(1_000_000, || stage.written()).unwrap();
    stage.end_growth();
    wait::until("all is written", || (0..PARTITIONS).all(|nth| stage.has_all_of(nth)));

    // Entries are not trimmed before a slow group has them.
    let lines = text::lines_in(&part(&stage.bytes, nth));
    let length = || {
        let server = &cluster.servers[cluster.owner(&stream)];
        usize::try_from(server.call(&["XLEN", &stream]).int()).unwrap()
    };
    assert_eq!(length(), lines);
    stock.read(lines / 2);
    stock.acknowledge();

    // It follows the stream to another node, as any cluster client does.
    let owner = cluster.owner(&stream);
    cluster.move_slot(&cluster.slot(&stream), owner, (owner + 1) % 3);
    let more = text::numbered(LINES..LINES + 20_000, seed);
    rig.append_input(&more);
    stage.bytes.extend_from_slice(&more);
    wait::until("all is written", || (0..PARTITIONS).all(|nth| stage.has_all_of(nth)));
    stock.read(1);
    let first_left = stock.ids[0].clone();
    wait::until("what both have acknowledged is trimmed", || stock.oldest().as_ref() == Some(&first_left));

    let goal = part(&stage.bytes, nth);
    stock.read(text::lines_in(&goal) - lines / 2 - 1);
    assert!(stock.bytes == goal, "every line, in order");
    assert_eq!(length(), stock.ids.len(), "what it has not acknowledged is all still there");
    stock.acknowledge();
    stage.finish(&cluster);
}
