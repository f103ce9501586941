//! Defines a command with a typed reply: `cargo run --example custom_command -- redis://localhost`
use std::time::Duration;

use resp::{Client, Command, CommandWriter, Config, Error, Frame};

/// `PEXPIRE key milliseconds NX`: true if the key exists and had no expiry.
struct ExpireOnce<'a> {
    key: &'a str,
    after: Duration,
}

impl Command for ExpireOnce<'_> {
    type Reply = bool;

    fn name(&self) -> &str {
        "PEXPIRE"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key.as_bytes())
    }

    fn encode(&self, out: &mut CommandWriter<'_>) {
        out.command("PEXPIRE", 3);
        out.arg(self.key);
        out.arg_int(u64::try_from(self.after.as_millis()).unwrap_or(u64::MAX));
        out.arg("NX");
    }

    fn decode(frame: Frame) -> Result<bool, Error> {
        frame.value().as_bool().ok_or_else(|| Error::unexpected_reply("0 or 1", frame.value()))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://localhost".to_owned());
    let client = Client::connect(&Config::from_url(&url)?).await?;
    client.send(resp::cmd::<()>("SET").arg("session").arg("ann")).await?;
    for attempt in 1..=2 {
        let expires = client.send(&ExpireOnce { key: "session", after: Duration::from_secs(60) }).await?;
        println!("attempt {attempt}: {expires}");
    }
    Ok(())
}
