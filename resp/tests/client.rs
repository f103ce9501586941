//! The shared client on a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::Duration;

use resp::streams::{AddId, XAdd, XLen, XRange};
use resp::{
    Backoff, BlockTimeout, Blocking, Client, ClientEvent, ClientOptions, ErrorKind, Frame, Pipeline, Sent, StreamId,
    Transaction, cmd,
};
use support::Server;

async fn echo(client: &Client, text: &str) -> String {
    let reply = client.send(cmd::<Frame>("ECHO").arg(text)).await.unwrap();
    reply.value().as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_caller_gets_its_own_reply() {
    let server = Server::start();
    for config in [server.config(), server.tcp().resp2(true)] {
        let client = Client::connect(&config).await.unwrap();
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let client = client.clone();
                tokio::spawn(async move {
                    for round in 0..200 {
                        let text = format!("{task} {round}");
                        if round % 10 == 3 {
                            // An abandoned call does not take another call's reply.
                            let lost = cmd::<Frame>("ECHO").arg("lost");
                            tokio::select! { biased; _ = client.send(&lost) => {}, () = tokio::task::yield_now() => {} }
                        }
                        assert_eq!(echo(&client, &text).await, text);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test]
async fn callers_travel_together() {
    let server = Server::start();
    let client = Client::connect(&server.config()).await.unwrap();
    let tasks: Vec<_> = (0..500)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.send(XAdd::new("s", AddId::Auto, &[("a", "b")])).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_ne!(task.await.unwrap(), StreamId::ZERO);
    }
    assert_eq!(client.send(XLen::new("s")).await.unwrap(), 500);
    let stats = client.send(cmd::<Frame>("INFO stats")).await.unwrap();
    let reads = stats.value().as_str().unwrap().lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
    let reads: u32 = reads.unwrap().parse().unwrap();
    assert!(reads < 50, "{reads} reads for 500 commands");
}

#[tokio::test]
async fn errors_pipelines_and_transactions() {
    let server = Server::start();
    let client = Client::connect(&server.config()).await.unwrap();
    client.send(cmd::<()>("SET").arg("text").arg(1)).await.unwrap();
    let error = client.send(XLen::new("text")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongType);

    // A command may borrow data of one loop iteration.
    let (mut pipeline, mut slots) = (Pipeline::new(), Vec::new());
    for n in 0..10 {
        let (key, value) = (format!("loop{}", n % 2), n.to_string());
        let fields = [("n", value.as_bytes())];
        slots.push((n, pipeline.add(XAdd::new(&key, StreamId::new(1, n + 1), &fields))));
    }
    let mut replies = client.run(&pipeline).await.unwrap();
    for (n, slot) in slots {
        assert_eq!(replies.take(slot.clone()).unwrap(), StreamId::new(1, n + 1));
        let error = replies.take(slot).unwrap_err();
        assert_eq!((error.kind(), error.to_string().starts_with("XADD loop")), (ErrorKind::Usage, true), "{error}");
    }

    let mut pipeline = Pipeline::new();
    let wrong = pipeline.add(XLen::new("text"));
    let added = pipeline.add(XAdd::new("s", AddId::Auto, &[("a", "b")]));
    let mut replies = client.run(&pipeline).await.unwrap();
    assert_ne!(replies.take(added).unwrap(), StreamId::ZERO);
    let error = replies.take(wrong).unwrap_err();
    assert_eq!((error.kind(), error.to_string().starts_with("XLEN text: ")), (ErrorKind::WrongType, true), "{error}");
    assert_eq!(client.run(&Pipeline::new()).await.unwrap().frames().count(), 0);

    // Concurrent transactions: nothing comes between MULTI and EXEC.
    let mut transaction = Transaction::new();
    transaction.add(XAdd::new("s", AddId::Auto, &[("a", "b")]));
    let range = transaction.add(XRange::new("s", ..));
    let others = (0..50).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.send(cmd::<Frame>("INCR").arg("n")).await.unwrap() })
    });
    let others: Vec<_> = others.collect();
    let mut replies = client.exec(&transaction).await.unwrap();
    assert_eq!(replies.take(range).unwrap().len(), 2);
    for other in others {
        assert!(other.await.unwrap().value().as_int().is_some());
    }
}

#[tokio::test]
async fn blocking_commands_are_refused() {
    let server = Server::start();
    let client = Client::connect(&server.config()).await.unwrap();
    let refused = [
        cmd::<Frame>("BLPOP").arg("a").arg(0),
        cmd::<Frame>("multi"),
        cmd::<Frame>("SELECT").arg(1),
        cmd::<Frame>("subscribe a"),
        cmd::<Frame>("CLIENT REPLY OFF"),
        cmd::<Frame>("xread").args(["block", "0", "streams", "s", "$"]),
    ];
    for command in refused {
        let error = client.send(&command).await.unwrap_err();
        assert_eq!((error.kind(), error.sent()), (ErrorKind::Usage, Sent::No), "{command:?}");
    }
    client.send(cmd::<()>("CLIENT ID")).await.unwrap();
    client.send(cmd::<()>("XREAD").args(["STREAMS", "s", "0"])).await.unwrap();
}

/// So that the future borrows no temporary value.
#[tokio::test]
async fn commands_are_taken_by_value_and_by_reference() {
    let server = Server::start();
    let client = Client::connect(&server.config()).await.unwrap();
    let mut connection = server.connect().await;
    let set = cmd::<()>("SET").arg("k").arg(7);
    client.send(&set).await.unwrap();
    connection.send(&set).await.unwrap();
    let get = client.send(cmd("GET").arg("k"));
    let (first, second, third) =
        tokio::join!(get, client.send(cmd("GET").arg("k")), connection.send(cmd("GET").arg("k")));
    assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (7u8, 7u64, "7".to_owned()));
    let raced: u64 = tokio::select! {
        one = client.send(cmd("GET").arg("k")) => one.unwrap(),
        other = client.send(cmd("INCRBY").arg("other").arg(7)) => other.unwrap(),
    };
    assert_eq!(raced, 7);
    let task = tokio::spawn(async move { client.send(cmd::<u64>("GET").arg("k")).await });
    assert_eq!(task.await.unwrap().unwrap(), 7);
    let pop = Blocking::new(cmd::<Option<(String, String)>>("BLPOP").arg("list").arg(0.01), BlockTimeout::Forever);
    assert_eq!(connection.send_blocking(&pop).await.unwrap(), None);
    assert_eq!(connection.send_blocking(pop).await.unwrap(), None);
}

#[tokio::test]
async fn bytes_are_bounded() {
    let server = Server::start();
    let client = ClientOptions::new(server.config()).max_bytes(64 << 10).connect().await.unwrap();
    let payload = vec![b'x'; 16 << 10];
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let (client, payload) = (client.clone(), payload.clone());
            tokio::spawn(async move {
                let set = cmd::<Frame>("SET").arg(n).arg(&payload);
                // Some callers give up while they wait for room.
                if n % 5 == 0 {
                    let _ = tokio::time::timeout(Duration::from_micros(n), client.send(&set)).await;
                } else {
                    client.send(&set).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(echo(&client, "there").await, "there");
}

#[tokio::test]
async fn it_reconnects() {
    let server = Server::start();
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    let client = ClientOptions::new(server.config()).backoff(backoff).connect().await.unwrap();
    let mut events = client.events();
    let mut other = server.connect().await;
    for round in 0..20 {
        assert_eq!(echo(&client, "a").await, "a");
        let other_call = {
            let client = client.clone();
            tokio::spawn(async move { client.send(cmd::<Frame>("ECHO").arg("x")).await.map(|_| ()) })
        };
        other.send(cmd::<()>("CLIENT KILL").args(["TYPE", "normal", "SKIPME", "yes"])).await.unwrap();
        if let Err(error) = other_call.await.unwrap() {
            assert!(error.is_transient() || error.is_server(), "{round}: {error}");
        }
        // Later calls wait for the new connection, or report that the old one broke.
        loop {
            match client.send(cmd::<Frame>("ECHO").arg("b")).await {
                Ok(reply) => break assert_eq!(reply.value().as_str(), Some("b")),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
            }
        }
    }
    assert!(matches!(events.recv().await.unwrap(), ClientEvent::Disconnected(_)));
    assert!(matches!(events.recv().await.unwrap(), ClientEvent::Connected));
}

#[tokio::test]
async fn without_a_server_calls_run_out_of_time() {
    let server = Server::start();
    let config = server.config().command_timeout(Some(Duration::from_millis(200)));
    let client = Client::connect(&config).await.unwrap();
    drop(server);
    // One call detects that the server is gone; later calls wait for another one.
    let _ = client.send(cmd::<Frame>("PING")).await;
    let error = client.send(cmd::<Frame>("SET").arg("a").arg("b")).await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Timeout, Sent::No), "{error}");
}

#[tokio::test]
async fn a_stalled_server_is_detected() {
    let server = Server::start();
    let config = server.config().command_timeout(Some(Duration::from_millis(100)));
    let client = Client::connect(&config).await.unwrap();
    let mut other = server.connect().await;
    let pause = cmd::<Frame>("CLIENT PAUSE").arg(500);
    other.send(&pause).await.unwrap();
    let error = client.send(cmd::<Frame>("PING")).await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Timeout, Sent::Maybe), "{error}");
}

#[tokio::test]
async fn an_idle_connection_is_pinged_and_closes_with_its_last_clone() {
    let server = Server::start();
    let options = ClientOptions::new(server.config()).ping_after(Some(Duration::from_millis(20)));
    let client = options.connect().await.unwrap();
    let mut other = server.connect().await;
    let list = |other: &mut resp::Connection| {
        other.queue(cmd::<Frame>("CLIENT LIST"));
    };
    loop {
        list(&mut other);
        if other.receive().await.unwrap().value().as_str().unwrap().contains("cmd=ping") {
            break;
        }
    }
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { echo(&client, "x").await }
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "x");
    }
    drop(client);
    loop {
        list(&mut other);
        if other.receive().await.unwrap().value().as_str().unwrap().lines().count() == 1 {
            break;
        }
    }
}

#[tokio::test]
async fn pushes_are_events() {
    let server = Server::start();
    let client = Client::connect(&server.config()).await.unwrap();
    let mut events = client.events();
    client.send(cmd::<()>("CLIENT TRACKING ON")).await.unwrap();
    client.send(cmd::<()>("GET").arg("watched")).await.unwrap();
    server.connect().await.send(cmd::<Frame>("SET").arg("watched").arg(1)).await.unwrap();
    client.send(cmd::<()>("PING")).await.unwrap();
    let ClientEvent::Push(push) = events.recv().await.unwrap() else { panic!("a push") };
    assert_eq!(push.value().children().next().unwrap().as_str(), Some("invalidate"));
}
