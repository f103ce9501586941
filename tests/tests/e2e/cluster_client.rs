//! The library's cluster client, and its connections to a cluster.

use std::time::Duration;

use e2e::{Cluster, Folder, wait};
use resp::streams::{AddId, XAdd, XLen};
use resp::{
    ClusterClient, Config, Connection, ConsumerOptions, ErrorKind, Frame, Pipeline, Routing, Sent, Transaction,
    cluster, cmd,
};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn set(key: &str, value: &str) -> resp::Cmd {
    cmd::<Frame>("SET").arg(key).arg(value)
}

async fn get(client: &ClusterClient, key: &str) -> Option<String> {
    client.send(&cmd::<Frame>("GET").arg(key)).await.unwrap().value().as_str().map(str::to_owned)
}

#[test]
fn commands_pipelines_and_transactions_over_all_nodes() {
    let folder = Folder::new();
    let Some(set_of_nodes) = Cluster::start(folder.path()) else { return };
    let config = Config::from_url(&set_of_nodes.url()).unwrap();
    block_on(async {
        let client = ClusterClient::connect(&config).await.unwrap();
        assert_eq!(client.nodes().len(), 3);
        // A key for every slot, in pipelines of 1000 commands.
        let keys: Vec<String> = {
            let mut of_slot = vec![None; 16384];
            let mut left = of_slot.len();
            for n in 0.. {
                let key = format!("key:{n}");
                let place = &mut of_slot[usize::from(cluster::slot(key.as_bytes()))];
                if place.is_none() {
                    *place = Some(key);
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                }
            }
            of_slot.into_iter().flatten().collect()
        };
        for keys in keys.chunks(1000) {
            let mut pipeline = Pipeline::new();
            let mut slots = Vec::new();
            for key in keys {
                pipeline.add(set(key, key));
                slots.push((key, pipeline.add(cmd::<Frame>("GET").arg(key))));
            }
            let mut replies = client.run(&pipeline).await.unwrap();
            replies.check().unwrap();
            for (key, slot) in slots {
                assert_eq!(replies.take(slot).unwrap().value().as_str(), Some(key.as_str()));
            }
        }
        let sizes: Vec<i64> = set_of_nodes.servers[..3].iter().map(|server| server.cli("DBSIZE").int()).collect();
        assert_eq!(sizes.iter().sum::<i64>(), 16384);
        assert!(sizes.iter().all(|size| *size > 5000), "{sizes:?}");
        for key in keys.iter().step_by(997) {
            assert_eq!(get(&client, key).await.as_deref(), Some(key.as_str()));
        }

        let mut transaction = Transaction::new();
        let added = transaction.add(XAdd::new("{s}1", AddId::Auto, &[("a", "b")]));
        let length = transaction.add(XLen::new("{s}1"));
        transaction.add(set("{s}2", "x"));
        let mut replies = client.exec(&transaction).await.unwrap();
        replies.take(added).unwrap();
        assert_eq!(replies.take(length).unwrap(), 1);

        // If one node cannot execute its part, nothing is sent.
        transaction.add(set("elsewhere", "x"));
        let mut pipeline = Pipeline::new();
        pipeline.add(set("{s}2", "y"));
        pipeline.add(cmd::<()>("MGET").arg("foo").arg("bar"));
        let refused = [
            client.exec(&transaction).await.unwrap_err(),
            client.run(&pipeline).await.unwrap_err(),
            client.send(&cmd::<Frame>("RENAME").arg("foo").arg("bar")).await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!((error.kind(), error.sent()), (ErrorKind::CrossSlot, Sent::No), "{error}");
        }
        assert_eq!(get(&client, "{s}2").await.as_deref(), Some("x"));

        assert_eq!(client.send(&cmd::<Frame>("PING")).await.unwrap().value().as_str(), Some("PONG"));
        let error = client.send(&cmd::<Frame>("BLPOP").arg("list").arg(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let error = client.send(&cmd::<Frame>("INCR").arg("{s}2")).await.unwrap_err();
        assert!(error.to_string().contains("not an integer"), "{error}");
    });
}

#[test]
fn a_slot_that_moves_is_followed() {
    let folder = Folder::new();
    let Some(nodes) = Cluster::start(folder.path()) else { return };
    let config = Config::from_url(&nodes.url()).unwrap();
    let slot = nodes.slot("{foo}");
    assert_eq!(Routing::of_key(b"{foo}1"), Routing::Slot(slot.parse().unwrap()));
    block_on(async {
        let client = ClusterClient::connect(&config).await.unwrap();
        for key in ["{foo}1", "{foo}2"] {
            client.send(&set(key, key)).await.unwrap();
        }
        let from = nodes.owner("{foo}1");
        let to = (from + 1) % 3;
        nodes.begin_move(&slot, from, to);
        nodes.move_key(b"{foo}1", from, to);
        // ASK: one key has been migrated, one has not, one is new.
        assert_eq!(get(&client, "{foo}1").await.as_deref(), Some("{foo}1"));
        assert_eq!(get(&client, "{foo}2").await.as_deref(), Some("{foo}2"));
        client.send(&set("{foo}3", "new")).await.unwrap();
        let mut pipeline = Pipeline::new();
        let slots = ["{foo}1", "{foo}2", "{foo}3"].map(|key| pipeline.add(cmd::<Frame>("GET").arg(key)));
        let mut replies = client.run(&pipeline).await.unwrap();
        let values = slots.map(|slot| replies.take(slot).unwrap().value().as_str().unwrap().to_owned());
        assert_eq!(values, ["{foo}1", "{foo}2", "new"]);
        let mut transaction = Transaction::new();
        let there = transaction.add(cmd::<Frame>("APPEND").arg("{foo}3").arg("er"));
        assert_eq!(client.exec(&transaction).await.unwrap().take(there).unwrap().value().as_int(), Some(5));
        // TRYAGAIN: the keys of a command are on two nodes. The reply comes only after the
        // migration.
        let both = cmd::<Frame>("MGET").arg("{foo}1").arg("{foo}2");
        let impatient = Config::from_url(&nodes.url()).unwrap().command_timeout(Some(Duration::from_millis(200)));
        let impatient = ClusterClient::connect(&impatient).await.unwrap();
        assert_eq!(impatient.send(&both).await.unwrap_err().kind(), ErrorKind::TryAgain);
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.send(&both).await }
        });
        tokio::task::yield_now().await;
        nodes.finish_move(&slot, from, to);
        let values = waiting.await.unwrap().unwrap();
        assert_eq!(values.value().children().filter_map(resp::Value::as_str).collect::<Vec<_>>(), ["{foo}1", "{foo}2"]);
        // MOVED.
        assert_eq!(get(&client, "{foo}3").await.as_deref(), Some("newer"));
        assert_eq!(get(&impatient, "{foo}3").await.as_deref(), Some("newer"));
    });
}

#[test]
fn connections_and_consumers_follow_a_stream() {
    let folder = Folder::new();
    let Some(nodes) = Cluster::start(folder.path()) else { return };
    let config = Config::from_url(&nodes.url()).unwrap();
    let slot = nodes.slot("stream");
    block_on(async {
        let error = resp::Client::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        let client = ClusterClient::connect(&config).await.unwrap();
        let mut connection = client.connection_for("stream").await.unwrap();
        let shared = resp::Client::connect(&config.clone().for_key("stream")).await.unwrap();
        let add = XAdd::new("stream", AddId::Auto, &[("a", "b")]);
        let first = connection.send(&add).await.unwrap();
        let consumer = ConsumerOptions::new(config.clone(), "stream", "g", "c").block(Duration::from_secs(600));
        let mut consumer = consumer.connect().await.unwrap();
        let batch = consumer.next().await.unwrap().unwrap();
        assert_eq!(batch.ids().next(), Some(first));
        consumer.ack(batch.ids());

        // The read blocks on the node when the slot is migrated.
        let reading = tokio::spawn(async move { consumer.next().await.unwrap().unwrap().ids().next() });
        let from = nodes.owner("stream");
        let blocked = cmd::<Frame>("INFO").arg("clients");
        loop {
            let info = connection.send(&blocked).await.unwrap();
            if info.value().as_str().unwrap().contains("blocked_clients:1") {
                break;
            }
            tokio::task::yield_now().await;
        }
        nodes.move_slot(&slot, from, (from + 1) % 3);
        let error = connection.send(&add).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Moved, "{error}");
        assert!(connection.is_closed());
        let error = shared.send(&add).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Moved, "{error}");
        let mut connection = Connection::connect(&config.clone().for_key("stream")).await.unwrap();
        let second = connection.send(&add).await.unwrap();
        assert_eq!(reading.await.unwrap(), Some(second));
        shared.send(&add).await.unwrap();
    });
}

#[test]
fn a_lost_master_is_replaced_by_its_replica() {
    let folder = Folder::new();
    let Some(mut nodes) = Cluster::start(folder.path()) else { return };
    let config = Config::from_url(&nodes.url()).unwrap();
    let owner = nodes.owner("foo");
    block_on(async {
        let client = ClusterClient::connect(&config).await.unwrap();
        client.send(&set("foo", "1")).await.unwrap();
        wait::until("the replica has it", || nodes.servers[owner + 3].cli("DBSIZE").int() == 1);
        nodes.servers[owner].kill9();
        // Commands that were certainly not sent are retried until the replica is promoted. An error
        // reports those that may have been sent.
        let value = loop {
            match client.send(&cmd::<Frame>("GET").arg("foo")).await {
                Ok(value) => break value,
                Err(error) => assert_eq!(error.sent(), Sent::Maybe, "{error}"),
            }
        };
        assert_eq!(value.value().as_str(), Some("1"));
        let mut pipeline = Pipeline::new();
        for n in 0..100 {
            pipeline.add(set(&format!("key:{n}"), "x"));
        }
        client.run(&pipeline).await.unwrap().check().unwrap();
    });
}
