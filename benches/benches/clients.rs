//! XADD and read + acknowledge through clients, compared in paired rounds on one private redis-server over TCP.
//!
//! Each client does what its documentation proposes: one shared, cloned handle that pipelines by itself for tasks that add at the same time, its own
//! pipeline for batches, its typed commands and replies.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench that cannot do its work ends")]

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use benches::rounds::Work;
use benches::server::on_path;
use benches::{Case, Rounds, Server};
use bytes::Bytes;
use fred::interfaces::{ClientLike as _, StreamsInterface as _};
use redis::AsyncTypedCommands as _;
use resp::streams::{AddId, GroupFrom, XAck, XAdd, XReadGroup};
use resp::{Connection, GroupReader, StreamId};
use rustis::client::BatchPreparedCommand as _;
use rustis::commands::StreamCommands as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};

const KEY: &str = "bench";
const GROUP: &str = "writers";
const LINE: &str = "a line of 86 bytes, as long as the lines of package lists are on average, no more or less";
/// Entries a read + acknowledge work reads, in replies of [`COUNT`].
const ENTRIES: u32 = 20_000;
const COUNT: u32 = 1000;
/// Commands a batch.
const BATCH: u32 = 64;

fn main() {
    let Some(server) = Server::start() else { return };
    let mut rounds = Rounds::from_env();
    let many = Builder::new_multi_thread().enable_all().build().unwrap();
    let one = Builder::new_current_thread().enable_all().build().unwrap();
    let control = Control(server.port());
    let clients = many.block_on(Clients::connect(&server));

    for clock in [Clock::Wall, Clock::Processor] {
        for (tasks, commands) in [(1, 4_000), (64, 40_000), (256, 40_000)] {
            concurrent(&mut rounds, &many, &control, &clients, tasks, commands, clock);
        }
    }
    batches(&mut rounds, &many, &control, &clients, &server);
    for clock in [Clock::Wall, Clock::Processor] {
        read_and_acknowledge(&mut rounds, &many, &control, &clients, &server, clock);
    }
    lone_caller(&mut rounds, &one, &control, &server);
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// The time it takes. When the server has more to do than the client, this is the server's time.
    Wall,
    /// The processor time of this process: the client's part of it.
    Processor,
}

impl Clock {
    fn now(self) -> Duration {
        let id = match self {
            Self::Wall => ClockId::Monotonic,
            Self::Processor => ClockId::ProcessCPUTime,
        };
        let now = clock_gettime(id);
        Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
    }

    fn of(self, section: &str) -> String {
        match self {
            Self::Wall => section.to_owned(),
            Self::Processor => format!("{section}, processor time of the client"),
        }
    }
}

/// Says commands to the server, one at a time.
struct Control(u16);

impl Control {
    fn say(&self, command: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0)).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut reply = [0; 256];
        let len = stream.read(&mut reply).unwrap();
        assert!(!reply[..len].starts_with(b"-"), "{command}: {}", String::from_utf8_lossy(&reply[..len]));
    }

    /// Every work begins with an empty stream.
    fn empty(&self) {
        self.say(&format!("DEL {KEY}"));
    }
}

/// One shared handle each.
struct Clients {
    resp: resp::Client,
    redis: redis::aio::MultiplexedConnection,
    fred: fred::clients::Client,
    rustis: rustis::client::Client,
}

impl Clients {
    async fn connect(server: &Server) -> Self {
        let url = server.url();
        let fred = fred::clients::Client::new(fred::types::config::Config::from_url(&url).unwrap(), None, None, None);
        fred.init().await.unwrap();
        Self {
            resp: resp::Client::connect(&resp::Config::from_url(&url).unwrap()).await.unwrap(),
            redis: redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap(),
            fred,
            rustis: rustis::client::Client::connect(url.as_str()).await.unwrap(),
        }
    }
}

fn ours() -> XAdd<'static, &'static str, &'static str> {
    XAdd::new(KEY, AddId::Auto, &[("line", LINE)])
}

/// Runs `add` so often in so many tasks at once.
async fn in_tasks<F: Future<Output = ()> + Send + 'static>(
    tasks: u32,
    commands: u32,
    add: impl Fn() -> F + Clone + Send + 'static,
) {
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let add = add.clone();
            tokio::spawn(async move {
                for _ in 0..commands / tasks {
                    add().await;
                }
            })
        })
        .collect();
    for task in running {
        task.await.unwrap();
    }
}

fn concurrent(
    rounds: &mut Rounds,
    runtime: &Runtime,
    control: &Control,
    clients: &Clients,
    tasks: u32,
    commands: u32,
    clock: Clock,
) {
    let commands = if rounds.is_test() { tasks * 2 } else { commands };
    let timed = |work: &dyn Fn()| {
        control.empty();
        let begun = clock.now();
        work();
        clock.now() - begun
    };
    let Clients { resp, redis, fred, rustis } = clients;
    let mut subjects: Vec<(&str, Work<'_>)> = vec![
        (
            "resp",
            Box::new(|| {
                timed(&|| {
                    let client = resp.clone();
                    runtime.block_on(in_tasks(tasks, commands, move || {
                        let client = client.clone();
                        async move { assert_ne!(client.send(&ours()).await.unwrap(), StreamId::ZERO) }
                    }));
                })
            }),
        ),
        (
            "redis",
            Box::new(|| {
                timed(&|| {
                    let client = redis.clone();
                    runtime.block_on(in_tasks(tasks, commands, move || {
                        let mut client = client.clone();
                        async move { drop(client.xadd(KEY, "*", &[("line", LINE)]).await.unwrap()) }
                    }));
                })
            }),
        ),
        (
            "fred",
            Box::new(|| {
                timed(&|| {
                    let client = fred.clone();
                    runtime.block_on(in_tasks(tasks, commands, move || {
                        let client = client.clone();
                        async move {
                            drop(
                                client.xadd::<String, _, _, _, _>(KEY, false, None, "*", ("line", LINE)).await.unwrap(),
                            );
                        }
                    }));
                })
            }),
        ),
        (
            "rustis",
            Box::new(|| {
                timed(&|| {
                    let client = rustis.clone();
                    runtime.block_on(in_tasks(tasks, commands, move || {
                        let client = client.clone();
                        async move {
                            drop(client.xadd::<String>(KEY, "*", [("line", LINE)], Default::default()).await.unwrap());
                        }
                    }));
                })
            }),
        ),
    ];
    let name = format!("{tasks} task{}", if tasks == 1 { "" } else { "s" });
    rounds.run(Case { section: &clock.of("XADD, shared client"), name: &name, operations: commands }, &mut subjects);
}

fn batches(rounds: &mut Rounds, runtime: &Runtime, control: &Control, clients: &Clients, server: &Server) {
    let times: u32 = if rounds.is_test() { 1 } else { 800 };
    let commands = times * BATCH;
    let Clients { resp, redis, fred, rustis } = clients;
    let timed = |work: &dyn Fn()| {
        control.empty();
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    let config = resp::Config::from_url(&server.url()).unwrap();
    let mut connection = runtime.block_on(resp::Connection::connect(&config)).unwrap();
    let mut subjects: Vec<(&str, Work<'_>)> = vec![
        (
            "resp, Client",
            Box::new(|| {
                timed(&|| {
                    runtime.block_on(async {
                        for _ in 0..times {
                            let mut pipeline = resp::Pipeline::new();
                            for _ in 0..BATCH {
                                pipeline.add(ours());
                            }
                            resp.run(&pipeline).await.unwrap().check().unwrap();
                        }
                    });
                })
            }),
        ),
        (
            "resp, Connection",
            Box::new(|| {
                control.empty();
                let begun = Instant::now();
                runtime.block_on(async {
                    for _ in 0..times {
                        let mut pipeline = resp::Pipeline::new();
                        for _ in 0..BATCH {
                            pipeline.add(ours());
                        }
                        connection.run(&pipeline).await.unwrap().check().unwrap();
                    }
                });
                begun.elapsed()
            }),
        ),
        (
            "redis",
            Box::new(|| {
                timed(&|| {
                    runtime.block_on(async {
                        let mut redis = redis.clone();
                        for _ in 0..times {
                            let mut pipeline = redis::pipe();
                            for _ in 0..BATCH {
                                pipeline.xadd(KEY, "*", &[("line", LINE)]);
                            }
                            pipeline.query_async::<Vec<String>>(&mut redis).await.unwrap();
                        }
                    });
                })
            }),
        ),
        (
            "fred",
            Box::new(|| {
                timed(&|| {
                    runtime.block_on(async {
                        for _ in 0..times {
                            let pipeline = fred.pipeline();
                            for _ in 0..BATCH {
                                let () = pipeline.xadd(KEY, false, None, "*", ("line", LINE)).await.unwrap();
                            }
                            pipeline.all::<Vec<String>>().await.unwrap();
                        }
                    });
                })
            }),
        ),
        (
            "rustis",
            Box::new(|| {
                timed(&|| {
                    runtime.block_on(async {
                        for _ in 0..times {
                            let mut pipeline = rustis.create_pipeline();
                            for _ in 0..BATCH {
                                pipeline.xadd::<String>(KEY, "*", [("line", LINE)], Default::default()).queue();
                            }
                            pipeline.execute::<Vec<String>>().await.unwrap();
                        }
                    });
                })
            }),
        ),
    ];
    if let Some(program) = on_path("redis-benchmark") {
        let port = server.port().to_string();
        let (batch, all) = (BATCH.to_string(), commands.to_string());
        subjects.push((
            "redis-benchmark -c 1 -P 64",
            Box::new(move || {
                control.empty();
                let run = Command::new(&program)
                    .args(["-p", &port, "-c", "1", "-P", &batch, "-n", &all, "--csv", "XADD", KEY, "*", "line", LINE])
                    .output()
                    .unwrap();
                let told = String::from_utf8_lossy(&run.stdout).into_owned();
                // "XADD …","rps","avg …": the figure behind the name.
                let rate: f64 = told
                    .lines()
                    .last()
                    .and_then(|line| line.split("\",\"").nth(1))
                    .and_then(|rate| rate.parse().ok())
                    .unwrap_or_else(|| panic!("{told}"));
                Duration::from_secs_f64(f64::from(commands) / rate)
            }),
        ));
    }
    rounds.run(Case { section: "XADD, batches", name: "64 a batch, one caller", operations: commands }, &mut subjects);
}

fn read_and_acknowledge(
    rounds: &mut Rounds,
    runtime: &Runtime,
    control: &Control,
    clients: &Clients,
    server: &Server,
    clock: Clock,
) {
    let Clients { resp, redis, fred, rustis } = clients;
    let config = resp::Config::from_url(&server.url()).unwrap();
    control.empty();
    runtime.block_on(in_tasks(64, ENTRIES / 64 * 64, {
        let client = resp.clone();
        move || {
            let client = client.clone();
            async move { assert_ne!(client.send(&ours()).await.unwrap(), StreamId::ZERO) }
        }
    }));
    let entries = ENTRIES / 64 * 64;
    let timed = |work: &dyn Fn() -> usize| {
        control.say(&format!("XGROUP DESTROY {KEY} {GROUP}"));
        control.say(&format!("XGROUP CREATE {KEY} {GROUP} 0"));
        let begun = clock.now();
        let bytes = work();
        let took = clock.now() - begun;
        assert_eq!(bytes, entries as usize * LINE.len());
        took
    };
    let mut subjects: Vec<(&str, Work<'_>)> = vec![
        (
            "resp, GroupReader",
            Box::new(|| {
                let connection = runtime.block_on(Connection::connect(&config)).unwrap();
                let reader = GroupReader::new(connection, KEY, GROUP, "bench").count(COUNT.into());
                let consumer = Cell::new(Some(reader));
                timed(&|| {
                    runtime.block_on(async {
                        let mut consumer = consumer.take().unwrap();
                        let (mut left, mut bytes) = (entries as usize, 0);
                        while left > 0 || consumer.unconfirmed() > 0 {
                            let Some(batch) = consumer.read(None).await.unwrap() else { continue };
                            bytes +=
                                batch.entries().iter().map(|entry| entry.field(b"line").unwrap().len()).sum::<usize>();
                            left -= batch.entries().len();
                            consumer.ack(batch.ids());
                        }
                        bytes
                    })
                })
            }),
        ),
        (
            "resp, Client",
            Box::new(|| {
                timed(&|| {
                    runtime.block_on(async {
                        let (mut left, mut bytes) = (entries as usize, 0);
                        while left > 0 {
                            let read = XReadGroup::new(KEY, GROUP, "bench", GroupFrom::New).count(COUNT.into());
                            let reply = resp.send(&read).await.unwrap();
                            bytes +=
                                reply.entries().iter().map(|entry| entry.field(b"line").unwrap().len()).sum::<usize>();
                            left -= resp
                                .send(&XAck::new(KEY, GROUP, reply.entries().iter().map(|entry| entry.id)))
                                .await
                                .unwrap() as usize;
                        }
                        bytes
                    })
                })
            }),
        ),
        (
            "redis",
            Box::new(|| {
                timed(&|| {
                    runtime.block_on(async {
                        let mut redis = redis.clone();
                        let (mut left, mut bytes) = (entries as usize, 0);
                        let options =
                            redis::streams::StreamReadOptions::default().group(GROUP, "bench").count(COUNT as usize);
                        while left > 0 {
                            let reply = redis.xread_options(&[KEY], &[">"], &options).await.unwrap().unwrap();
                            let entries = &reply.keys[0].ids;
                            for entry in entries {
                                let redis::Value::BulkString(line) = &entry.map["line"] else { panic!("{entry:?}") };
                                bytes += line.len();
                            }
                            let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
                            left -= redis.xack(KEY, GROUP, &ids).await.unwrap();
                        }
                        bytes
                    })
                })
            }),
        ),
        (
            "fred",
            Box::new(|| {
                timed(&|| {
                    runtime.block_on(async {
                        let (mut left, mut bytes) = (entries as usize, 0);
                        while left > 0 {
                            let reply: fred::types::streams::XReadResponse<String, String, String, Bytes> = fred
                                .xreadgroup_map(GROUP, "bench", Some(COUNT.into()), None, false, KEY, ">")
                                .await
                                .unwrap();
                            let entries = &reply[KEY];
                            bytes += entries.iter().map(|(_, fields)| fields["line"].len()).sum::<usize>();
                            let ids: Vec<String> = entries.iter().map(|(id, _)| id.clone()).collect();
                            left -= fred.xack::<usize, _, _, _>(KEY, GROUP, ids).await.unwrap();
                        }
                        bytes
                    })
                })
            }),
        ),
        (
            "rustis",
            Box::new(|| {
                timed(&|| {
                    runtime.block_on(async {
                        use rustis::commands::{StreamEntry, XReadGroupOptions};
                        use rustis::resp::BulkString;
                        let (mut left, mut bytes) = (entries as usize, 0);
                        while left > 0 {
                            let options = XReadGroupOptions::default().count(COUNT);
                            let reply: HashMap<String, Vec<StreamEntry<BulkString>>> =
                                rustis.xreadgroup(GROUP, "bench", options, KEY, ">").await.unwrap();
                            let entries = &reply[KEY];
                            bytes += entries.iter().map(|entry| entry.items["line"].as_bytes().len()).sum::<usize>();
                            let ids: Vec<&str> = entries.iter().map(|entry| entry.stream_id.as_str()).collect();
                            left -= rustis.xack(KEY, GROUP, ids).await.unwrap();
                        }
                        bytes
                    })
                })
            }),
        ),
    ];
    rounds.run(
        Case { section: &clock.of("read + ack"), name: "replies of 1000 x 86 B", operations: entries },
        &mut subjects,
    );
}

/// The middle one of the times that `call` takes, done so often.
async fn p50<F: Future<Output = ()>>(calls: u32, mut call: impl FnMut() -> F) -> Duration {
    let mut times = Vec::with_capacity(calls as usize);
    for _ in 0..calls {
        let begun = Instant::now();
        call().await;
        times.push(begun.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

fn lone_caller(rounds: &mut Rounds, runtime: &Runtime, control: &Control, server: &Server) {
    let calls = if rounds.is_test() { 1 } else { 2000 };
    let config = resp::Config::from_url(&server.url()).unwrap();
    let Clients { resp, redis, fred, rustis } = runtime.block_on(Clients::connect(server));
    let mut connection = Some(runtime.block_on(resp::Connection::connect(&config)).unwrap());
    let request = format!("*5\r\n$4\r\nXADD\r\n$5\r\n{KEY}\r\n$1\r\n*\r\n$4\r\nline\r\n${}\r\n{LINE}\r\n", LINE.len());
    let mut blocking = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    blocking.set_nodelay(true).unwrap();
    let mut raw = Some(runtime.block_on(async {
        let raw = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        raw.set_nodelay(true).unwrap();
        raw
    }));
    let (resp, redis, fred, rustis, request) = (&resp, &redis, &fred, &rustis, request.as_bytes());
    let mut subjects: Vec<(&str, Work<'_>)> = vec![
        (
            "raw socket, tokio",
            Box::new(|| {
                control.empty();
                let mut socket = raw.take().unwrap();
                let took = runtime.block_on(async {
                    let mut times = Vec::with_capacity(calls as usize);
                    for _ in 0..calls {
                        let begun = Instant::now();
                        socket.write_all(request).await.unwrap();
                        let mut reply = [0; 256];
                        assert!(socket.read(&mut reply).await.unwrap() > 0);
                        times.push(begun.elapsed());
                    }
                    times.sort();
                    times[times.len() / 2]
                });
                raw = Some(socket);
                took
            }),
        ),
        (
            "raw socket, blocking",
            Box::new(|| {
                control.empty();
                let mut times = Vec::with_capacity(calls as usize);
                for _ in 0..calls {
                    let begun = Instant::now();
                    blocking.write_all(request).unwrap();
                    let mut reply = [0; 256];
                    assert!(blocking.read(&mut reply).unwrap() > 0);
                    times.push(begun.elapsed());
                }
                times.sort();
                times[times.len() / 2]
            }),
        ),
        (
            "resp, Connection",
            Box::new(|| {
                control.empty();
                let mut ours_alone = connection.take().unwrap();
                let took = runtime.block_on(async {
                    let mut times = Vec::with_capacity(calls as usize);
                    for _ in 0..calls {
                        let begun = Instant::now();
                        ours_alone.send(&ours()).await.unwrap();
                        times.push(begun.elapsed());
                    }
                    times.sort();
                    times[times.len() / 2]
                });
                connection = Some(ours_alone);
                took
            }),
        ),
        (
            "resp, Client",
            Box::new(|| {
                control.empty();
                runtime.block_on(p50(calls, || async { assert_ne!(resp.send(&ours()).await.unwrap(), StreamId::ZERO) }))
            }),
        ),
        (
            "redis",
            Box::new(|| {
                control.empty();
                runtime.block_on(p50(calls, || {
                    let mut redis = redis.clone();
                    async move { drop(redis.xadd(KEY, "*", &[("line", LINE)]).await.unwrap()) }
                }))
            }),
        ),
        (
            "fred",
            Box::new(|| {
                control.empty();
                runtime.block_on(p50(calls, || async {
                    drop(fred.xadd::<String, _, _, _, _>(KEY, false, None, "*", ("line", LINE)).await.unwrap());
                }))
            }),
        ),
        (
            "rustis",
            Box::new(|| {
                control.empty();
                runtime.block_on(p50(calls, || async {
                    drop(rustis.xadd::<String>(KEY, "*", [("line", LINE)], Default::default()).await.unwrap());
                }))
            }),
        ),
    ];
    rounds.run(
        Case { section: "XADD, lone caller", name: "p50 of 2000 calls, one thread", operations: 1 },
        &mut subjects,
    );
}
