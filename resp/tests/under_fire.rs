//! Servers that are slow, silent, flooding or refusing: every call ends by its deadline, no error
//! shows a secret, and no error is mistaken for another.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use resp::{
    BlockTimeout, Blocking, Client, ClientEvent, ClientOptions, ClusterClient, Config, Connection, ConsumerOptions,
    Endpoint, Error, ErrorKind, Frame, Pipeline, RespVersion, Sent, Transaction, cmd,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One client of a fake server.
struct Peer {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Peer {
    fn new(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        Self { socket, input: Vec::new() }
    }

    /// Returns the words of the next command; `None` when the client is gone.
    async fn command(&mut self) -> Option<Vec<String>> {
        loop {
            if let Some((words, used)) = parse(&self.input) {
                self.input.drain(..used);
                return Some(words);
            }
            if self.socket.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Returns whether the client is still connected.
    async fn say(&mut self, text: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(text.as_ref()).await.is_ok()
    }
}

fn parse(input: &[u8]) -> Option<(Vec<String>, usize)> {
    let line = |at: usize| {
        let end = at + input.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(&input[at + 1..end]).unwrap().parse::<usize>().unwrap();
        Some((number, end + 2))
    };
    let (count, mut at) = line(0)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (len, start) = line(at)?;
        words.push(String::from_utf8_lossy(input.get(start..start + len)?).into_owned());
        at = start + len + 2;
    }
    (at <= input.len()).then_some((words, at))
}

const HELLO: &str = "%1\r\n$5\r\nproto\r\n:3\r\n";

/// Returns a server's usual reply to a command of the handshake, and a one-node cluster's at this
/// port.
fn usual(words: &[String], port: u16) -> Option<String> {
    Some(match (words[0].as_str(), words.get(1).map(String::as_str)) {
        ("HELLO", _) => HELLO.to_owned(),
        ("CLIENT", Some("SETINFO")) => "+OK\r\n".to_owned(),
        ("CLUSTER", Some("SHARDS")) => "-ERR unknown subcommand\r\n".to_owned(),
        ("CLUSTER", _) => format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n"),
        _ => return None,
    })
}

type Answer = Pin<Box<dyn Future<Output = Peer> + Send>>;

/// A server that completes the handshake and leaves the rest to `answer`. Returns its port and its
/// number of connections.
async fn server(
    answer: impl Fn(Peer, Vec<String>) -> Answer + Clone + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut peer = Peer::new(socket);
                while let Some(words) = peer.command().await {
                    if let Some(reply) = usual(&words, port) {
                        peer.say(reply).await;
                    } else {
                        peer = answer(peer, words).await;
                    }
                }
            });
        }
    });
    (port, connections)
}

/// A server that answers at once.
async fn answering(answer: impl Fn(&[String]) -> String + Clone + Send + Sync + 'static) -> (u16, Arc<AtomicUsize>) {
    server(move |mut peer, words| {
        let reply = answer(&words);
        Box::pin(async move {
            peer.say(reply).await;
            peer
        })
    })
    .await
}

/// A server without the usual replies.
async fn answering_all(answer: impl Fn(&[String]) -> String + Clone + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut peer = Peer::new(socket);
                while let Some(words) = peer.command().await {
                    peer.say(answer(&words)).await;
                }
            });
        }
    });
    port
}

const LIMIT: Duration = Duration::from_millis(300);
/// How late a call may end on a busy machine.
const SLACK: Duration = Duration::from_millis(1500);

fn config(port: u16) -> Config {
    Config::new(Endpoint::tcp("127.0.0.1", port)).command_timeout(Some(LIMIT)).connect_timeout(Duration::from_secs(5))
}

fn cluster(port: u16) -> Config {
    Config::new(Endpoint::cluster([("127.0.0.1", port)]))
        .command_timeout(Some(LIMIT))
        .connect_timeout(Duration::from_secs(5))
}

/// What a server does instead of replying.
const WAYS: [&str; 5] = ["silence", "drip", "pushes", "attributes", "chatter"];

/// Never answers.
fn never(way: &'static str) -> impl Fn(Peer, Vec<String>) -> Answer + Clone + Send + Sync + 'static {
    move |mut peer, _| {
        Box::pin(async move {
            // A reply without end.
            let mut is_heard = way != "drip" || peer.say("$1000000\r\n").await;
            while is_heard {
                tokio::time::sleep(Duration::from_millis(if way == "chatter" { 0 } else { 20 })).await;
                is_heard = match way {
                    "silence" => std::future::pending().await,
                    "drip" => peer.say("x").await,
                    "pushes" => peer.say(">2\r\n+a\r\n+b\r\n").await,
                    "attributes" => peer.say("|1\r\n+a\r\n+b\r\n").await,
                    // There is always something to read.
                    _ => peer.say(">2\r\n+a\r\n+b\r\n".repeat(1000)).await,
                };
            }
            peer
        })
    }
}

/// Every kind of call, each over its own connection.
async fn calls(port: u16) -> Vec<(&'static str, Pin<Box<dyn Future<Output = Error> + Send>>)> {
    let get = || cmd::<Frame>("GET").arg("a");
    let pipeline = move || {
        let mut pipeline = Pipeline::new();
        pipeline.add(get());
        pipeline.add(get());
        pipeline
    };
    let transaction = move || {
        let mut transaction = Transaction::new();
        transaction.add(get());
        transaction
    };
    let connect = async || Connection::connect(&config(port)).await.unwrap();
    let client = Client::connect(&config(port)).await.unwrap();
    let others = [client.clone(), client.clone()];
    let cluster = ClusterClient::connect(&cluster(port)).await.unwrap();
    let clusters = [cluster.clone(), cluster.clone()];
    let [mut one, mut two, mut three, mut four] = [connect().await, connect().await, connect().await, connect().await];
    let [other, another] = others;
    let [whole, part] = clusters;
    vec![
        ("Connection::send", Box::pin(async move { one.send(&get()).await.unwrap_err() })),
        ("Connection::run", Box::pin(async move { two.run(&pipeline()).await.unwrap_err() })),
        ("Connection::exec", Box::pin(async move { three.exec(&transaction()).await.unwrap_err() })),
        (
            "Connection::receive_queued",
            Box::pin(async move {
                four.queue_multi();
                four.queue(get());
                four.receive_queued(1).await.unwrap_err()
            }),
        ),
        (
            "Connection::send_blocking",
            Box::pin(async move {
                let config = config(port).block_grace(Duration::from_millis(100)).command_timeout(Some(LIMIT));
                let mut five = Connection::connect(&config).await.unwrap();
                let block = BlockTimeout::For(Duration::from_millis(100));
                five.send_blocking(Blocking::new(cmd::<Frame>("BLPOP").arg("a").arg("0.1"), block)).await.unwrap_err()
            }),
        ),
        ("Client::send", Box::pin(async move { client.send(&get()).await.unwrap_err() })),
        ("Client::run", Box::pin(async move { other.run(&pipeline()).await.unwrap_err() })),
        ("Client::exec", Box::pin(async move { another.exec(&transaction()).await.unwrap_err() })),
        ("ClusterClient::send", Box::pin(async move { cluster.send(&get()).await.unwrap_err() })),
        ("ClusterClient::run", Box::pin(async move { whole.run(&pipeline()).await.unwrap().check().unwrap_err() })),
        ("ClusterClient::exec", Box::pin(async move { part.exec(&transaction()).await.unwrap_err() })),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_ends_by_its_deadline() {
    let mut running = JoinSet::new();
    for way in WAYS {
        let (port, _) = server(never(way)).await;
        for (name, call) in calls(port).await {
            running.spawn(async move {
                let begun = Instant::now();
                let ended = tokio::time::timeout(Duration::from_secs(20), call).await;
                (format!("{name}, {way}"), ended.ok(), begun.elapsed())
            });
        }
    }
    while let Some(done) = running.join_next().await {
        let (call, error, took) = done.unwrap();
        let error = error.unwrap_or_else(|| panic!("{call}: hangs"));
        assert_eq!((error.kind(), error.sent()), (ErrorKind::Timeout, Sent::Maybe), "{call}: {error}");
        // A reply to a blocking command that has begun may end later.
        let limit = if call.contains("blocking") { LIMIT * 2 } else { LIMIT };
        assert!(took < limit + SLACK, "{call}: {took:?}");
    }
}

/// A peer that agrees to everything, and then always has a push message to read.
struct Flood {
    agrees: bool,
    end: Instant,
}

impl AsyncRead for Flood {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.agrees) {
            buf.put_slice(b"+OK\r\n+OK\r\n");
        } else if Instant::now() < self.end {
            const PUSH: &[u8] = b">1\r\n+a\r\n";
            buf.put_slice(&PUSH.repeat(buf.remaining() / PUSH.len()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_server_that_never_pauses_delays_no_deadline() {
    // This runtime fires no timer as long as a task can run.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(u32::MAX).build().unwrap();
    let error = runtime.block_on(async {
        let flood = || async { Ok(Flood { agrees: true, end: Instant::now() + Duration::from_secs(10) }) };
        let config = config(1).resp2(true).connector(move |_| flood());
        let client = Client::connect(&config).await.unwrap();
        client.send(cmd::<Frame>("GET").arg("a")).await.unwrap_err()
    });
    // Without a timeout, the end of the flood would end the call.
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connecting_ends_by_its_deadline() {
    type Connecting = Pin<Box<dyn Future<Output = Option<Error>> + Send>>;
    let mut running = JoinSet::new();
    for way in WAYS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(never(way)(Peer::new(socket), Vec::new()));
            }
        });
        let limited = |config: Config| config.connect_timeout(LIMIT).command_timeout(None);
        let (one, many) = (limited(config(port)), limited(cluster(port)));
        let master = limited(Config::new(Endpoint::sentinel([("127.0.0.1", port)], "m")));
        let consumer = ConsumerOptions::new(one.clone(), "s", "g", "c");
        let (other, key) = (one.clone(), many.clone().for_key("a"));
        let over = one.clone();
        let ways: [(&str, Connecting); 7] = [
            ("Connection", Box::pin(async move { Connection::connect(&one).await.err() })),
            (
                "Connection::from_transport",
                Box::pin(async move {
                    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    Connection::from_transport(socket, &over).await.err()
                }),
            ),
            ("Client", Box::pin(async move { Client::connect(&other).await.err() })),
            ("Consumer", Box::pin(async move { consumer.connect().await.err() })),
            ("Sentinel", Box::pin(async move { Connection::connect(&master).await.err() })),
            ("ClusterClient", Box::pin(async move { ClusterClient::connect(&many).await.err() })),
            ("a node of a cluster", Box::pin(async move { Connection::connect(&key).await.err() })),
        ];
        for (name, connecting) in ways {
            running.spawn(async move {
                let begun = Instant::now();
                let ended = tokio::time::timeout(Duration::from_secs(20), connecting).await;
                (format!("{name}, {way}"), ended.ok().flatten(), begun.elapsed())
            });
        }
    }
    while let Some(done) = running.join_next().await {
        let (what, error, took) = done.unwrap();
        let error = error.unwrap_or_else(|| panic!("{what}: hangs"));
        assert_eq!((error.kind(), error.sent()), (ErrorKind::Timeout, Sent::No), "{what}: {error}");
        assert!(took < LIMIT + SLACK, "{what}: {took:?}");
    }
}

/// More calls than there is room for end in time, with a timeout.
async fn all_time_out(client: &Client) {
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        running
            .spawn(async move { client.send(cmd::<Frame>("SET").arg("k").arg(vec![b'x'; 1000])).await.unwrap_err() });
    }
    while let Some(error) = running.join_next().await {
        assert_eq!(error.unwrap().kind(), ErrorKind::Timeout);
    }
    assert!(begun.elapsed() < LIMIT + SLACK, "{:?}", begun.elapsed());
}

/// A server that accepts clients and then ignores them.
#[tokio::test]
async fn waiting_for_room_and_for_a_connection_is_bounded() {
    let (port, _) = server(never("silence")).await;
    let client = ClientOptions::new(config(port)).max_bytes(4096).connect().await.unwrap();
    all_time_out(&client).await;

    // The server is gone for good.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let gone = tokio::spawn(async move {
        let mut peer = Peer::new(listener.accept().await.unwrap().0);
        drop(listener);
        while let Some(words) = peer.command().await {
            let Some(reply) = usual(&words, port) else { return };
            peer.say(reply).await;
        }
    });
    let client = ClientOptions::new(config(port)).max_bytes(4096).connect().await.unwrap();
    client.send(cmd::<()>("GET").arg("x")).await.unwrap_err();
    gone.await.unwrap();
    all_time_out(&client).await;
}

#[tokio::test]
async fn a_timeout_keeps_the_connection_while_the_server_answers_others() {
    let (port, connections) = server(|mut peer, words| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(120)).await;
            peer.say(format!("${}\r\n{}\r\n", words[1].len(), words[1])).await;
            peer
        })
    })
    .await;
    let client = Client::connect(&config(port)).await.unwrap();
    let mut running = JoinSet::new();
    for n in 0..6 {
        let client = client.clone();
        running.spawn(async move { (n.to_string(), client.send(cmd::<Frame>("ECHO").arg(n)).await) });
        tokio::task::yield_now().await;
    }
    let (mut answered, mut out_of_time) = (0, 0);
    while let Some(done) = running.join_next().await {
        match done.unwrap() {
            (text, Ok(reply)) => {
                assert_eq!(reply.value().as_str(), Some(text.as_str()));
                answered += 1;
            }
            (_, Err(error)) => {
                assert_eq!((error.kind(), error.sent()), (ErrorKind::Timeout, Sent::Maybe));
                out_of_time += 1;
            }
        }
    }
    assert!(answered > 0 && out_of_time > 1, "{answered} answered, {out_of_time} out of time");
    // Their replies come later, and are discarded. How many are left is unknown.
    let reply = loop {
        match client.send(cmd::<Frame>("ECHO").arg("mine")).await {
            Ok(reply) => break reply,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout),
        }
    };
    assert_eq!(reply.value().as_str(), Some("mine"));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn limits_of_any_size_are_taken() {
    let (port, _) = answering(|_| "+OK\r\n".to_owned()).await;
    for limit in [Some(Duration::MAX), None] {
        let config = config(port).command_timeout(limit).stall_timeout(limit).connect_timeout(Duration::MAX);
        Connection::connect(&config).await.unwrap().send(cmd::<Frame>("PING")).await.unwrap();
        Client::connect(&config).await.unwrap().send(cmd::<Frame>("PING")).await.unwrap();
        let config = Config::new(Endpoint::cluster([("127.0.0.1", port)])).command_timeout(limit);
        let cluster = ClusterClient::connect(&config.connect_timeout(Duration::MAX)).await.unwrap();
        cluster.send(cmd::<()>("PING")).await.unwrap();
    }
    let client = ClientOptions::new(config(port)).max_bytes(0).connect().await.unwrap();
    client.send(cmd::<()>("PING")).await.unwrap();
}

// ---- a cluster ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_callers_share_one_attempt_to_connect() {
    // A node that accepts connections and stays silent.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead_port = dead.local_addr().unwrap().port();
    let attempts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&attempts);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = dead.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            held.push(socket);
        }
    });
    let failed_over = Arc::new(AtomicUsize::new(0));
    let over = Arc::clone(&failed_over);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let over = Arc::clone(&over);
            tokio::spawn(async move {
                let mut peer = Peer::new(socket);
                while let Some(words) = peer.command().await {
                    let owner = if over.load(Ordering::SeqCst) == 1 { port } else { dead_port };
                    let reply = usual(&words, owner).unwrap_or_else(|| "+yes\r\n".to_owned());
                    peer.say(reply).await;
                }
            });
        }
    });
    let limit = Duration::from_millis(1500);
    let config = cluster(port).connect_timeout(Duration::from_millis(200)).command_timeout(Some(limit));
    let client = ClusterClient::connect(&config).await.unwrap();
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for n in 0..64 {
        let client = client.clone();
        // Some callers give up at once, which does not end the attempt for the others.
        let patience = if n % 8 == 0 { Duration::from_millis(1) } else { Duration::from_secs(60) };
        running.spawn(async move { tokio::time::timeout(patience, client.send(cmd::<Frame>("GET").arg("foo"))).await });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    failed_over.store(1, Ordering::SeqCst);
    while let Some(done) = running.join_next().await {
        if let Ok(reply) = done.unwrap() {
            assert_eq!(reply.unwrap().value().as_str(), Some("yes"));
        }
    }
    assert!(begun.elapsed() < limit + SLACK, "{:?}", begun.elapsed());
    let attempts = attempts.load(Ordering::SeqCst);
    assert!((1..10).contains(&attempts), "{attempts} attempts for 64 callers");
}

/// A one-node cluster that answers the first three commands with this error.
async fn refusing(error: &'static str) -> u16 {
    let asked = Arc::new(AtomicUsize::new(0));
    let (port, _) = answering(move |words| match words[0].as_str() {
        "MULTI" => "+OK\r\n".to_owned(),
        "EXEC" if asked.load(Ordering::SeqCst) <= 3 => "-EXECABORT Transaction discarded\r\n".to_owned(),
        "EXEC" => "*1\r\n+yes\r\n".to_owned(),
        "GET" if asked.fetch_add(1, Ordering::SeqCst) < 3 => error.to_owned(),
        "GET" if words[1] == "in transaction" => "+QUEUED\r\n".to_owned(),
        _ => "+yes\r\n".to_owned(),
    })
    .await;
    port
}

#[tokio::test]
async fn postponed_commands_are_retried() {
    let mut running = JoinSet::new();
    for error in [
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-MASTERDOWN Link with MASTER is down\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
        "-CLUSTERDOWN Hash slot not served\r\n",
        "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
    ] {
        let connect = move || async move {
            let config = cluster(refusing(error).await).command_timeout(Some(Duration::from_secs(10)));
            ClusterClient::connect(&config).await.unwrap()
        };
        running.spawn(async move {
            let reply = connect().await.send(cmd::<Frame>("GET").arg("a")).await.unwrap();
            assert_eq!(reply.value().as_str(), Some("yes"), "{error}");
        });
        running.spawn(async move {
            let mut pipeline = Pipeline::new();
            pipeline.add(cmd::<()>("GET").arg("a"));
            connect().await.run(&pipeline).await.unwrap().check().unwrap();
        });
        running.spawn(async move {
            let mut transaction = Transaction::new();
            transaction.add(cmd::<()>("GET").arg("in transaction"));
            connect().await.exec(&transaction).await.unwrap().check().unwrap();
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    // Without end: the reason is reported by the deadline.
    let (port, _) = answering(|_| "-LOADING Redis is loading the dataset in memory\r\n".to_owned()).await;
    let client = ClusterClient::connect(&cluster(port)).await.unwrap();
    let begun = Instant::now();
    let error = client.send(cmd::<Frame>("GET").arg("a")).await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Loading, Sent::No));
    assert!(begun.elapsed() < LIMIT + SLACK);
}

#[tokio::test]
async fn redirects_are_bounded_by_the_deadline() {
    let (port, _) = server(|mut peer, _| {
        Box::pin(async move {
            tokio::time::sleep(LIMIT * 3 / 4).await;
            let port = peer.socket.local_addr().unwrap().port();
            peer.say(format!("-MOVED 1 127.0.0.1:{port}\r\n")).await;
            peer
        })
    })
    .await;
    let client = ClusterClient::connect(&cluster(port)).await.unwrap();
    let begun = Instant::now();
    assert_eq!(client.send(cmd::<Frame>("GET").arg("a")).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < LIMIT + SLACK, "{:?}", begun.elapsed());
}

// ---- transactions that are none ----

const REFUSED: &str = "-NOPERM this user has no permissions to run the 'multi' command\r\n";

fn two() -> Transaction {
    let mut transaction = Transaction::new();
    transaction.add(cmd::<()>("SET").arg("a").arg(1));
    transaction.add(cmd::<()>("SET").arg("a").arg(2));
    transaction
}

#[tokio::test]
async fn commands_executed_outside_their_transaction_are_reported() {
    // The replies to MULTI, to a command, and to EXEC, and the expected error.
    let table = [
        (REFUSED, "+OK\r\n", "-ERR EXEC without MULTI\r\n", ErrorKind::NotAtomic),
        ("-ERR unknown command 'MULTI'\r\n", ":1\r\n", "-ERR unknown command 'EXEC'\r\n", ErrorKind::NotAtomic),
        ("-ERR unknown command 'MULTI'\r\n", "-OOM x\r\n", "-ERR unknown command 'EXEC'\r\n", ErrorKind::NotAtomic),
        ("+OK\r\n", "+OK\r\n", "*2\r\n+OK\r\n+OK\r\n", ErrorKind::NotAtomic),
        ("+OK\r\n", "-OOM x\r\n", "*2\r\n+OK\r\n+OK\r\n", ErrorKind::NotAtomic),
        ("+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n+OK\r\n", ErrorKind::NotAtomic),
        ("+OK\r\n", "+QUEUED\r\n", "-ERR EXEC without MULTI\r\n", ErrorKind::NotAtomic),
        // Nothing was executed.
        ("+OK\r\n", "-OOM x\r\n", "-EXECABORT Transaction discarded\r\n", ErrorKind::Oom),
        ("-NOAUTH x\r\n", "-NOAUTH x\r\n", "-NOAUTH x\r\n", ErrorKind::NoAuth),
        ("+OK\r\n", "+QUEUED\r\n", "-EXECABORT Transaction discarded\r\n", ErrorKind::ExecAbort),
    ];
    for (multi, command, exec, kind) in table {
        let (port, _) = answering(move |words| {
            match words[0].as_str() {
                "MULTI" => multi,
                "EXEC" => exec,
                _ => command,
            }
            .to_owned()
        })
        .await;
        let case = format!("{multi:?} {command:?} {exec:?}");
        let mut connection = Connection::connect(&config(port)).await.unwrap();
        let errors = [
            connection.exec(&two()).await.unwrap_err(),
            Client::connect(&config(port)).await.unwrap().exec(&two()).await.unwrap_err(),
            ClusterClient::connect(&cluster(port)).await.unwrap().exec(&two()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.sent()), (kind, Sent::Maybe), "{case}: {error}");
            assert!(!error.is_transient() || kind == ErrorKind::Oom);
        }
        // In single steps, with EXEC withheld.
        let mut connection = Connection::connect(&config(port)).await.unwrap();
        connection.queue_multi();
        for _ in 0..2 {
            connection.queue(cmd::<Frame>("SET").arg("a").arg(1));
        }
        let queued = connection.receive_queued(2).await;
        connection.queue_exec();
        let done = connection.receive_exec().await;
        let error = queued.err().or(done.err());
        let kind = match (multi, command) {
            // The replies to the commands are not awaited.
            ("-NOAUTH x\r\n", _) => ErrorKind::NotAtomic,
            // Only EXEC would show that it was executed.
            ("+OK\r\n", "-OOM x\r\n") => ErrorKind::Oom,
            _ => kind,
        };
        assert_eq!(error.unwrap().kind(), kind, "{case}");
    }
}

#[tokio::test]
async fn nothing_is_sent_again_that_was_executed_outside_of_a_transaction() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let (port, _) = answering(move |words| match words[0].as_str() {
        "MULTI" => REFUSED.to_owned(),
        "EXEC" => "-ERR EXEC without MULTI\r\n".to_owned(),
        _ if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => "+OK\r\n".to_owned(),
        _ => "-TRYAGAIN x\r\n".to_owned(),
    })
    .await;
    let client = ClusterClient::connect(&cluster(port)).await.unwrap();
    assert_eq!(client.exec(&two()).await.unwrap_err().kind(), ErrorKind::NotAtomic);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn abandoned_queued_replies_do_not_shift() {
    let (port, _) = server(|mut peer, words| {
        Box::pin(async move {
            let reply = match words[0].as_str() {
                "MULTI" => "+OK\r\n",
                "EXEC" => "*2\r\n:1\r\n:2\r\n",
                "PING" => "+PONG\r\n",
                _ => {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    "+QUEUED\r\n"
                }
            };
            peer.say(reply).await;
            peer
        })
    })
    .await;
    for patience in [0, 10, 45] {
        let mut connection =
            Connection::connect(&config(port).command_timeout(Some(Duration::from_secs(10)))).await.unwrap();
        connection.queue(cmd::<Frame>("PING"));
        connection.queue_multi();
        connection.queue(cmd::<Frame>("INCR").arg("a"));
        connection.queue(cmd::<Frame>("INCR").arg("a"));
        connection.queue_exec();
        connection.queue(cmd::<Frame>("PING"));
        assert_eq!(connection.receive().await.unwrap().value().as_str(), Some("PONG"));
        let patience = Duration::from_millis(patience);
        assert!(tokio::time::timeout(patience, connection.receive_queued(2)).await.is_err());
        assert_eq!(connection.owed(), 2);
        assert_eq!(connection.receive_exec().await.unwrap().unwrap().value().children().count(), 2);
        assert_eq!(connection.receive().await.unwrap().value().as_str(), Some("PONG"));
        assert_eq!(connection.receive_queued(0).await.unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[tokio::test]
async fn a_transaction_left_open_by_a_refused_exec_closes_the_connection() {
    let (port, connections) = server(|mut peer, words| {
        Box::pin(async move {
            let mut queues = false;
            let mut words = Some(words);
            // As a server that keeps queueing.
            while let Some(command) = words {
                let reply = match command[0].as_str() {
                    "MULTI" => {
                        queues = true;
                        "+OK\r\n"
                    }
                    "EXEC" => "-NOPERM this user has no permissions to run the 'exec' command\r\n",
                    _ if queues => "+QUEUED\r\n",
                    _ => "+PONG\r\n",
                };
                peer.say(reply).await;
                words = peer.command().await;
            }
            peer
        })
    })
    .await;
    let client = Client::connect(&config(port).command_timeout(Some(Duration::from_secs(5)))).await.unwrap();
    let (exec, other) = (two(), cmd::<Frame>("PING"));
    let (refused, other) = tokio::join!(client.exec(&exec), client.send(&other));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NoPerm);
    // It came later, or over the next connection.
    assert!(other.is_err_and(|error| error.kind() == ErrorKind::Closed));
    assert_eq!(client.send(cmd::<Frame>("PING")).await.unwrap().value().as_str(), Some("PONG"));
    assert_eq!(connections.load(Ordering::SeqCst), 2);

    let mut connection = Connection::connect(&config(port)).await.unwrap();
    assert_eq!(connection.exec(&two()).await.unwrap_err().kind(), ErrorKind::NoPerm);
    assert!(connection.is_closed());
}

// ---- what texts show ----

const PASSWORD: &str = "s3cret-p@ss w0rd";

/// Returns what may be shown of a text that contains a password.
fn assert_clean(shown: &str, case: &str) {
    let bare = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    for part in ["s3cret", "w0rd", "s3cr%", "%73%33"] {
        assert!(!shown.contains(part) && !bare(shown).contains(&bare(PASSWORD)), "{case}: {shown}");
    }
    let escaped = |c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c);
    assert!(!shown.contains(escaped), "{case}: {shown:?}");
}

/// Everything that an error can show.
fn shown(error: &Error) -> String {
    format!("{error} {error:?} {} {}", error.message(), error.code())
}

#[tokio::test]
async fn no_error_shows_a_password_however_the_server_repeats_it() {
    let forms = [
        "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 's3cret-p@ss w0rd'",
        "ERR unsupported command HELLO 3 AUTH default s3cret-p@ss w0rd",
        "ERR s3cret-p@ss",
        "ERR args 's3cret' '-p@ss' 'w0rd'",
        "ERR %73%33cret-p%40ss%20w0rd",
        "ERR s3cret-p%40ss+w0rd",
        "WRONGPASS s3cret-p@ss w0rd is wrong",
        "NOAUTH \"s3cret-p@ss\\x20w0rd\"",
        "NOPERM s3cret-p@ss w0rd",
        "S3CRET no",
        "s3cret-p@ss w0rd",
        "s3cret",
    ];
    for text in forms {
        // The server replies like this from the first, second, third command on.
        for first in 0..3 {
            for bulk in [false, true] {
                let reply = if bulk { format!("!{}\r\n{text}\r\n", text.len()) } else { format!("-{text}\r\n") };
                let port = answering_all(move |words| match words[0].as_str() {
                    "HELLO" if first > 0 => "-ERR unknown command\r\n".to_owned(),
                    "AUTH" if first > 1 => "+OK\r\n".to_owned(),
                    _ => reply.clone(),
                })
                .await;
                let case = format!("{text:?} from command {first} on");
                let config = config(port).password(PASSWORD).database(u32::from(first == 2));
                // From the third on, a part of the password alone is not recognised.
                if first == 2 && !Error::is_server(&Connection::connect(&config).await.unwrap_err()) {
                    panic!("{case}");
                }
                if first == 2 && ["ERR s3cret-p@ss", "S3CRET no", "s3cret"].contains(&text) {
                    continue;
                }
                assert_clean(&shown(&Connection::connect(&config).await.unwrap_err()), &case);
                assert_clean(&shown(&Client::connect(&config).await.unwrap_err()), &case);
                let seeds = Endpoint::cluster([("127.0.0.1", port)]);
                let cluster = Config::new(seeds).password(PASSWORD);
                assert_clean(&shown(&ClusterClient::connect(&cluster).await.unwrap_err()), &case);
                let sentinel = Config::new(Endpoint::sentinel([("127.0.0.1", port)], "m")).sentinel_password(PASSWORD);
                assert_clean(&shown(&Connection::connect(&sentinel).await.unwrap_err()), &case);
            }
        }
    }
}

#[tokio::test]
async fn later_errors_and_custom_commands_show_no_password() {
    let (port, _) = answering(|words| match words[0].as_str() {
        "GET" => format!("-ERR proxy: AUTH default {PASSWORD} failed\r\n"),
        "XADD" => format!("-ERR equal or smaller than the target stream top item, {PASSWORD}\r\n"),
        "NEW" => format!("-ERR unknown command 'NEW', with args beginning with: '{}' \r\n", words[1]),
        _ => format!("-ERR {} failed\r\n", words.join(" ")),
    })
    .await;
    let config = config(port).password(PASSWORD);
    let mut connection = Connection::connect(&config).await.unwrap();
    let client = Client::connect(&config).await.unwrap();
    for command in [cmd::<Frame>("GET").arg("a"), cmd::<Frame>("XADD").arg("a"), cmd::<Frame>("NEW").arg("s3cret")] {
        assert_clean(&shown(&connection.send(&command).await.unwrap_err()), "Connection");
        assert_clean(&shown(&client.send(&command).await.unwrap_err()), "Client");
        connection.queue(&command);
        assert_clean(&shown(&connection.receive().await.unwrap().into_result().unwrap_err()), "receive");
    }
    let kind = connection.send(cmd::<Frame>("XADD").arg("a")).await.unwrap_err().kind();
    assert_eq!(kind, ErrorKind::IdTooSmall, "the kind is kept");
    // Passwords that the configuration does not contain.
    for command in [
        cmd::<Frame>("AUTH").arg("me").arg("s3cret"),
        cmd::<Frame>("AUTH s3cret"),
        cmd::<Frame>("ACL SETUSER").arg("me").arg(">s3cret"),
    ] {
        assert_clean(&shown(&connection.send(&command).await.unwrap_err()), "AUTH");
        let mut pipeline = Pipeline::new();
        let slot = pipeline.add(&command);
        assert_clean(&shown(&connection.run(&pipeline).await.unwrap().take(slot).unwrap_err()), "AUTH in a pipeline");
    }
    assert_clean(&format!("{:?}", cmd::<Frame>("AUTH s3cret")), "Cmd");
}

/// Records everything that an observer sees.
#[derive(Default)]
struct Seen(std::sync::Mutex<String>);

impl resp::Observer for Seen {
    fn called(&self, call: &resp::CompletedCall<'_>) {
        self.0.lock().unwrap().push_str(&format!("{call:?}\n"));
    }
}

#[tokio::test]
async fn no_command_with_a_password_shows_it_in_a_pipeline_a_transaction_or_a_hook() {
    // A transaction of a server that refuses a command at once, or during EXEC.
    for late in [false, true] {
        let (port, _) = answering(move |words| match words[0].as_str() {
            "MULTI" => "+OK\r\n".to_owned(),
            "EXEC" if late => "*1\r\n-ERR me >s3cret failed\r\n".to_owned(),
            "EXEC" => "-EXECABORT discarded\r\n".to_owned(),
            "ACL" if late && words[1] == "SETUSER" => "+QUEUED\r\n".to_owned(),
            _ => format!("-ERR {} failed\r\n", words.join(" ")),
        })
        .await;
        let seen = Arc::new(Seen::default());
        let config = config(port).observer(Arc::clone(&seen));
        let mut connection = Connection::connect(&config).await.unwrap();
        let client = Client::connect(&config).await.unwrap();
        let command = cmd::<Frame>("ACL").arg("SETUSER").arg("me").arg(">s3cret");
        let mut transaction = Transaction::new();
        transaction.add(&command);
        assert_clean(&format!("{transaction:?}"), "Transaction");
        for replies in [connection.exec(&transaction).await, client.exec(&transaction).await] {
            match replies {
                Ok(replies) => assert_clean(&shown(&replies.check().unwrap_err()), "EXEC"),
                Err(error) => assert_clean(&shown(&error), "refused"),
            }
        }
        for command in [
            command,
            cmd::<Frame>("ACL SETUSER me >s3cret"),
            cmd::<Frame>("CONFIG SET").arg("requirepass").arg("s3cret"),
            cmd::<Frame>("CONFIG SET requirepass s3cret"),
            cmd::<Frame>("MIGRATE").arg(["h", "1", "k", "0", "1", "AUTH", "s3cret"]),
        ] {
            let mut pipeline = Pipeline::new();
            let slot = pipeline.add(&command);
            assert_clean(&format!("{pipeline:?} {slot:?} {command:?}"), "Pipeline");
            if !late {
                for replies in [connection.run(&pipeline).await.unwrap(), client.run(&pipeline).await.unwrap()] {
                    assert_clean(&shown(&replies.check().unwrap_err()), "Replies::check");
                    assert_clean(&format!("{replies:?}"), "Replies");
                }
                assert_clean(&shown(&connection.send(&command).await.unwrap_err()), "Connection");
                assert_clean(&shown(&client.send(&command).await.unwrap_err()), "Client");
            }
        }
        let seen = seen.0.lock().unwrap().clone();
        seen.lines().for_each(|line| assert_clean(line, "Observer"));
        // What is no secret is shown.
        let plain = connection.send(cmd::<Frame>("CONFIG SET").arg("maxmemory").arg("x")).await.unwrap_err();
        assert!(plain.message().contains("maxmemory x failed"), "{plain}");
    }
}

#[tokio::test]
async fn control_characters_are_escaped_in_errors_and_events() {
    const TEXT: &str = "ERR a\r\n2026 INFO forged \u{1b}[31m\u{202e}\u{7}\u{9b}";
    let (port, connections) = answering(|words| {
        let bulk = |text: &str| format!("{}\r\n{text}\r\n", text.len());
        match words[0].as_str() {
            "GET" => format!("!{}", bulk(TEXT)),
            "XLEN" => format!("${}", bulk(TEXT)),
            "PUSH" => format!(">2\r\n${}!{}+OK\r\n", bulk(TEXT), bulk(TEXT)),
            _ => "\u{1b}\r\n".to_owned(),
        }
    })
    .await;
    let client = Client::connect(&config(port)).await.unwrap();
    let mut events = client.events();
    assert_clean(&shown(&client.send(cmd::<Frame>("GET").arg("a\u{1b}")).await.unwrap_err()), "error reply");
    assert_clean(&shown(&client.send(resp::streams::XLen::new("a\n")).await.unwrap_err()), "unexpected reply");
    client.send(cmd::<()>("PUSH")).await.unwrap();
    assert_clean(&shown(&client.send(cmd::<Frame>("OTHER")).await.unwrap_err()), "protocol error");
    let mut seen = 0;
    while let Ok(event) = events.recv().await {
        assert_clean(&format!("{event:?}"), "event");
        seen += 1;
        if matches!(event, ClientEvent::Connected) {
            break;
        }
    }
    assert!(seen >= 3 && connections.load(Ordering::SeqCst) >= 2);
    // Errors while connecting, and invalid names.
    let port = answering_all(|words| match words[0].as_str() {
        "HELLO" => HELLO.to_owned(),
        "SENTINEL" => "*2\r\n$8\r\n\u{1b}[31m\r\na\r\n$1\r\n1\r\n".to_owned(),
        _ => format!("!{}\r\n{TEXT}\r\n", TEXT.len()),
    })
    .await;
    assert_clean(&shown(&Connection::connect(&config(port).database(1)).await.unwrap_err()), "SELECT");
    let sentinel = Config::new(Endpoint::sentinel([("127.0.0.1", port)], "m")).user("me\n");
    assert_clean(&shown(&Connection::connect(&sentinel).await.unwrap_err()), "an address from a Sentinel");
}

// ---- HELLO ----

#[tokio::test]
async fn any_refusal_of_hello_falls_back_to_resp2() {
    for text in [
        "ERR unknown command `HELLO`, with args beginning with: `3`, ",
        "ERR unsupported command 'hello'",
        "NOPROTO unsupported protocol version",
        "NOPERM this user has no permissions to run the 'hello' command",
        "ERR RespVersion error: HELLO is not supported by this proxy",
        "INVALID no",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "ERR Syntax error in HELLO",
        "no code",
    ] {
        let port = answering_all(move |words| match words[0].as_str() {
            "HELLO" => format!("-{text}\r\n"),
            "AUTH" if words[1..] != ["pw"] => "-WRONGPASS x\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        })
        .await;
        let mut connection = Connection::connect(&config(port).password("pw")).await.unwrap();
        assert_eq!(connection.protocol(), RespVersion::Resp2, "{text}");
        connection.send(cmd::<()>("PING")).await.unwrap();
    }
    // An error that is not about HELLO is reported as it is.
    for (text, kind) in [
        ("LOADING Redis is loading the dataset in memory", ErrorKind::Loading),
        ("ERR max number of clients reached", ErrorKind::MaxClients),
        ("NOAUTH HELLO must be called with the client already authenticated", ErrorKind::NoAuth),
    ] {
        let port = answering_all(move |_| format!("-{text}\r\n")).await;
        let error = Connection::connect(&config(port)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    // A server that refuses everything and disconnects has given the reason.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut peer = Peer::new(listener.accept().await.unwrap().0);
        peer.command().await;
        peer.say("-DENIED Redis is running in protected mode\r\n").await;
    });
    let error = Connection::connect(&config(port)).await.unwrap_err();
    assert_eq!(error.code(), "DENIED", "{error}");
}

// ---- further hostile servers ----

/// Attributes before replies, before push messages, and inside of transactions shift nothing.
#[tokio::test]
async fn attributes_in_odd_places_shift_no_replies() {
    const NOTE: &str = "|1\r\n+ttl\r\n*2\r\n:1\r\n|1\r\n+a\r\n+b\r\n:2\r\n";
    let (port, _) = answering(|words| {
        let reply = match words[0].as_str() {
            "MULTI" => "+OK\r\n".to_owned(),
            "EXEC" => format!("*2\r\n{NOTE}$1\r\n1\r\n{NOTE}{NOTE}$1\r\n2\r\n"),
            "GET" if words[1] == "queued" => "+QUEUED\r\n".to_owned(),
            _ => format!("%1\r\n{NOTE}$3\r\nkey\r\n{NOTE}${}\r\n{}\r\n", words[1].len(), words[1]),
        };
        format!("{NOTE}>2\r\n+news\r\n{NOTE}+x\r\n{NOTE}{reply}")
    })
    .await;
    let limit = config(port).command_timeout(Some(Duration::from_secs(10)));
    let mut connection = Connection::connect(&limit).await.unwrap();
    let client = Client::connect(&limit).await.unwrap();
    for n in 0..50 {
        let get = cmd::<std::collections::HashMap<String, u32>>("GET").arg(n);
        assert_eq!(connection.send(&get).await.unwrap()["key"], n);
        assert_eq!(client.send(&get).await.unwrap()["key"], n);
    }
    assert_eq!(connection.take_push().unwrap().value().children().count(), 2);
    let mut transaction = Transaction::new();
    let handles = [(); 2].map(|()| transaction.add(cmd::<u32>("GET").arg("queued")));
    let [mut one, mut two] = [connection.exec(&transaction).await.unwrap(), client.exec(&transaction).await.unwrap()];
    for replies in [&mut one, &mut two] {
        assert_eq!(handles.clone().map(|handle| replies.take(handle).unwrap()), [1, 2]);
    }
    connection.queue_multi();
    connection.queue(cmd::<()>("GET").arg("queued"));
    connection.queue(cmd::<()>("GET").arg("queued"));
    connection.queue_exec();
    connection.receive_queued(2).await.unwrap();
    assert_eq!(connection.receive_exec().await.unwrap().unwrap().value().children().len(), 2);
}

/// A server may answer HELLO with anything.
#[tokio::test]
async fn odd_replies_to_hello_end_in_a_version_or_an_error() {
    let hellos = [
        ("+OK\r\n", Some(RespVersion::Resp2)),
        (":3\r\n", Some(RespVersion::Resp2)),
        ("_\r\n", Some(RespVersion::Resp2)),
        ("*0\r\n", Some(RespVersion::Resp2)),
        ("*-1\r\n", Some(RespVersion::Resp2)),
        ("*3\r\n$5\r\nproto\r\n:3\r\n+odd\r\n", Some(RespVersion::Resp3)),
        ("%1\r\n+proto\r\n:2\r\n", Some(RespVersion::Resp2)),
        ("%1\r\n+proto\r\n:4\r\n", Some(RespVersion::Resp2)),
        ("%1\r\n+proto\r\n*1\r\n:3\r\n", Some(RespVersion::Resp2)),
        ("%2\r\n+proto\r\n$1\r\n3\r\n+id\r\n+none\r\n", Some(RespVersion::Resp3)),
        ("|1\r\n+a\r\n+b\r\n>1\r\n+x\r\n%1\r\n+proto\r\n:3\r\n", Some(RespVersion::Resp3)),
        ("-\r\n", Some(RespVersion::Resp2)),
        ("-ERR\r\n", Some(RespVersion::Resp2)),
        ("!0\r\n\r\n", Some(RespVersion::Resp2)),
        ("-MOVED 1 h:1\r\n", Some(RespVersion::Resp2)),
        ("-LOADING x\r\n", None),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", None),
        ("\0\0\0", None),
    ];
    for (hello, version) in hellos {
        let port = answering_all(move |words| match words[0].as_str() {
            "HELLO" => hello.to_owned(),
            "GET" => format!("${}\r\n{}\r\n", words[1].len(), words[1]),
            _ => "+OK\r\n".to_owned(),
        })
        .await;
        let connected = Connection::connect(&config(port).password("s3cret-word").connect_timeout(LIMIT)).await;
        match (connected, version) {
            (Ok(mut connection), Some(version)) => {
                assert_eq!(connection.protocol(), version, "{hello:?}");
                let reply: String = connection.send(cmd("GET").arg("mine")).await.unwrap();
                assert_eq!(reply, "mine", "{hello:?}");
            }
            (Err(error), None) => {
                let kinds = [ErrorKind::Loading, ErrorKind::Protocol, ErrorKind::Timeout];
                assert!(kinds.contains(&error.kind()), "{hello:?}: {error}");
                assert!(!error.to_string().contains("s3cret"), "{error}");
            }
            (connected, _) => panic!("{hello:?}: {:?}", connected.map(|connection| connection.protocol())),
        }
    }
}

/// Lines such as MONITOR sends, which no command requested, end a connection and shift no reply.
#[tokio::test]
async fn unrequested_lines_never_become_replies() {
    let (port, connections) = server(|mut peer, words| {
        Box::pin(async move {
            peer.say(format!("${}\r\n{}\r\n", words[1].len(), words[1])).await;
            peer.say("+1700000000.123456 [0 127.0.0.1:1] \"SET\" \"a\" \"b\"\r\n").await;
            peer
        })
    })
    .await;
    let config = config(port).command_timeout(Some(Duration::from_secs(10)));
    let client = ClientOptions::new(config.clone())
        .backoff(resp::Backoff::new(Duration::from_millis(1), Duration::from_millis(2)))
        .connect()
        .await
        .unwrap();
    let mut answered = 0;
    for n in 0..50 {
        match client.send(cmd::<String>("GET").arg(n)).await {
            Ok(reply) => {
                assert_eq!(reply, n.to_string());
                answered += 1;
            }
            Err(error) => assert!(error.closes_connection(), "{error}"),
        }
    }
    assert!(answered > 0 && connections.load(Ordering::SeqCst) > 1, "{answered} answered");
    let mut connection = Connection::connect(&config).await.unwrap();
    assert_eq!(connection.send(cmd::<String>("GET").arg("mine")).await.unwrap(), "mine");
    // Until the line has arrived, nobody can tell it from a reply.
    tokio::time::timeout(Duration::from_secs(10), connection.next_push()).await.unwrap().unwrap_err();
    let error = connection.send(cmd::<String>("GET").arg("mine")).await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Closed, Sent::No));
}
