//! Checks that the user's own server is usable, and deletes the demo's keys.

use resp::{Cmd, Config, Connection, Frame, cmd};

use crate::{During, Result};

/// Fails if the server is not usable.
pub(super) fn check(redis_url: &str) -> Result<()> {
    ask(redis_url, &[cmd::<Frame>("PING")])
}

/// Deletes the stream and its source record.
pub(super) fn delete(redis_url: &str, stream: &str) -> Result<()> {
    let keys = [stream.to_owned(), format!("{{{stream}}}:source")];
    ask(redis_url, &keys.map(|key| cmd::<Frame>("DEL").arg(key)))
        .during(|| format!("deleting the demo's stream {stream}"))
}

fn ask(redis_url: &str, commands: &[Cmd]) -> Result<()> {
    let during = || "--redis-url".to_owned();
    let config = Config::from_url(redis_url).during(during)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().during(during)?;
    let asked = runtime.block_on(async {
        let mut connection = Connection::connect(&config).await?;
        for command in commands {
            connection.send(command).await?;
        }
        Ok::<(), resp::Error>(())
    });
    asked.during(during)
}
