//! Deterministic simulation of the production state machines of `delivery`.
//!
//! # Layout
//!
//! | module | subject |
//! |---|---|
//! | [`filesystem`] | inodes, names, open handles, power losses |
//! | [`redis`] | streams, groups, hashes, transactions, persistence |
//! | [`administrators`] | faults and foreign changes in Redis |
//! | [`programs`] | the application, logrotate, an operator, programs beside the input |
//! | [`truth`] | what the application wrote, and the fate of each byte |
//! | [`oracle`] | the final verdict on the outputs |
//! | [`many`] | a tree of files, each a source with an output, and its own oracle |
//! | [`random`] | the only source of randomness |
//! | [`story`] | the log of events |

pub mod administrators;
pub mod filesystem;
pub mod many;
pub mod oracle;
pub mod programs;
pub mod random;
pub mod reader;
pub mod redis;
mod simulation;
pub mod story;
pub mod sweep;
pub mod truth;
pub mod world;
pub mod writer;

pub use simulation::run;
