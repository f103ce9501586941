//! A short version of `cargo xtask chaos`.

use std::time::Duration;

use e2e::Persistence;
use e2e::chaos::{ClusterPlan, FilesPlan, Plan, run, run_in_cluster, run_with_files};

fn survives(change: impl FnOnce(Plan) -> Plan) {
    let plan = Plan::of_seed(e2e::seed() & !7, Duration::from_secs(15));
    match run(change(plan)) {
        Ok(report) => println!("{report}"),
        Err(wrong) => panic!("{wrong}"),
    }
}

#[test]
fn everything_fails_at_random_moments() {
    survives(|plan| Plan { persistence: Persistence::Everysec, ..plan });
}

#[test]
fn everything_fails_at_random_moments_with_chunks() {
    survives(|plan| Plan { chunk: true, ..plan });
}

#[test]
fn everything_fails_at_random_moments_while_the_input_is_rotated() {
    survives(|plan| Plan { rotates: true, ..plan });
}

#[test]
fn everything_fails_at_random_moments_with_three_writers() {
    survives(|plan| Plan { writers: 3, ..plan });
}

#[test]
fn a_cluster_fails_at_random_moments_under_partitions() {
    match run_in_cluster(ClusterPlan::of_seed(e2e::seed(), Duration::from_secs(15))) {
        Ok(report) => println!("{}", report.unwrap_or_default()),
        Err(wrong) => panic!("{wrong}"),
    }
}

/// Files grow, are renamed, truncated, compressed and deleted, and new ones appear.
#[test]
fn everything_fails_at_random_moments_while_a_tree_of_files_is_mirrored() {
    match run_with_files(FilesPlan::of_seed(e2e::seed(), Duration::from_secs(5), 40)) {
        Ok(report) => println!("{report}"),
        Err(wrong) => panic!("{wrong}"),
    }
}
