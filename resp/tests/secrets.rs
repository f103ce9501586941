//! A server that knows the password repeats it wherever it can: no text that the library makes
//! shows it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use resp::streams::{AddId, ReadFrom, XAdd, XAutoClaim, XInfoGroups, XLen, XPending, XRange, XRead};
use resp::{
    Client, ClientOptions, ClusterClient, Command, CompletedCall, Config, ConnectAttempt, Connection, ConsumerOptions,
    Decoder, Endpoint, Error, Frame, FromReply, GroupReader, Observer, Pipeline, StreamId, SubscriptionOptions,
    Transaction, cmd,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A text and a number, because a number is also repeated as one.
const PASSWORDS: [&str; 2] = ["s3cret-word", "7391046285"];

/// Runs a server in memory that replies to every command, by its words.
fn serve(mut socket: DuplexStream, reply: impl Fn(&[String]) -> String + Send + 'static) {
    tokio::spawn(async move {
        let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
        while socket.read_buf(&mut input).await.is_ok_and(|n| n > 0) {
            while let Ok(Some(command)) = decoder.decode(&mut input) {
                let words: Vec<String> = command.to().unwrap_or_default();
                let _ = socket.write_all(reply(&words).as_bytes()).await;
            }
        }
    });
}

/// Returns a configuration whose connections go to such servers, at any address.
fn config(
    endpoint: Endpoint,
    password: &str,
    reply: impl Fn(&[String]) -> String + Clone + Send + Sync + 'static,
) -> Config {
    let config = Config::new(endpoint)
        .password(password)
        .sentinel_password(password)
        .command_timeout(Some(Duration::from_secs(2)))
        .connect_timeout(Duration::from_secs(3));
    config.connector(move |_| {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        serve(theirs, reply.clone());
        async { Ok::<_, io::Error>(ours) }
    })
}

fn at_one() -> Endpoint {
    Endpoint::tcp("server", 1)
}

/// What a server without malice replies during the handshake, and as the node of a cluster.
fn usual(words: &[String]) -> Option<String> {
    let node =
        "*10\r\n+port\r\n:1\r\n+tls-port\r\n:1\r\n+endpoint\r\n+server\r\n+role\r\n+master\r\n+health\r\n+online\r\n";
    Some(match (words.first()?.as_str(), words.get(1).map(String::as_str)) {
        ("HELLO", _) => "%2\r\n+proto\r\n:3\r\n+id\r\n:7\r\n".to_owned(),
        ("CLIENT", Some("SETINFO")) | ("READONLY", _) => "+OK\r\n".to_owned(),
        ("CLUSTER", Some("SHARDS")) => format!("*1\r\n*4\r\n+slots\r\n*2\r\n:0\r\n:16383\r\n+nodes\r\n*1\r\n{node}"),
        _ => return None,
    })
}

/// Replies that repeat a password.
fn flat_replies(password: &str) -> Vec<String> {
    let bulk = |marker: &str, text: &str| format!("{marker}{}\r\n{text}\r\n", text.len());
    let mut replies = vec![
        format!("+{password}\r\n"),
        bulk("$", password),
        bulk("$", &format!("\u{1b}[31m{password}\n")),
        bulk("=", &format!("txt:{password}")),
        format!("$?\r\n;5\r\n{}\r\n;{}\r\n{}\r\n;0\r\n", &password[..5], password.len() - 5, &password[5..]),
        format!("-ERR {password}\r\n"),
        format!("-{password}\r\n"),
        format!("-ERR {}{password}\r\n", "x".repeat(4090)),
        bulk("!", &format!("ERR {password}")),
        format!("-MOVED 1 {password}:1\r\n"),
        format!("-ASK 1 {password}:1\r\n"),
        format!("-MOVED {password}\r\n"),
        format!("-READONLY {password}\r\n"),
        format!("-TRYAGAIN {password}\r\n"),
        format!("-EXECABORT {password}\r\n"),
        format!("|1\r\n+a\r\n-ERR {password}\r\n-ERR {password}\r\n"),
        format!(">2\r\n+{password}\r\n-ERR {password}\r\n-ERR {password}\r\n"),
    ];
    if password.bytes().all(|byte| byte.is_ascii_digit()) {
        replies.extend([":", ",", "("].map(|marker| format!("{marker}{password}\r\n")));
    }
    replies
}

/// The same replies, and others that contain them.
fn replies(password: &str) -> Vec<String> {
    let flat = flat_replies(password);
    let mut replies = flat.clone();
    replies.extend(flat.iter().map(|reply| format!("*1\r\n{reply}")));
    replies.extend(flat.iter().map(|reply| format!("*2\r\n*2\r\n$3\r\n1-1\r\n{reply}{reply}")));
    replies.extend(flat.iter().map(|reply| format!("%1\r\n+{password}\r\n{reply}")));
    replies
}

/// Everything that is shown.
#[derive(Default)]
struct Shown {
    texts: Mutex<String>,
    errors: Mutex<usize>,
}

impl Shown {
    fn add(&self, what: &dyn Debug) {
        self.texts.lock().unwrap().push_str(&format!("{what:?}\n"));
    }

    /// Adds a result, but not its data: that is the caller's.
    fn result<T>(&self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.error(&error)).ok()
    }

    fn error(&self, error: &Error) {
        *self.errors.lock().unwrap() += 1;
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            self.add(&format!("{cause} {cause:?}"));
            source = cause.source();
        }
        self.add(&format!("{error} {error:?} {} {}", error.message(), error.code()));
    }

    fn assert_clean(&self, password: &str, case: &str) {
        let texts = std::mem::take(&mut *self.texts.lock().unwrap());
        for line in texts.lines() {
            let repeats = line.contains(password) || line.contains(&password[..password.len() - 1]);
            assert!(!repeats && !line.contains('\u{1b}'), "{case}: {line}");
        }
    }
}

impl Observer for Shown {
    fn called(&self, call: &CompletedCall<'_>) {
        self.add(call);
    }

    fn connected(&self, attempt: &ConnectAttempt<'_>) {
        self.add(&format!("{} {attempt:?}", attempt.config));
    }
}

/// A struct of a user.
#[derive(Debug)]
struct Own;

impl FromReply for Own {
    fn from_value(value: resp::Value<'_>, _: &Frame) -> Result<Self, Error> {
        Err(Error::unexpected_reply("my own type", value))
    }
}

/// Sends a command by everything that can send it.
async fn send<C: Command>(shown: &Shown, connection: &mut Connection, client: &Client, command: C) {
    shown.result(connection.send(&command).await);
    shown.result(client.send(&command).await);
    let mut pipeline = Pipeline::new();
    let handles = [pipeline.add(&command), pipeline.add(&command)];
    for replies in [connection.run(&pipeline).await, client.run(&pipeline).await] {
        let Some(mut replies) = shown.result(replies) else { continue };
        shown.result(replies.check());
        for handle in handles.clone() {
            shown.result(replies.take(handle));
        }
    }
}

/// Decodes a reply as every kind of type.
fn decode(shown: &Shown, reply: &Frame) {
    shown.result(reply.to::<()>());
    shown.result(reply.to::<u8>());
    shown.result(reply.to::<bool>());
    shown.result(reply.to::<f64>());
    shown.result(reply.to::<resp::StreamId>());
    shown.result(reply.to::<Vec<u8>>());
    shown.result(reply.to::<Vec<(u8, bool)>>());
    shown.result(reply.to::<Vec<(String, String)>>());
    shown.result(reply.to::<std::collections::HashMap<Bytes, u8>>());
    shown.result(reply.to::<Option<[u8; 3]>>());
    shown.result(reply.to::<resp::streams::StreamEntries>());
    shown.result(reply.to::<Own>());
    for (key, value) in reply.attributes() {
        shown.result(reply.get::<u8>(key));
        shown.result(reply.get::<()>(value));
    }
}

#[tokio::test(start_paused = true)]
async fn no_reply_brings_the_password_into_a_text() {
    for password in PASSWORDS {
        for reply in replies(password) {
            let case = format!("{reply:?}");
            let shown = Arc::new(Shown::default());
            let answer = {
                let reply = reply.clone();
                move |words: &[String]| usual(words).unwrap_or_else(|| reply.clone())
            };
            let config = config(at_one(), password, answer).observer(Arc::clone(&shown));
            shown.add(&config);
            let mut connection = Connection::connect(&config).await.unwrap();
            let client = ClientOptions::new(config.clone()).reconnect_on_readonly(false).connect().await.unwrap();
            send(&shown, &mut connection, &client, cmd::<u64>("CONFIG GET").arg("requirepass")).await;
            send(&shown, &mut connection, &client, cmd::<Own>("GET").arg("k")).await;
            send(&shown, &mut connection, &client, XLen::new("s")).await;
            send(&shown, &mut connection, &client, XAdd::new("s", AddId::Auto, &[("a", "b")])).await;
            send(&shown, &mut connection, &client, XRange::new("s", ..)).await;
            send(&shown, &mut connection, &client, XRead::new("s", ReadFrom::New)).await;
            send(&shown, &mut connection, &client, XPending::new("s", "g")).await;
            send(&shown, &mut connection, &client, XInfoGroups::new("s")).await;
            send(&shown, &mut connection, &client, XAutoClaim::new("s", "g", "c", Duration::ZERO, StreamId::MIN)).await;
            if let Some(frame) = shown.result(connection.send(cmd::<Frame>("ANY")).await) {
                decode(&shown, &frame);
            }
            connection.queue(cmd::<()>("ANY"));
            if let Some(frame) = shown.result(connection.receive().await) {
                decode(&shown, &frame);
                shown.result(frame.into_result());
            }
            shown.add(&connection);
            let mut transaction = Transaction::new();
            let handle = transaction.add(cmd::<u8>("GET").arg("k"));
            if let Some(mut replies) = shown.result(client.exec(&transaction).await) {
                shown.result(replies.take(handle.clone()));
            }
            shown.add(&(&client, &handle));
            shown.assert_clean(password, &case);
            let mut reader = GroupReader::new(connection, "s", "g", "me");
            shown.result(reader.read(None).await);
            shown.assert_clean(password, &case);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_does_not_show_it() {
    for password in PASSWORDS {
        for reply in replies(password) {
            // The reply to MULTI, to a command, and in that to EXEC.
            for at in 0..3 {
                let shown = Shown::default();
                let answer = {
                    let reply = reply.clone();
                    move |words: &[String]| match (at, words[0].as_str()) {
                        (0, "MULTI") | (1, "GET") => reply.clone(),
                        (_, "MULTI") => "+OK\r\n".to_owned(),
                        (_, "GET") => "+QUEUED\r\n".to_owned(),
                        (_, "EXEC") => format!("*1\r\n{reply}"),
                        _ => usual(words).unwrap_or_else(|| "+OK\r\n".to_owned()),
                    }
                };
                let one = config(at_one(), password, answer.clone());
                let nodes = config(Endpoint::cluster([("server", 1)]), password, answer);
                let mut connection = Connection::connect(&one).await.unwrap();
                let client = Client::connect(&one).await.unwrap();
                let cluster = ClusterClient::connect(&nodes).await.unwrap();
                let mut transaction = Transaction::new();
                let handle = transaction.add(cmd::<u8>("GET").arg("k"));
                for replies in [
                    connection.exec(&transaction).await,
                    client.exec(&transaction).await,
                    cluster.exec(&transaction).await,
                ] {
                    let Some(mut replies) = shown.result(replies) else { continue };
                    shown.result(replies.check());
                    shown.result(replies.take(handle.clone()));
                }
                shown.assert_clean(password, &format!("{at} {reply:?}"));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_does_not_show_it() {
    for password in PASSWORDS {
        for reply in replies(password) {
            let shown = Arc::new(Shown::default());
            let answer = {
                let reply = reply.clone();
                move |words: &[String]| usual(words).unwrap_or_else(|| reply.clone())
            };
            let config = config(Endpoint::cluster([("server", 1)]), password, answer).observer(Arc::clone(&shown));
            let cluster = ClusterClient::connect(&config).await.unwrap();
            let command = cmd::<u8>("GET").arg("k");
            shown.result(cluster.send(&command).await);
            shown.result(cluster.send_to(&at_one(), &command).await);
            shown.result(cluster.send_to_replica(&command).await);
            for (_, reply) in shown.result(cluster.send_to_masters(&command).await).into_iter().flatten() {
                shown.result(reply);
            }
            shown.result(cluster.scan().next().await);
            let mut pipeline = Pipeline::new();
            let handle = pipeline.add(&command);
            if let Some(mut replies) = shown.result(cluster.run(&pipeline).await) {
                shown.result(replies.check());
                shown.result(replies.take(handle));
            }
            shown.result(cluster.connection_for("k").await);
            shown.result(Client::connect(&config.for_key("k")).await);
            shown.assert_clean(password, &format!("{reply:?}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connecting_does_not_show_it() {
    for password in PASSWORDS {
        for reply in flat_replies(password) {
            // The command with that reply; the first one that is connected to gives the others.
            for hostile in
                ["HELLO", "AUTH", "SELECT", "CLUSTER", "SENTINEL", "ROLE", "SUBSCRIBE", "XGROUP", "XREADGROUP"]
            {
                let shown = Arc::new(Shown::default());
                let answer = {
                    let reply = reply.clone();
                    move |words: &[String]| match words[0].as_str() {
                        "HELLO" if hostile == "AUTH" => "-ERR unknown command\r\n".to_owned(),
                        name if name == hostile => reply.clone(),
                        "SENTINEL" => "*2\r\n+master\r\n:1\r\n".to_owned(),
                        "ROLE" => "*1\r\n+master\r\n".to_owned(),
                        _ => usual(words).unwrap_or_else(|| "+OK\r\n".to_owned()),
                    }
                };
                for endpoint in [at_one(), Endpoint::cluster([("server", 1)]), Endpoint::sentinel([("server", 1)], "m")]
                {
                    let config = config(endpoint, password, answer.clone()).database(1).observer(Arc::clone(&shown));
                    shown.result(Connection::connect(&config).await);
                    shown.result(Client::connect(&config).await);
                    let options = ConsumerOptions::new(config.clone(), "s", "g", "me");
                    if let Some(mut consumer) = shown.result(options.connect().await) {
                        let read = tokio::time::timeout(Duration::from_secs(5), consumer.next()).await;
                        if let Ok(Err(error)) = read {
                            shown.error(&error);
                        }
                    }
                    let options = SubscriptionOptions::new(config).channel("c");
                    if let Ok(Some(mut subscription)) = tokio::time::timeout(Duration::from_secs(5), options.connect())
                        .await
                        .map(|done| shown.result(done))
                    {
                        let next = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await;
                        if let Ok(Err(error)) = next {
                            shown.error(&error);
                        }
                    }
                }
                shown.assert_clean(password, &format!("{hostile} {reply:?}"));
            }
        }
    }
}

/// Servers that the topology, a redirect or a Sentinel names.
#[tokio::test(start_paused = true)]
async fn the_name_of_a_server_does_not_show_it() {
    for password in PASSWORDS {
        let shown = Arc::new(Shown::default());
        let answer = move |words: &[String]| match (words[0].as_str(), words.get(1).map(String::as_str)) {
            ("SENTINEL", _) => format!("*2\r\n+{password}\r\n:1\r\n"),
            ("ROLE", _) => format!("*1\r\n+{password}\r\n"),
            ("CLUSTER", Some("SHARDS")) => "-ERR unknown command\r\n".to_owned(),
            ("CLUSTER", _) => format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n+{password}\r\n:1\r\n"),
            _ => usual(words).unwrap_or_else(|| format!("-MOVED 1 {password}:2\r\n")),
        };
        for endpoint in [Endpoint::cluster([("server", 1)]), Endpoint::sentinel([("server", 1)], "m")] {
            let config = config(endpoint.clone(), password, answer).observer(Arc::clone(&shown)).for_key("k");
            // The named server refuses.
            let down = config.clone().connector(move |endpoint| async move {
                if !endpoint.to_string().starts_with("server") {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                }
                let (ours, theirs) = tokio::io::duplex(1 << 16);
                serve(theirs, answer);
                Ok(ours)
            });
            for config in [config, down] {
                shown.result(Connection::connect(&config).await);
                shown.result(Client::connect(&config).await);
                if let Some(cluster) = shown.result(ClusterClient::connect(&config).await) {
                    shown.result(cluster.send(cmd::<()>("GET").arg("k")).await);
                }
            }
        }
        shown.assert_clean(password, "the name of a server");
        assert!(*shown.errors.lock().unwrap() > 5);
    }
}

/// Arguments in the name of a command.
#[tokio::test(start_paused = true)]
async fn the_name_of_a_command_does_not_show_its_arguments() {
    let shown = Arc::new(Shown::default());
    let answer = |words: &[String]| usual(words).unwrap_or_else(|| "-ERR no\r\n".to_owned());
    let config = config(at_one(), "unused", answer).observer(Arc::clone(&shown));
    let mut connection = Connection::connect(&config).await.unwrap();
    let client = Client::connect(&config).await.unwrap();
    for text in
        ["SET card s3cret-word", "CONFIG SET masterauth s3cret-word", "auth\ts3cret-word", "HELLO 3 AUTH a s3cret-word"]
    {
        shown.add(&cmd::<()>(text));
        send(&shown, &mut connection, &client, cmd::<()>(text)).await;
    }
    shown.assert_clean("s3cret-word", "a command");
    assert!(*shown.errors.lock().unwrap() > 10);
}
