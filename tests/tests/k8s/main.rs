//! What deploys the services: the manifests, the image, the rules, compose.yaml and the systemd
//! units. Held against the API's types, against each other, and against the real binaries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod adapter;
mod chart;
mod cluster;
mod compose;
mod crd;
mod image;
mod jobs;
mod kustomize;
mod manifests;
mod package;
mod pods;
mod prometheus;
mod references;
mod rules;
mod runbook;
mod sentinel;
mod systemd;
mod types;
