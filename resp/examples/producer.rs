//! Adds each line of standard input to a stream:
//! `cargo run --example producer -- redis://localhost events < file`
use std::io::BufRead;

use resp::streams::{AddId, Trim, XAdd};
use resp::{Config, Connection, Pipeline};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "redis://localhost".to_owned());
    let stream = args.next().unwrap_or_else(|| "events".to_owned());
    let mut connection = Connection::connect(&Config::from_url(&url)?.client_name("producer")).await?;

    let lines: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    for batch in lines.chunks(1000) {
        // One round trip for a thousand lines.
        let mut pipeline = Pipeline::new();
        for line in batch {
            let trim = Trim::max_len(1_000_000).approximately();
            pipeline.add(XAdd::new(&stream, AddId::Auto, &[("line", line)]).trim(trim));
        }
        connection.run(&pipeline).await?.check()?;
    }
    println!("{} lines added to {stream}", lines.len());
    Ok(())
}
