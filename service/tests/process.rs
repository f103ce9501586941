//! A service as a process: what it serves, how it stops, and its last line.
//!
//! The process is this test binary itself, started to run only the test that is a service.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use service::metrics::Metric;
use service::{About, Context, Failure, Stop, run};

/// Tells the test named `service` to act as a service, and selects its work.
const WORK: &str = "SERVICE_TEST_WORK";
const PATIENCE: Duration = Duration::from_secs(20);
const METRICS: [Metric; 2] =
    [Metric::counter("lines_read_total", "Lines"), Metric::histogram("batch_duration_seconds", "Batches")];

#[derive(Parser)]
#[command(name = "tested", version)]
struct Flags {
    #[command(flatten)]
    service: service::args::ServiceArgs,
}

#[test]
fn service() {
    let Ok(work) = std::env::var(WORK) else { return };
    let code = match service::args::parse_from::<Flags>(std::iter::once("tested")) {
        Ok(flags) => start(&work, &flags),
        Err(not_run) => {
            eprintln!("{not_run:?}");
            ExitCode::from(2)
        }
    };
    let code = [0, 1, 2].into_iter().find(|known| ExitCode::from(*known) == code);
    std::process::exit(code.map_or(99, i32::from));
}

fn start(work: &str, flags: &Flags) -> ExitCode {
    let series = service::Series {
        lines: "lines_read_total",
        bytes: "reader_bytes_read_total",
        backlog: "backlog_entries",
        backlog_title: "Entries",
        position: None,
        output: None,
        waiting: None,
    };
    let flow = "here → <there>".to_owned();
    let labels = vec![("stream", "a \"b\\c".to_owned())];
    let about = About { name: "tested", version: "1.2.3", flow, labels, metrics: &METRICS, series };
    run(about, &flags.service, async |context: Context| match work {
        "fail" => Err(Stop::from(Failure::failed("the work\nfailed"))),
        "config" => Err(Stop::from(Failure::config("--input \"\": allowed: a path"))),
        "hang" => {
            println!("hanging");
            loop {
                std::thread::sleep(PATIENCE);
            }
        }
        "connect" => {
            let mut connector = context.connector;
            let ping = resp::cmd::<resp::Frame>("PING");
            loop {
                let mut connection = connector.connect().await?;
                let error = loop {
                    tokio::select! {
                        () = context.shutdown.requested() => return Ok(()),
                        answer = connection.send(&ping) => if let Err(error) = answer { break error },
                    }
                };
                connector.lost(&error);
            }
        }
        _ => {
            context.health.redis(Ok(()));
            context.health.file(Err("not there".to_owned()));
            context.shutdown.requested().await;
            Ok(())
        }
    })
}

/// A running service; killed when dropped.
struct Service {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(work: &str, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "service", "--nocapture", "--test-threads=1"]);
        command.env(WORK, work).env("LINE_STREAM_HTTP_ADDR", "127.0.0.1:0").env_remove("RUST_LOG");
        command
            .env_remove("REDIS_URL")
            .env_remove("LINE_STREAM_STREAM")
            .env_remove("LINE_STREAM_ONCE")
            .envs(env.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, said: String::new() }
    }

    /// Reads the log until it contains this text; returns the rest of that line.
    fn until(&mut self, wanted: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.stderr.read_line(&mut line).unwrap();
            self.said.push_str(&line);
            assert!(read > 0, "{wanted:?} not in {}", self.said);
            if let Some((_, rest)) = line.split_once(wanted) {
                return rest.trim().to_owned();
            }
        }
    }

    fn addr(&mut self) -> SocketAddr {
        self.until("listening on http://").parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The exit code and the last line.
    fn end(mut self) -> (i32, String) {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        (code, self.said.trim_end().lines().last().unwrap_or_default().to_owned())
    }
}

fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn the_endpoint_tells_everything_and_no_secret() {
    let mut service = Service::start("wait", &[("REDIS_URL", "redis://me:hunter2@127.0.0.1:1")]);
    let addr = service.addr();

    let metrics = get(addr, "/metrics");
    for line in [
        "lines_read_total{stream=\"a \\\"b\\\\c\"} 0\n",
        "# HELP lines_read_total Lines\n",
        "line_stream_redis_reconnects_total{stream=\"a \\\"b\\\\c\"} 0\n",
        "line_stream_errors_total{stream=\"a \\\"b\\\\c\",kind=\"redis_io\"} 0\n",
        "# TYPE line_stream_redis_up gauge\n",
        ",service=\"tested\",version=\"1.2.3\"} 1\n",
        "process_resident_memory_bytes{",
        "process_cpu_seconds_total{",
        "# TYPE process_cpu_seconds_total counter\n",
    ] {
        assert!(metrics.contains(line), "{line:?} not in {metrics}");
    }
    assert!(get(addr, "/healthz").starts_with("HTTP/1.0 200"));
    service.until("file: not there");
    let ready = get(addr, "/readyz");
    assert!(ready.starts_with("HTTP/1.0 503") && ready.ends_with("\r\n\r\nfile: not there\n"), "{ready}");
    let status = get(addr, "/");
    assert!(status.starts_with("HTTP/1.0 200") && status.contains("here → &lt;there&gt;"), "{status}");
    assert!(get(addr, "/other").starts_with("HTTP/1.0 404"));
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.0 405") && said.contains("Allow: GET, HEAD"), "{said}");

    service.signal(Signal::TERM);
    service.until("SIGTERM: stopping");
    let all = format!("{metrics}{ready}{status}{}", service.said);
    assert!(!all.contains("hunter2"), "{all}");
    let (code, last) = service.end();
    assert_eq!(code, 0, "{last}");
    assert!(last.ends_with("tested: done"), "{last}");
}

#[test]
fn ctrl_c_stops_it_too() {
    let mut service = Service::start("wait", &[]);
    service.addr();
    service.signal(Signal::INT);
    assert_eq!(service.end().0, 0);
}

#[test]
fn the_second_signal_ends_work_that_hangs() {
    let mut service = Service::start("hang", &[]);
    let addr = service.addr();
    service.signal(Signal::TERM);
    service.until("SIGTERM: stopping");
    assert!(get(addr, "/healthz").starts_with("HTTP/1.0 200"), "the endpoint does not depend on the work");
    service.signal(Signal::INT);
    let (code, last) = service.end();
    assert_eq!(code, 1);
    assert!(last.ends_with("SIGINT again: stopping at once"), "{last}");
}

#[test]
fn every_end_has_its_code_and_a_last_line() {
    let (code, last) = Service::start("fail", &[]).end();
    assert_eq!((code, last.as_str()), (1, "tested: the work; failed"));
    let (code, last) = Service::start("config", &[("RUST_LOG", "off")]).end();
    assert_eq!((code, last.as_str()), (2, "tested: --input \"\": allowed: a path"));
}

#[test]
fn a_port_in_use_is_a_wrong_configuration() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, last) = Service::start("wait", &[("LINE_STREAM_HTTP_ADDR", &addr)]).end();
    assert_eq!(code, 2, "{last}");
    assert!(last.starts_with(&format!("tested: --http-addr {addr} (from LINE_STREAM_HTTP_ADDR): ")), "{last}");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let mut service =
        Service::start("wait", &[("REDIS_URL", ""), ("LINE_STREAM_STREAM", ""), ("LINE_STREAM_ONCE", "")]);
    assert_eq!(service.until("here → <there> at "), "redis://127.0.0.1:6379");
}

#[test]
fn variables_that_are_wrong_are_named_with_what_is_allowed() {
    let (code, last) = Service::start("wait", &[("LINE_STREAM_ONCE", "maybe")]).end();
    assert_eq!(code, 2, "{last}");
    assert!(last.contains("--once \\\"maybe\\\" (from LINE_STREAM_ONCE): allowed: true, false, 1, 0"), "{last}");
    let (code, last) = Service::start("wait", &[("REDIS_URL", "http://me:hunter2@host")]).end();
    assert_eq!(code, 2, "{last}");
    assert!(
        last.contains("--redis-url \\\"http://***@host\\\" (from REDIS_URL): ") && last.contains("redis://"),
        "{last}"
    );
    assert!(!last.contains("hunter2"));
}

/// A Redis that does not exist yet, then refuses, works, disappears and returns, as a connection
/// sees it.
#[test]
fn redis_is_waited_for_and_each_change_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let url = format!("unix://{}", socket.display());
    let mut service = Service::start("connect", &[("REDIS_URL", &url)]);
    let addr = service.addr();
    service.until("redis: connecting to unix://");
    assert!(get(addr, "/healthz").starts_with("HTTP/1.0 200"), "alive without Redis");
    let ready = get(addr, "/readyz");
    assert!(ready.starts_with("HTTP/1.0 503") && ready.contains("redis: connecting to unix://"), "{ready}");

    let mut redis = Redis::start(&socket, &[]);
    service.until("redis: ready");
    let is_up =
        |metrics: &str| metrics.lines().any(|line| line.starts_with("line_stream_redis_up{") && line.ends_with("} 1"));
    assert!(is_up(&get(addr, "/metrics")));
    redis.kill();
    let lost = service.until("WARN");
    assert!(lost.contains("redis: "), "{lost}");
    redis = Redis::start(&socket, &[]);
    service.until("redis: ready");
    let metrics = get(addr, "/metrics");
    let reconnects = metrics.lines().find(|line| line.starts_with("line_stream_redis_reconnects_total{"));
    assert!(is_up(&metrics) && reconnects.is_some_and(|line| line.ends_with("} 1")), "{metrics}");
    assert!(metrics.contains("kind=\"redis_io\"}"), "{metrics}");
    assert_eq!(
        service.said.matches("WARN").count(),
        2,
        "one line for an unreachable Redis, one for Redis that was lost: {}",
        service.said
    );

    // A password that becomes invalid is retried: the server may be getting a new one.
    redis.kill();
    redis = Redis::start(&socket, &["--requirepass", "other"]);
    service.until("NOAUTH");
    redis.kill();
    let _redis = Redis::start(&socket, &[]);
    service.until("redis: ready");
    service.signal(Signal::TERM);
    service.until("SIGTERM: stopping");
    assert_eq!(service.said.matches("redis: ready").count(), 3, "{}", service.said);
    assert_eq!(service.end().0, 0);
}

#[test]
fn a_redis_that_loads_its_data_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let mut redis = Redis::start(&socket, &[]);
    let sets: String = (0..1000).map(|key| format!("SET {key} 1\r\n")).collect();
    redis.ask(&socket, &format!("{sets}SAVE\r\n"), &"+OK\r\n".repeat(1001));
    redis.kill();
    // Loading takes a millisecond per key, with event processing in between.
    let slow = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
    let _redis = Redis::start(&socket, &slow);
    let url = format!("unix://{}", socket.display());
    let mut service = Service::start("connect", &[("REDIS_URL", &url)]);
    service.until("LOADING");
    service.until("redis: ready");
    assert_eq!(service.said.matches("redis: ready").count(), 1, "{}", service.said);
    service.signal(Signal::TERM);
    assert_eq!(service.end().0, 0);
}

#[test]
fn a_wrong_password_at_the_start_is_a_wrong_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let _redis = Redis::start(&socket, &["--requirepass", "right"]);
    for (query, what) in [
        ("", "requires a password"),
        (
            "?pass=hunter2",
            "allowed: a user and password that it accepts; the password is from --redis-url (from REDIS_URL)",
        ),
        ("?pass=right&db=99", "DB index is out of range; allowed: 0 to 15"),
    ] {
        let url = format!("unix://{}{query}", socket.display());
        let (code, last) = Service::start("connect", &[("REDIS_URL", &url)]).end();
        assert_eq!(code, 2, "{last}");
        assert!(last.starts_with("tested: --redis-url unix://") && last.contains(what), "{last}");
        assert!(!last.contains("hunter2") && !last.contains("right&"), "{last}");
    }
}

#[test]
fn what_is_no_redis_is_a_wrong_configuration() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", other.local_addr().unwrap());
    let service = Service::start("connect", &[("REDIS_URL", &url)]);
    let (mut stream, _) = other.accept().unwrap();
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    let (code, last) = service.end();
    assert_eq!(code, 2, "{last}");
    assert!(last.ends_with(": a web server answers there, not Redis; allowed: the address of a Redis"), "{last}");
}

#[test]
fn once_that_is_stopped_early_has_failed() {
    let mut service = Service::start("connect", &[("REDIS_URL", "unix:///nowhere/s"), ("LINE_STREAM_ONCE", "1")]);
    service.until("redis: connecting to");
    service.signal(Signal::TERM);
    let (code, last) = service.end();
    assert_eq!((code, last.as_str()), (1, "tested: stopped by a signal before the work was done"));
}

/// A redis-server on a Unix socket that already answers; killed when dropped.
struct Redis(Child);

impl Redis {
    fn start(socket: &Path, args: &[&str]) -> Self {
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command.args(["--port", "0", "--save", "", "--dir"]).arg(socket.parent().unwrap());
        command.arg("--unixsocket").arg(socket).args(args).stdout(Stdio::null());
        let redis = Self(command.spawn().unwrap());
        let begun = Instant::now();
        while UnixStream::connect(socket).is_err() {
            assert!(begun.elapsed() < PATIENCE, "redis-server does not answer");
            std::thread::yield_now();
        }
        redis
    }

    /// Sends a command on its own connection, and waits for this reply.
    fn ask(&self, socket: &Path, commands: &str, answer: &str) {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(commands.as_bytes()).unwrap();
        let mut said = vec![0; answer.len()];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(String::from_utf8_lossy(&said), answer);
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
