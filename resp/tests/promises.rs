//! Guarantees to callers of the shared client and of pipelines when a server hangs or disconnects,
//! or a runtime ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::Duration;

use resp::streams::XRead;
use resp::testing::{Script, ScriptedServer};
use resp::{
    BlockTimeout, Blocking, Client, ClusterClient, Cmd, Config, Connection, Error, ErrorKind, Frame, GroupReader,
};
use resp::{Pipeline, Sent, StreamId, Transaction, cmd};
use support::Server;

/// New calls that are written to a hung server do not prolong the wait for replies.
#[tokio::test]
async fn a_server_that_never_replies_is_detected() {
    let server = Server::start();
    let mut other = server.connect().await;
    let config = server.config().command_timeout(Some(Duration::from_millis(300)));
    let client = Client::connect(&config).await.unwrap();
    other.send(cmd::<()>("CLIENT PAUSE").arg(4000)).await.unwrap();
    let noise = tokio::spawn({
        let client = client.clone();
        async move {
            loop {
                let ping = cmd::<Frame>("PING");
                let _ = tokio::time::timeout(Duration::from_millis(20), client.send(&ping)).await;
            }
        }
    });
    let error = client.send(cmd::<Frame>("SET").arg("a").arg("b")).await.unwrap_err();
    noise.abort();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Timeout, Sent::Maybe), "{error}");
}

/// A client may outlive its runtime, as one in a static does between tests.
#[test]
fn a_client_reports_that_its_runtime_has_ended() {
    let server = Server::start();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let client = first.block_on(Client::connect(&server.config())).unwrap();
    // One call is in flight, and one is queued, when the runtime ends.
    let (a, b) = (client.clone(), client.clone());
    let paused = first.spawn(async move { a.send(cmd::<Frame>("DEBUG SLEEP").arg("0.2")).await });
    first.block_on(tokio::task::yield_now());
    drop(paused);
    drop(first);
    let error = runtime().block_on(async {
        let ping = cmd::<Frame>("PING");
        tokio::time::timeout(Duration::from_secs(10), b.send(&ping)).await.expect("an answer").unwrap_err()
    });
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Closed, Sent::No), "{error}");
}

/// A server that completes the handshake, reads a number of bytes, and disconnects.
fn hangs_up(after: usize) -> Config {
    ScriptedServer::new([Script::new().take(after).close()]).config()
}

/// The first commands of a pipeline may have been executed even if its end was never sent.
#[tokio::test]
async fn part_of_a_pipeline_that_was_sent_may_be_done_and_part_of_a_transaction_is_not() {
    let large = vec![b'x'; 8 << 20];
    let (mut pipeline, mut transaction) = (Pipeline::new(), Transaction::new());
    pipeline.add(cmd::<()>("INCR").arg("a"));
    pipeline.add(cmd::<()>("SET").arg("b").arg(&large));
    transaction.add(cmd::<()>("INCR").arg("a"));
    transaction.add(cmd::<()>("SET").arg("b").arg(&large));

    let mut connection = Connection::connect(&hangs_up(1000)).await.unwrap();
    let error = connection.run(&pipeline).await.unwrap_err();
    assert_eq!(error.sent(), Sent::Maybe, "{error}");
    let mut connection = Connection::connect(&hangs_up(1000)).await.unwrap();
    let error = connection.exec(&transaction).await.unwrap_err();
    assert_eq!(error.sent(), Sent::No, "{error}");

    let client = Client::connect(&hangs_up(1000)).await.unwrap();
    let error = client.run(&pipeline).await.unwrap_err();
    assert_eq!(error.sent(), Sent::Maybe, "{error}");
    let client = Client::connect(&hangs_up(1000)).await.unwrap();
    let error = client.exec(&transaction).await.unwrap_err();
    assert_eq!(error.sent(), Sent::No, "{error}");
}

/// However the words of a command are split, and in pipelines too.
#[tokio::test]
async fn blocking_commands_are_refused_everywhere() {
    let server = Server::start();
    let client = Client::connect(&server.config()).await.unwrap();
    for command in [
        cmd::<Frame>("CLIENT").arg("REPLY").arg("SKIP"),
        cmd::<Frame>("client").arg("reply").arg("off"),
        cmd::<Frame>("BLPOP").arg("a").arg(0),
        cmd::<Frame>("XREADGROUP").args(["GROUP", "g", "c", "BLOCK", "0", "STREAMS", "s", ">"]),
    ] {
        let error = client.send(&command).await.unwrap_err();
        assert_eq!((error.kind(), error.sent()), (ErrorKind::Usage, Sent::No), "{command:?}");
        let (mut pipeline, mut transaction) = (Pipeline::new(), Transaction::new());
        pipeline.add(cmd::<()>("PING"));
        pipeline.add(&command);
        transaction.add(&command);
        let error = client.run(&pipeline).await.unwrap_err();
        assert_eq!((error.kind(), error.sent()), (ErrorKind::Usage, Sent::No), "{command:?}");
        let error = client.exec(&transaction).await.unwrap_err();
        assert_eq!((error.kind(), error.sent()), (ErrorKind::Usage, Sent::No), "{command:?}");
    }
    client.send(cmd::<()>("CLIENT").arg("ID")).await.unwrap();
    client.send(cmd::<()>("PING")).await.unwrap();
}

#[tokio::test]
async fn a_refusal_says_what_to_use_instead() {
    let client = Client::connect(&ScriptedServer::new([Script::new()]).config()).await.unwrap();
    let blocks = XRead::new("s", StreamId::ZERO).block(BlockTimeout::Forever);
    for (command, advice) in [
        (cmd::<Frame>("BLPOP").arg("a").arg(0), "use Connection::send_blocking"),
        (cmd("XREAD BLOCK 0 STREAMS s $"), "use Connection::send_blocking"),
        (cmd("wait 1 0"), "use Connection::send_blocking"),
        (cmd("MULTI"), "use a Transaction"),
        (cmd("WATCH").arg("a"), "use a Connection of your own, with Connection::exec"),
        (cmd("select 1"), "set Config::database"),
        (cmd("AUTH").arg("s3cret"), "set Config::user and Config::password"),
        (cmd("READONLY"), "use a ClusterClient"),
        (cmd("SUBSCRIBE").arg("a"), "use Connection::subscribe"),
        (cmd("QUIT"), "drop it instead"),
    ] {
        let (mut pipeline, mut transaction) = (Pipeline::new(), Transaction::new());
        pipeline.add(&command);
        transaction.add(&command);
        for error in [client.send(&command).await.unwrap_err(), client.run(&pipeline).await.unwrap_err()] {
            assert_eq!((error.kind(), error.sent()), (ErrorKind::Usage, Sent::No), "{error}");
            assert!(error.to_string().contains(advice) && !error.to_string().contains("s3cret"), "{error}");
        }
        assert_eq!(client.exec(&transaction).await.unwrap_err().kind(), ErrorKind::Usage);
    }
    let error = client.send(blocks.command()).await.unwrap_err();
    assert_eq!(error.to_string(), "XREAD s: blocks all callers: use Connection::send_blocking with a Blocking command");
}

/// Commands without exactly one reply, in all spellings.
fn without_one_reply() -> Vec<Cmd> {
    vec![
        cmd::<Frame>("MONITOR"),
        cmd::<Frame>("Monitor"),
        cmd::<Frame>("SUBSCRIBE a b"),
        cmd::<Frame>("subscribe").arg("a").arg("b"),
        cmd::<Frame>("PSUBSCRIBE").arg("a*"),
        cmd::<Frame>("SSubscribe").arg("a"),
        cmd::<Frame>("UNSUBSCRIBE"),
        cmd::<Frame>("punsubscribe").arg("a").arg("b"),
        cmd::<Frame>("SUNSUBSCRIBE"),
        cmd::<Frame>("SYNC"),
        cmd::<Frame>("PSYNC").arg("?").arg(-1),
        cmd::<Frame>("REPLCONF ACK 1"),
        cmd::<Frame>("replconf").arg("getack").arg("*"),
        cmd::<Frame>("CLIENT REPLY OFF"),
        cmd::<Frame>("client").arg("Reply").arg("skip"),
        cmd::<Frame>("QUIT"),
        cmd::<Frame>("quit"),
        cmd::<Frame>("RESET"),
        cmd::<Frame>("HELLO 2"),
        cmd::<Frame>("hello").arg(3),
    ]
}

/// The command, with one before and one after it.
fn around(command: &Cmd) -> (Pipeline, Transaction) {
    let (mut pipeline, mut transaction) = (Pipeline::new(), Transaction::new());
    for command in [&cmd::<Frame>("SET").arg("a").arg("b"), command, &cmd::<Frame>("SET").arg("a").arg("c")] {
        pipeline.add(command);
        transaction.add(command);
    }
    (pipeline, transaction)
}

fn is_refused<T: std::fmt::Debug>(outcome: Result<T, Error>) -> bool {
    outcome.is_err_and(|error| (error.kind(), error.sent()) == (ErrorKind::Usage, Sent::No))
}

async fn is_echoed(connection: &mut Connection, text: &str) -> bool {
    connection.send(cmd::<Frame>("ECHO").arg(text)).await.unwrap().value().as_str() == Some(text)
}

#[tokio::test]
async fn commands_without_one_reply_shift_no_replies() {
    let server = Server::cluster().await;
    let seed = format!("redis-cluster://127.0.0.1:{}", server.port);
    for resp2 in [false, true] {
        let mut connection = Connection::connect(&server.tcp().resp2(resp2)).await.unwrap();
        let client = Client::connect(&server.tcp().resp2(resp2)).await.unwrap();
        let cluster = ClusterClient::connect(&Config::from_url(&seed).unwrap().resp2(resp2)).await.unwrap();
        let read_by = Connection::connect(&server.tcp().resp2(resp2)).await.unwrap();
        let mut reader = GroupReader::new(read_by, "s", "g", "c");
        for (nth, command) in without_one_reply().iter().enumerate() {
            let at = format!("{command:?} {nth}");
            let (pipeline, transaction) = around(command);
            assert!(is_refused(connection.send(command).await), "{at}");
            assert!(is_refused(connection.send_blocking(Blocking::new(command, BlockTimeout::Forever)).await), "{at}");
            assert!(is_refused(connection.run(&pipeline).await), "{at}");
            assert!(is_refused(connection.exec(&transaction).await), "{at}");
            assert!(is_refused(client.send(command).await), "{at}");
            assert!(is_refused(client.run(&pipeline).await), "{at}");
            assert!(is_refused(client.exec(&transaction).await), "{at}");
            assert!(is_refused(cluster.send(command).await), "{at}");
            assert!(is_refused(cluster.run(&pipeline).await), "{at}");
            assert!(is_refused(cluster.exec(&transaction).await), "{at}");
            assert!(is_refused(reader.send(command).await), "{at}");

            // In single steps, each reply is in its place.
            connection.queue(cmd::<Frame>("ECHO").arg("before"));
            connection.queue(command);
            connection.queue(cmd::<Frame>("ECHO").arg("behind"));
            assert_eq!(connection.receive().await.unwrap().value().as_str(), Some("before"), "{at}");
            let refused = connection.receive().await.unwrap().into_result().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::UnknownCommand, "{at}: {refused}");
            assert_eq!(connection.receive().await.unwrap().value().as_str(), Some("behind"), "{at}");
            // No part of a transaction is executed.
            connection.queue_multi();
            connection.queue(cmd::<Frame>("SET").arg("a").arg("b"));
            connection.queue(command);
            connection.queue_exec();
            connection.receive_queued(2).await.unwrap_err();
            assert_eq!(connection.receive_exec().await.unwrap_err().kind(), ErrorKind::ExecAbort, "{at}");
            assert!(is_echoed(&mut connection, &at).await, "{at}");
        }
        assert_eq!(client.send(cmd::<Frame>("EXISTS").arg("a")).await.unwrap().value().as_int(), Some(0));
        assert_eq!(cluster.send(cmd::<Frame>("EXISTS").arg("a")).await.unwrap().value().as_int(), Some(0));
        assert!(reader.send(cmd::<Frame>("CLIENT ID")).await.unwrap().value().as_int().is_some());
        connection.send(cmd::<()>("CLIENT REPLY ON")).await.unwrap();
        connection.send(cmd::<()>("HELLO")).await.unwrap();
        // Subscriptions are recognised in one word and in several.
        let subscribed = connection.subscribe(cmd::<Frame>("SUBSCRIBE a")).await;
        assert_eq!(subscribed.is_err(), resp2);
        assert!(is_echoed(&mut connection, "at last").await);
    }
}

/// A transaction adds MULTI and EXEC itself.
#[tokio::test]
async fn a_transaction_refuses_transaction_commands() {
    let server = Server::start();
    let client = Client::connect(&server.config()).await.unwrap();
    let mut connection = server.connect().await;
    for word in ["MULTI", "exec", "Discard", "WATCH a"] {
        let (_, transaction) = around(&cmd::<Frame>(word));
        assert!(is_refused(connection.exec(&transaction).await), "{word}");
        assert!(is_refused(client.exec(&transaction).await), "{word}");
    }
    assert_eq!(client.send(cmd::<Frame>("EXISTS").arg("a")).await.unwrap().value().as_int(), Some(0));
}

/// The reason is kept when a server refuses a command before reading all of it.
#[tokio::test]
async fn a_refusal_in_the_middle_of_a_command_reaches_its_caller() {
    let server = Server::with(&["--proto-max-bulk-len", "1mb"]);
    let client = Client::connect(&server.config()).await.unwrap();
    let error = client.send(cmd::<Frame>("SET").arg("a").arg(vec![b'x'; 16 << 20])).await.unwrap_err();
    assert_eq!((error.code(), error.sent()), ("ERR", Sent::No), "{error}");
    client.send(cmd::<()>("PING")).await.unwrap();
}
