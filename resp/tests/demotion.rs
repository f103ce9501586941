//! Masters that are replaced while clients are connected.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use resp::{
    Backoff, Client, ClientEvent, ClientOptions, Config, ConsumerOptions, Decoder, Endpoint, ErrorKind, Frame,
    Transaction, cmd,
};
use support::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A server with these replies on each connection, which sends a message when `news` changes.
/// Spaces in replies stand for line ends.
async fn server<A>(answers: impl Fn(usize) -> A + Send + 'static, news: watch::Receiver<String>) -> u16
where
    A: Fn(&str) -> String + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((mut socket, _)) = listener.accept().await {
            let (answer, mut news) = (answers(count), news.clone());
            count += 1;
            news.mark_unchanged();
            tokio::spawn(async move {
                let (mut decoder, mut input, mut is_subscribed) = (Decoder::default(), BytesMut::new(), false);
                loop {
                    let said = tokio::select! {
                        read = socket.read_buf(&mut input) => match read { Ok(1..) => String::new(), _ => return },
                        changed = news.changed(), if is_subscribed => match changed { Ok(()) => news.borrow().clone(), _ => return },
                    };
                    socket.write_all(said.replace(' ', "\r\n").replace('_', " ").as_bytes()).await.unwrap();
                    while let Some(command) = decoder.decode(&mut input).unwrap() {
                        let words: Vec<_> = command.value().children().filter_map(resp::Value::as_str).collect();
                        let reply = match words[0] {
                            "HELLO" => "%1 $5 proto :3 ".to_owned(),
                            "SUBSCRIBE" => {
                                is_subscribed = true;
                                answer("SUBSCRIBE")
                            }
                            "CLIENT" if words[1] == "SETINFO" => "+OK ".to_owned(),
                            _ => answer(&words.join(" ")),
                        };
                        let _ = socket.write_all(reply.replace(' ', "\r\n").replace('_', " ").as_bytes()).await;
                    }
                }
            });
        }
    });
    port
}

fn silent() -> watch::Receiver<String> {
    watch::channel(String::new()).1
}

const MASTER: &str = "*3 $6 master :0 *0 ";
const DEMOTED: &str = "-READONLY_You_can't_write_against_a_read_only_replica. ";

/// As behind a virtual IP: a new connection to the same address reaches the new master.
#[tokio::test]
async fn a_client_reconnects_after_readonly() {
    let demoted = |connection: usize| {
        move |command: &str| match command {
            "EXEC" if connection == 0 => format!("-EXECABORT_Transaction_discarded_because_of:_{}", &DEMOTED[1..]),
            "MULTI" => "+OK ".to_owned(),
            _ if connection == 0 => DEMOTED.to_owned(),
            _ => format!("+{connection} "),
        }
    };
    let port = server(demoted, silent()).await;
    let client = Client::connect(&Config::new(Endpoint::tcp("127.0.0.1", port))).await.unwrap();
    let mut events = client.events();
    let error = client.send(cmd::<Frame>("SET").arg("a").arg("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert_eq!(client.send(cmd::<Frame>("SET").arg("a").arg("b")).await.unwrap().value().as_str(), Some("1"));
    assert!(
        matches!(events.recv().await.unwrap(), ClientEvent::Disconnected(error) if error.kind() == ErrorKind::ReadOnly)
    );
    assert!(matches!(events.recv().await.unwrap(), ClientEvent::Connected));

    // The same in a transaction.
    let client =
        Client::connect(&Config::new(Endpoint::tcp("127.0.0.1", server(demoted, silent()).await))).await.unwrap();
    let mut transaction = Transaction::new();
    transaction.add(cmd::<()>("SET").arg("a").arg("b"));
    client.exec(&transaction).await.unwrap_err();
    assert_eq!(client.send(cmd::<Frame>("GET").arg("a")).await.unwrap().value().as_str(), Some("1"));
}

/// There may be no master behind the address, so the client does not reconnect for each write. A
/// client may also be meant to stay.
#[tokio::test]
async fn reconnects_because_of_readonly_are_rate_limited() {
    for leaves in [true, false] {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let always = move |_: usize| {
            counted.fetch_add(1, Ordering::SeqCst);
            |_: &str| DEMOTED.to_owned()
        };
        let config = Config::new(Endpoint::tcp("127.0.0.1", server(always, silent()).await));
        let client = ClientOptions::new(config).reconnect_on_readonly(leaves).connect().await.unwrap();
        let begun = Instant::now();
        for _ in 0..200 {
            assert_eq!(client.send(cmd::<Frame>("INCR").arg("a")).await.unwrap_err().kind(), ErrorKind::ReadOnly);
        }
        let most = 2 + begun.elapsed().as_secs() as usize;
        let made = connections.load(Ordering::SeqCst);
        assert!(if leaves { (2..=most).contains(&made) } else { made == 1 }, "{made} connections");
    }
}

/// Two masters, of which the first still answers after its demotion; a Sentinel that announces it;
/// and a signal that the Sentinel has a subscriber.
async fn replaced(subscribes: bool) -> (Config, impl Fn(), impl Future<Output = ()>) {
    let answers = |name: &'static str| {
        move |_: usize| {
            move |command: &str| match command.split(' ').next().unwrap() {
                "ROLE" => MASTER.to_owned(),
                // A blocking read, longer than the test.
                "XREADGROUP" if name == "old" && command.contains("BLOCK") => String::new(),
                "XREADGROUP" if command.contains("STREAMS s 0") => "*1 *2 $1 s *0 ".to_owned(),
                "XREADGROUP" => "*1 *2 $1 s *1 *2 $3 1-1 *2 $1 n $3 new ".to_owned(),
                "XGROUP" => "+OK ".to_owned(),
                _ => format!("+{name} "),
            }
        }
    };
    let (old, new) = (server(answers("old"), silent()).await, server(answers("new"), silent()).await);
    let (say, said) = watch::channel(String::new());
    let switched = Arc::new(AtomicBool::new(false));
    let is_switched = Arc::clone(&switched);
    let (asked, mut is_asked) = watch::channel(false);
    let asked = Arc::new(asked);
    let sentinel = move |_: usize| {
        let (is_switched, asked) = (Arc::clone(&is_switched), Arc::clone(&asked));
        move |command: &str| match command {
            "SUBSCRIBE" => {
                asked.send_replace(true);
                let confirmed = ">3 $9 subscribe $14 +switch-master :1 ";
                if subscribes { confirmed } else { "-NOPERM_no " }.to_owned()
            }
            _ => {
                let port = if is_switched.load(Ordering::SeqCst) { new } else { old };
                format!("*2 $9 127.0.0.1 ${} {port} ", port.to_string().len())
            }
        }
    };
    let sentinel = server(sentinel, said).await;
    let config = Config::from_url(&format!("redis-sentinel://127.0.0.1:{sentinel}/m")).unwrap();
    let switch = move || {
        switched.store(true, Ordering::SeqCst);
        // The switch of another master.
        for name in ["mm", "m"] {
            let text = format!("{name}_127.0.0.1_{old}_127.0.0.1_{new}");
            say.send_replace(format!(">3 $7 message $14 +switch-master ${} {text} ", text.len()));
        }
    };
    let until_asked = async move { drop(is_asked.wait_for(|asked| *asked).await) };
    (config.command_timeout(Some(Duration::from_secs(20))), switch, until_asked)
}

#[tokio::test]
async fn a_reading_client_follows_a_failover() {
    for subscribes in [true, false] {
        let (config, switch, until_asked) = replaced(subscribes).await;
        let client = Client::connect(&config).await.unwrap();
        let mut events = client.events();
        assert_eq!(client.send(cmd::<Frame>("GET").arg("a")).await.unwrap().value().as_str(), Some("old"));
        until_asked.await;
        assert!(events.try_recv().is_err());
        switch();
        assert!(
            matches!(events.recv().await.unwrap(), ClientEvent::Disconnected(error) if error.kind() == ErrorKind::NotMaster)
        );
        assert!(matches!(events.recv().await.unwrap(), ClientEvent::Connected));
        assert_eq!(client.send(cmd::<Frame>("GET").arg("a")).await.unwrap().value().as_str(), Some("new"));
    }
}

#[tokio::test]
async fn a_blocked_consumer_follows_a_failover() {
    let (config, switch, until_asked) = replaced(true).await;
    let consumer = ConsumerOptions::new(config, "s", "g", "c").block(Duration::from_secs(60));
    let mut consumer = consumer.connect().await.unwrap();
    let waiting = tokio::spawn(async move {
        let batch = consumer.next().await.unwrap().unwrap();
        batch.entries().first().unwrap().field(b"n").unwrap().to_vec()
    });
    until_asked.await;
    assert!(!waiting.is_finished());
    switch();
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap(), b"new");
}

/// On a real server: invalidations continue, however the connection ends.
#[tokio::test]
async fn tracking_is_enabled_again_after_a_reconnect() {
    let server = Server::start();
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    let client = ClientOptions::new(server.config()).backoff(backoff).connect().await.unwrap();
    let mut other = server.connect().await;
    // A refused command is not repeated.
    client.send(cmd::<()>("CLIENT TRACKING ON NONSENSE")).await.unwrap_err();
    let tracking = cmd::<Frame>("client").arg("Tracking").arg("on").arg("BCAST").arg("PREFIX").arg("a");
    let mut transaction = Transaction::new();
    transaction.add(&tracking);
    transaction.add(cmd::<()>("CLIENT TRACKING ON BCAST PREFIX b"));
    client.exec(&transaction).await.unwrap();
    let mut events = client.events();
    for round in 0..3 {
        other.send(cmd::<()>("CLIENT KILL").args(["TYPE", "normal", "SKIPME", "yes"])).await.unwrap();
        while !matches!(events.recv().await.unwrap(), ClientEvent::Connected) {}
        for key in ["a1", "b1"] {
            other.send(cmd::<()>("SET").arg(key).arg(round)).await.unwrap();
            let ClientEvent::Push(push) = events.recv().await.unwrap() else { panic!("an invalidation of {key}") };
            assert!(format!("{push:?}").contains(key), "{push:?}");
        }
    }
    // Not after tracking was disabled.
    client.send(cmd::<()>("CLIENT TRACKING OFF")).await.unwrap();
    other.send(cmd::<()>("CLIENT KILL").args(["TYPE", "normal", "SKIPME", "yes"])).await.unwrap();
    while !matches!(events.recv().await.unwrap(), ClientEvent::Connected) {}
    other.send(cmd::<()>("SET").arg("a1").arg("x")).await.unwrap();
    client.send(cmd::<()>("PING")).await.unwrap();
    assert!(events.try_recv().is_err());
}

/// If tracking cannot be enabled again, that is an event.
#[tokio::test]
async fn tracking_that_is_lost_is_an_event() {
    let server = Server::start();
    let client = Client::connect(&server.config()).await.unwrap();
    let mut other = server.connect().await;
    let id = other.client_id().unwrap();
    let mut redirected = server.connect().await;
    let to = redirected.client_id().unwrap();
    assert_ne!(id, to);
    client.send(cmd::<()>("CLIENT TRACKING ON REDIRECT").arg(to)).await.unwrap();
    let mut events = client.events();
    other.send(cmd::<()>("CLIENT KILL").args(["TYPE", "normal", "SKIPME", "yes"])).await.unwrap();
    redirected.send(cmd::<()>("PING")).await.unwrap_err();
    assert!(matches!(events.recv().await.unwrap(), ClientEvent::Disconnected(_)));
    let ClientEvent::TrackingLost(error) = events.recv().await.unwrap() else { panic!("it is lost") };
    assert!(error.to_string().contains("CLIENT TRACKING"), "{error}");
    assert!(matches!(events.recv().await.unwrap(), ClientEvent::Connected));
}
