//! A RESP2/RESP3 client for Redis Streams, written by hand.
//!
//! # Guide
//!
//! ## Connecting
//!
//! A [`Config`] says how to reach a server: by URL, or piece by piece. TCP, Unix sockets and (cargo feature `tls`) TLS; ACL user and password,
//! database, the name that `CLIENT LIST` shows.
//!
//! ```no_run
//! use std::time::Duration;
//! use resp::{Config, Endpoint};
//!
//! let config = Config::from_url("redis://app:s3cret@redis.example:6379/2")?;
//! let config = Config::new(Endpoint::unix("/run/redis.sock"))
//!     .client_name("importer")
//!     .connect_timeout(Duration::from_secs(2))
//!     .command_timeout(Some(Duration::from_secs(10)));
//! # Ok::<(), resp::ConfigError>(())
//! ```
//!
//! Where several servers stand by for each other, Sentinels are asked which is the master, with every connection anew, so that a failover is
//! followed: `redis-sentinel://a:26379,b:26379,c:26379/mymaster`. The server itself is asked too, and refused
//! ([`ErrorKind::NotMaster`]) when it is none.
//!
//! A Redis Cluster is `redis-cluster://a:6379,b:6379`: a [`ClusterClient`] sends each command to the node that has its key, a [`Connection`] or
//! [`Consumer`] leads to the node that has one key ([`Config::for_key`]).
//!
//! RESP3 is proposed, and RESP2 spoken with servers that refuse it (`?protocol=2` speaks it from the start). Both give the same values.
//!
//! ## Which of the four
//!
//! | what | connection | for |
//! |---|---|---|
//! | [`Client`] | one, shared by all its clones; made again when it breaks | most commands of most programs |
//! | [`ClusterClient`] | one for each node of a cluster, shared by all its clones | the same in a Redis Cluster |
//! | [`Connection`] | one, of one owner | blocking reads, transactions with `WATCH`, pipelines by hand |
//! | [`Consumer`] | one of its own; made again when it breaks | reading a stream in a consumer group |
//!
//! ## Adding entries
//!
//! ```no_run
//! use resp::streams::{AddId, Trim, XAdd};
//! use resp::{Client, Config, ErrorKind};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(&Config::from_url("redis://localhost")?).await?;
//! let fields = [("type", "start"), ("by", "me")];
//! let add = XAdd::new("events", AddId::Auto, &fields).trim(Trim::max_len(1_000_000).approximately());
//! match client.send(&add).await {
//!     Ok(id) => println!("added as {id}"),
//!     Err(error) if error.kind() == ErrorKind::Oom => println!("no room: {error}"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Many at once go into a [`Pipeline`] (one round trip) or a [`Transaction`] (and nothing of others between them).
//!
//! ## Reading in a group
//!
//! ```no_run
//! use std::time::Duration;
//! use resp::{Config, ConsumerOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::from_url("redis://localhost")?;
//! let mut consumer = ConsumerOptions::new(config, "events", "workers", "me")
//!     .claim_idle(Some(Duration::from_secs(60))) // from workers that are gone
//!     .connect()
//!     .await?;
//! while let Some(batch) = consumer.next().await? {
//!     for entry in &batch {
//!         match entry.fields {
//!             Some(fields) => println!("{}: {fields:?}", entry.id),
//!             None => println!("{} was deleted while it was pending", entry.id),
//!         }
//!     }
//!     consumer.ack(batch.ids());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Entries borrow from the reply, so a batch costs no allocation an entry. [`Batch::share`] makes a [`bytes::Bytes`] of what is to be kept.
//!
//! ## Blocking reads
//!
//! A command that waits in the server would hold up everybody on a shared connection, so it has a type of its own, [`Blocking`], that only
//! [`Connection::send_blocking`] takes. It waits as long as the command blocks, and [a grace](Config::block_grace).
//!
//! ```no_run
//! use std::time::Duration;
//! use resp::streams::{ReadFrom, XRead};
//! use resp::{Block, Config, Connection};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut connection = Connection::connect(&Config::from_url("redis://localhost")?).await?;
//! let read = XRead::new("events", ReadFrom::New).block(Block::For(Duration::from_secs(5)));
//! for entry in &connection.send_blocking(&read).await? {
//!     println!("{entry:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! ## When something fails
//!
//! Every call ends by its deadline ([`Config::command_timeout`]). An [`Error`] has a [`kind`](Error::kind) to act on, the server's [`code`](Error::code), and says with [`sent`](Error::sent) whether the server can
//! have executed the command: after [`Sent::No`] trying again doubles nothing. [`is_transient`](Error::is_transient) says whether waiting helps, a
//! [`Backoff`] how long to. A command or option that the server is too old for is [`ErrorKind::UnknownCommand`] or [`ErrorKind::Syntax`].
//!
//! Any future may be dropped at any moment: replies are counted, so none is ever taken for another's.
//!
//! ## Commands of your own
//!
//! [`cmd()`] is for the hurry, [`Command`] for a typed one.
//!
//! ```no_run
//! # async fn example(client: resp::Client) -> Result<(), resp::Error> {
//! let user: std::collections::HashMap<String, String> = client.send(&resp::cmd("HGETALL").arg("user:7")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ## What the server sends by itself
//!
//! [`Client::events`] gives push messages (such as invalidations) and what happens to the connection; [`Connection::take_push`] gives those of one
//! connection.
//!
//! # Layout
//!
//! * RESP itself, without I/O: [`Decoder`] turns bytes into [`Frame`]s, whose [`Value`]s borrow from the read buffer; [`Request`] writes commands;
//!   [`RespCodec`] is both for tokio. [`Limits`] bound what a peer can make them hold.
//! * [`Connection`], [`Client`], [`Consumer`]: see above.
//! * [`streams`]: the stream commands with typed replies.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

/// The README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So are those of the guide.
#[cfg(doctest)]
#[doc = include_str!("../guide.md")]
struct Guide;

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
mod follower;
mod from_reply;
mod number;
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
pub use from_reply::FromReply;
pub use protocol::{Children, Decoder, Frame, Kind, Limits, Pairs, ProtocolError, RespCodec, Value};
pub use request::Request;
pub use stream_id::{ParseStreamIdError, StreamId};
pub use subscription::{Message, Subscription, SubscriptionEvent, SubscriptionOptions};
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;
