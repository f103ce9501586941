//! The work of reader and writer, done with `fred`: lines to a stream in pipelines, and back into a
//! file that is durable before entries are acknowledged. What it is compared with is in
//! `benches/services.rs`.

use std::error::Error;

use benches::job::{Batches, Job, Output};
use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientLike as _, StreamsInterface as _};
use fred::types::config::Config;
use fred::types::streams::XReadResponse;

async fn connect(url: &str) -> Result<Client, fred::error::Error> {
    let client = Client::new(Config::from_url(url)?, None, None, None);
    client.init().await?;
    Ok(client)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match Job::from_args()? {
        Job::Send { url, stream, input, chunked } => {
            let fred = connect(&url).await?;
            let mut batches = Batches::open(&input, chunked)?;
            let mut batch = batches.next_batch()?;
            while !batch.is_empty() {
                let pipeline = fred.pipeline();
                for payload in batch {
                    let entry = (batches.field(), Bytes::from(payload));
                    let () = pipeline.xadd(&stream, false, None, "*", entry).await?;
                }
                let (sent, next) = tokio::join!(pipeline.all::<Vec<String>>(), async { batches.next_batch() });
                sent?;
                batch = next?;
            }
        }
        Job::Receive { url, stream, group, output, bytes, count } => {
            let fred = connect(&url).await?;
            let () = fred.xgroup_create(&stream, &group, "0", true).await?;
            let mut output = Output::create(&output)?;
            loop {
                let reply: XReadResponse<String, String, String, Bytes> =
                    fred.xreadgroup_map(&group, "peer", Some(count as u64), Some(100), false, &stream, ">").await?;
                let Some(entries) = reply.into_values().next() else { continue };
                for (_, fields) in &entries {
                    for (field, payload) in fields {
                        output.take(field.as_bytes(), payload);
                    }
                }
                let written = output.commit()?;
                let ids: Vec<String> = entries.into_iter().map(|(id, _)| id).collect();
                let () = fred.xack(&stream, &group, ids).await?;
                if written >= bytes {
                    break;
                }
            }
        }
    }
    Ok(())
}
