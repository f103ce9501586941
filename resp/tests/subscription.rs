//! Subscriptions, on a real server and on one that disconnects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use resp::testing::{Script, ScriptedServer, reply};
use resp::{Backoff, Config, ErrorKind, Sent, Subscription, SubscriptionEvent, SubscriptionOptions, cmd};
use support::Server;

fn options(config: Config) -> SubscriptionOptions {
    SubscriptionOptions::new(config).backoff(Backoff::new(Duration::from_millis(1), Duration::from_millis(1)))
}

async fn next(subscription: &mut Subscription) -> SubscriptionEvent {
    tokio::time::timeout(Duration::from_secs(10), subscription.next()).await.unwrap().unwrap()
}

/// Channel, pattern and payload of the next message.
async fn message(subscription: &mut Subscription) -> (Bytes, Option<Bytes>, Bytes) {
    match next(subscription).await {
        SubscriptionEvent::Message(message) => (message.channel, message.pattern, message.payload),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_subscription_survives_its_connection() {
    let server = Server::start();
    let mut other = server.connect().await;
    let mut subscription = options(server.config()).channel("a").pattern("b*").connect().await.unwrap();
    for round in 0..3 {
        other.send(cmd::<()>("PUBLISH").arg("a").arg(round)).await.unwrap();
        other.send(cmd::<()>("PUBLISH").arg("other").arg(round)).await.unwrap();
        other.send(cmd::<()>("PUBLISH").arg("b1").arg(round)).await.unwrap();
        let payload = Bytes::from(round.to_string());
        assert_eq!(message(&mut subscription).await, ("a".into(), None, payload.clone()));
        assert_eq!(message(&mut subscription).await, ("b1".into(), Some("b*".into()), payload));

        let killed: u64 = other.send(cmd("CLIENT KILL TYPE pubsub")).await.unwrap();
        assert_eq!(killed, 1);
        assert_eq!(next(&mut subscription).await, SubscriptionEvent::Reconnected);
    }
    // A future that is dropped loses nothing.
    assert!(tokio::time::timeout(Duration::from_millis(5), subscription.next()).await.is_err());
    other.send(cmd::<()>("PUBLISH").arg("a").arg("kept")).await.unwrap();
    assert_eq!(message(&mut subscription).await.2, "kept");
}

#[tokio::test]
async fn a_subscription_in_resp2_is_refused() {
    let server = Server::start();
    let refused = options(server.config().resp2(true)).channel("a").connect().await.unwrap_err();
    assert_eq!((refused.kind(), refused.sent()), (ErrorKind::Usage, Sent::No));
    assert!(
        refused.to_string().ends_with("subscriptions need RESP3, but the configuration asks for RESP2"),
        "{refused}"
    );
    let refused = options(server.config()).connect().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Usage, "{refused}");
}

fn confirmed(channel: &str) -> Bytes {
    reply::push([reply::bulk("subscribe"), reply::bulk(channel), reply::integer(1)])
}

fn published(payload: &str) -> Bytes {
    reply::push([reply::bulk("message"), reply::bulk("a"), reply::bulk(payload)])
}

#[tokio::test]
async fn messages_during_subscribing_are_kept_and_a_refusal_ends_it() {
    let subscribe = cmd::<()>("SUBSCRIBE").args(["a", "b"]);
    let both = |between: Bytes| [confirmed("a"), between, confirmed("b")].concat();
    let server = ScriptedServer::new([
        Script::new().on(&subscribe, both(published("1"))).send(published("2")).close(),
        Script::new().on(&subscribe, confirmed("a")).close(),
        Script::new().on(&subscribe, both(published("3"))).close(),
        Script::new().on(&subscribe, reply::error("NOPERM no channels for you")),
    ]);
    let mut subscription = options(server.config()).channel("a").channel("b").connect().await.unwrap();
    assert_eq!(message(&mut subscription).await.2, "1");
    assert_eq!(message(&mut subscription).await.2, "2");
    assert_eq!(next(&mut subscription).await, SubscriptionEvent::Reconnected);
    assert_eq!(message(&mut subscription).await.2, "3");
    let refused = subscription.next().await.unwrap_err();
    assert_eq!((refused.kind(), refused.to_string().starts_with("SUBSCRIBE: NOPERM")), (ErrorKind::NoPerm, true));
    server.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_pinged_and_dropped() {
    let subscribe = cmd::<()>("SUBSCRIBE").args(["a"]);
    let server = ScriptedServer::new([
        Script::new().on(&subscribe, confirmed("a")).on_name("PING", "+PONG\r\n").on_name("PING", ""),
        Script::new().on(&subscribe, confirmed("a")),
    ]);
    let mut subscription = options(server.config()).channel("a").connect().await.unwrap();
    assert_eq!(subscription.next().await.unwrap(), SubscriptionEvent::Reconnected);
    server.finish().await.unwrap();
}
