//! `cargo run -p e2e --bin screenshots`: takes the pictures of the status page in `docs/images`,
//! from real services in a real browser.
//!
//! With `--all FOLDER`, takes pictures of both pages in light and dark, on a desktop and on a
//! phone, and while Redis is down, for review.

#![allow(clippy::expect_used, reason = "it is for the people who work on the page")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::{Browser, Growth, Persistence, Rig, Service, text};

/// Pictures of the status page
#[derive(Debug, Parser)]
struct Args {
    /// The path of the picture for the documentation
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/images/status.png"))]
    out: PathBuf,

    /// A folder for pictures of all variants, instead of the one for the documentation
    #[arg(long)]
    all: Option<PathBuf>,

    /// How long lines are streamed before the picture, in seconds
    #[arg(long, default_value_t = 90)]
    seconds: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (out, all) = (absolute(&args.out), args.all.as_deref().map(absolute));
    let mut rig = Rig::with(Persistence::Everysec);
    rig.redis.config_set("maxmemory", "64mb");
    let Some(mut browser) = Browser::start(rig.folder.path()) else { return ExitCode::FAILURE };
    let redis = rig.redis.url();
    rig.write_input("");
    // Short paths look better in the picture.
    std::env::set_current_dir(rig.folder.path()).expect("enter a folder");
    let mut reader = rig.reader().set("--input", "in/input.txt").start();
    let mut writer = rig.writer().set("--output", "out/output.txt").start();
    let mut at = 0;
    for round in 0..4 {
        let lines = (args.seconds * [700, 1500, 1100, 2100][round]).max(1000);
        let bytes = text::numbered(at..at + lines, 1);
        at += lines;
        Growth::of(&rig.input, bytes, Duration::from_secs(args.seconds) / 4, round as u64).wait();
    }
    println!("lines flowed through {redis}");
    match all {
        None => picture(&mut browser, &mut writer, "light", 1100, 900, &out),
        Some(folder) => {
            std::fs::create_dir_all(&folder).expect("a folder for pictures");
            for down in [false, true] {
                if down {
                    rig.redis.kill9();
                    for service in [&mut reader, &mut writer] {
                        e2e::wait::until("not ready", || service.readyz().0 == 503);
                    }
                }
                for (name, service) in [("reader", &mut reader), ("writer", &mut writer)] {
                    for (scheme, width) in [("light", 1100), ("dark", 1100), ("light", 360), ("dark", 360)] {
                        let down = if down { "-down" } else { "" };
                        let file = folder.join(format!("{name}-{scheme}-{width}{down}.png"));
                        picture(&mut browser, service, scheme, width, 900, &file);
                    }
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).expect("the current folder")
}

fn picture(browser: &mut Browser, service: &mut Service, scheme: &str, width: u32, height: u32, file: &Path) {
    browser.set_size(width, height, width < 500);
    browser.set_scheme(scheme);
    browser.open(&format!("http://{}/", service.http_addr()));
    std::fs::write(file, browser.picture()).expect("write a picture");
    println!("{}", file.display());
}
