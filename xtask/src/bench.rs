//! Runs the comparing benches, and writes their results.

use std::fs;

use clap::{Args, Subcommand, ValueEnum};

use crate::cargo::{self, Binaries};
use crate::child::Child;
use crate::install::Consent;
use crate::interrupt::Interrupt;
use crate::server::{self, REDIS_SERVER};
use crate::{During, Result, clients};

mod baseline;
mod compare;
mod machine;
mod page;
mod plot;
mod results;

use baseline::Baseline;
use results::Results;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,

    #[command(flatten)]
    consent: Consent,
    /// What to measure [default: everything but `growth` and `memory`]
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// Paired rounds of each case
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Run everything once, briefly, to see that it works; write no results
    #[arg(long)]
    quick: bool,

    /// Keep the ratios in benches/baseline.json, with which later runs are compared
    #[arg(long, conflicts_with = "quick")]
    save_baseline: bool,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Compare this checkout with another revision, in paired rounds
    Compare(compare::CompareArgs),
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Decoding replies, compared with other clients' decoders
    Decoders,
    /// Commands through the library, compared with other clients
    Clients,
    /// The reader, the writer, and both together, compared with the least that Redis needs
    Services,
    /// From the append of a line until it is durable in the output, at several rates
    Latency,
    /// What the services need while nothing happens
    Idle,
    /// What a million lines cost Redis: processor time, append-only file, replica, memory
    Cost,
    /// Many files: 100 at once beside one of the same bytes, 1,000 outputs, 10,000 idle files
    Files,
    /// Reader and writer beside programs of other languages that do the same
    Peers,
    /// One file over the masters of a Redis Cluster: 1 to 3 masters, 1 to 1,000 partitions
    Masters,
    /// Cost as the work grows, up to 50 million lines: takes long, and 13 GB of disk
    Growth,
    /// Memory over 10 GB, and with lines of 64 MiB: takes long, and 22 GB of disk
    Memory,
}

impl Part {
    /// The parts that do not take long.
    const USUAL: [Self; 9] = [
        Self::Decoders,
        Self::Clients,
        Self::Services,
        Self::Latency,
        Self::Idle,
        Self::Cost,
        Self::Files,
        Self::Peers,
        Self::Masters,
    ];

    /// The bench target in `benches/`.
    const fn target(self) -> &'static str {
        match self {
            Self::Decoders => "decoders",
            Self::Clients => "clients",
            Self::Services => "services",
            Self::Latency => "latency",
            Self::Idle => "idle",
            Self::Cost => "cost",
            Self::Files => "files",
            Self::Peers => "peers",
            Self::Masters => "masters",
            Self::Growth => "growth",
            Self::Memory => "memory",
        }
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    if let Some(BenchCommand::Compare(args)) = &args.command {
        return compare::run(args);
    }
    let interrupt = Interrupt::watch()?;
    let server = server::find_or_install(args.consent, &interrupt)?;
    println!("redis-server: {}", server.display());
    println!("building reader and writer (release)");
    let Binaries { reader, writer, .. } = cargo::build(true, &interrupt)?;

    println!("building the programs with other clients (release)");
    let peers = cargo::build_examples("benches", &interrupt)?;

    let folder = tempfile::tempdir().during(|| "creating a temporary folder".to_owned())?;
    let measured = folder.path().join("results.jsonl");
    let parts = if args.parts.is_empty() { &Part::USUAL[..] } else { &args.parts };
    let clients = cargo::target()?.join("clients");
    if parts.contains(&Part::Peers) && !args.quick {
        clients::get(&clients, args.consent, &interrupt)?;
    }
    for part in parts {
        let mut words = vec!["bench", "--quiet", "--package", "benches", "--bench", part.target()];
        if args.quick {
            words.extend(["--", "--test"]);
        }
        let mut command = cargo::command(&words)?;
        command
            .env(REDIS_SERVER, &server)
            .env("READER_BIN", &reader)
            .env("WRITER_BIN", &writer)
            .env("PEERS_DIR", &peers)
            .env("CLIENTS_DIR", &clients)
            .env("BENCH_ROUNDS", args.rounds.to_string())
            .env("BENCH_RESULTS", &measured);
        Child::spawn("cargo bench", &mut command)?.must_succeed(&interrupt)?;
    }
    if args.quick {
        return Ok(());
    }
    let text = fs::read_to_string(&measured).during(|| format!("reading {}", measured.display()))?;
    let results = Results::read(&text)?;
    let to = cargo::workspace()?.join("benches");
    for section in &results.sections {
        let path = to.join("plots").join(plot::file_name(&section.name));
        fs::create_dir_all(to.join("plots"))
            .and_then(|()| fs::write(&path, plot::svg(section)))
            .during(|| format!("writing {}", path.display()))?;
    }
    // Sections that were not measured keep their text.
    let about = machine::About::of(&server, jiff::Timestamp::now().strftime("%Y-%m-%d").to_string());
    let path = to.join("RESULTS.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, page::page(&before, &results, &about)).during(|| format!("writing {}", path.display()))?;
    println!("written: {}", path.display());

    let path = to.join("baseline.json");
    let mut baseline = match fs::read_to_string(&path) {
        Ok(text) => Baseline::read(&text)?,
        Err(_) => Baseline::default(),
    };
    print!("{}", baseline.compare(&results));
    if args.save_baseline {
        baseline.learn(&results);
        fs::write(&path, baseline.text()?).during(|| format!("writing {}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}
