//! Prints a stream as one of a group of workers, until Ctrl-C:
//! `cargo run --example consumer_group -- redis://localhost events workers me`
use std::time::Duration;

use resp::{BatchOrigin, Config, ConsumerOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |index: usize, default: &str| args.get(index).cloned().unwrap_or_else(|| default.to_owned());
    let config = Config::from_url(&arg(0, "redis://localhost"))?.client_name("worker");

    let mut consumer = ConsumerOptions::new(config, arg(1, "events"), arg(2, "workers"), arg(3, "me"))
        .count(100)
        .claim_idle(Some(Duration::from_secs(60)))
        .connect()
        .await?;
    let stopper = consumer.stopper();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopper.stop();
        }
    });

    while let Some(batch) = consumer.next().await? {
        let again = if batch.origin() == BatchOrigin::New { "" } else { " (again)" };
        for entry in &batch {
            match entry.fields {
                Some(fields) => println!("{}{again}: {fields:?}", entry.id),
                None => println!("{}{again}: deleted before it was processed", entry.id),
            }
        }
        consumer.ack(batch.ids());
    }
    Ok(())
}
