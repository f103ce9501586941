//! Both services behind Sentinels: the master fails in every way, and the output equals the input.

use e2e::rig::STREAM;
use e2e::{Rig, SentinelSet, wait};

use crate::failover::Stage;

#[test]
fn a_killed_master_is_replaced() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let mut set = SentinelSet::start(&rig.folder.join("set"));
    let stage = Stage::start(&rig, &set.url(), 40_000, 6, seed);
    rig.wait_output_len(200_000);
    wait::random_moment(&mut rng, 0..500);
    set.servers[0].kill9();
    let master = set.wait_failover(0);
    stage.finish(&set.servers[master]);
}

#[test]
fn each_master_is_killed_in_turn_and_comes_back() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let mut set = SentinelSet::start(&rig.folder.join("set"));
    let stage = Stage::start(&rig, &set.url(), 60_000, 10, seed);
    let mut master = 0;
    for round in 1..=2 {
        rig.wait_output_len(200_000 * round);
        wait::random_moment(&mut rng, 0..500);
        set.servers[master].kill9();
        let next = set.wait_failover(master);
        set.servers[master].start_again();
        set.wait_complete();
        master = next;
    }
    stage.finish(&set.servers[master]);
}

#[test]
fn a_frozen_master_returns_after_another_was_promoted() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let set = SentinelSet::start(&rig.folder.join("set"));
    let stage = Stage::start(&rig, &set.url(), 40_000, 8, seed);
    rig.wait_output_len(200_000);
    set.servers[0].freeze();
    let master = set.wait_failover(0);
    wait::random_moment(&mut rng, 0..2000);
    set.servers[0].thaw();
    stage.finish(&set.servers[master]);
}

#[test]
fn a_failover_that_loses_acknowledged_entries_is_repaired_from_the_source() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let mut set = SentinelSet::start(&rig.folder.join("set"));
    let stage = Stage::start(&rig, &set.url(), 40_000, 8, seed);
    rig.wait_output_len(200_000);
    // Disconnect the replicas, and prevent their promotion meanwhile.
    set.servers[1].freeze();
    set.servers[2].freeze();
    for sentinel in &set.sentinels {
        sentinel.freeze();
    }
    let server = &set.servers[0];
    wait::until("the master has lost its replicas", || {
        server.call(&["CLIENT", "KILL", "TYPE", "replica"]);
        server.info("connected_slaves").as_deref() == Some("0")
    });
    // The last ID encodes a position in the input, and so in the output.
    let last = |server: &e2e::RedisServer| {
        let info = server.call(&["XINFO", "STREAM", STREAM]);
        let id = info.field("last-generated-id").text();
        id.rsplit('-').next().unwrap().parse::<u64>().unwrap()
    };
    let cut = last(server);
    rig.wait_output_len(cut + 300_000);
    set.servers[0].kill9();
    set.servers[1].thaw();
    set.servers[2].thaw();
    for replica in &set.servers[1..] {
        assert!(last(replica) <= cut, "the replica has what it must not have");
    }
    for sentinel in &set.sentinels {
        sentinel.thaw();
    }
    let master = set.wait_failover(0);
    stage.finish(&set.servers[master]);
}

#[test]
fn a_failover_on_demand_moves_both_services() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let set = SentinelSet::start(&rig.folder.join("set"));
    let stage = Stage::start(&rig, &set.url(), 30_000, 5, seed);
    rig.wait_output_len(200_000);
    set.sentinels[0].call(&["SENTINEL", "FAILOVER", e2e::sentinel::MASTER]);
    let master = set.wait_failover(0);
    stage.finish(&set.servers[master]);
}

#[test]
fn check_finds_the_master_and_a_wrong_name_is_a_wrong_configuration() {
    let rig = Rig::new();
    let set = SentinelSet::start(&rig.folder.join("set"));
    rig.write_input("a line\n");
    let check = rig.reader().word("check").set("--redis-url", set.url()).run();
    let said = String::from_utf8(check.process().stdout()).unwrap();
    assert!(said.contains(&format!("ok     redis: {} answers", set.url())), "{said}");

    let wrong = set.url().replace(e2e::sentinel::MASTER, "another");
    let mut service = rig.reader().set("--redis-url", &wrong).run();
    assert_eq!(service.code(), Some(2));
    let line = service.find_log(&["--redis-url", "another", "does not know a master", "allowed"]);
    assert!(line.is_some(), "{}", service.log());
}
