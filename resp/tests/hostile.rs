//! A table of hostile servers. Whatever a server does, a call ends by its deadline, in bounded
//! memory, with no secret in its error, and the next call gets its own reply.
//!
//! The servers are peers in memory, and the clock is tokio's paused one: time passes when nothing
//! else happens. `under_fire` has what needs real sockets and threads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use resp::testing::reply;
use resp::{
    Backoff, BlockTimeout, Blocking, Client, ClientOptions, ClusterClient, Cmd, Config, Connection, ConsumerOptions,
    Decoder, Endpoint, Error, GroupReader, Pipeline, SubscriptionOptions, Transaction, cmd,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(1);
/// Timers have a granularity of a millisecond, and a retry ends between two of them.
const SLACK: Duration = Duration::from_millis(100);
const PASSWORD: &str = "s3cret";
/// What a call may allocate at most, unless the server fills the 16 MiB of push messages.
const SMALL: u64 = 4 << 20;
const PUSHES: u64 = 48 << 20;

/// What a server does.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Sends this, and goes on as a server does.
    Says(&'static str),
    /// Sends this, and closes the connection.
    Ends(&'static str),
    /// Sends the first, and then the second without end, this many times each millisecond.
    Repeats(&'static str, &'static str, usize),
}
use Way::{Ends, Repeats, Says};

/// What a server may do instead of a reply, and the memory that it may cost.
const WAYS: &[(Way, u64)] = &[
    (Says(""), SMALL),
    (Ends(""), SMALL),
    // Parts of replies.
    (Ends("$"), SMALL),
    (Ends("$5\r\nab"), SMALL),
    (Ends("*3\r\n:1\r\n"), SMALL),
    (Ends("%1\r\n+a\r\n*2\r\n"), SMALL),
    (Says("$5\r\nab"), SMALL),
    (Says("*2\r\n:1\r\n"), SMALL),
    // Drips.
    (Repeats("$100000\r\n", "x", 1), SMALL),
    (Repeats("*100000\r\n", ":1\r\n", 1), SMALL),
    (Repeats("+", "x", 1), SMALL),
    (Repeats("$?\r\n", ";1\r\nx\r\n", 1), SMALL),
    (Repeats("*?\r\n", ":1\r\n", 1), SMALL),
    // Everything but a reply.
    (Repeats("", ">2\r\n+invalidate\r\n*1\r\n+key\r\n", 100), PUSHES),
    (Repeats("", "|1\r\n+key\r\n:1\r\n", 1), SMALL),
    (Repeats("|1\r\n+key\r\n", "|1\r\n+key\r\n", 1), SMALL),
    (Repeats(">2\r\n+a\r\n", "*1\r\n", 1), SMALL),
    (Repeats("*1\r\n", "*1\r\n", 1), SMALL),
    // Headers that promise too much, or nonsense.
    (Says("$9223372036854775807\r\n"), SMALL),
    (Says("$4294967296\r\nx"), SMALL),
    (Says("*2147483647\r\n"), SMALL),
    (Says("*4294967295\r\n:1\r\n"), SMALL),
    (Says("%4294967295\r\n"), SMALL),
    (Says("~9223372036854775807\r\n"), SMALL),
    (Says(">1000000000\r\n"), SMALL),
    (Says("|1000000000\r\n"), SMALL),
    (Says("*1000000\r\n*1000000\r\n*1000000\r\n"), SMALL),
    (Says("$-2\r\n"), SMALL),
    (Says("*-7\r\n"), SMALL),
    (Says(":\r\n"), SMALL),
    (Says("!99999999999\r\n"), SMALL),
    (Says("\0\0\0\0"), SMALL),
    (Says("HTTP/1.1 400 Bad Request\r\n\r\n"), SMALL),
    // Errors, forever or with secrets.
    (Says("-LOADING Redis is loading the dataset in memory\r\n"), SMALL),
    (Says("-ERR s3cret is what you sent, \x1b[31m\r\n"), SMALL),
    (Says("!21\r\nERR s3cret\nis repeated\r\n"), SMALL),
    (Ends("-ERR max number of clients reached\r\n"), SMALL),
    (Says("-MOVED 1 elsewhere:1\r\n"), SMALL),
    // More than one reply.
    (Says("+one\r\n+two\r\n"), SMALL),
    (Says("$3\r\none\r\n$3\r\ntwo\r\n:3\r\n"), SMALL),
    (Ends("+one\r\n+two\r\n"), SMALL),
    (Repeats("", "+OK\r\n", 1), SMALL),
];

/// The server's end of a connection.
struct Peer {
    stream: DuplexStream,
    input: BytesMut,
    decoder: Decoder,
}

impl Peer {
    /// Returns the words of the next command; `None` when the client is gone.
    async fn command(&mut self) -> Option<Vec<String>> {
        loop {
            if let Some(command) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(command.to().unwrap());
            }
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) -> Option<()> {
        self.stream.write_all(bytes.as_ref()).await.ok()
    }

    /// Returns `None` when the connection is to be closed.
    async fn act(&mut self, way: Way) -> Option<()> {
        match way {
            Says(text) => self.say(text).await,
            Ends(text) => {
                self.say(text).await;
                None
            }
            Repeats(first, again, times) => {
                self.say(first).await?;
                let again = again.repeat(times);
                loop {
                    self.say(&again).await?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }
}

/// How the server of this host answers a command: `None` as a server does.
type Answer = Arc<dyn Fn(&str, &[String]) -> Option<Way> + Send + Sync>;

/// Returns the configuration for servers in memory. Hosts whose name starts with `dead` refuse
/// connections.
fn config(endpoint: Endpoint, answer: impl Fn(&str, &[String]) -> Option<Way> + Send + Sync + 'static) -> Config {
    let answer: Answer = Arc::new(answer);
    let config = Config::new(endpoint).password(PASSWORD).sentinel_password(PASSWORD);
    config.connect_timeout(LIMIT).command_timeout(Some(LIMIT)).block_grace(LIMIT).connector(move |endpoint| {
        let (host, answer) = (endpoint.to_string(), Arc::clone(&answer));
        let (theirs, ours) = tokio::io::duplex(64 << 10);
        let is_dead = host.contains("dead");
        if !is_dead {
            let peer = Peer { stream: ours, input: BytesMut::new(), decoder: Decoder::default() };
            tokio::spawn(serve(peer, host, answer));
        }
        async move { if is_dead { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(theirs) } }
    })
}

async fn serve(mut peer: Peer, host: String, answer: Answer) {
    while let Some(words) = peer.command().await {
        let done = match answer(&host, &words) {
            Some(way) => peer.act(way).await,
            None => {
                let usual = usual(&words);
                peer.say(usual).await
            }
        };
        if done.is_none() {
            return;
        }
    }
}

/// The replies of an honest server, of a cluster of two nodes, and of a Sentinel.
fn usual(words: &[String]) -> bytes::Bytes {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["HELLO", ..] => reply::map([reply::bulk("proto"), reply::integer(3), reply::bulk("id"), reply::integer(1)]),
        ["GET", key] => reply::bulk(key),
        ["XREADGROUP", .., "0-0" | "0"] => reply::map([reply::bulk("s"), reply::array([])]),
        ["XREADGROUP", ..] => reply::map([
            reply::bulk("s"),
            reply::array([reply::array([reply::bulk("1-1"), reply::array([reply::bulk("a"), reply::bulk("b")])])]),
        ]),
        ["CLUSTER", "SLOTS"] => reply::array([("a", 0, 8191), ("b", 8192, 16383)].map(|(host, first, last)| {
            let node = reply::array([reply::bulk(host), reply::integer(1)]);
            reply::array([reply::integer(first), reply::integer(last), node])
        })),
        ["CLUSTER", ..] => reply::error("ERR unknown subcommand"),
        ["SENTINEL", ..] => reply::array([reply::bulk("master"), reply::bulk("1")]),
        ["ROLE"] => reply::array([reply::bulk("master"), reply::integer(0), reply::array([])]),
        _ => reply::ok(),
    }
}

/// Runs a test on one thread with a paused clock, and checks its memory.
fn within<F: Future<Output = ()>>(memory: u64, what: &str, test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let used = allocation_counter::measure(|| runtime.block_on(test())).bytes_max;
    assert!(used <= memory, "{what}: {used} bytes");
}

/// Awaits a call, and checks that it ends by the limit and shows no secret.
async fn ends<T>(what: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let begun = Instant::now();
    let outcome = call.await;
    assert!(begun.elapsed() <= LIMIT + SLACK, "{what}: {:?}", begun.elapsed());
    if let Err(error) = &outcome {
        let mut shown = format!("{error} {error:?}");
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            shown += &format!("{error} {error:?}");
            source = error.source();
        }
        assert!(!shown.contains(PASSWORD) && !error.to_string().contains('\x1b'), "{what}: {shown}");
    }
    outcome
}

fn get(key: &str) -> Cmd<String> {
    cmd("GET").arg(key)
}

/// One command for hostile and one for honest treatment.
fn two() -> (Pipeline, Transaction) {
    let (mut pipeline, mut transaction) = (Pipeline::new(), Transaction::new());
    for key in ["hostile", "mine"] {
        pipeline.add(get(key));
        transaction.add(get(key));
    }
    (pipeline, transaction)
}

/// Treats all commands about the key `hostile` in this way.
fn one_server(way: Way) -> Config {
    config(Endpoint::tcp("a", 1), move |_, words| words.iter().any(|word| word == "hostile").then_some(way))
}

#[test]
fn every_call_on_a_connection_ends_and_shifts_no_reply() {
    for (way, memory) in WAYS {
        for call in ["send", "send_blocking", "run", "exec", "queue", "GroupReader"] {
            let what = format!("{way:?}, {call}");
            within(*memory, &what, async || {
                let mut connection = Connection::connect(&one_server(*way)).await.unwrap();
                let (pipeline, transaction) = two();
                match call {
                    "send" => drop(ends(&what, connection.send(get("hostile"))).await),
                    "send_blocking" => {
                        let blocking = Blocking::new(get("hostile"), BlockTimeout::For(Duration::from_millis(1)));
                        // The reply must begin within the grace, and be complete within the limit.
                        let call = connection.send_blocking(blocking);
                        let _ = tokio::time::timeout(2 * LIMIT + SLACK, call).await.expect(&what);
                    }
                    "run" => drop(ends(&what, connection.run(&pipeline)).await),
                    "exec" => drop(ends(&what, connection.exec(&transaction)).await),
                    "queue" => {
                        connection.queue(get("hostile"));
                        let _ = ends(&what, connection.receive()).await;
                    }
                    _ => {
                        let mut reader = GroupReader::new(connection, "hostile", "g", "c");
                        let _ = ends(&what, reader.read(None)).await;
                        return;
                    }
                }
                // Whatever else the server sent is here by now.
                tokio::time::sleep(SLACK).await;
                match ends(&what, connection.send(get("mine"))).await {
                    Ok(reply) => assert_eq!(reply, "mine", "{what}"),
                    Err(error) => assert!(connection.is_closed(), "{what}: {error}"),
                }
            });
        }
    }
}

#[test]
fn every_call_of_a_client_ends_and_the_next_one_gets_its_own_reply() {
    for (way, memory) in WAYS {
        for call in ["send", "run", "exec"] {
            let what = format!("{way:?}, {call}");
            within(*memory, &what, async || {
                let options = ClientOptions::new(one_server(*way));
                let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
                let client = options.backoff(backoff).connect().await.unwrap();
                let (pipeline, transaction) = two();
                match call {
                    "send" => drop(ends(&what, client.send(get("hostile"))).await),
                    "run" => drop(ends(&what, client.run(&pipeline)).await),
                    _ => drop(ends(&what, client.exec(&transaction)).await),
                }
                tokio::time::sleep(SLACK).await;
                assert_eq!(ends(&what, client.send(get("mine"))).await.unwrap(), "mine", "{what}");
            });
        }
    }
}

/// The reply to `HELLO`, or to any command of the handshake.
#[test]
fn connecting_ends() {
    for (way, memory) in WAYS {
        for command in ["HELLO", "CLIENT"] {
            let what = format!("{way:?} for {command}");
            let config = |endpoint| config(endpoint, move |_, words: &[String]| (words[0] == command).then_some(*way));
            within(*memory, &what, async || {
                let server = config(Endpoint::tcp("a", 1));
                drop(ends(&what, Connection::connect(&server)).await);
                drop(ends(&what, Client::connect(&server)).await);
                drop(ends(&what, ConsumerOptions::new(server.clone(), "s", "g", "c").connect()).await);
                drop(ends(&what, SubscriptionOptions::new(server).channel("c").connect()).await);
            });
            within(*memory, &what, async || {
                drop(ends(&what, Connection::connect(&config(Endpoint::sentinel([("s", 1), ("t", 1)], "m")))).await);
                drop(ends(&what, ClusterClient::connect(&config(Endpoint::cluster([("a", 1), ("b", 1)])))).await);
            });
        }
    }
}

/// What a Sentinel or a cluster node reports about the others.
#[test]
fn nonsense_about_other_servers_ends_in_time() {
    const SENTINEL: &[&str] = &[
        // The Sentinel itself, a dead server, and addresses that are none.
        "*2\r\n$1\r\ns\r\n$1\r\n1\r\n",
        "*2\r\n$4\r\ndead\r\n$1\r\n1\r\n",
        "*2\r\n$1\r\na\r\n$1\r\n0\r\n",
        "*2\r\n$1\r\na\r\n$5\r\n65536\r\n",
        "*2\r\n$0\r\n\r\n$1\r\n1\r\n",
        "*2\r\n$6\r\ns3cret\r\n$1\r\nx\r\n",
        "*1\r\n$1\r\na\r\n",
        "*0\r\n",
        "_\r\n",
        ":1\r\n",
        "-IDONTKNOW s3cret\r\n",
    ];
    const SLOTS: &[&str] = &[
        "*0\r\n",
        "_\r\n",
        ":1\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*0\r\n",
        "*1\r\n*2\r\n:0\r\n:16383\r\n",
        "*1\r\n*3\r\n:16383\r\n:0\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:99999999\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:-1\r\n:16383\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\na\r\n:0\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$4\r\ndead\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*0\r\n",
        "-ERR s3cret\r\n",
    ];
    let always = |command: &'static str, answer: &'static str| {
        move |_: &str, words: &[String]| match words[0] == command {
            true => Some(Says(answer)),
            false if words[0] == "ROLE" => Some(Says("*1\r\n$8\r\nsentinel\r\n")),
            false => None,
        }
    };
    for answer in SENTINEL {
        let what = format!("Sentinel: {answer:?}");
        within(SMALL, &what, async || {
            let config = config(Endpoint::sentinel([("s", 1)], "m"), always("SENTINEL", answer));
            assert!(ends(&what, Connection::connect(&config)).await.is_err(), "{what}");
            assert!(ends(&what, Client::connect(&config)).await.is_err(), "{what}");
        });
    }
    for answer in SLOTS {
        let what = format!("CLUSTER: {answer:?}");
        within(SMALL, &what, async || {
            let config = config(Endpoint::cluster([("a", 1)]), always("CLUSTER", answer));
            if let Ok(client) = ends(&what, ClusterClient::connect(&config)).await {
                // The host may be left out: then it is the one that answers.
                match ends(&what, client.send(get("mine"))).await {
                    Ok(reply) => assert_eq!(reply, "mine", "{what}"),
                    Err(error) => assert!(error.is_transient(), "{what}: {error}"),
                }
            }
            drop(ends(&what, Connection::connect(&config.for_key("k"))).await);
        });
    }
}

/// Redirects that lead nowhere, and what a cluster may answer forever.
#[test]
fn a_cluster_that_sends_a_command_around_ends_in_time() {
    const ANSWERS: &[(&str, &str)] = &[
        ("-MOVED 1 b:1\r\n", "-MOVED 1 a:1\r\n"),
        ("-ASK 1 b:1\r\n", "-ASK 1 a:1\r\n"),
        ("-MOVED 1 b:1\r\n", "-ASK 1 a:1\r\n"),
        ("-MOVED 1 a:1\r\n", "-MOVED 1 b:1\r\n"),
        ("-MOVED 1 dead:1\r\n", "-MOVED 1 dead:1\r\n"),
        ("-ASK 1 dead:1\r\n", "-ASK 1 dead:1\r\n"),
        ("-MOVED 99999 b:1\r\n", "-MOVED 99999 a:1\r\n"),
        ("-MOVED 1 s3cret:1\r\n", "-MOVED\r\n"),
        ("-MOVED\r\n", "-ASK\r\n"),
        ("-TRYAGAIN\r\n", "-TRYAGAIN\r\n"),
        ("-CLUSTERDOWN\r\n", "-CLUSTERDOWN\r\n"),
        ("-LOADING\r\n", "-LOADING\r\n"),
        ("-MASTERDOWN\r\n", "-MASTERDOWN\r\n"),
        ("-READONLY\r\n", "-READONLY\r\n"),
        ("+one\r\n+two\r\n", "+one\r\n+two\r\n"),
        ("$9223372036854775807\r\n", "$9223372036854775807\r\n"),
        ("", ""),
    ];
    for (a, b) in ANSWERS {
        for call in ["send", "send_to_replica", "run", "exec"] {
            let what = format!("{a:?} and {b:?}, {call}");
            within(SMALL, &what, async || {
                let seeds = Endpoint::cluster([("a", 1), ("b", 1)]);
                let config = config(seeds, move |host, words| {
                    let is_hostile = words.iter().any(|word| word == "hostile");
                    is_hostile.then(|| if host.contains("//a:") { Says(a) } else { Says(b) })
                });
                let client = ClusterClient::connect(&config).await.unwrap();
                let mut transaction = Transaction::new();
                transaction.add(get("hostile"));
                match call {
                    "send" => drop(ends(&what, client.send(get("hostile"))).await),
                    "send_to_replica" => drop(ends(&what, client.send_to_replica(get("hostile"))).await),
                    "run" => drop(ends(&what, client.run(&two().0)).await),
                    _ => drop(ends(&what, client.exec(&transaction)).await),
                }
                tokio::time::sleep(SLACK).await;
                assert_eq!(ends(&what, client.send(get("mine"))).await.unwrap(), "mine", "{what}");
            });
        }
    }
}

/// A managed consumer survives each of them, and reads what an honest server has.
#[test]
fn a_consumer_goes_on_after_a_hostile_server() {
    for (way, memory) in WAYS {
        let what = format!("{way:?}");
        within(*memory, &what, async || {
            let times = std::sync::atomic::AtomicUsize::new(0);
            let config = config(Endpoint::tcp("a", 1), move |_, words| {
                let is_first = words[0] == "XREADGROUP" && times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
                is_first.then_some(*way)
            });
            let options = ConsumerOptions::new(config, "s", "g", "c").block(Duration::from_millis(1));
            let mut consumer = options.connect().await.unwrap();
            let batch = loop {
                // A reply of the wrong type is a permanent error.
                match tokio::time::timeout(60 * LIMIT, consumer.next()).await.expect(&what) {
                    Ok(batch) => break batch.unwrap(),
                    Err(error) => assert!(!error.is_transient(), "{what}: {error}"),
                }
            };
            assert_eq!(batch.ids().map(|id| id.to_string()).collect::<Vec<_>>(), ["1-1"], "{what}");
        });
    }
}
