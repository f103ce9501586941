//! The work of reader and writer, done with `redis`: lines to a stream in pipelines, and back into
//! a file that is durable before entries are acknowledged. What it is compared with is in
//! `benches/services.rs`.

use std::error::Error;

use benches::job::{Batches, Job, Output};
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands as _, Value};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match Job::from_args()? {
        Job::Send { url, stream, input, chunked } => {
            let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
            let mut batches = Batches::open(&input, chunked)?;
            let mut batch = batches.next_batch()?;
            while !batch.is_empty() {
                let mut pipeline = redis::pipe();
                for payload in &batch {
                    pipeline.xadd(&stream, "*", &[(batches.field(), payload)]).ignore();
                }
                let (sent, next) = tokio::join!(pipeline.exec_async(&mut redis), async { batches.next_batch() });
                sent?;
                batch = next?;
            }
        }
        Job::Receive { url, stream, group, output, bytes, count } => {
            let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
            let () = redis.xgroup_create_mkstream(&stream, &group, "0").await?;
            let mut output = Output::create(&output)?;
            // A longer one would run into the client's own limit on the time of a reply.
            let options = StreamReadOptions::default().group(&group, "peer").count(count).block(100);
            loop {
                let reply: Option<StreamReadReply> = redis.xread_options(&[&stream], &[">"], &options).await?;
                let Some(entries) = reply.and_then(|reply| reply.keys.into_iter().next()) else { continue };
                for entry in &entries.ids {
                    for (field, payload) in &entry.map {
                        if let Value::BulkString(payload) = payload {
                            output.take(field.as_bytes(), payload);
                        }
                    }
                }
                let written = output.commit()?;
                let ids: Vec<&str> = entries.ids.iter().map(|entry| entry.id.as_str()).collect();
                let () = redis.xack(&stream, &group, &ids).await?;
                if written >= bytes {
                    break;
                }
            }
        }
    }
    Ok(())
}
