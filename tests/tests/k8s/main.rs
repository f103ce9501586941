//! The manifests, the image and the rules: held against the API's types, against each other, and against the real binaries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod adapter;
mod crd;
mod image;
mod kustomize;
mod manifests;
mod pods;
mod prometheus;
mod references;
mod rules;
mod types;
