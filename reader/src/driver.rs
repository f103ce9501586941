//! The driver: performs the steps that the producers ask for, one producer for each partition.

use crate::added_fields::{self, AddedFields};
use crate::args::{From, ReaderArgs};
use crate::check;
use crate::directory::InputDirectory;
use crate::error::Interrupt;
use crate::many::pool::Turn;
use crate::redis::{self, Abilities, Form, Small};
use crate::registry::Registry;
use crate::report::Report;
use crate::scanner::Scanner;
use crate::state::{StateFile, StateGroup};
use crate::totals::Totals;
use crate::watch::{Events, Watch};
use delivery::line_reader::ReadOptions;
use delivery::partition::Partition;
use delivery::producer::{Changed, Directory as _, Limits, Notice, Options, Producer, Step, StepError, Stored, Wait};
use log::info;
use resp::streams::{XInfoGroups, XLen};
use resp::{Backoff, Connection, ErrorKind, Frame, cmd};
use service::args::{ServiceArgs, other_partitions};
use service::preflight::must_be_allowed;
use service::source_record::time;
use service::{Connector, Context, Failure, Health, OwnConnection, ServerWatch, Shutdown, SourceRecord, Stop, Stream};
use std::cell::Cell;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a stop waits for a batch on the wire.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// How often Redis is asked whether it is there while there is no input.
const ASK: Duration = Duration::from_secs(2);
/// How often the length of a full stream is queried.
pub(crate) const FULL: Duration = Duration::from_millis(100);
/// How often the input is measured while there is no connection.
const MEASURE: Duration = Duration::from_secs(1);
/// The name of the reader's work, where health is concerned.
pub(crate) const WORK: &str = "adding";

/// Follows the input until there is nothing left to do (`--once`) or the service stops.
pub(crate) async fn run(args: ReaderArgs, context: Context) -> Result<(), Stop> {
    if args.is_many() {
        return crate::many::run(args, context).await;
    }
    let shared = Shared::new(args, &context)?;
    let partitions = shared.args.service.taken()?;
    let drivers: Vec<_> =
        partitions.into_iter().map(|p| shared.driver(context.stream(&shared.args.service.stream, p))).collect();
    let shutdown = context.shutdown;
    let drivers = drivers.into_iter().map(|(driver, connector, watch)| async {
        tokio::select! {
            done = driver.run(connector) => done,
            never = watch.run() => match never {},
        }
    });
    let drivers = futures_util::future::try_join_all(drivers);
    let work = async {
        match &shared.registry {
            Some(registry) => registry.beside(drivers).await,
            None => drivers.await,
        }
    };
    let stop = async {
        shutdown.requested().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        done = work => done.map(|_| ()),
        () = stop => {
            info!("stopping with a batch unconfirmed; the next start asks Redis whether it was added");
            Err(Stop::Shutdown)
        }
    }
}

/// State that the partitions of a source share.
struct Shared {
    args: ReaderArgs,
    input: PathBuf,
    added: AddedFields,
    state_dir: PathBuf,
    shutdown: Shutdown,
    registry: Option<Rc<Registry>>,
    events: Events,
    totals: Totals,
}

impl Shared {
    fn new(args: ReaderArgs, context: &Context) -> Result<Self, Failure> {
        let input = args.input()?;
        let added = AddedFields::new(&args.add_field, &input, &added_fields::host())?;
        let state_dir = args.state_dir.as_deref().or_else(|| input.parent()).unwrap_or(Path::new("/")).to_owned();
        if let Err(failure) = StateFile::check_folder(&state_dir, args.state_dir.is_some()) {
            // A folder that cannot be entered is the input's, too, unless another one is named.
            return Err(args.unreadable(&input).unwrap_or(failure));
        }
        let ServiceArgs { stream, partitions, .. } = &args.service;
        if let Some(first) = Partition::new(0, *partitions)
            && let Ok(Some((begun, file))) = StateFile::new(&state_dir, &input, stream, first).other_number()
        {
            return Err(Failure::config(format!(
                "{} (recorded in {})",
                other_partitions(stream, *partitions, begun),
                file.display()
            )));
        }
        let config = context.connector.config().clone();
        let registry = (*partitions > 1).then(|| Rc::new(Registry::new(config, stream, *partitions)));
        let (totals, shutdown) = (Totals::new(), context.shutdown.clone());
        Ok(Self { input, added, state_dir, shutdown, registry, events: Events::new(), totals, args })
    }

    /// The driver of one partition, what connects it, and what asks its server about itself.
    fn driver(&self, stream: Stream) -> (Driver, Connector, OwnConnection) {
        let Stream { partition, key, connector, health } = stream;
        let args = &self.args;
        // The page has room for one server.
        let watch = ServerWatch::new(health.clone()).with_groups_of(&key);
        let watch = if self.totals.is_empty() { watch } else { watch.without_server() };
        let watch = watch.over(connector.config().clone());
        let (options, directory) = producer_parts(args, &self.input, &self.state_dir, partition, &key);
        let mut producer = Producer::new(options, directory);
        if let Ok(metadata) = std::fs::metadata(&self.input)
            && let Ok(Some(inode)) = producer.directory().input()
        {
            producer.aim(inode, metadata.len());
        }
        // Before any partition names a content: Redis may have lost a name, and where it was used
        // may be away.
        if let (Some(registry), Ok(Stored::Manifest(known))) = (&self.registry, producer.directory().load()) {
            registry.learn(&known);
        }
        if let Some(registry) = &self.registry {
            registry.seen.borrow_mut().expect(partition);
        }
        let driver = Driver {
            registry: self.registry.clone(),
            totals: self.totals.of(partition),
            ..Driver::new(producer, &key, partition, self.events.watch(), health, &self.shutdown)
        };
        let driver =
            Driver { max_backlog: args.max_backlog, input: self.input.clone(), added: self.added.clone(), ..driver };
        (driver, connector, watch)
    }
}

/// The settings and the folder of a producer.
pub(crate) fn producer_parts(
    args: &ReaderArgs,
    input: &Path,
    state_dir: &Path,
    partition: Partition,
    stream: &str,
) -> (Options, InputDirectory) {
    let state = StateFile::new(state_dir, input, &args.service.stream, partition);
    let state = state.in_state_dir(args.state_dir.as_deref());
    let options = Options {
        input: input.to_string_lossy().into_owned(),
        state: state.path().display().to_string(),
        stream: stream.to_owned(),
        read: ReadOptions::new(args.framing.framing(), partition),
        from_end: args.from == From::End,
        once: args.service.once,
        max_backlog: args.max_backlog,
        limits: Limits::default(),
    };
    (options, InputDirectory { scanner: Scanner::new(input.to_owned()), state })
}

/// Performs the steps of one partition's producer.
pub(crate) struct Driver {
    pub(crate) producer: Producer<InputDirectory>,
    pub(crate) record: SourceRecord,
    pub(crate) registry: Option<Rc<Registry>>,
    pub(crate) totals: Totals,
    pub(crate) watch: Watch,
    pub(crate) report: Report,
    pub(crate) max_backlog: u64,
    pub(crate) partition: Partition,
    pub(crate) health: Health,
    pub(crate) shutdown: Shutdown,
    pub(crate) backoff: Backoff,
    pub(crate) begun: Instant,
    /// How the batch goes out that was taken last.
    pub(crate) form: Option<Form>,
    pub(crate) small: Small,
    /// The fields for other consumers.
    pub(crate) added: AddedFields,
    /// Whether the batch that is executed went out as a script.
    pub(crate) is_script: bool,
    /// When the latest batch was sent to be executed.
    pub(crate) executed: Instant,
    /// When Redis was last asked while there was no input.
    pub(crate) asked: Instant,
    pub(crate) input: PathBuf,
    /// The position that was last confirmed.
    pub(crate) position: Rc<Cell<Option<u64>>>,
    /// Whether it waits for something other than Redis.
    pub(crate) is_idle: Rc<Cell<bool>>,
    /// With many files: the step that waits for a connection.
    pub(crate) next: Option<Step>,
    /// With many files: a step that is taken while nothing is on the wire may decompress a file.
    pub(crate) is_slow: bool,
    /// With many files: when the connection is to be given back.
    pub(crate) until: Option<Turn>,
    /// With many files: what makes the state file durable.
    pub(crate) group: Option<Arc<StateGroup>>,
}

/// Measures the input while Redis does not answer: then the driver is suspended, and what it has
/// shown last is no longer true.
struct Stalled {
    input: PathBuf,
    totals: Totals,
    position: Rc<Cell<Option<u64>>>,
    is_idle: Rc<Cell<bool>>,
}

impl Stalled {
    async fn measure(self) -> Infallible {
        let mut ticks = tokio::time::interval(MEASURE);
        let mut before = None;
        loop {
            ticks.tick().await;
            let now = (!self.is_idle.get()).then(|| self.position.get());
            // No progress in one interval.
            if now.is_some() && now == before {
                show_size(&self.input, self.position.get(), &self.totals);
            }
            before = now;
        }
    }
}

/// Shows the length of the input, in which this position is confirmed.
fn show_size(input: &Path, position: Option<u64>, totals: &Totals) {
    let size = std::fs::metadata(input).ok().map(|file| file.len());
    // A shorter file is another one than that which was read.
    totals.input_size(size.filter(|size| position.is_none_or(|position| position <= *size)));
}

/// The connection of the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The same connection.
    Resume,
    /// A new one.
    Reconnect,
}

impl Driver {
    /// The driver of a producer that has not begun.
    pub(crate) fn new(
        producer: Producer<InputDirectory>,
        stream: &str,
        partition: Partition,
        watch: Watch,
        health: Health,
        shutdown: &Shutdown,
    ) -> Self {
        Self {
            producer,
            record: SourceRecord::of(stream),
            registry: None,
            totals: Totals::new(),
            watch,
            report: Report::new(partition, stream),
            max_backlog: 0,
            partition,
            health,
            shutdown: shutdown.clone(),
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(5)),
            begun: Instant::now(),
            form: None,
            small: Small::default(),
            added: AddedFields::default(),
            is_script: false,
            executed: Instant::now(),
            asked: Instant::now(),
            input: PathBuf::new(),
            position: Rc::default(),
            is_idle: Rc::default(),
            next: None,
            is_slow: false,
            until: None,
            group: None,
        }
    }

    async fn run(mut self, mut connector: Connector) -> Result<(), Stop> {
        if let Some(registry) = &self.registry {
            self.producer.learn(&registry.contents());
        }
        let mut is_allowed = false;
        loop {
            let mut connection = self.connect(&mut connector).await?;
            let mut with_scripts = true;
            loop {
                let performed = match Abilities::try_out(&mut connection, &self.record, with_scripts).await {
                    // Permissions that are withdrawn later are waited for.
                    Ok(_) if !std::mem::replace(&mut is_allowed, true) => {
                        must_be_allowed(check::commands(&mut connection, &self.record.stream)).await?;
                        continue;
                    }
                    Ok(abilities) => {
                        let stalled = self.stalled();
                        tokio::select! {
                            biased;
                            done = self.perform(&mut connection, &abilities) => done,
                            never = stalled.measure() => match never {},
                        }
                    }
                    Err(interrupt) => Err(interrupt),
                };
                match performed {
                    Ok(()) => return Ok(()),
                    Err(interrupt) => {
                        with_scripts = !matches!(interrupt, Interrupt::Script(_));
                        if self.recover(interrupt, &mut connection).await? == Then::Reconnect {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// A connection. Until there is one, what can be known without Redis is measured.
    async fn connect(&mut self, connector: &mut Connector) -> Result<Connection, Stop> {
        self.totals.disconnected();
        let mut ticks = tokio::time::interval(MEASURE);
        let connecting = connector.connect();
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                biased;
                done = &mut connecting => return done,
                _ = ticks.tick() => {
                    self.producer.look(self.begun.elapsed());
                    self.measure();
                }
            }
        }
    }

    /// Shows the length of the input while nothing can be sent.
    fn measure(&self) {
        show_size(&self.input, self.position.get(), &self.totals);
    }

    fn stalled(&self) -> Stalled {
        let Self { input, totals, position, is_idle, .. } = self;
        Stalled { input: input.clone(), totals: totals.clone(), position: position.clone(), is_idle: is_idle.clone() }
    }

    /// Performs steps until all is sent (`--once`).
    async fn perform(&mut self, connection: &mut Connection, abilities: &Abilities) -> Result<(), Interrupt> {
        loop {
            match self.advance(connection, abilities).await? {
                Step::Wait(wait) => {
                    self.is_idle.set(true);
                    let waited = self.wait(connection, wait).await;
                    self.is_idle.set(false);
                    waited?;
                }
                Step::Done => return Ok(()),
                _ => return Err(Interrupt::Shutdown),
            }
        }
    }

    /// The next step. What the producer reports is logged.
    pub(crate) fn next_step(&mut self) -> Result<Step, Interrupt> {
        self.prepare();
        let step = self.producer.step(self.begun.elapsed());
        self.exchange();
        self.report_notices();
        Ok(step?)
    }

    /// As [`Self::next_step`], on another thread, because it may decompress a whole file. Meanwhile
    /// `stand_in` is in the producer's place.
    pub(crate) async fn next_step_aside(&mut self, stand_in: Producer<InputDirectory>) -> Result<Step, Interrupt> {
        self.prepare();
        let mut producer = std::mem::replace(&mut self.producer, stand_in);
        let now = self.begun.elapsed();
        let stepped = tokio::task::spawn_blocking(move || {
            let step = producer.step(now);
            (producer, step)
        });
        let stepped = tokio::select! {
            // What it reads changes nothing, so that nobody has to wait for it.
            () = self.shutdown.requested() => return Err(Interrupt::Shutdown),
            stepped = stepped => stepped,
        };
        let (producer, step) = stepped.map_err(|error| {
            Interrupt::Failure(Failure::failed(format!("--input {}: {error}", self.input.display())))
        })?;
        self.producer = producer;
        self.exchange();
        self.report_notices();
        Ok(step?)
    }

    fn prepare(&mut self) {
        self.health.progress();
        if self.shutdown.is_requested() {
            self.producer.stop();
        }
        self.producer.set_total_len(self.totals.sum());
        self.exchange();
    }

    /// Performs steps until one comes that needs no connection: to wait, or to end.
    pub(crate) async fn advance(
        &mut self,
        connection: &mut Connection,
        abilities: &Abilities,
    ) -> Result<Step, Interrupt> {
        loop {
            let step = match self.next.take() {
                Some(step) => step,
                // The caller knows when a step is long, and others may use the connection
                // meanwhile.
                None if self.is_slow && !self.producer.is_on_wire() => {
                    return Ok(Step::Wait(Wait::Pause(Duration::ZERO)));
                }
                None => self.next_step()?,
            };
            if self.until.as_ref().is_some_and(Turn::is_over) {
                self.producer.stop();
            }
            // To be stopped is for this moment only, and needs nothing from Redis.
            if !matches!(step, Step::Stopped) && self.is_state_pending() {
                // What follows in Redis relies on the state file. Others may use the connection
                // meanwhile.
                if !self.producer.is_on_wire() {
                    self.next = Some(step);
                    return Ok(Step::Wait(Wait::Pause(Duration::ZERO)));
                }
                self.flush_state().await?;
            }
            match step {
                Step::Observe { below } => self.observe(connection, below).await?,
                Step::Agree => {
                    let Some(registry) = &self.registry else { return Err(Interrupt::Changed(Changed::RecordLost)) };
                    self.producer.agreed(registry.refresh().await?);
                }
                Step::Name { named, after } => {
                    let Some(registry) = &self.registry else { return Err(Interrupt::Changed(Changed::RecordLost)) };
                    let done = registry.append(&named, after).await?;
                    self.producer.named(done);
                }
                Step::Clock => {
                    let now = time(connection).await?;
                    self.producer.clock(now)?;
                }
                Step::Record(change) => {
                    let changed = self.record.change(connection, &change, &[]).await;
                    let done = changed.map_err(|fault| Interrupt::of_record(&self.record, fault))?;
                    self.producer.recorded(*change, done)?;
                }
                Step::Fill => {
                    let Self { record, producer, small, added, .. } = &mut *self;
                    self.form = redis::fill(connection, record, producer, abilities, small, added).await??;
                }
                Step::Execute => {
                    let script = self.form.take().and_then(Form::into_script);
                    self.is_script = script.is_some();
                    if let Some(script) = script {
                        self.producer.executes_if_expected();
                        connection.queue(script);
                    } else {
                        let answers = redis::expectations(connection).await?;
                        let (guard, link) = answers.fields();
                        self.producer.may_execute(guard, link, answers.stream)?;
                        connection.queue_exec();
                    }
                    self.executed = Instant::now();
                }
                Step::Confirm => self.confirm(connection, abilities).await?,
                Step::Check { stream } => self.check(connection, stream).await?,
                step @ (Step::Wait(_) | Step::Done | Step::Stopped) => return Ok(step),
            }
        }
    }

    /// Whether the state file is not durable yet.
    pub(crate) fn is_state_pending(&mut self) -> bool {
        let Some(group) = &self.group else { return false };
        group.is_pending(self.producer.directory().state.path())
    }

    /// Waits until the state file is durable.
    pub(crate) async fn flush_state(&mut self) -> Result<(), Interrupt> {
        let Some(group) = &self.group else { return Ok(()) };
        let path = self.producer.directory().state.path();
        let flushed = group.flush(path).await;
        flushed.map_err(|error| StepError::File { doing: "write", path: path.display().to_string(), error }.into())
    }

    fn exchange(&mut self) {
        if let Some(registry) = &self.registry {
            self.producer.exchange(&mut registry.seen.borrow_mut());
        }
    }

    pub(crate) fn report_notices(&mut self) {
        let notices = self.producer.take_notices();
        self.report.notices(&notices);
        for notice in &notices {
            if let Notice::Reading { path, .. } | Notice::Begun { path, .. } = notice {
                self.watch.follow(Path::new(path));
            }
        }
    }

    async fn observe(&mut self, connection: &mut Connection, below: Option<resp::StreamId>) -> Result<(), Interrupt> {
        let observed = self.record.observe(connection, below).await;
        let (observed, partitions, found) = observed.map_err(|fault| Interrupt::of_record(&self.record, fault))?;
        if let Some(begun) = partitions.filter(|begun| self.partition.is_whole() && *begun != 1) {
            return Err(Interrupt::Failure(Failure::config(other_partitions(&self.record.stream, 1, begun))));
        }
        self.producer.observed(observed, found)?;
        self.totals.stream_len(self.producer.stream().len);
        if let Some(registry) = &self.registry {
            registry.learn(self.producer.manifest());
        }
        Ok(())
    }

    async fn confirm(&mut self, connection: &mut Connection, abilities: &Abilities) -> Result<(), Interrupt> {
        let outcome = if self.is_script {
            let outcome = redis::script_outcome(connection).await;
            outcome.map_err(|error| match error.is_server() && !error.closes_connection() {
                true => Interrupt::Script(error),
                false => error.into(),
            })?
        } else {
            redis::outcome(connection, self.producer.executing(), abilities).await?
        };
        let Some(batch) = self.producer.confirmed(outcome)? else { return Ok(()) };
        self.totals.waiting(false);
        self.backoff.reset();
        self.health.redis_works(WORK);
        let took = self.executed.elapsed();
        self.health.batch(batch.lines, batch.bytes, took);
        self.report.added(&batch, took);
        self.totals.stream_len(self.producer.stream().len);
        self.totals.position(Some(batch.read_to));
        self.position.set(Some(batch.read_to));
        if let Some((_, size)) = self.producer.position() {
            self.totals.input_size(Some(size));
        }
        Ok(())
    }

    async fn check(&mut self, connection: &mut Connection, stream: bool) -> Result<(), Interrupt> {
        let expected = self.producer.expected_at_check();
        if let Some(contents) = self.registry.as_ref().and_then(|registry| registry.agreed()) {
            self.producer.agreed(contents);
        }
        let (answers, len, state) = redis::check(connection, &self.record, &expected, stream).await?;
        let (guard, link) = answers.fields();
        self.producer.checked(guard, link, len, state, self.begun.elapsed())?;
        self.totals.stream_len(self.producer.stream().len);
        Ok(())
    }

    async fn wait(&mut self, connection: &mut Connection, wait: Wait) -> Result<(), Interrupt> {
        self.totals.waiting(wait == Wait::Room);
        if wait != Wait::Room {
            self.health.file(self.producer.input_state().clone());
        }
        let progress = self.producer.position();
        // Of a content that is finished, while the next one is not there, nothing is left to show.
        let progress = progress.filter(|(position, size)| position < size || self.producer.input_state().is_ok());
        let len = self.producer.present_len().filter(|_| wait == Wait::Room).unwrap_or(0);
        let progress = progress.map(|(position, size)| (position, size.max(len)));
        self.position.set(progress.map(|(position, _)| position));
        self.totals.position(self.position.get());
        self.totals.input_size(progress.map(|(_, size)| size));
        match wait {
            Wait::Room => return self.wait_for_room(connection).await,
            Wait::Input => {
                // Redis has answered, and there is nothing to ask it now.
                self.health.redis_works(WORK);
                tokio::select! {
                    () = self.watch.wait() => {}
                    () = self.shutdown.requested() => {}
                }
                // Without an input the producer asks Redis nothing, and nobody would notice its
                // end.
                if self.producer.input_state().is_err() && self.asked.elapsed() >= ASK {
                    self.asked = Instant::now();
                    let len = connection.send(&XLen::new(&self.record.stream)).await?;
                    self.totals.stream_len(len);
                }
            }
            Wait::Pause(pause) => tokio::time::sleep(pause).await,
        }
        Ok(())
    }

    /// Waits until the stream holds fewer entries.
    async fn wait_for_room(&mut self, connection: &mut Connection) -> Result<(), Interrupt> {
        if self.report.is_full() {
            let groups = connection.send(&XInfoGroups::new(&self.record.stream)).await.unwrap_or_default();
            let why = self.report.full(self.producer.stream(), self.max_backlog, &groups);
            self.health.file(why.map_or(Ok(()), Err));
        }
        tokio::select! {
            () = tokio::time::sleep(FULL) => {}
            () = self.shutdown.requested() => {}
        }
        let len = connection.send(&XLen::new(&self.record.stream)).await?;
        self.producer.set_len(len);
        self.health.redis_works(WORK);
        self.totals.stream_len(len);
        Ok(())
    }

    /// After an interrupt: reports it, waits as long as it makes sense, and clears the connection.
    async fn recover(&mut self, interrupt: Interrupt, connection: &mut Connection) -> Result<Then, Stop> {
        // Without the right to EXEC there may be none to MULTI, and then the fence holds up
        // DISCARD, too.
        let must_reconnect = matches!(&interrupt, Interrupt::Redis(error) if error.code() == "EXECABORT");
        let is_script = matches!(&interrupt, Interrupt::Script(_));
        match interrupt.or_failure(&self.record) {
            Interrupt::Redis(error) => {
                service::metrics::error(if error.is_server() { "redis_refused" } else { "redis_connection" });
                self.health.redis_failed(WORK, &error);
            }
            Interrupt::Script(error) => {
                log::debug!("redis: script: {error}; the batch is sent as a transaction");
            }
            Interrupt::Changed(changed) => self.report.changed(changed),
            Interrupt::Input(what) => {
                service::metrics::error("input");
                self.health.file(Err(what));
            }
            Interrupt::Blocked(what) => {
                service::metrics::error("blocked");
                self.health.redis_fails(WORK, what);
            }
            Interrupt::Failure(failure) => return Err(Stop::Failure(failure)),
            Interrupt::Shutdown => return Err(Stop::Shutdown),
        }
        self.report_notices();
        self.producer.restart();
        self.form = None;
        let delay = if is_script { Duration::ZERO } else { self.backoff.next_delay() };
        self.health.progress();
        let mut ticks = tokio::time::interval(MEASURE);
        let pause = tokio::time::sleep(delay);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.requested() => return Err(Stop::Shutdown),
                () = &mut pause => break,
                _ = ticks.tick() => self.measure(),
            }
        }
        if must_reconnect {
            return Ok(Then::Reconnect);
        }
        // What is on the wire without an EXEC is taken back; Redis answers with an error when
        // nothing is.
        match connection.send(&cmd::<Frame>("DISCARD")).await {
            Err(error)
                if error.closes_connection()
                    || matches!(error.kind(), ErrorKind::NoPerm | ErrorKind::UnknownCommand) =>
            {
                Ok(Then::Reconnect)
            }
            _ => Ok(Then::Resume),
        }
    }
}
