#![doc = include_str!("../guide.md")]
//!
//! # Layout
//!
//! * RESP itself, without I/O: [`Decoder`] turns bytes into [`Frame`]s, whose [`Value`]s borrow
//!   from the read buffer; [`Request`] writes commands; [`RespCodec`] is both for tokio. [`Limits`]
//!   bound what a peer can make them hold.
//! * [`Connection`], [`Client`], [`ClusterClient`]: commands and their replies. [`Executor`] is any
//!   of them.
//! * [`Consumer`], [`GroupReader`], [`Subscription`]: what is read for as long as it is wanted.
//! * [`streams`]: the stream commands with typed replies. [`cmd()`] and [`FromReply`]: all others.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

/// The README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod arg;
mod backoff;
mod client;
pub mod cluster;
mod cmd;
mod command;
mod config;
mod connection;
mod consumer;
mod error;
mod executor;
mod follower;
mod from_reply;
mod number;
mod observer;
mod protocol;
mod request;
mod sentinel;
mod stream_id;
pub mod streams;
mod subscription;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
mod turn;

pub use arg::Arg;
pub use backoff::Backoff;
pub use client::{Client, ClientOptions, Event, Events};
pub use cluster::{ClusterClient, Routing};
pub use cmd::{Cmd, cmd};
pub use command::{Block, Blocking, Command};
#[cfg(feature = "tls")]
pub use config::TlsConfig;
pub use config::{Config, ConfigError, Endpoint};
pub use connection::{Connection, Pipeline, Protocol, Replies, Slot, Transaction};
pub use consumer::{Acknowledger, Batch, Consumer, ConsumerOptions, ConsumerStream, GroupReader, Origin, Stopper};
pub use error::{Error, ErrorKind, Sent};
pub use executor::Executor;
pub use from_reply::FromReply;
pub use observer::{Call, ConnectAttempt, Observer};
pub use protocol::{Children, Decoder, Frame, Kind, Limits, Pairs, ProtocolError, RespCodec, Value};
pub use request::Request;
pub use stream_id::{ParseStreamIdError, StreamId};
pub use subscription::{Message, Subscription, SubscriptionEvent, SubscriptionOptions};
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;
