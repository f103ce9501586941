//! The end-to-end tests: real binaries, a private redis-server per test, real signals, real files.
//! They are one binary, so that it is linked once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod added_fields;
mod backpressure;
mod browser;
mod bytes;
mod chaos;
mod check;
mod cluster;
mod cluster_client;
mod configuration;
mod consumer;
mod disk;
mod docs;
mod exclusive;
mod failover;
mod files;
mod follow;
mod harness;
mod health;
mod journal;
mod loss;
mod many;
mod many_cluster;
mod many_writer;
mod messages;
mod messages_many;
mod network;
mod once;
mod output;
mod page;
mod partitions;
mod partitions_cluster;
mod partitions_rotate;
mod partitions_stages;
mod partitions_writer;
mod readme;
mod restart;
mod rotate;
mod rotated_output;
mod sentinel;
mod sentinel_client;
mod several;
mod source;
mod stream;
mod terminal;
mod upgrade;
mod wrong;
