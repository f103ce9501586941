//! The production state machines of `delivery` in a simulated world.
//!
//! # Layout
//!
//! | module | subject |
//! |---|---|
//! | [`filesystem`] | inodes, names, open handles, power cuts |
//! | [`redis`] | streams, groups, hashes, transactions, what persistence keeps |
//! | [`administrators`] | what is done to Redis from outside |
//! | [`programs`] | the application, logrotate, an operator, neighbours |
//! | [`truth`] | what the application wrote, and what became of each byte |
//! | [`oracle`] | what must be in the outputs in the end |
//! | [`random`] | the one source of chance |
//! | [`story`] | what happened, in words |

pub mod administrators;
pub mod filesystem;
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
