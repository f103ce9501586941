#![doc = include_str!("../guide.md")]
//!
//! # Layout
//!
//! * RESP itself, without I/O: [`Decoder`] turns bytes into [`Frame`]s, whose [`Value`]s borrow
//!   from the read buffer; [`CommandWriter`] writes commands; [`RespCodec`] is both for tokio.
//!   [`DecoderLimits`] bound what a peer can make them hold.
//! * [`Connection`], [`Client`], [`ClusterClient`]: commands and their replies. [`Executor`] is any
//!   of them.
//! * [`Consumer`], [`GroupReader`], [`Subscription`]: what is read for as long as it is wanted.
//! * [`streams`]: the stream commands with typed replies. [`cmd()`] and [`FromReply`]: all others.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
// Lengths, counts and IDs come from the network: nothing may overflow, truncate or panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

/// The README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod backoff;
mod client;
pub mod cluster;
mod codec;
mod command;
mod config;
mod connection;
mod consumer;
mod discovery;
mod error;
mod executor;
mod protocol;
mod redact;
mod stream_id;
pub mod streams;
mod subscription;
#[cfg(feature = "testing")]
pub mod testing;

pub use backoff::Backoff;
pub use client::{Client, ClientEvent, ClientEvents, ClientOptions};
pub use cluster::ClusterClient;
pub use codec::RespCodec;
pub use command::{BlockTimeout, Blocking, Cmd, Command, CommandArg, CommandWriter, FromReply, Routing, cmd};
#[cfg(feature = "tls")]
pub use config::TlsConfig;
pub use config::{CompletedCall, Config, ConnectAttempt, Endpoint, Observer};
pub use connection::{Connection, Pipeline, Replies, ReplyHandle, RespVersion, Transaction};
pub use consumer::{
    Acknowledger, BatchOrigin, Consumer, ConsumerOptions, ConsumerStopper, ConsumerStream, EntryBatch, GroupReader,
};
pub use discovery::{Discovery, Topology};
pub use error::{ConfigError, Error, ErrorKind, Sent};
pub use executor::Executor;
pub use protocol::{Decoder, DecoderLimits, Frame, ProtocolError, Value, ValueChildren, ValueKind, ValuePairs};
pub use stream_id::{ParseStreamIdError, StreamId};
pub use subscription::{PubSubMessage, Subscription, SubscriptionEvent, SubscriptionOptions};
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;

/// A result whose error is an [`Error`], unless you name another.
pub type Result<T, E = Error> = std::result::Result<T, E>;
