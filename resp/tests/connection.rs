//! Connections: the handshake, dropped futures, and peers that stall or send wrong data.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use resp::streams::{AddId, GroupFrom, ReadFrom, XAdd, XRead, XReadGroup};
use resp::testing::{Script, ScriptedServer, reply};
use resp::{
    BlockTimeout, Blocking, Config, Connection, Endpoint, ErrorKind, Frame, GroupReader, Pipeline, RespVersion, Sent,
    StreamId, cmd,
};
use support::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;

/// A configuration for peers that are not servers.
fn config() -> Config {
    Config::new(Endpoint::tcp("127.0.0.1", 1)).resp2(true).command_timeout(Some(Duration::from_millis(200)))
}

/// A connection to a peer that the test controls, after the handshake.
async fn with_peer(config: &Config, buffer: usize) -> (Connection, DuplexStream) {
    let (ours, mut peer) = tokio::io::duplex(buffer);
    let greeting = async {
        // CLIENT SETINFO, twice.
        let mut seen = Vec::new();
        while !seen.ends_with(concat!(env!("CARGO_PKG_VERSION"), "\r\n").as_bytes()) {
            seen.push(peer.read_u8().await.unwrap());
        }
        peer.write_all(b"+OK\r\n-ERR unknown\r\n").await.unwrap();
        peer
    };
    let (connection, peer) = tokio::join!(Connection::from_transport(ours, config), greeting);
    (connection.unwrap(), peer)
}

#[tokio::test]
async fn over_tcp_with_name_and_database() {
    let server = Server::start();
    for resp2 in [false, true] {
        let config = server.tcp().client_name("tester").database(3).resp2(resp2);
        let mut connection = Connection::connect(&config).await.unwrap();
        let info = connection.send(cmd::<Frame>("CLIENT INFO")).await.unwrap();
        let info = info.value().as_str().unwrap().to_owned();
        assert!(info.contains("name=tester") && info.contains("db=3"), "{info}");
        assert_eq!(connection.protocol(), if resp2 { RespVersion::Resp2 } else { RespVersion::Resp3 });
    }
}

#[tokio::test]
async fn passwords_and_users() {
    let server = Server::with(&["--requirepass", "s3cret"]);
    for resp2 in [false, true] {
        let config = || server.config().resp2(resp2);
        let error = match Connection::connect(&config()).await {
            // With RESP2, the first command reports it.
            Ok(mut connection) => connection.send(cmd::<Frame>("GET").arg("a")).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::NoAuth, "{error}");
        let error = Connection::connect(&config().password("wr0ng")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongPass, "{error}");
        assert!(!error.is_transient());
        assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
        let mut connection = Connection::connect(&config().password("s3cret")).await.unwrap();
        let user = cmd::<Frame>("ACL SETUSER").args(["ann", "on", ">pw", "+hello", "+client", "+get", "~a*", "-info"]);
        connection.send(&user).await.unwrap();
        let ann = config().user("ann").password("pw");
        let mut connection = Connection::connect(&ann).await.unwrap();
        connection.send(cmd::<()>("GET").arg("a")).await.unwrap();
        let error = connection.send(cmd::<Frame>("GET").arg("b")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoPerm, "{error}");
        // A user without a password.
        connection = Connection::connect(&config().password("s3cret")).await.unwrap();
        connection.send(cmd::<()>("ACL SETUSER").args(["bob", "on", "nopass", "+@all", "~*"])).await.unwrap();
        let mut connection = Connection::connect(&config().user("bob")).await.unwrap();
        assert_eq!(connection.send(cmd::<Frame>("ACL WHOAMI")).await.unwrap().value().as_str(), Some("bob"));
        let error = Connection::connect(&config().user("nobody")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongPass, "{error}");
        let error = Connection::connect(&ann.password("other")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongPass, "{error}");
    }
}

#[tokio::test]
async fn a_server_without_hello() {
    let unknown = reply::error("ERR Unknown subcommand or wrong number of arguments for 'SETINFO'");
    let hello = cmd::<()>("HELLO").arg((3, "AUTH", "default")).arg(("pw", "SETNAME", "me"));
    let server = ScriptedServer::new([Script::new()
        .on(&hello, reply::error("ERR unknown command `HELLO`, with args beginning with: `3`, "))
        .on(cmd::<()>("AUTH").arg("pw"), reply::ok())
        .on(cmd::<()>("CLIENT SETNAME").arg("me"), reply::ok())
        .on(cmd::<()>("CLIENT SETINFO LIB-NAME").arg("resp-streams"), unknown.clone())
        .on(cmd::<()>("CLIENT SETINFO LIB-VER").arg(env!("CARGO_PKG_VERSION")), unknown)
        .on(cmd::<()>("PING"), "+PONG\r\n")]);
    let mut connection = Connection::connect(&server.config().password("pw").client_name("me")).await.unwrap();
    assert_eq!(connection.protocol(), RespVersion::Resp2);
    let pong: String = connection.send(cmd("PING")).await.unwrap();
    assert_eq!(pong, "PONG");
    server.finish().await.unwrap();
}

#[tokio::test]
async fn a_closed_port() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Connection::connect(&Config::new(Endpoint::tcp("127.0.0.1", port))).await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Io, Sent::No));
    assert!(error.to_string().starts_with(&format!("connecting to redis://127.0.0.1:{port}: ")), "{error}");

    let error = Connection::connect(&Config::new(Endpoint::unix("/nowhere/redis.sock"))).await.unwrap_err();
    assert_eq!(error.to_string(), "connecting to unix:///nowhere/redis.sock: No such file or directory (os error 2)");

    // The peer accepts and stays silent.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Config::new(Endpoint::tcp("127.0.0.1", port)).connect_timeout(Duration::from_millis(50));
    let error = Connection::connect(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn dropped_futures_never_shift_replies() {
    let server = Server::start();
    for mut connection in server.both().await {
        for round in 0..200u64 {
            // Abandoned before it is written, while it is written, and while it is answered.
            let lost = cmd::<Frame>("ECHO").arg(format!("lost {round}"));
            tokio::select! {
                biased;
                _ = connection.send(&lost) => {}
                () = async { for _ in 0..round % 7 { tokio::task::yield_now().await; } } => {}
            }
            let text = format!("kept {round}");
            let reply = connection.send(cmd::<Frame>("ECHO").arg(&text)).await.unwrap();
            assert_eq!(reply.value().as_str(), Some(&*text));
            // The same in single steps: an abandoned reply goes to no other command.
            let lost = cmd::<Frame>("ECHO").arg("lost");
            tokio::select! {
                biased;
                _ = connection.send(&lost) => {}
                () = tokio::task::yield_now() => {}
            }
            connection.queue(cmd::<Frame>("ECHO").arg(&text));
            assert_eq!(connection.owed(), 1);
            assert_eq!(connection.receive().await.unwrap().value().as_str(), Some(&*text));
            if round % 3 == 0 {
                connection.queue(cmd::<Frame>("ECHO").arg("dropped by send"));
            }
        }
        assert_eq!(connection.send(cmd::<Frame>("ECHO").arg("x")).await.unwrap().value().as_str(), Some("x"));
        assert_eq!(connection.owed(), 0);
    }
}

#[tokio::test]
async fn an_abandoned_blocking_read() {
    let server = Server::start();
    let mut connection = server.connect().await;
    let read = XRead::new("s", ReadFrom::New).block(BlockTimeout::For(Duration::from_millis(100)));
    tokio::time::timeout(Duration::from_millis(10), connection.send_blocking(&read)).await.unwrap_err();
    assert_eq!(connection.send(cmd::<Frame>("ECHO").arg("x")).await.unwrap().value().as_str(), Some("x"));
}

#[tokio::test]
async fn a_large_command_abandoned_half_written() {
    let server = Server::start();
    let mut connection = server.connect().await;
    let large = vec![b'x'; 8 << 20];
    let set = cmd::<Frame>("SET").arg("large").arg(&large);
    tokio::select! {
        biased;
        _ = connection.send(&set) => panic!("not at once"),
        () = std::future::ready(()) => {}
    }
    assert!(connection.buffered() > 0 && connection.buffered() < large.len());
    let length = connection.send(cmd::<Frame>("STRLEN").arg("large")).await.unwrap();
    assert_eq!(length.value().as_int(), Some(8 << 20));
}

#[tokio::test]
async fn full_buffers_in_both_directions_do_not_deadlock() {
    // The peer replies to each command at once, and does not read on before its reply is read.
    let (mut connection, peer) = with_peer(&config().command_timeout(Some(Duration::from_secs(20))), 4096).await;
    let (mut from, mut to) = tokio::io::split(peer);
    let echo = tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
    const COMMANDS: usize = 160;
    let payload = vec![b'x'; 64 << 10];
    for _ in 0..COMMANDS {
        connection.queue(cmd::<Frame>("ECHO").arg(&payload));
    }
    assert!(connection.buffered() > 10 << 20);
    connection.flush().await.unwrap();
    for _ in 0..COMMANDS {
        let reply = connection.receive().await.unwrap();
        assert_eq!(reply.value().children().nth(1).unwrap().as_bytes(), Some(&payload[..]));
    }
    // The same without a flush.
    for _ in 0..COMMANDS {
        connection.queue(cmd::<Frame>("ECHO").arg(&payload));
    }
    for _ in 0..COMMANDS {
        connection.receive().await.unwrap();
    }
    drop(connection);
    echo.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stalled_peer_times_out_and_closes() {
    let (mut connection, peer) = with_peer(&config(), 1 << 16).await;
    let began = Instant::now();
    let error = connection.send(cmd::<Frame>("PING")).await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Timeout, Sent::Maybe), "{error}");
    assert!(error.to_string().starts_with("PING: "), "{error}");
    let error = connection.send(cmd::<Frame>("PING")).await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Closed, Sent::No), "{error}");
    assert_eq!(connection.receive().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(connection.flush().await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(connection.is_closed());
    drop(peer);
}

#[tokio::test]
async fn a_slow_peer_is_tolerated_until_it_stalls() {
    let slowly = async |config: &Config, reply: &[u8]| {
        let (mut connection, mut peer) = with_peer(config, 1 << 16).await;
        let writing = async {
            for byte in reply {
                tokio::time::sleep(Duration::from_millis(30)).await;
                // The connection may have given up.
                let _ = peer.write_u8(*byte).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        let get = cmd::<Frame>("GET").arg("x");
        tokio::join!(connection.send(&get), writing).0
    };
    let whole = b"$9\r\n123456789\r\n";
    assert_eq!(slowly(&config(), whole).await.unwrap_err().kind(), ErrorKind::Timeout);
    let patient = config().command_timeout(None).stall_timeout(Some(Duration::from_millis(200)));
    assert_eq!(slowly(&patient, whole).await.unwrap().value().as_str(), Some("123456789"));
    let error = slowly(&patient, &whole[..9]).await.unwrap_err();
    assert_eq!(error.to_string(), "GET: no data transferred for 200ms");
}

#[tokio::test]
async fn the_reply_to_a_blocking_command_must_begin_in_time() {
    let config = config().block_grace(Duration::from_millis(1400)).stall_timeout(Some(Duration::from_millis(300)));
    let pop = Blocking::new(cmd::<Frame>("BLPOP").arg("x").arg("0.1"), BlockTimeout::For(Duration::from_millis(100)));
    // Silent for longer than the stall timeout, and starting within 1.5 s.
    let (mut connection, mut peer) = with_peer(&config, 1 << 16).await;
    let writing = async {
        for part in ["$", "3\r\n", "abc\r\n"] {
            tokio::time::sleep(Duration::from_millis(if part == "$" { 600 } else { 50 })).await;
            peer.write_all(part.as_bytes()).await.unwrap();
        }
    };
    let (reply, ()) = tokio::join!(connection.send_blocking(&pop), writing);
    assert_eq!(reply.unwrap().value().as_str(), Some("abc"));
    let began = Instant::now();
    let error = connection.send_blocking(&pop).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(began.elapsed() >= Duration::from_millis(1500));
}

#[tokio::test]
async fn unwritten_commands_were_not_executed() {
    // The peer reads only the beginning.
    let (mut connection, peer) = with_peer(&config(), 64).await;
    let error = connection.send(cmd::<Frame>("SET").arg("key").arg(vec![0; 1000])).await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Timeout, Sent::No), "{error}");
    drop(peer);
}

#[tokio::test]
async fn a_peer_that_disconnects() {
    let (mut connection, peer) = with_peer(&config(), 1 << 16).await;
    drop(peer);
    let error = connection.send(cmd::<Frame>("PING")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.is_transient() && error.closes_connection());

    // In the middle of a reply.
    let (mut connection, mut peer) = with_peer(&config(), 1 << 16).await;
    peer.write_all(b"$10\r\nabc").await.unwrap();
    drop(peer);
    assert_eq!(connection.send(cmd::<Frame>("PING")).await.unwrap_err().kind(), ErrorKind::Io);
}

#[tokio::test]
async fn a_peer_that_gives_a_reason_and_disconnects() {
    let server = Server::with(&["--maxclients", "1"]);
    // The client's own ping may still occupy the only place.
    let _first = loop {
        match Connection::connect(&server.config()).await {
            Ok(connection) => break connection,
            Err(error) => assert_eq!(error.kind(), ErrorKind::MaxClients, "{error}"),
        }
    };
    let error = Connection::connect(&server.config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MaxClients, "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_protocol_error_ends_the_connection() {
    for garbage in ["HTTP/1.1 400 Bad CommandWriter\r\n\r\n", ":x\r\n", "$999999999999\r\n", "*1\r\n.\r\n"] {
        let (mut connection, mut peer) = with_peer(&config(), 1 << 16).await;
        peer.write_all(garbage.as_bytes()).await.unwrap();
        let error = connection.send(cmd::<Frame>("PING")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{garbage:?}: {error}");
        assert_eq!(connection.send(cmd::<Frame>("PING")).await.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn pushes_are_no_replies() {
    let (mut connection, mut peer) = with_peer(&config(), 1 << 16).await;
    let answer = peer.write_all(b">2\r\n+invalidate\r\n*1\r\n+a\r\n+PONG\r\n>1\r\n+later\r\n");
    let (pong, _) = tokio::join!(connection.send(cmd::<String>("PING")), answer);
    assert_eq!(pong.unwrap(), "PONG");
    assert_eq!(connection.take_push().unwrap().value().children().next().unwrap().as_str(), Some("invalidate"));
    assert!(connection.take_push().is_none());
}

#[tokio::test]
async fn an_unexpected_shape_is_an_error_and_not_the_end() {
    let (mut connection, mut peer) = with_peer(&config(), 1 << 16).await;
    let read = XReadGroup::new("s", "g", "c", GroupFrom::New);
    for reply in [
        "+OK\r\n",
        ":1\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n$1\r\ns\r\n:1\r\n",
        "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n:1\r\n",
        "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\nx-y\r\n*0\r\n",
        "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*1\r\n$1\r\na\r\n",
        "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\na\r\n*0\r\n",
        "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*1\r\n$3\r\n1-1\r\n",
        "%1\r\n*0\r\n*0\r\n",
    ] {
        let error = tokio::join!(connection.send(&read), peer.write_all(reply.as_bytes())).0.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedReply, "{reply:?}: {error}");
    }
    let answer = peer.write_all(b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*4\r\n$3\r\n1-1\r\n*0\r\n:5\r\n:2\r\n");
    let read = tokio::join!(connection.send(&read), answer).0.unwrap();
    let entry = read.entries().first().unwrap();
    assert_eq!((entry.idle, entry.deliveries), (Some(Duration::from_millis(5)), Some(2)));
}

#[tokio::test]
async fn an_unsolicited_reply() {
    let (mut connection, _peer) = with_peer(&config(), 1 << 16).await;
    assert_eq!(connection.receive().await.unwrap_err().kind(), ErrorKind::Usage);
    assert!(!connection.is_closed());

    // A reply that arrives before the command belongs to no call.
    let (mut connection, mut peer) = with_peer(&config(), 1 << 16).await;
    peer.write_all(b"+PONG\r\n").await.unwrap();
    let error = connection.send(cmd::<()>("PING")).await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Protocol, Sent::No), "{error}");
    assert!(connection.is_closed());
    // So does one in a pipeline, and before a reader's request.
    let (mut connection, mut peer) = with_peer(&config(), 1 << 16).await;
    let mut pipeline = Pipeline::new();
    let _ = pipeline.add(cmd::<()>("PING"));
    peer.write_all(b"+PONG\r\n").await.unwrap();
    assert_eq!(connection.run(&pipeline).await.unwrap_err().kind(), ErrorKind::Protocol);
    let (connection, mut peer) = with_peer(&config(), 1 << 16).await;
    let mut reader = GroupReader::new(connection, "s", "g", "c");
    peer.write_all(b"*0\r\n").await.unwrap();
    assert_eq!(reader.read(None).await.unwrap_err().kind(), ErrorKind::Protocol);
}

/// A link that broke while it was idle: the command was certainly not executed.
#[tokio::test]
async fn a_lost_link_is_noticed_before_a_command_is_sent() {
    let (mut connection, peer) = with_peer(&config(), 1 << 16).await;
    drop(peer);
    let error = connection.send(cmd::<()>("INCR").arg("n")).await.unwrap_err();
    assert_eq!((error.sent(), error.is_transient()), (Sent::No, true), "{error}");
    let (mut connection, mut peer) = with_peer(&config(), 1 << 16).await;
    peer.write_all(b"-ERR the server shuts down\r\n").await.unwrap();
    drop(peer);
    let error = connection.send(cmd::<()>("INCR").arg("n")).await.unwrap_err();
    assert_eq!((error.sent(), error.message()), (Sent::No, "ERR the server shuts down"), "{error}");
}

#[tokio::test]
async fn large_payloads_arrive_whole() {
    let server = Server::start();
    let mut connection = server.connect().await;
    let line: Vec<u8> = (0..64 << 20).map(|n| (n % 251) as u8).collect();
    let fields = [("line", &line)];
    let id = connection.send(XAdd::new("s", AddId::Auto, &fields)).await.unwrap();
    let entries = connection.send(XRead::new("s", StreamId::ZERO)).await.unwrap();
    let entry = entries.entries().first().unwrap();
    assert_eq!(entry.id, id);
    assert!(entry.field(b"line") == Some(&line[..]));
}

fn words(push: &resp::Frame) -> Vec<String> {
    push.value().children().filter_map(|part| part.as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_subscription_is_answered_by_pushes_and_commands_still_work() {
    let server = Server::start();
    let config = server.config().command_timeout(Some(Duration::from_millis(200)));
    let mut connection = Connection::connect(&config).await.unwrap();
    let mut other = Connection::connect(&config).await.unwrap();
    connection.subscribe(cmd::<Frame>("SUBSCRIBE").arg("news").arg("more")).await.unwrap();
    for (channel, count) in [("news", "1"), ("more", "2")] {
        assert_eq!(words(&connection.next_push().await.unwrap()), ["subscribe", channel, count]);
    }
    // Longer than the command timeout, which does not apply to push messages.
    let late = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        other.send(cmd::<()>("PUBLISH").arg("news").arg("one")).await.unwrap();
    };
    let (push, ()) = tokio::join!(connection.next_push(), late);
    assert_eq!(words(&push.unwrap()), ["message", "news", "one"]);
    other.send(cmd::<()>("PUBLISH").arg("more").arg("two")).await.unwrap();
    assert_eq!(connection.send(cmd::<Frame>("PING")).await.unwrap().value().as_str(), Some("PONG"));
    assert_eq!(words(&connection.next_push().await.unwrap()), ["message", "more", "two"]);
    // Dropping the future loses nothing.
    assert!(tokio::time::timeout(Duration::from_millis(20), connection.next_push()).await.is_err());
    connection.subscribe(cmd::<Frame>("unsubscribe").arg("news")).await.unwrap();
    assert_eq!(words(&connection.next_push().await.unwrap()), ["unsubscribe", "news", "1"]);
    drop(server);
    assert!(connection.next_push().await.unwrap_err().closes_connection());
}

#[tokio::test]
async fn non_subscriptions_are_refused_and_close_nothing() {
    let server = Server::start();
    let mut connection = Connection::connect(&server.config()).await.unwrap();
    let error = connection.send(cmd::<Frame>("SUBSCRIBE").arg("news")).await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Usage, Sent::No), "{error}");
    let error = connection.subscribe(cmd::<Frame>("GET").arg("key")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    // Redis refuses it: there is no channel.
    connection.subscribe(cmd::<Frame>("SUBSCRIBE")).await.unwrap();
    let error = connection.next_push().await.unwrap_err();
    assert!(error.is_server() && error.to_string().contains("wrong number of arguments"), "{error}");
    connection.queue(cmd::<Frame>("PING"));
    assert_eq!(connection.next_push().await.unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(connection.receive().await.unwrap().value().as_str(), Some("PONG"));
    let mut old = Connection::connect(&server.config().resp2(true)).await.unwrap();
    let error = old.subscribe(cmd::<Frame>("SUBSCRIBE").arg("news")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Usage && error.to_string().contains("RESP3"), "{error}");
    assert_eq!(old.send(cmd::<Frame>("PING")).await.unwrap().value().as_str(), Some("PONG"));
}
