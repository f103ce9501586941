//! The cluster client: one node, all masters, all keys, replicas.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use resp::cluster::Scan;
use resp::{ClusterClient, Config, Connection, Decoder, Endpoint, ErrorKind, Frame, Pipeline, Sent, Transaction, cmd};
use support::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn keys(mut scan: Scan) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    while let Some(keys) = scan.next().await.unwrap() {
        all.extend(keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()));
    }
    all
}

#[tokio::test]
async fn one_node_all_masters_all_keys_and_replicas() {
    let nodes = Server::cluster_of_three().await;
    let config = Config::from_url(&format!("redis-cluster://127.0.0.1:{}?client_name=me", nodes[0].port)).unwrap();
    let cluster = ClusterClient::connect(&config).await.unwrap();
    let [first, second, replica] = nodes.each_ref().map(|node| Endpoint::tcp("127.0.0.1", node.port));

    for command in [
        cmd::<Frame>("SCAN").arg(0),
        cmd::<Frame>("dbsize"),
        cmd::<Frame>("CONFIG GET").arg("port"),
        cmd::<Frame>("FLUSHALL"),
        cmd::<Frame>("SCRIPT LOAD").arg(""),
    ] {
        let (mut pipeline, mut transaction) = (Pipeline::new(), Transaction::new());
        pipeline.add(cmd::<()>("GET").arg("a"));
        pipeline.add(&command);
        transaction.add(cmd::<()>("GET").arg("a"));
        transaction.add(&command);
        for error in [
            cluster.send(&command).await.unwrap_err(),
            cluster.run(&pipeline).await.unwrap_err(),
            cluster.exec(&transaction).await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.sent()), (ErrorKind::Usage, Sent::No), "{error}");
        }
    }
    assert!(
        cluster.send(cmd::<Frame>("PING")).await.is_ok() && cluster.send(cmd::<Frame>("CLUSTER NODES")).await.is_ok()
    );

    // All keys, of all masters.
    let expected: BTreeSet<String> = (0..300).map(|n| format!("key:{n}")).collect();
    let mut pipeline = Pipeline::new();
    for key in &expected {
        pipeline.add(cmd::<()>("SET").arg(key).arg(1));
    }
    pipeline.add(cmd::<()>("XADD").arg("other").arg("*").arg("a").arg("b"));
    cluster.run(&pipeline).await.unwrap().check().unwrap();
    assert_eq!(keys(cluster.scan().matching("key:*").count(7)).await, expected);
    assert_eq!(keys(cluster.scan().kind("stream")).await, BTreeSet::from(["other".to_owned()]));

    // One node, each master.
    let sizes = cluster.send_to_masters(cmd::<Frame>("DBSIZE")).await.unwrap();
    let masters: BTreeSet<String> = sizes.iter().map(|(node, _)| node.to_string()).collect();
    assert_eq!(masters, BTreeSet::from([first.to_string(), second.to_string()]));
    let sizes: Vec<u64> = sizes.into_iter().map(|(_, size)| size.unwrap().value().as_u64().unwrap()).collect();
    assert!(sizes.iter().sum::<u64>() == 301 && sizes.iter().all(|size| *size > 0), "{sizes:?}");
    let port = |reply: &resp::Frame| reply.value().get(b"port").unwrap().as_u64().unwrap();
    for (node, server) in [&first, &second, &replica].into_iter().zip(&nodes) {
        assert_eq!(
            port(&cluster.send_to(node, cmd::<Frame>("CONFIG GET").arg("port")).await.unwrap()),
            u64::from(server.port)
        );
        // The same configuration connects to each of them.
        let mut connection = Connection::connect(&config.clone().with_endpoint(node.clone())).await.unwrap();
        assert_eq!(connection.send(cmd::<Frame>("CLIENT GETNAME")).await.unwrap().value().as_str(), Some("me"));
        assert_eq!(
            port(&connection.send(cmd::<Frame>("CONFIG GET").arg("port")).await.unwrap()),
            u64::from(server.port)
        );
    }
    let elsewhere = cluster.send_to(&first, cmd::<Frame>("GET").arg("foo")).await.unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::Moved);
    assert_eq!(
        cluster.send_to(&first, cmd::<Frame>("BLPOP").arg("a").arg(0)).await.unwrap_err().kind(),
        ErrorKind::Usage
    );

    // Replicas answer reads. Masters answer writes, and reads without a replica. A replica reports
    // loading until the master knows its offset.
    while cluster.replicas().is_empty() {
        cluster.send_to_masters(cmd::<Frame>("PING")).await.unwrap();
    }
    assert_eq!(cluster.replicas(), std::slice::from_ref(&replica));
    cluster.send(cmd::<()>("SET").arg("bar").arg("there")).await.unwrap();
    Connection::connect(&config.clone().for_key("bar"))
        .await
        .unwrap()
        .send(cmd::<Frame>("WAIT").arg(1).arg(5000))
        .await
        .unwrap();
    let gets = async || {
        let stats = cluster.send_to(&replica, cmd::<Frame>("INFO commandstats")).await.unwrap();
        let calls = stats.value().as_str().unwrap().split("cmdstat_get:calls=").nth(1).map(str::to_owned);
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    assert_eq!(gets().await, 0);
    for _ in 0..3 {
        assert_eq!(
            cluster.send_to_replica(cmd::<Frame>("GET").arg("bar")).await.unwrap().value().as_str(),
            Some("there")
        );
    }
    assert_eq!(gets().await, 3);
    cluster.send_to_replica(cmd::<Frame>("SET").arg("bar").arg("new")).await.unwrap();
    assert_eq!(cluster.send(cmd::<Frame>("GET").arg("bar")).await.unwrap().value().as_str(), Some("new"));
    assert!(cluster.send_to_replica(cmd::<Frame>("GET").arg("foo")).await.unwrap().value().is_null());
    let [_first, _second, gone] = nodes;
    drop(gone);
    for _ in 0..3 {
        let read = cluster.send_to_replica(cmd::<Frame>("GET").arg("bar")).await;
        assert!(
            read.as_ref().is_ok_and(|value| value.value().as_str() == Some("new"))
                || read.is_err_and(|error| error.sent() == Sent::Maybe)
        );
    }
}

/// A node with these replies.
async fn node(listener: TcpListener, answer: impl Fn(&str) -> String + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    while let Ok((mut socket, _)) = listener.accept().await {
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
            while socket.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
                while let Some(command) = decoder.decode(&mut input).unwrap() {
                    let words: Vec<_> = command.value().children().filter_map(resp::Value::as_str).collect();
                    let reply = match words[0] {
                        "HELLO" => "%1 $5 proto :3 ".to_owned(),
                        "CLIENT" => "+OK ".to_owned(),
                        _ => answer(&words.join(" ")),
                    };
                    socket.write_all(reply.replace(' ', "\r\n").as_bytes()).await.unwrap();
                }
            }
        });
    }
}

/// A slot that moves to a node that was already scanned is scanned there.
#[tokio::test]
async fn a_scan_follows_slots_that_move() {
    let (a, b) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (port_a, port_b) = (a.local_addr().unwrap().port(), b.local_addr().unwrap().port());
    let moved = Arc::new(AtomicBool::new(false));
    let topology = {
        let moved = Arc::clone(&moved);
        move || {
            let middle = if moved.load(Ordering::SeqCst) { 9000 } else { 8192 };
            let range = |first, last, port| format!("*3 :{first} :{last} *2 $9 127.0.0.1 :{port} ");
            format!("*2 {}{}", range(0, middle - 1, port_a), range(middle, 16383, port_b))
        }
    };
    let answer = |keys: &'static str, more: &'static str| {
        let (moved, topology) = (Arc::clone(&moved), topology.clone());
        move |command: &str| match command {
            "CLUSTER SHARDS" => "-NOPERM ".to_owned(),
            "CLUSTER SLOTS" => topology(),
            "SCAN 0" if moved.load(Ordering::SeqCst) => format!("*2 $1 0 {more}"),
            "SCAN 0" => format!("*2 $1 7 {keys}"),
            "SCAN 7" => "*2 $1 0 *0 ".to_owned(),
            _ => "-ERR ".to_owned(),
        }
    };
    tokio::spawn(node(a, answer("*1 $1 a ", "*2 $1 a $5 moved ")));
    tokio::spawn(node(b, answer("*1 $1 b ", "*1 $1 b ")));
    let config = Config::from_url(&format!("redis-cluster://127.0.0.1:{port_a}")).unwrap();
    let cluster = ClusterClient::connect(&config.command_timeout(Some(Duration::from_secs(5)))).await.unwrap();
    let mut scan = cluster.scan();
    assert_eq!(scan.next().await.unwrap().unwrap(), ["a"]);
    assert!(scan.next().await.unwrap().unwrap().is_empty());
    // The first node is done.
    moved.store(true, Ordering::SeqCst);
    assert_eq!(keys(scan).await, BTreeSet::from(["a", "b", "moved"].map(str::to_owned)));
}

/// A server that reports more keys than there can be.
#[tokio::test]
async fn hostile_answers_end_in_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = move |command: &str| match command {
        "CLUSTER SHARDS" => "-NOPERM ".to_owned(),
        "CLUSTER SLOTS" => format!("*1 *3 :0 :16382 *2 $9 127.0.0.1 :{port} "),
        "SCAN 0" => "*2 $1 x *0 ".to_owned(),
        _ => "*2 *2 :1 :2 +x ".to_owned(),
    };
    tokio::spawn(node(listener, answer));
    let config = Config::from_url(&format!("redis-cluster://127.0.0.1:{port}")).unwrap();
    let cluster = ClusterClient::connect(&config.command_timeout(Some(Duration::from_millis(300)))).await.unwrap();
    assert_eq!(cluster.scan().next().await.unwrap_err().kind(), ErrorKind::UnexpectedReply);
    let node = Endpoint::tcp("127.0.0.1", port);
    assert!(cluster.send_to(&node, cmd::<Frame>("WHATEVER")).await.is_ok());
}
