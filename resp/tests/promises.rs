//! What callers of the shared client and of pipelines are promised when a server hangs, hangs up, or a runtime ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::Duration;

use resp::testing::{Script, ScriptedServer};
use resp::{Client, Config, Connection, ErrorKind, Frame, Pipeline, Sent, Transaction, cmd};
use support::Server;

/// Calls keep coming, and are written to a server that hangs: that is no reason to go on waiting for its replies.
#[tokio::test]
async fn a_server_that_takes_commands_and_answers_none_is_noticed() {
    let server = Server::start();
    let mut other = server.connect().await;
    let config = server.config().command_timeout(Some(Duration::from_millis(300)));
    let client = Client::connect(&config).await.unwrap();
    other.send(&cmd::<()>("CLIENT PAUSE").arg(4000)).await.unwrap();
    let noise = tokio::spawn({
        let client = client.clone();
        async move {
            loop {
                let ping = cmd::<Frame>("PING");
                let _ = tokio::time::timeout(Duration::from_millis(20), client.send(&ping)).await;
            }
        }
    });
    let error = client.send(&cmd::<Frame>("SET").arg("a").arg("b")).await.unwrap_err();
    noise.abort();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Timeout, Sent::Maybe), "{error}");
}

/// A client may outlive the runtime that it was made in, as one in a static does between tests.
#[test]
fn when_its_runtime_has_ended_a_client_says_so() {
    let server = Server::start();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let client = first.block_on(Client::connect(&server.config())).unwrap();
    // One call is on its way, one is queued when the runtime ends.
    let (a, b) = (client.clone(), client.clone());
    let paused = first.spawn(async move { a.send(&cmd::<Frame>("DEBUG SLEEP").arg("0.2")).await });
    first.block_on(tokio::task::yield_now());
    drop(paused);
    drop(first);
    let error = runtime().block_on(async {
        let ping = cmd::<Frame>("PING");
        tokio::time::timeout(Duration::from_secs(10), b.send(&ping)).await.expect("an answer").unwrap_err()
    });
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Closed, Sent::No), "{error}");
}

/// A server that greets, takes so many bytes of what comes then, and hangs up.
fn hangs_up(after: usize) -> Config {
    ScriptedServer::new([Script::new().take(after).close()]).config()
}

/// The first commands of a pipeline can have been executed when its end never left.
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

/// However the words of a command are split, and also inside of pipelines.
#[tokio::test]
async fn what_would_hold_up_others_is_refused_everywhere() {
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
    client.send(&cmd::<()>("CLIENT").arg("ID")).await.unwrap();
    client.send(&cmd::<()>("PING")).await.unwrap();
}

/// What the server says about a command that it will not read to its end is not lost.
#[tokio::test]
async fn a_refusal_in_the_middle_of_a_command_reaches_its_caller() {
    let server = Server::with(&["--proto-max-bulk-len", "1mb"]);
    let client = Client::connect(&server.config()).await.unwrap();
    let error = client.send(&cmd::<Frame>("SET").arg("a").arg(vec![b'x'; 16 << 20])).await.unwrap_err();
    assert_eq!((error.code(), error.sent()), ("ERR", Sent::No), "{error}");
    client.send(&cmd::<()>("PING")).await.unwrap();
}
