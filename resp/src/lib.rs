//! A RESP2/RESP3 client for Redis Streams, written by hand.
//!
//! # Layout
//!
//! * RESP itself, without I/O: [`Decoder`] turns bytes into [`Frame`]s, whose [`Value`]s borrow from the read buffer;
//!   [`Request`] writes commands; [`RespCodec`] is both for tokio.
//! * [`Connection`]: one connection of one owner, over TCP, TLS or a Unix socket: round trips, blocking reads, pipelines,
//!   transactions. [`Config`] says how to reach the server.
//! * [`Client`]: one connection that many tasks share, with automatic pipelining; it connects again by itself.
//! * [`Consumer`]: reads a stream in a consumer group, over a connection of its own.
//! * [`streams`]: the stream commands with typed replies. [`Command`] is how further ones are made, [`cmd()`] how they are made
//!   in a hurry.
//! * [`Error`] says what was being done, what came back, and whether the server can have done it. [`Backoff`] says how long
//!   to wait before the next attempt.
//!
//! ```no_run
//! use resp::streams::{AddId, XAdd, XRange};
//! use resp::{Config, Connection};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut connection = Connection::connect(&Config::from_url("redis://localhost")?).await?;
//! connection.send(&XAdd::new("events", AddId::Auto, &[("type", "start"), ("by", "me")])).await?;
//!
//! let entries = connection.send(&XRange::new("events", ..)).await?;
//! for entry in &entries {
//!     println!("{}: {:?}", entry.id, entry.field(b"type"));
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

/// The README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod backoff;
mod client;
mod cmd;
mod command;
mod config;
mod connection;
mod consumer;
mod error;
mod number;
mod protocol;
mod request;
mod stream_id;
pub mod streams;

pub use backoff::Backoff;
pub use client::{Client, ClientOptions, Event};
pub use cmd::{Arg, Cmd, cmd};
pub use command::{Block, Blocking, Command};
#[cfg(feature = "tls")]
pub use config::TlsConfig;
pub use config::{Config, ConfigError, Endpoint};
pub use connection::{Connection, Pipeline, Protocol, Replies, Slot, Transaction};
pub use consumer::{Batch, Consumer, ConsumerOptions, Origin, Stopper};
pub use error::{Error, ErrorKind, Sent};
pub use protocol::{Children, Decoder, Frame, Kind, Limits, Pairs, ProtocolError, RespCodec, Value};
pub use request::Request;
pub use stream_id::{ParseStreamIdError, StreamId};
