//! The work of reader and writer, done with `rustis`: lines to a stream in pipelines, and back into
//! a file that is durable before entries are acknowledged. What it is compared with is in
//! `benches/services.rs`.

use std::collections::HashMap;
use std::error::Error;

use benches::job::{Batches, Job, Output};
use rustis::client::{BatchPreparedCommand as _, Client};
use rustis::commands::{StreamCommands as _, StreamEntry, XAddOptions, XGroupCreateOptions, XReadGroupOptions};
use rustis::resp::BulkString;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match Job::from_args()? {
        Job::Send { url, stream, input, chunked } => {
            let rustis = Client::connect(url).await?;
            let mut batches = Batches::open(&input, chunked)?;
            let mut batch = batches.next_batch()?;
            while !batch.is_empty() {
                let mut pipeline = rustis.create_pipeline();
                for payload in batch {
                    let entry = [(batches.field(), BulkString::from(payload))];
                    pipeline.xadd::<String>(&stream, "*", entry, XAddOptions::default()).queue();
                }
                let (sent, next) = tokio::join!(pipeline.execute::<Vec<String>>(), async { batches.next_batch() });
                sent?;
                batch = next?;
            }
        }
        Job::Receive { url, stream, group, output, bytes, count } => {
            let rustis = Client::connect(url).await?;
            rustis.xgroup_create(&stream, &group, "0", XGroupCreateOptions::default().mk_stream()).await?;
            let mut output = Output::create(&output)?;
            loop {
                let options = XReadGroupOptions::default().count(count as u32).block(100);
                let reply: HashMap<String, Vec<StreamEntry<BulkString>>> =
                    rustis.xreadgroup(&group, "peer", options, &stream, ">").await?;
                let Some(entries) = reply.into_values().next() else { continue };
                for entry in &entries {
                    for (field, payload) in &entry.items {
                        output.take(field.as_bytes(), payload.as_bytes());
                    }
                }
                let written = output.commit()?;
                let ids: Vec<&str> = entries.iter().map(|entry| entry.stream_id.as_str()).collect();
                rustis.xack(&stream, &group, ids).await?;
                if written >= bytes {
                    break;
                }
            }
        }
    }
    Ok(())
}
