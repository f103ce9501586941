//! Deletes the demo's keys from a server that is not the demo's own.

use resp::{Config, Connection, cmd};

use crate::{During, Result};

/// Deletes the stream and the reader's record beside it.
pub(super) fn delete(redis_url: &str, stream: &str) -> Result<()> {
    let during = || format!("deleting the demo's stream {stream}");
    let config = Config::from_url(redis_url).during(during)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().during(during)?;
    let keys = [stream.to_owned(), format!("{{{stream}}}:source")];
    let deleted = runtime.block_on(async {
        let mut connection = Connection::connect(&config).await?;
        for key in &keys {
            connection.send(&cmd("DEL").arg(key)).await?;
        }
        Ok::<(), resp::Error>(())
    });
    deleted.during(during)
}
