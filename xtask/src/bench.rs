//! Runs the benches that compare, and writes down what they measured.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use crate::cargo::{self, Binaries};
use crate::child::Child;
use crate::interrupt::Interrupt;
use crate::server::{self, REDIS_SERVER};
use crate::{During, Error, Result};

mod machine;
mod page;
mod plot;
mod results;

use results::Results;

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// What to measure; everything but `growth` and `memory` unless named
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// Paired rounds of each case
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Do everything once, quickly, and write nothing: does it work?
    #[arg(long)]
    quick: bool,
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
    /// One file over the masters of a Redis Cluster: 1 to 3 masters, 1 to 1,000 partitions
    Masters,
    /// Cost as the work grows, up to 50 million lines: takes long, and 13 GB of disk
    Growth,
    /// Memory over 10 GB, and with lines of 64 MiB: takes long, and 22 GB of disk
    Memory,
}

impl Part {
    /// What does not take too long.
    const USUAL: [Self; 6] = [Self::Decoders, Self::Clients, Self::Services, Self::Latency, Self::Idle, Self::Masters];

    /// The bench target in `benches/`.
    const fn target(self) -> &'static str {
        match self {
            Self::Decoders => "decoders",
            Self::Clients => "clients",
            Self::Services => "services",
            Self::Latency => "latency",
            Self::Idle => "idle",
            Self::Masters => "masters",
            Self::Growth => "growth",
            Self::Memory => "memory",
        }
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let server = server::find_or_install(&interrupt)?;
    println!("redis-server: {}", server.display());
    println!("building reader and writer (release)");
    let Binaries { reader, writer, .. } = cargo::build(true, &interrupt)?;

    println!("building the programs with other clients (release)");
    let peers = cargo::build_examples("benches", &interrupt)?;

    let folder = tempfile::tempdir().during(|| "creating a temporary folder".to_owned())?;
    let measured = folder.path().join("results.jsonl");
    let parts = if args.parts.is_empty() { &Part::USUAL[..] } else { &args.parts };
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
    // What was not measured now keeps its page.
    let about = machine::About::of(&server, today()?);
    let path = to.join("RESULTS.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, page::page(&before, &results, &about)).during(|| format!("writing {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// The date, as in 2026-11-24 (UTC).
fn today() -> Result<String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Error::new("the clock stands before 1970"))?;
    Ok(date(since.as_secs() / 86_400))
}

/// The date of a day counted from 1970-01-01: the algorithm `civil_from_days` of Howard Hinnant's "chrono-Compatible Low-Level Date
/// Algorithms".
fn date(days: u64) -> String {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(20_781), "2026-11-24");
    }
}
