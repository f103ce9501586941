//! Runs a service, from its flags to its exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use delivery::partition::Partition;
use log::{error, info, warn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Notify;

use crate::args::{HttpAddr, ServiceArgs, origin};
use crate::history::{History, INTERVAL, Series};
use crate::http::Http;
use crate::metrics::{Metric, Recorded};
use crate::pages::ServicePages;
use crate::progress::{self, Progress};
use crate::signals::Signals;
use crate::{Connector, Failure, Health, LogFormat, Shutdown, SourceList, Stop, advice, logs, repeats, usage};

/// The static description of a binary.
#[derive(Debug, Clone)]
pub struct About {
    /// The binary's name.
    pub name: &'static str,
    /// The binary's version.
    pub version: &'static str,
    /// Source and destination, for the log and the status page: `/data/input.txt → line_stream`. It
    /// must not contain secrets.
    pub flow: String,
    /// Labels of all its metrics: the stream, and whatever else distinguishes two pairs of
    /// services.
    pub labels: Vec<(&'static str, String)>,
    /// The metrics of the binary, in addition to the shared ones.
    pub metrics: &'static [Metric],
    /// The metrics that the status page and the summary show.
    pub series: Series,
}

/// The parameters of a service's work.
#[derive(Debug)]
pub struct Context {
    /// When to stop.
    pub shutdown: Shutdown,
    /// Where to report the state.
    pub health: Health,
    /// How to connect to Redis.
    pub connector: Connector,
    /// The partitions of the source to work on.
    pub partitions: Vec<Partition>,
    /// Notified on SIGHUP: scan the files at once.
    pub hangup: Arc<Notify>,
    /// Where to list the sources, when there are many.
    pub sources: SourceList,
}

/// Runs the work of a service on a single-threaded tokio runtime on the calling thread, with logs,
/// metrics, the HTTP endpoint and signal handling. The endpoint and the signals have their own
/// thread, so the work cannot delay them.
///
/// Returns 0 when the work is done or shutdown was requested, 1 when the work failed or `--once`
/// was stopped early, 2 when the configuration is wrong. On failure, the last line on standard
/// error says why.
///
/// The work may return a [`Failure`] or a [`Stop`].
pub fn run<E: Into<Stop>>(
    about: About,
    args: &ServiceArgs,
    work: impl AsyncFnOnce(Context) -> Result<(), E>,
) -> ExitCode {
    let name = about.name;
    logs::init(args, name);
    for warning in usage::environment_warnings() {
        warn!("{warning}");
    }
    allow_connections();
    match serve(about, args, work) {
        Ok(()) => {
            info!(event = "done"; "{name}: done");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            logs::last_words(args.log_format, name, &failure.to_string());
            ExitCode::from(&failure)
        }
    }
}

/// Raises the soft limit of open files to the hard limit: each partition needs connections, and the
/// default soft limit is often 1024.
fn allow_connections() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::debug!("asking for {:?} files: {error}", limit.maximum);
    }
}

fn serve<E: Into<Stop>>(
    about: About,
    args: &ServiceArgs,
    work: impl AsyncFnOnce(Context) -> Result<(), E>,
) -> Result<(), Failure> {
    // Install the handlers before the first log line, so that a program that waits for it can rely
    // on a clean shutdown.
    let beside = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _context = beside.enter();
        Signals::install()?
    };
    let partitions = args.taken()?;
    let config = args.redis()?;
    let http = match &args.http_addr {
        HttpAddr::Off => None,
        addr => Some(addr.resolve().and_then(|addrs| Http::bind(&addrs)).map_err(|error| {
            let (from, allowed) = (origin("http-addr"), advice::listening(&error));
            Failure::Config(format!("--http-addr {addr}{from}: {error}; {allowed}"))
        })?),
    };
    let recorded = Recorded::install(&about)?;
    info!(event = "start", version = about.version, redis = config.to_string(); "{} {}: {} at {config}", about.name, about.version, about.flow);
    match http.as_ref().map(Http::addr).transpose()? {
        Some(addr) => info!(event = "http", addr = addr.to_string(); "http: listening on http://{addr}"),
        None => info!("http: off"),
    }

    let shutdown = Shutdown::new();
    let health = Health::new();
    // A service that reads a file knows how many bytes of it are left.
    let unit = if about.series.position.is_some() { "bytes" } else { "entries" };
    let sources = SourceList::new(args.source_metrics, unit);
    let pages = Arc::new(ServicePages {
        name: about.name,
        version: about.version,
        flow: about.flow,
        begun: Instant::now(),
        health: health.clone(),
        redis: config.to_string(),
        history: History::new(recorded.clone(), about.series, Instant::now()),
        recorded: recorded.clone(),
        labels: about.labels,
        sources: sources.clone(),
    });
    let hangup = Arc::new(Notify::new());
    beside.spawn(signals.obey(shutdown.clone(), Arc::clone(&hangup)));
    let bar = if args.once && args.log_format == LogFormat::Text { Progress::on_terminal() } else { None };
    let (shows_progress, done_pages) = (bar.is_some(), Arc::clone(&pages));
    std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        let sampled = Arc::clone(&pages);
        beside.spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            loop {
                ticks.tick().await;
                recorded.upkeep();
                repeats::log();
                if let Some(summary) = sampled.history.tick(sampled.health.redis_is_well()) {
                    summary.log();
                }
            }
        });
        if shows_progress {
            let drawn = Arc::clone(&pages);
            beside.spawn(async move {
                let mut ticks = tokio::time::interval(progress::INTERVAL);
                let mut drawing = progress::Drawing::default();
                loop {
                    ticks.tick().await;
                    if !drawing.draw(&drawn.history) {
                        break;
                    }
                }
            });
        }
        let Some(http) = http else { return beside.block_on(std::future::pending()) };
        if let Err(error) = beside.block_on(http.serve(pages)) {
            error!("http: {error}");
        }
    })?;

    let config = config.default_client_name(about.name);
    let connector = Connector::new(config, args.password_source(), health.clone(), shutdown.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work(Context { shutdown, health, connector, partitions, hangup, sources }));
    // Tasks that the work left running must not delay the exit.
    runtime.shutdown_background();
    drop(bar);
    if args.once && done.is_ok() {
        let history = &done_pages.history;
        info!("{}", progress::total(&history.sample_of(&history.values())));
    }
    match done.map_err(Into::into) {
        Ok(()) => Ok(()),
        Err(Stop::Failure(failure)) => Err(failure),
        // Following a file ends only with a shutdown request.
        Err(Stop::Shutdown) if !args.once => Ok(()),
        Err(Stop::Shutdown) => Err(Failure::failed("stopped by a signal before the work was done")),
    }
}
