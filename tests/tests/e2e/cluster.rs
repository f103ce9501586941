//! Both services with a Redis Cluster: the node of the stream fails or its slot migrates, and the
//! output equals the input.

use e2e::rig::STREAM;
use e2e::{Cluster, Rig, wait};

use crate::failover::Stage;

#[test]
fn the_master_of_the_stream_is_killed() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let Some(mut cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let stage = Stage::start(&rig, &cluster.url(), 40_000, 6, seed);
    rig.wait_output_len(200_000);
    wait::random_moment(&mut rng, 0..500);
    let owner = cluster.owner(STREAM);
    cluster.servers[owner].kill9();
    let next = cluster.owner(STREAM);
    assert_ne!(next, owner);
    stage.finish(&cluster.servers[next]);
}

#[test]
fn the_slot_moves_while_lines_flow() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let slot = cluster.slot(STREAM);
    let mut owner = cluster.owner(STREAM);
    let stage = Stage::start(&rig, &cluster.url(), 60_000, 8, seed);
    for round in 1..=4 {
        rig.wait_output_len(200_000 * round);
        let to = (owner + 1) % 3;
        cluster.begin_move(&slot, owner, to);
        wait::random_moment(&mut rng, 0..300);
        // Migrate one key first, so that the keys of transactions are temporarily on two nodes.
        if rng.bool() {
            cluster.move_key(STREAM.as_bytes(), owner, to);
            wait::random_moment(&mut rng, 0..300);
        }
        cluster.finish_move(&slot, owner, to);
        owner = to;
    }
    stage.finish(&cluster.servers[owner]);
}

#[test]
fn all_slots_of_a_master_are_resharded_with_redis_cli() {
    let seed = e2e::seed();
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let owner = cluster.owner(STREAM);
    let stage = Stage::start(&rig, &cluster.url(), 40_000, 8, seed);
    rig.wait_output_len(200_000);
    let to = (owner + 1) % 3;
    if !cluster.reshard(owner, to) {
        eprintln!("SKIPPED redis-cli --cluster reshard: there is no redis-cli");
        return;
    }
    // The last slots may remain, because the masters do not have exactly a third each.
    let owner = cluster.owner(STREAM);
    assert_eq!(owner, to);
    stage.finish(&cluster.servers[owner]);
}

#[test]
fn a_frozen_master_returns_after_its_replica_was_promoted() {
    let seed = e2e::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    let owner = cluster.owner(STREAM);
    let stage = Stage::start(&rig, &cluster.url(), 40_000, 8, seed);
    rig.wait_output_len(200_000);
    cluster.servers[owner].freeze();
    let replica = owner + 3;
    wait::until("the replica takes its place", || cluster.servers[replica].role().as_deref() == Some("master"));
    wait::random_moment(&mut rng, 0..2000);
    cluster.servers[owner].thaw();
    stage.finish(&cluster.servers[replica]);
}

#[test]
fn check_finds_the_node_and_a_server_that_is_no_cluster_is_a_wrong_configuration() {
    let rig = Rig::new();
    let Some(cluster) = Cluster::start(&rig.folder.join("cluster")) else { return };
    rig.write_input("a line\n");
    let check = rig.reader().word("check").set("--redis-url", cluster.url()).run();
    let said = String::from_utf8(check.process().stdout()).unwrap();
    assert!(said.contains(&format!("--stream: {STREAM} does not exist yet")), "{said}");

    let alone = rig.redis.url().replace("redis://", "redis-cluster://");
    let mut service = rig.reader().set("--redis-url", alone).run();
    assert_eq!(service.code(), Some(2));
    assert!(service.find_log(&["--redis-url", "cluster support disabled"]).is_some(), "{}", service.log());
}
