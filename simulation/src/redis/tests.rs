//! Facts that were observed on a redis-server 7.0.

use super::*;
use resp::StreamId;

const fn id(ms: u64, seq: u64) -> StreamId {
    StreamId::new(ms, seq)
}

fn name(text: &str) -> Name {
    Rc::from(text)
}

fn add(ms: u64, seq: u64) -> Command {
    let entry = Rc::new(Entry { fields: vec![(bytes("line"), bytes("x"))], origin: None });
    Command::XAdd { key: name("s"), id: AddId::Exact(id(ms, seq)), entry, no_create: false }
}

fn ids(reply: &Reply) -> Vec<StreamId> {
    match reply {
        Reply::Entries(entries) => entries.iter().map(|(id, _)| *id).collect(),
        other => panic!("{other:?}"),
    }
}

fn read(from: ReadFrom, consumer: &str) -> Command {
    Command::XReadGroup { key: name("s"), group: name("g"), consumer: name(consumer), from, count: 10 }
}

/// A stream with three entries and a group at its beginning.
fn server() -> Server {
    let mut server = Server::new(1000);
    for seq in 1..=3 {
        server.admin(add(1, seq));
    }
    server.admin(Command::XGroupCreate { key: name("s"), group: name("g"), at: StreamId::ZERO, make_stream: false });
    server
}

#[test]
fn ids_only_grow() {
    let mut server = server();
    assert!(matches!(server.admin(add(1, 3)), Reply::Refused(Refusal::IdTooSmall)));
    assert!(matches!(server.admin(add(1, 4)), Reply::Id(_)));
    server.admin(Command::Del { key: name("s") });
    assert!(matches!(server.admin(add(1, 3)), Reply::Id(_)), "a deleted stream begins again");
}

#[test]
fn the_last_id_survives_trimming_and_can_be_exhausted() {
    let mut server = server();
    server.admin(Command::XTrimMinId { key: name("s"), min: id(9, 0) });
    assert_eq!(server.stream_at(&name("s")).unwrap().info().length, 0);
    assert_eq!(server.stream_at(&name("s")).unwrap().last_id(), id(1, 3));
    assert!(matches!(server.admin(add(u64::MAX, u64::MAX)), Reply::Id(_)));
    assert!(matches!(server.admin(add(u64::MAX, u64::MAX)), Reply::Refused(Refusal::Exhausted)));
}

#[test]
fn nomkstream_makes_no_stream() {
    let mut server = Server::new(1000);
    let Command::XAdd { key, id, entry, .. } = add(1, 1) else { unreachable!() };
    let no_create = Command::XAdd { key, id, entry, no_create: true };
    assert!(matches!(server.admin(no_create), Reply::Nil));
    assert!(server.keys().is_empty());
}

#[test]
fn a_watched_key_that_was_changed_stops_the_transaction() {
    let mut server = server();
    let mut session = server.connect().unwrap();
    let attempt = |server: &mut Server, session: &mut Session, between: Option<Command>| {
        server.watch(session, &name("s")).unwrap();
        server.multi(session).unwrap();
        assert!(matches!(server.call(session, add(2, 1)).unwrap(), Reply::Queued));
        if let Some(between) = between {
            server.admin(between);
        }
        server.exec(session).unwrap()
    };
    assert!(matches!(attempt(&mut server, &mut session, Some(add(1, 4))), Reply::Nil));
    assert!(matches!(attempt(&mut server, &mut session, Some(Command::FlushAll)), Reply::Nil));
    // Neither of these touches watched keys.
    let quiet = Command::XTrimMinId { key: name("s"), min: StreamId::ZERO };
    assert!(matches!(attempt(&mut server, &mut session, Some(quiet)), Reply::Several(_)));
}

#[test]
fn what_a_group_does_is_no_change_to_the_stream() {
    let mut server = server();
    let acknowledge = Command::XAck { key: name("s"), group: name("g"), ids: vec![id(1, 1)] };
    let set_id = Command::XGroupSetId { key: name("s"), group: name("g"), at: StreamId::ZERO, entries_read: None };
    for command in [read(ReadFrom::New, "c"), acknowledge, set_id] {
        let mut session = server.connect().unwrap();
        server.watch(&mut session, &name("s")).unwrap();
        server.admin(command);
        server.multi(&mut session).unwrap();
        assert!(matches!(server.exec(&mut session).unwrap(), Reply::Several(_)));
    }
}

#[test]
fn each_command_of_a_transaction_can_fail_alone() {
    let mut server = server();
    let mut session = server.connect().unwrap();
    server.multi(&mut session).unwrap();
    server.call(&mut session, add(2, 1)).unwrap();
    let pairs = vec![(bytes("guard"), bytes("x"))];
    server.call(&mut session, Command::HSet { key: name("r"), pairs }).unwrap();
    server.withdrawn.insert(Right::Add);
    let Reply::Several(replies) = server.exec(&mut session).unwrap() else { panic!("executed") };
    assert!(matches!(replies[..], [Reply::Refused(Refusal::NoPermission), Reply::Number(1)]));
    assert!(server.field(&name("r"), b"guard").is_some());
    // A command refused while queueing discards the whole transaction.
    server.multi(&mut session).unwrap();
    server.call(&mut session, add(2, 1)).unwrap();
    assert!(matches!(server.exec(&mut session).unwrap(), Reply::Refused(Refusal::ExecAbort)));
}

#[test]
fn a_group_gives_each_entry_once_and_keeps_it_pending() {
    let mut server = server();
    assert_eq!(ids(&server.admin(read(ReadFrom::New, "c"))).len(), 3);
    assert_eq!(ids(&server.admin(read(ReadFrom::New, "c"))).len(), 0);
    server.admin(Command::XAck { key: name("s"), group: name("g"), ids: vec![id(1, 1)] });
    server.admin(Command::XDel { key: name("s"), ids: vec![id(1, 2)] });
    let Reply::Entries(pending) = server.admin(read(ReadFrom::Pending(StreamId::ZERO), "c")) else { panic!() };
    assert_eq!(
        pending.iter().map(|(id, entry)| (*id, entry.is_some())).collect::<Vec<_>>(),
        [(id(1, 2), false), (id(1, 3), true)]
    );
    assert_eq!(ids(&server.admin(read(ReadFrom::Pending(StreamId::ZERO), "other"))).len(), 0);
}

#[test]
fn a_moved_group_gives_pending_entries_to_the_next_reader() {
    let mut server = server();
    server.admin(read(ReadFrom::New, "c"));
    server.admin(Command::XGroupSetId { key: name("s"), group: name("g"), at: StreamId::ZERO, entries_read: None });
    assert_eq!(ids(&server.admin(read(ReadFrom::New, "d"))).len(), 3);
    let group = &server.stream_at(&name("s")).unwrap().groups()[&name("g")];
    assert!(group.pending().all(|(_, consumer)| **consumer == *"d"));
}

#[test]
fn a_deleted_consumer_takes_its_pending_entries_along() {
    let mut server = server();
    server.admin(read(ReadFrom::New, "c"));
    let delete = Command::XGroupDelConsumer { key: name("s"), group: name("g"), consumer: name("c") };
    assert!(matches!(server.admin(delete), Reply::Number(3)));
    assert_eq!(ids(&server.admin(read(ReadFrom::New, "d"))).len(), 0);
}

#[test]
fn claiming_takes_what_is_idle_and_reports_what_was_deleted() {
    let mut server = server();
    server.admin(read(ReadFrom::New, "c"));
    server.admin(Command::XDel { key: name("s"), ids: vec![id(1, 2)] });
    let claim = |idle| Command::XAutoClaim {
        key: name("s"),
        group: name("g"),
        consumer: name("d"),
        idle,
        from: StreamId::ZERO,
        count: 10,
    };
    let Reply::Claimed { entries, .. } = server.admin(claim(5)) else { panic!() };
    assert!(entries.is_empty(), "not idle for so long");
    server.now += 5;
    let Reply::Claimed { entries, deleted, next } = server.admin(claim(5)) else { panic!() };
    assert_eq!((entries.len(), deleted, next), (2, vec![id(1, 2)], StreamId::ZERO));
}

#[test]
fn what_there_is_no_group_or_key_for() {
    let mut server = Server::new(1000);
    assert!(matches!(server.admin(read(ReadFrom::New, "c")), Reply::Refused(Refusal::NoGroup)));
    let acknowledge = Command::XAck { key: name("s"), group: name("g"), ids: vec![id(1, 1)] };
    assert!(matches!(server.admin(acknowledge), Reply::Number(0)));
    assert!(matches!(server.admin(Command::XInfoStream { key: name("s") }), Reply::Refused(Refusal::NoSuchKey)));
    let create =
        |make_stream| Command::XGroupCreate { key: name("s"), group: name("g"), at: StreamId::ZERO, make_stream };
    assert!(matches!(server.admin(create(false)), Reply::Refused(Refusal::NoSuchKey)));
    assert!(matches!(server.admin(create(true)), Reply::Ok));
    assert!(matches!(server.admin(create(true)), Reply::Refused(Refusal::BusyGroup)));
}

#[test]
fn a_crash_cuts_the_log() {
    let mut server = server();
    let mut session = server.connect().unwrap();
    server.multi(&mut session).unwrap();
    server.call(&mut session, add(2, 1)).unwrap();
    server.call(&mut session, add(2, 2)).unwrap();
    let pairs = vec![(bytes("guard"), bytes("x"))];
    server.call(&mut session, Command::HSet { key: name("r"), pairs }).unwrap();
    server.exec(&mut session).unwrap();
    let last = |server: &Server| server.stream_at(&name("s")).unwrap().last_id();
    // The transaction is restored as a whole or not at all,
    server.restart(0, false);
    assert_eq!(last(&server), id(2, 2));
    assert!(server.connect().is_ok() && !server.serves(&session));
    // except from a file that was cut and then appended to.
    server.restart(1, true);
    assert_eq!(last(&server), id(2, 2));
    assert!(server.field(&name("r"), b"guard").is_none(), "the entries without their record");
    server.restart(1, false);
    assert_eq!(last(&server), id(1, 3));
}

#[test]
fn an_older_state_can_be_restored_whole_or_by_key() {
    let mut server = server();
    server.dump();
    server.admin(add(2, 1));
    server.admin(Command::HSet { key: name("r"), pairs: vec![(bytes("f"), bytes("v"))] });
    server.restore_key(0, &name("s"));
    assert_eq!(server.stream_at(&name("s")).unwrap().last_id(), id(1, 3));
    assert!(server.field(&name("r"), b"f").is_some());
    server.restore(0);
    assert!(server.field(&name("r"), b"f").is_none());
}
