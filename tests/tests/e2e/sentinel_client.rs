//! The library's connections through Sentinels.

use std::time::Duration;

use e2e::sentinel::MASTER;
use e2e::{Folder, SentinelSet};
use resp::streams::{AddId, XAdd};
use resp::{Client, ClientEvent, Config, Connection, ConsumerOptions, ErrorKind, Frame, cmd};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The port of a connection's server.
async fn port_of(connection: &mut Connection) -> u16 {
    let reply = connection.send(&cmd::<Frame>("CONFIG GET").arg("port")).await.unwrap();
    reply.value().get(b"port").unwrap().as_str().unwrap().parse().unwrap()
}

#[test]
fn passwords_of_both_layers_are_kept_apart() {
    let folder = Folder::new();
    let set = SentinelSet::start_with(
        folder.path(),
        &["--requirepass", "of-redis", "--masterauth", "of-redis"],
        &["sentinel auth-pass mymaster of-redis"],
    );
    // Set the passwords only now, because the harness itself knows none.
    for sentinel in &set.sentinels {
        let watcher = ["ACL", "SETUSER", "watcher", "on", ">of-watcher", "+sentinel|get-master-addr-by-name"];
        sentinel.call(&watcher);
        sentinel.call(&["ACL", "SETUSER", "default", "resetpass", ">of-sentinels"]);
    }
    let connect = |redis: &str, sentinels: &str| {
        let url = set.url().replace("://", &format!("://{redis}")) + sentinels;
        let config = Config::from_url(&url).unwrap();
        let shown = format!("{config} {config:?} {:?}", config.endpoint());
        assert!(!shown.contains("of-"), "{shown}");
        block_on(Connection::connect(&config)).map_err(|error| {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("of-"), "{shown}");
            (error.kind(), shown.contains("Sentinel 127.0.0.1") && !shown.contains("names as master"))
        })
    };
    let user = "?sentinel_user=watcher&sentinel_password=of-watcher";
    for sentinels in [user, "?sentinel_password=of-sentinels"] {
        connect(":of-redis@", sentinels).unwrap();
    }
    // The error says which of the two refused.
    let of_sentinel = true;
    assert_eq!(connect(":of-redis@", "").unwrap_err(), (ErrorKind::NoAuth, of_sentinel));
    assert_eq!(connect(":of-redis@", "?sentinel_password=of-x").unwrap_err(), (ErrorKind::WrongPass, of_sentinel));
    assert_eq!(connect("", user).unwrap_err(), (ErrorKind::NoAuth, !of_sentinel));
    assert_eq!(connect(":of-sentinels@", user).unwrap_err(), (ErrorKind::WrongPass, !of_sentinel));
}

#[test]
fn a_dead_sentinel_is_passed_over_and_asked_last() {
    let folder = Folder::new();
    let mut set = SentinelSet::start(folder.path());
    let config = Config::from_url(&set.url()).unwrap();
    // One Sentinel is frozen, one is killed.
    set.sentinels[0].freeze();
    set.sentinels[1].kill9();
    block_on(async {
        let mut connection = Connection::connect(&config).await.unwrap();
        assert_eq!(port_of(&mut connection).await, set.servers[0].port());
        // The reachable Sentinel is tried first now, so the frozen one costs no time.
        let config = config.connect_timeout(Duration::from_secs(3600));
        Connection::connect(&config).await.unwrap();
        set.sentinels[2].kill9();
        let config = config.connect_timeout(Duration::from_secs(2));
        let error = Connection::connect(&config).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().contains(&format!("Sentinel 127.0.0.1:{}", set.sentinels[2].port())), "{error}");
    });
    set.sentinels[0].thaw();
}

#[test]
fn a_server_that_is_no_master_is_refused() {
    let folder = Folder::new();
    let set = SentinelSet::start(folder.path());
    let config = Config::from_url(&set.url()).unwrap();
    for sentinel in &set.sentinels {
        sentinel.call(&["SENTINEL", "REMOVE", MASTER]);
    }
    block_on(async {
        let error = Connection::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownMaster, "{error}");
        let replica = set.servers[1].port().to_string();
        for sentinel in &set.sentinels {
            sentinel.call(&["SENTINEL", "MONITOR", MASTER, "127.0.0.1", &replica, "3"]);
        }
        let error = Connection::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotMaster, "{error}");
        assert!(error.to_string().contains("its role is slave"), "{error}");
    });
}

#[test]
fn a_demoted_server_is_left() {
    let folder = Folder::new();
    let set = SentinelSet::start(folder.path());
    let config = Config::from_url(&set.url()).unwrap();
    block_on(async {
        let mut connection = Connection::connect(&config).await.unwrap();
        let client = Client::connect(&config).await.unwrap();
        let consumer = ConsumerOptions::new(config.clone(), "s", "g", "c").block(Duration::from_millis(200));
        let mut consumer = consumer.connect().await.unwrap();

        // Demote it directly, so that no connection is closed and the Sentinels do not know.
        set.servers[0].cli(&format!("REPLICAOF 127.0.0.1 {}", set.servers[1].port()));
        let write = cmd::<Frame>("SET").arg("key").arg("value");
        let error = connection.send(&write).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        assert!(connection.is_closed(), "another has its place");
        let error = Connection::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotMaster, "{error}");
        let mut events = client.events();
        let error = client.send(&write).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        assert!(matches!(events.recv().await.unwrap(), ClientEvent::Disconnected(_)));
        let refused = loop {
            if let ClientEvent::AttemptFailed(error) = events.recv().await.unwrap() {
                break error;
            }
        };
        assert_eq!(refused.kind(), ErrorKind::NotMaster, "{refused}");

        set.servers[0].cli("REPLICAOF NO ONE");
        let id = client.send(&XAdd::new("s", AddId::Auto, &[("a", "b")])).await.unwrap();
        let batch = consumer.next().await.unwrap().unwrap();
        assert_eq!(batch.ids().next(), Some(id));
    });
}
