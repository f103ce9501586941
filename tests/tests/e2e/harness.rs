//! Tests of the harness: a fault that is not injected would make every test pass.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use e2e::proxy::Way;
use e2e::{Folder, Persistence, Proxy, RedisServer, Value, wait};

#[test]
fn redis_keeps_data_according_to_its_persistence() {
    let folder = Folder::new();
    for (persistence, kept) in [(Persistence::None, 0), (Persistence::Everysec, 1), (Persistence::Always, 1)] {
        let mut redis = RedisServer::start(&folder.join(&format!("{persistence:?}")), persistence);
        redis.cli("SET key value");
        redis.crash();
        assert_eq!(redis.cli("DBSIZE").int(), kept, "{persistence:?}");
        redis.stop();
        redis.start_again();
        assert_eq!(redis.cli("DBSIZE").int(), kept, "{persistence:?}");
    }
}

#[test]
fn redis_loses_its_tail_like_in_a_power_cut() {
    let folder = Folder::new();
    let mut redis = RedisServer::start(folder.path(), Persistence::Everysec);
    redis.cli("SET first 1");
    redis.cli("SET second 2");
    redis.kill9();
    assert_eq!(redis.lose_tail(3), 3);
    redis.start_again();
    assert_eq!(redis.cli("GET first"), Value::Bytes(b"1".to_vec()));
    assert_eq!(redis.cli("GET second"), Value::Nil);
}

#[test]
fn a_replica_follows_and_can_be_promoted() {
    let folder = Folder::new();
    let master = RedisServer::start(&folder.join("master"), Persistence::None);
    master.cli("SET key value");
    let replica = RedisServer::start_replica_of(&master, &folder.join("replica"));
    assert_eq!(replica.cli("GET key").text(), "value");
    replica.cli("REPLICAOF NO ONE");
    master.cli("SET key later");
    assert_eq!(replica.cli("GET key").text(), "value");
}

#[test]
fn the_proxy_forwards_stalls_swallows_and_cuts() {
    let folder = Folder::new();
    let redis = RedisServer::start(folder.path(), Persistence::None);
    let proxy = Proxy::start(redis.port());
    let addr = proxy.url().strip_prefix("redis://").unwrap().to_owned();
    let connect = || {
        let stream = TcpStream::connect(&addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream
    };
    let incr = |stream: &mut TcpStream| {
        let _ = stream.write_all(b"INCR n\r\n");
        let mut reply = [0; 100];
        stream.read(&mut reply).map(|count| String::from_utf8_lossy(&reply[..count]).into_owned())
    };

    let mut stream = connect();
    assert_eq!(incr(&mut stream).unwrap(), ":1\r\n");

    proxy.stall();
    assert!(incr(&mut stream).is_err());
    assert_eq!(redis.cli("GET n").text(), "1");
    proxy.heal();
    wait::until("the held request arrives", || redis.cli("GET n").text() == "2");

    let mut stream = connect();
    proxy.drop_replies();
    assert!(incr(&mut stream).is_err());
    assert_eq!(redis.cli("GET n").text(), "3");
    proxy.cut();
    assert_eq!(incr(&mut stream).unwrap_or_default(), "", "closed");
    proxy.heal();

    let mut stream = connect();
    assert_eq!(incr(&mut stream).unwrap(), ":4\r\n");
    proxy.half_open();
    assert!(incr(&mut stream).is_err());
    assert_eq!(incr(&mut connect()).unwrap(), ":5\r\n");

    let mut stream = connect();
    proxy.cut_after(Way::Replies, 3);
    assert_eq!(incr(&mut stream).unwrap(), ":6\r");
    assert_eq!(incr(&mut stream).unwrap_or_default(), "", "closed");
}
