//! The scripted server, and tests that are simplest with one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resp::streams::{AddId, XAdd, XLen};
use resp::testing::{Script, ScriptedServer, reply};
use resp::{
    Backoff, Client, ClientOptions, CompletedCall, Config, ConnectAttempt, Connection, ConsumerOptions, Endpoint,
    ErrorKind, Executor, Observer, Pipeline, RespVersion, StreamId, Transaction, cmd,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

#[tokio::test]
async fn a_script_is_followed_by_connections_of_all_kinds() {
    let add = XAdd::new("s", AddId::Auto, &[("a", "b")]);
    let server = ScriptedServer::new([
        Script::new().on(add, reply::bulk("1-1")).on_name("xlen", reply::integer(1)),
        Script::resp2().on(XLen::new("s"), reply::integer(2)),
    ]);
    let config = server.config().password("pw").client_name("me").database(3);
    let client = Client::connect(&config).await.unwrap();
    assert_eq!(client.send(&add).await.unwrap(), StreamId::new(1, 1));
    assert_eq!(client.send(XLen::new("s")).await.unwrap(), 1);
    let mut connection = Connection::connect(&config).await.unwrap();
    assert_eq!(connection.protocol(), RespVersion::Resp2);
    assert_eq!(connection.send(XLen::new("s")).await.unwrap(), 2);
    let refused = Connection::connect(&config).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    server.finish().await.unwrap();
}

#[tokio::test]
async fn unexpected_commands_are_reported() {
    let get = cmd::<String>("GET").arg("a");
    let server = ScriptedServer::new([Script::new().on(&get, reply::bulk("1"))]);
    let mut connection = Connection::connect(&server.config()).await.unwrap();
    let error = connection.send(cmd::<()>("SET").arg("a").arg(2)).await.unwrap_err();
    assert_eq!(error.to_string(), "SET: ERR not in the script: expected GET a, got SET a 2");
    let error = server.finish().await.unwrap_err();
    assert_eq!(error.to_string(), "connection 1: expected GET a, got SET a 2");

    let server = ScriptedServer::new([Script::new()]);
    let mut connection = Connection::connect(&server.config()).await.unwrap();
    assert!(connection.send(&get).await.is_err());
    assert_eq!(server.finish().await.unwrap_err().to_string(), "connection 1: expected no more commands, got GET a");

    tokio::time::pause();
    let server = ScriptedServer::new([Script::new().on(&get, reply::bulk("1"))]);
    let connection = Connection::connect(&server.config()).await.unwrap();
    assert_eq!(server.finish().await.unwrap_err().to_string(), "connection 1: GET a did not come");
    drop(connection);
    let server = ScriptedServer::new([Script::new()]);
    assert_eq!(server.finish().await.unwrap_err().to_string(), "1 connections more were expected");
}

#[tokio::test]
async fn a_client_reconnects_over_the_connector() {
    let get = cmd::<u64>("GET").arg("a");
    let server = ScriptedServer::new([
        Script::new().on(&get, reply::integer(1)).close(),
        Script::new().on(&get, reply::integer(2)),
    ]);
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let client = ClientOptions::new(server.config()).backoff(backoff).connect().await.unwrap();
    assert_eq!(client.send(&get).await.unwrap(), 1);
    while client.send(&get).await.is_err() {}
    server.finish().await.unwrap();
}

#[tokio::test]
async fn sentinels_are_found_through_the_connector() {
    let address = reply::array([reply::bulk("10.0.0.1"), reply::bulk("6379")]);
    let server = ScriptedServer::new([
        Script::new().on_name("SENTINEL GET-MASTER-ADDR-BY-NAME", address),
        Script::new().on_name("ROLE", reply::array([reply::bulk("master")])).on_name("PING", reply::bulk("PONG")),
    ]);
    let mut connection = Connection::connect(&server.at(Endpoint::sentinel([("a", 1)], "m"))).await.unwrap();
    let pong: String = connection.send(cmd("PING")).await.unwrap();
    assert_eq!(pong, "PONG");
    server.finish().await.unwrap();
}

#[tokio::test]
async fn a_consumer_follows_a_script() {
    let entry = reply::array([reply::bulk("1-1"), reply::array([reply::bulk("a"), reply::bulk("b")])]);
    let read = |entries: Vec<bytes::Bytes>| reply::map([reply::bulk("s"), reply::array(entries)]);
    let server = ScriptedServer::new([Script::new()
        .on_name("XGROUP CREATE", reply::ok())
        .on_name("XREADGROUP", read(vec![]))
        .on_name("XREADGROUP", read(vec![entry]))]);
    let mut consumer = ConsumerOptions::new(server.config(), "s", "g", "c").connect().await.unwrap();
    let batch = consumer.next().await.unwrap().unwrap();
    assert_eq!(batch.ids().collect::<Vec<_>>(), [StreamId::new(1, 1)]);
    server.finish().await.unwrap();
}

/// Adds an entry through any executor.
async fn add(mut redis: impl Executor) -> StreamId {
    let add = XAdd::new("s", AddId::Auto, &[("a", "b")]);
    let (mut pipeline, mut transaction) = (Pipeline::new(), Transaction::new());
    let (first, second) = (pipeline.add(&add), transaction.add(&add));
    assert_eq!(redis.run(&pipeline).await.unwrap().take(first).unwrap(), StreamId::new(1, 1));
    assert_eq!(redis.exec(&transaction).await.unwrap().take(second).unwrap(), StreamId::new(1, 2));
    redis.send(&add).await.unwrap()
}

/// Records calls with their number of commands, and attempts to connect.
#[derive(Debug, Default)]
struct Seen(Mutex<(Vec<String>, usize)>);

impl Observer for Seen {
    fn called(&self, call: &CompletedCall<'_>) {
        let failed = call.error.map_or("", |_| " failed");
        self.0.lock().unwrap().0.push(format!("{} {}{failed}", call.name, call.commands));
    }

    fn connected(&self, attempt: &ConnectAttempt<'_>) {
        assert!(attempt.error.is_none() && !attempt.config.to_string().contains("pw"));
        self.0.lock().unwrap().1 += 1;
    }
}

#[tokio::test]
async fn everything_that_sends_is_an_executor_and_is_observed() {
    let script = || {
        Script::new()
            .on_name("XADD", reply::bulk("1-1"))
            .on_name("MULTI", reply::ok())
            .on_name("XADD", "+QUEUED\r\n")
            .on_name("EXEC", reply::array([reply::bulk("1-2")]))
            .on_name("XADD", reply::bulk("1-3"))
            .on_name("GET", reply::error("WRONGTYPE a stream"))
    };
    let server = ScriptedServer::new([script(), script()]);
    let seen = Arc::new(Seen::default());
    let config = server.config().password("pw").observer(Arc::clone(&seen));
    let client = Client::connect(&config).await.unwrap();
    // Other tasks can acknowledge too.
    assert_eq!(
        tokio::spawn({
            let client = client.clone();
            async move { add(&client).await }
        })
        .await
        .unwrap()
        .seq,
        3
    );
    client.send(cmd::<String>("GET").arg("s")).await.unwrap_err();
    let mut connection = Connection::connect(&config).await.unwrap();
    assert_eq!(add(&mut connection).await.seq, 3);
    connection.send(cmd::<String>("GET").arg("s")).await.unwrap_err();
    let each = ["pipeline 1", "MULTI 1", "XADD 1", "GET 1 failed"];
    assert_eq!(*seen.0.lock().unwrap(), ([each, each].concat().iter().map(ToString::to_string).collect(), 2));
    server.finish().await.unwrap();
}

/// A reply that comes while a client is idle ends the connection, and the next command goes over
/// another one. Here the driver is woken by both at once.
#[tokio::test]
async fn a_client_sends_no_command_behind_an_unrequested_reply() {
    let (first, mut peer) = tokio::io::duplex(1 << 16);
    let (second, mut next_peer) = tokio::io::duplex(1 << 16);
    let streams = Mutex::new(vec![second, first]);
    let config = Config::new(Endpoint::tcp("scripted", 6379)).resp2(true).connector(move |_| {
        let stream = streams.lock().unwrap().pop();
        async move { stream.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()) }
    });
    let client = tokio::join!(Client::connect(&config), greet(&mut peer)).0.unwrap();
    // The driver is idle.
    tokio::task::yield_now().await;
    peer.write_all(b"$6\r\nothers\r\n").await.unwrap();
    let (reply, ()) = tokio::join!(client.send(cmd::<String>("GET").arg("mine")), async {
        greet(&mut next_peer).await;
        read_until(&mut next_peer, "mine\r\n").await;
        next_peer.write_all(b"$4\r\nmine\r\n").await.unwrap();
    });
    assert_eq!(reply.unwrap(), "mine");
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0, "the command was not sent there");
}

async fn read_until(peer: &mut DuplexStream, end: &str) {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        seen.push(peer.read_u8().await.unwrap());
    }
}

/// Answers the handshake of RESP2.
async fn greet(peer: &mut DuplexStream) {
    read_until(peer, concat!(env!("CARGO_PKG_VERSION"), "\r\n")).await;
    peer.write_all(b"+OK\r\n+OK\r\n").await.unwrap();
}

#[tokio::test]
async fn a_reply_that_no_command_requested_is_not_taken_for_the_next_one() {
    // The second answer to GET is there before the next command is sent.
    let twice = [reply::bulk("one"), reply::bulk("two")].concat();
    let server =
        || ScriptedServer::new([Script::new().on_name("get", twice.clone()).on_name("xlen", reply::integer(3))]);
    let get = cmd::<String>("GET").arg("k");
    for how in ["send", "run", "queue"] {
        let mut connection = Connection::connect(&server().config()).await.unwrap();
        assert_eq!(connection.send(&get).await.unwrap(), "one");
        let mut pipeline = Pipeline::new();
        let _ = pipeline.add(XLen::new("s"));
        let refused = match how {
            "send" => connection.send(XLen::new("s")).await.map(drop),
            "run" => connection.run(&pipeline).await.map(drop),
            _ => {
                connection.queue(XLen::new("s"));
                connection.receive().await.map(drop)
            }
        };
        refused.expect_err(how);
        assert!(connection.is_closed(), "{how}");
    }
}
