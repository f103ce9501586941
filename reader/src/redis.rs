//! What a producer's steps are on the wire.
//!
//! A batch goes out in two steps. [`fill`] puts everything but the `EXEC` on the wire:
//!
//! ```text
//! WATCH <record>   HMGET <record> guard next:…   EXISTS <stream>   MULTI   WAIT …   XADD …   HSET <record> …   XLEN <stream>
//! ```
//!
//! The `EXEC` follows when the previous batch is confirmed and the record is what that batch left.
//! So a batch can neither overtake one that failed, nor land behind a gap when Redis lost data in
//! between, nor mix with another reader's. All of that needs transactions: [`Abilities::try_out`]
//! sees that there are any, [`Fence`] keeps a batch from being executed without one, and
//! [`outcome`] tells.
//!
//! A batch of a few lines goes out in one step, if Redis allows scripts: `EVALSHA` makes the same
//! comparison, and adds the same entries and fields, in one round trip ([`SCRIPT`]).

use crate::added_fields::AddedFields;
use crate::error::Interrupt;
use delivery::entry::{AFTER, Field};
use delivery::manifest::{GUARD_FIELD, SENT_FIELD, Sent};
use delivery::producer::resume::StreamState;
use delivery::producer::{Batch, Directory, Entry, Expected, Outcome, Producer, StepError};
use resp::streams::{XAdd, XAddSeries, XInfoStream, XLen};
use resp::{Cmd, Connection, Error, ErrorKind, Frame, StreamId, Transaction, Value, ValueKind, cmd};
use service::source_record::state;
use service::{Failure, SourceRecord};
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// With more than this on its way to the socket, it goes out before the next batch is made: long
/// lines, which would pile up. 4 MiB, far more than a batch of short ones.
const SEND_FIRST: usize = 4 << 20;

/// What stands between `MULTI` and a batch, so that the batch cannot be executed without a
/// transaction.
///
/// Should `MULTI` be refused, as after a change of rights, the commands behind it would be executed
/// at once, before it is known what became of the previous batch. In a transaction `WAIT` only
/// tells a number; outside of one it waits, for more replicas than there can be, and nothing behind
/// it is executed before the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    Wait,
    /// Redis or the user's rights have no `WAIT`.
    None,
}

impl Fence {
    /// How many commands it is.
    const fn commands(self) -> usize {
        match self {
            Self::Wait => 1,
            Self::None => 0,
        }
    }
}

/// More replicas than there can be.
const REPLICAS: i32 = i32::MAX;

fn wait() -> Cmd {
    cmd::<Frame>("WAIT").arg(REPLICAS).arg(0)
}

/// Adds a small batch if Redis holds what it expects; otherwise it answers with what it holds.
///
/// Keys: the stream, the record. Arguments: the guard and the link that are expected, empty for
/// none; whether the stream must be there; whether its length is asked for; how many entries; for
/// each entry how many arguments of `XADD` follow, and these; the fields and values to set.
///
/// An entry that is refused ends the script before the record is changed: the record must never
/// claim what the stream lacks. The opposite does no harm, and a reader that starts finds it.
const SCRIPT: &str = "\
local held = redis.call('HMGET', KEYS[2], 'guard', ARGV[2])
local is_expected = (held[1] or '') == ARGV[1] and (held[2] ~= false) == (ARGV[2] ~= '')
if not is_expected then
  return {held[1], held[2], redis.call('EXISTS', KEYS[1])}
end
local at = 6
for entry = 1, tonumber(ARGV[5]) do
  local last = at + tonumber(ARGV[at])
  local added
  if entry == 1 and ARGV[3] == '1' then
    added = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', unpack(ARGV, at + 1, last))
    if not added then
      return {held[1], held[2], 0}
    end
  else
    added = redis.pcall('XADD', KEYS[1], unpack(ARGV, at + 1, last))
  end
  if type(added) == 'table' and added.err then
    return added
  end
  at = last + 1
end
redis.call('HSET', KEYS[2], unpack(ARGV, at))
if ARGV[4] == '1' then
  return redis.call('XLEN', KEYS[1])
end
return -1
";
/// Larger batches go as a transaction, which needs less processor time for each line.
const SMALL_ENTRIES: usize = 16;
/// The same in bytes: 16 KiB.
const SMALL_BYTES: usize = 16 << 10;

/// The features that a connection supports.
#[derive(Clone, Debug)]
pub(crate) struct Abilities {
    fence: Fence,
    /// The name of [`SCRIPT`] in Redis, if it may be executed.
    script: Option<String>,
}

impl Abilities {
    /// Tries an empty transaction, without which the reader must not begin, then one with the
    /// fence, and then the script, if it is `wanted`.
    pub(crate) async fn try_out(
        connection: &mut Connection,
        record: &SourceRecord,
        wanted: bool,
    ) -> Result<Self, Interrupt> {
        match connection.exec(&Transaction::new()).await {
            Ok(_) => {}
            Err(error) if error.closes_connection() || error.is_transient() => return Err(error.into()),
            Err(error) => {
                let advice = service::advice::redis(ErrorKind::NotAtomic);
                return Err(Interrupt::Failure(Failure::config(format!("redis: no transactions: {error}; {advice}"))));
            }
        }
        let mut fenced = Transaction::new();
        fenced.add(wait());
        let fence = match connection.exec(&fenced).await {
            Ok(replies) if replies.check().is_ok() => Fence::Wait,
            Err(error) if error.closes_connection() || error.is_transient() => return Err(error.into()),
            _ => Fence::None,
        };
        let script = if wanted { load_script(connection, record).await? } else { None };
        Ok(Self { fence, script })
    }
}

impl Abilities {
    /// The next batch is sent as a transaction.
    pub(crate) fn bar_script(&mut self) {
        self.script = None;
    }
}

/// Loads the script, and executes it with an expectation that nothing meets. `None`: one of both is
/// not allowed.
async fn load_script(connection: &mut Connection, record: &SourceRecord) -> Result<Option<String>, Error> {
    let loaded = connection.send(&cmd::<String>("SCRIPT LOAD").arg(SCRIPT)).await;
    let tried = match &loaded {
        Ok(name) => connection.send(&evaluate(name, record).arg("none").arg("").arg(0).arg(0).arg(0)).await.map(|_| ()),
        Err(_) => Ok(()),
    };
    match loaded.and_then(|name| tried.map(|()| name)) {
        Ok(name) => Ok(Some(name)),
        Err(error) if error.closes_connection() => Err(error),
        Err(error) => {
            log::debug!("no scripts ({error}); small batches are sent as transactions");
            Ok(None)
        }
    }
}

fn evaluate(name: &str, record: &SourceRecord) -> Cmd {
    cmd::<Frame>("EVALSHA").arg(name).arg(2).arg(&record.stream).arg(&record.key)
}

/// How a batch goes out.
#[derive(Debug)]
pub(crate) enum Form {
    /// All but its `EXEC` is on the wire.
    Transaction,
    /// Nothing is; this is to be sent.
    Script(Cmd),
}

impl Form {
    pub(crate) fn into_script(self) -> Option<Cmd> {
        match self {
            Self::Transaction => None,
            Self::Script(command) => Some(command),
        }
    }
}

/// The entries of a batch that may be a small one. Kept from batch to batch, for its memory.
#[derive(Debug, Default)]
pub(crate) struct Small {
    entries: Vec<Held>,
    payloads: Vec<u8>,
}

/// An entry whose payload is kept elsewhere.
#[derive(Debug)]
struct Held {
    id: StreamId,
    field: Field,
    payload: Range<usize>,
    after: Option<u64>,
    no_create: bool,
}

impl Small {
    /// Takes an entry; false if it makes the batch too large.
    fn take(&mut self, entry: &Entry<'_>) -> bool {
        let start = self.payloads.len();
        let payload = start..start.saturating_add(entry.payload.len());
        let fits = self.entries.len() < SMALL_ENTRIES && payload.end <= SMALL_BYTES;
        if fits {
            let Entry { id, field, after, no_create, .. } = *entry;
            self.payloads.extend_from_slice(entry.payload);
            self.entries.push(Held { id, field, payload, after, no_create });
        }
        fits
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.payloads.clear();
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(|held| {
            let Held { id, field, after, no_create, .. } = *held;
            Entry { id, field, after, no_create, payload: self.payloads.get(held.payload.clone()).unwrap_or_default() }
        })
    }

    /// The script that adds the batch.
    fn script(&self, evaluate: Cmd, batch: &Batch, added: &AddedFields, sent: &Sent, with_len: bool) -> Cmd {
        let Expected { guard, link, stream } = &batch.expected;
        let command = evaluate
            .arg(guard.as_deref().unwrap_or_default())
            .arg(link.as_deref().unwrap_or_default())
            .arg(*stream)
            .arg(with_len)
            .arg(self.entries.len());
        let command = self.entries().fold(command, |command, entry| {
            let fields = if entry.after.is_some() { 2_usize } else { 1 }.saturating_add(added.len());
            let command = command.arg(fields.saturating_mul(2).saturating_add(1));
            let command = command.arg(entry.id).arg(entry.field.name()).arg(entry.payload);
            let command = match entry.after {
                Some(after) => command.arg(AFTER).arg(after),
                None => command,
            };
            added.iter().fold(command, |command, (name, value)| command.arg(name).arg(value))
        });
        let command = command.arg(SENT_FIELD).arg(sent.to_string());
        batch.fields.iter().fold(command, |command, (field, value)| command.arg(field).arg(value))
    }
}

/// The state of Redis to compare with an [`Expected`].
#[derive(Debug)]
pub(crate) struct Answers {
    fields: Frame,
    /// Whether the stream exists.
    pub(crate) stream: bool,
}

impl Answers {
    /// The bytes of the guard field, and whether the link is there.
    pub(crate) fn fields(&self) -> (Option<&[u8]>, bool) {
        let mut fields = self.fields.value().children().map(Value::as_bytes);
        (fields.next().flatten(), fields.next().flatten().is_some())
    }
}

/// Puts the questions on the wire.
fn ask(connection: &mut Connection, record: &SourceRecord, expected: &Expected) {
    let link = expected.link.as_deref().unwrap_or_default();
    connection.queue(cmd::<Frame>("HMGET").arg(&record.key).arg(GUARD_FIELD).arg(link));
    connection.queue(cmd::<Frame>("EXISTS").arg(&record.stream));
}

async fn answers(connection: &mut Connection) -> Result<Answers, Error> {
    let fields = connection.receive().await?.into_result()?;
    let exists = connection.receive().await?.into_result()?;
    Ok(Answers { fields, stream: exists.value().as_u64() == Some(1) })
}

/// Takes the next batch. Of a transaction, puts all but its `EXEC` on the wire.
pub(crate) async fn fill<D: Directory>(
    connection: &mut Connection,
    record: &SourceRecord,
    producer: &mut Producer<D>,
    Abilities { fence, script }: &Abilities,
    small: &mut Small,
    added: &AddedFields,
) -> Result<Result<Option<Form>, StepError>, Error> {
    if connection.buffered() > SEND_FIRST {
        connection.flush().await?;
    }
    let (expected, with_len) = (producer.next_expected(), producer.must_ask_len());
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis());
    let mut sent = Sent { last: StreamId::ZERO, unix_ms: u64::try_from(unix_ms).unwrap_or(0) };
    small.clear();
    let mut is_small = script.is_some();
    let mut adding = None;
    let filled = producer.fill(|entry| {
        sent.last = entry.id;
        if is_small && small.take(entry) {
            return;
        }
        let adding = adding.get_or_insert_with(|| {
            connection.queue(cmd::<Frame>("WATCH").arg(&record.key));
            ask(connection, record, &expected);
            connection.queue_multi();
            if *fence == Fence::Wait {
                connection.queue(wait());
            }
            Adding::like(record, entry, added)
        });
        if std::mem::take(&mut is_small) {
            small.entries().for_each(|entry| adding.add(connection, record, &entry));
        }
        adding.add(connection, record, entry);
    });
    let batch = match filled {
        Ok(Some(batch)) => batch,
        Ok(None) => return Ok(Ok(None)),
        Err(trouble) => return Ok(Err(trouble)),
    };
    if let (true, Some(name)) = (is_small, script) {
        return Ok(Ok(Some(Form::Script(small.script(evaluate(name, record), batch, added, &sent, with_len)))));
    }
    let set = cmd::<Frame>("HSET").arg(&record.key).arg(SENT_FIELD).arg(sent.to_string());
    connection.queue(batch.fields.iter().fold(set, |set, (field, value)| set.arg(field).arg(value)));
    connection.queue(XLen::new(&record.stream));
    Ok(Ok(Some(Form::Transaction)))
}

/// Queues the entries of a batch. Nearly all are alike: whole lines that adjoin.
struct Adding<'a> {
    series: XAddSeries,
    /// The field of those that the series encodes; `None`: it encodes none.
    field: Option<Field>,
    added: &'a AddedFields,
}

impl<'a> Adding<'a> {
    /// For entries like this one.
    fn like(record: &SourceRecord, &Entry { id, field, no_create, .. }: &Entry<'_>, added: &'a AddedFields) -> Self {
        let series = match no_create {
            true => XAddSeries::no_create(&record.stream, id.ms, field.name()),
            false => XAddSeries::new(&record.stream, id.ms, field.name()),
        };
        Self { series, field: added.is_empty().then_some(field), added }
    }

    fn add(&mut self, connection: &mut Connection, record: &SourceRecord, entry: &Entry<'_>) {
        if entry.after.is_none() && self.field == Some(entry.field) {
            return connection.queue(self.series.entry(entry.id.seq, entry.payload));
        }
        let after = entry.after.map_or_else(String::new, |after| after.to_string());
        let own = [(entry.field.name(), entry.payload), (AFTER, after.as_bytes())];
        let own = own.into_iter().take(if entry.after.is_some() { 2 } else { 1 });
        let fields: Vec<(&[u8], &[u8])> = own.chain(self.added.iter()).collect();
        let add = XAdd::new(record.stream.as_bytes(), entry.id, &fields);
        match entry.no_create {
            true => connection.queue(add.no_create()),
            false => connection.queue(add),
        }
    }
}

/// Receives what a batch expects.
pub(crate) async fn expectations(connection: &mut Connection) -> Result<Answers, Error> {
    // The reply to WATCH.
    connection.receive().await?.into_result()?;
    answers(connection).await
}

/// Waits for what became of a batch that has `entries` entries. [`ErrorKind::NotAtomic`]: Redis has
/// begun no transaction, so the batch may have been added without regard to what it expects.
pub(crate) async fn outcome(
    connection: &mut Connection,
    entries: u64,
    &Abilities { fence, .. }: &Abilities,
) -> Result<Outcome, Error> {
    let commands = usize::try_from(entries).unwrap_or(usize::MAX).saturating_add(2);
    connection.receive_queued(commands.saturating_add(fence.commands())).await?;
    let Some(frame) = connection.receive_exec().await? else { return Ok(Outcome::Aborted) };
    let mut len = 0;
    for (index, value) in frame.value().children().skip(fence.commands()).enumerate() {
        if value.as_error().is_some() {
            let Err(error) = frame.extract(value).into_result() else { continue };
            return if error.kind() == ErrorKind::IdTooSmall { Ok(Outcome::Refused) } else { Err(error) };
        }
        if (index as u64) < entries && value.is_null() {
            return Ok(Outcome::NoStream);
        }
        if index.saturating_add(1) == commands {
            len = value.as_u64().unwrap_or(0);
        }
    }
    Ok(Outcome::Added { len: Some(len) })
}

/// Waits for what became of a batch that went out as a script.
pub(crate) async fn script_outcome(connection: &mut Connection) -> Result<Outcome, Error> {
    let reply = match connection.receive().await?.into_result() {
        Ok(reply) => reply,
        Err(error) if error.kind() == ErrorKind::IdTooSmall => return Ok(Outcome::Refused),
        Err(error) => return Err(error),
    };
    if reply.kind() == ValueKind::Array {
        let mut held = reply.value().children();
        let (guard, link) = (held.next().and_then(Value::as_bytes), held.next());
        return Ok(Outcome::Differs {
            guard: guard.map(<[u8]>::to_vec),
            link: link.is_some_and(|value| value.as_bytes().is_some()),
            stream: held.next().and_then(Value::as_u64) == Some(1),
        });
    }
    // Negative: it was not asked for.
    Ok(Outcome::Added { len: reply.value().as_u64() })
}

/// Asks whether Redis holds what is expected. Also the stream's length (`None`: there is no
/// stream), and its state when that is asked for.
pub(crate) async fn check(
    connection: &mut Connection,
    record: &SourceRecord,
    expected: &Expected,
    with_state: bool,
) -> Result<(Answers, Option<u64>, Option<StreamState>), Error> {
    ask(connection, record, expected);
    let answers = answers(connection).await?;
    if !with_state {
        let len = connection.send(&XLen::new(&record.stream)).await?;
        let len = Some(len).filter(|_| answers.stream);
        return Ok((answers, len, None));
    }
    match connection.send(&XInfoStream::new(&record.stream)).await {
        Ok(info) => Ok((answers, Some(info.length), Some(state(&info)))),
        Err(error) if error.kind() == ErrorKind::NoSuchKey => Ok((answers, None, None)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delivery::manifest::{Guard, Position};
    use e2e::{Persistence, RedisServer};
    use resp::Config;
    use resp::streams::XRange;

    /// A stream, its record, and a connection on which the script is loaded.
    struct Rig {
        redis: RedisServer,
        connection: Connection,
        record: SourceRecord,
        script: String,
        added: AddedFields,
    }

    impl Rig {
        async fn start(folder: &std::path::Path) -> Self {
            let redis = RedisServer::start(folder, Persistence::None);
            let mut connection = Connection::connect(&Config::from_url(&redis.url()).unwrap()).await.unwrap();
            let record = SourceRecord::of("s");
            let script = load_script(&mut connection, &record).await.unwrap().unwrap();
            Self { redis, connection, record, script, added: AddedFields::default() }
        }

        /// Adds entries that end at these offsets, with a record that is to name the last one.
        async fn add(&mut self, expected: Expected, ends: &[u64], with_len: bool) -> Result<Outcome, Error> {
            let mut small = Small::default();
            for &end in ends {
                let after = (end == 9).then_some(5);
                let (id, no_create) = (StreamId::new(5, end), expected.stream);
                assert!(small.take(&Entry { id, field: Field::Line, payload: b"x\r\n\0y", after, no_create }));
            }
            let end = Position { generation: 5, offset: ends.last().copied().unwrap_or(0) };
            let batch = Batch {
                entries: ends.len() as u64,
                lines: 0,
                bytes: 0,
                end,
                read_to: end.offset,
                expected,
                guard: Guard::new(5, 0, end.offset, b""),
                fields: vec![(GUARD_FIELD.to_owned(), format!("at {}", end.offset).into_bytes())],
                longest: 0,
            };
            let sent = Sent { last: end.id(), unix_ms: 1 };
            let evaluate = evaluate(&self.script, &self.record);
            self.connection.queue(small.script(evaluate, &batch, &self.added, &sent, with_len));
            script_outcome(&mut self.connection).await
        }

        /// The second halves of the IDs, and the guard.
        async fn held(&mut self) -> (Vec<u64>, Option<String>) {
            let entries = self.connection.send(&XRange::new("s", ..)).await.unwrap();
            let guard = self.connection.send(&cmd("HGET").arg(&self.record.key).arg(GUARD_FIELD)).await.unwrap();
            (entries.iter().map(|entry| entry.id.seq).collect(), guard)
        }
    }

    fn expect(guard: Option<&str>, stream: bool) -> Expected {
        Expected { guard: guard.map(|guard| guard.as_bytes().to_vec()), link: None, stream }
    }

    #[tokio::test]
    async fn the_script_adds_what_a_transaction_would() {
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Rig::start(folder.path()).await;
        assert_eq!(rig.add(expect(None, false), &[5, 9], true).await.unwrap(), Outcome::Added { len: Some(2) });
        assert_eq!(rig.held().await, (vec![5, 9], Some("at 9".to_owned())));
        let entries = rig.connection.send(&XRange::new("s", ..)).await.unwrap();
        let fields: Vec<Vec<_>> = entries.iter().map(|entry| entry.fields.unwrap().collect()).collect();
        assert_eq!(fields, [vec![(&b"line"[..], &b"x\r\n\0y"[..])], vec![(b"line", b"x\r\n\0y"), (AFTER, b"5")]]);
        assert_eq!(rig.add(expect(Some("at 9"), true), &[12], false).await.unwrap(), Outcome::Added { len: None });
    }

    #[tokio::test]
    async fn script_and_transaction_add_the_same_fields_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Rig::start(folder.path()).await;
        rig.added = AddedFields::from_iter([(b"host".to_vec(), b"a b".to_vec()), (b"\xff".to_vec(), b"".to_vec())]);
        rig.add(expect(None, false), &[5, 9], false).await.unwrap();
        for (seq, after) in [(15, None), (20, Some(16))] {
            let (id, payload) = (StreamId::new(5, seq), &b"x\r\n\0y"[..]);
            let entry = Entry { id, field: Field::Line, payload, after, no_create: seq > 15 };
            Adding::like(&rig.record, &entry, &rig.added).add(&mut rig.connection, &rig.record, &entry);
            rig.connection.receive().await.unwrap().into_result().unwrap();
        }
        let entries = rig.connection.send(&XRange::new("s", ..)).await.unwrap();
        let fields: Vec<Vec<_>> = entries.iter().map(|entry| entry.fields.unwrap().collect()).collect();
        let with = |after: Option<&'static [u8]>| {
            let own = [Some((&b"line"[..], &b"x\r\n\0y"[..])), after.map(|after| (AFTER, after))];
            own.into_iter().flatten().chain([(&b"host"[..], &b"a b"[..]), (b"\xff", b"")]).collect::<Vec<_>>()
        };
        assert_eq!(fields, [with(None), with(Some(b"5")), with(None), with(Some(b"16"))]);
    }

    #[tokio::test]
    async fn the_script_adds_nothing_that_is_not_expected() {
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Rig::start(folder.path()).await;
        let differs = |guard: Option<&str>, link, stream| Outcome::Differs {
            guard: guard.map(|guard| guard.as_bytes().to_vec()),
            link,
            stream,
        };
        let lost = rig.add(expect(None, true), &[5], false).await.unwrap();
        assert_eq!((lost, rig.held().await), (differs(None, false, false), (vec![], None)), "there is no stream");
        rig.add(expect(None, false), &[5], false).await.unwrap();
        let unchanged = (vec![5], Some("at 5".to_owned()));
        for guard in [None, Some("at 4")] {
            let outcome = rig.add(expect(guard, true), &[9], false).await.unwrap();
            assert_eq!((outcome, rig.held().await), (differs(Some("at 5"), false, true), unchanged.clone()));
        }
        let linked = Expected { link: Some("next:5".to_owned()), ..expect(Some("at 5"), true) };
        let outcome = rig.add(linked.clone(), &[9], false).await.unwrap();
        assert_eq!((outcome, rig.held().await), (differs(Some("at 5"), false, true), unchanged.clone()));
        rig.redis.call(&["HSET", &rig.record.key, "next:5", "{}"]);
        assert_eq!(rig.add(linked, &[9], false).await.unwrap(), Outcome::Added { len: None });
    }

    #[tokio::test]
    async fn the_record_never_claims_what_the_stream_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Rig::start(folder.path()).await;
        rig.add(expect(None, false), &[5], false).await.unwrap();
        assert_eq!(rig.add(expect(Some("at 5"), true), &[4], false).await.unwrap(), Outcome::Refused);
        assert_eq!(rig.held().await, (vec![5], Some("at 5".to_owned())));
        assert_eq!(rig.add(expect(Some("at 5"), true), &[7, 6], false).await.unwrap(), Outcome::Refused);
        assert_eq!(rig.held().await, (vec![5, 7], Some("at 5".to_owned())));
        rig.redis.cli("CONFIG SET maxmemory 1");
        rig.add(expect(Some("at 5"), true), &[8], false).await.unwrap_err();
        rig.redis.cli("CONFIG SET maxmemory 0");
        assert_eq!(rig.held().await, (vec![5, 7], Some("at 5".to_owned())));
    }

    #[tokio::test]
    async fn who_may_not_use_scripts_has_transactions() {
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Rig::start(folder.path()).await;
        let abilities = Abilities::try_out(&mut rig.connection, &rig.record, true).await.unwrap();
        assert!(abilities.fence == Fence::Wait && abilities.script.is_some());
        for right in ["-evalsha", "-script|load"] {
            rig.redis.call(&["ACL", "SETUSER", "default", right]);
            let abilities = Abilities::try_out(&mut rig.connection, &rig.record, true).await.unwrap();
            assert!(abilities.fence == Fence::Wait && abilities.script.is_none(), "{right}");
            rig.redis.cli("ACL SETUSER default +@all");
        }
    }
}
