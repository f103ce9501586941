//! A pipeline over all nodes: each node gets its part, and the replies come in the order of the
//! pipeline.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::task::JoinSet;

use super::nodes::Nodes;
use super::retries::Retries;
use super::{ASKING, check, nobody};
use crate::client::EncodedCommands;
use crate::config::Endpoint;
use crate::connection::{Pipeline, Replies};
use crate::discovery::Redirect;
use crate::{Error, Frame, Routing, Sent};

/// A command without a reply, and the node it was redirected to.
struct Left {
    index: usize,
    elsewhere: Option<(Endpoint, bool)>,
}

/// The commands for one node in one round.
#[derive(Default)]
struct Part {
    indexes: Vec<usize>,
    encoded: BytesMut,
    /// Once this many bytes are sent, a command may have been executed.
    first: usize,
}

pub(super) async fn run(nodes: &Arc<Nodes>, pipeline: &Pipeline) -> Result<Replies, Error> {
    let routings: Vec<Routing> = pipeline.routings().collect();
    routings.iter().try_for_each(|routing| check(*routing))?;
    let mut replies: Vec<Option<Result<Frame, Error>>> = routings.iter().map(|_| None).collect();
    let mut left: Vec<Left> = (0..routings.len()).map(|index| Left { index, elsewhere: None }).collect();
    let mut retries = Retries::new(nodes.config().command_timeout);
    while !left.is_empty() {
        let version = nodes.version();
        let mut again = Vec::new();
        // Why the remaining commands must wait, and why they were redirected.
        let (mut waits, mut redirected) = (None, None);
        let mut parts: HashMap<(Endpoint, bool), Part> = HashMap::new();
        for Left { index, elsewhere } in left {
            let target = elsewhere.or_else(|| Some((nodes.owner(*routings.get(index)?)?, false)));
            let (Some(target), Some(encoded)) = (target, pipeline.command(index)) else {
                waits.get_or_insert_with(nobody);
                again.push(Left { index, elsewhere: None });
                continue;
            };
            let asking = target.1;
            let part = parts.entry(target).or_default();
            if asking {
                part.encoded.extend_from_slice(ASKING);
            }
            part.encoded.extend_from_slice(encoded);
            if part.indexes.is_empty() {
                part.first = part.encoded.len();
            }
            part.indexes.push(index);
        }
        let mut sending = JoinSet::new();
        let time_limit = retries.time_limit;
        for ((node, asking), part) in parts {
            let nodes = Arc::clone(nodes);
            sending.spawn(async move {
                let count = part.indexes.len().saturating_mul(if asking { 2 } else { 1 });
                let commands =
                    EncodedCommands { encoded: &part.encoded, replies: count, first: part.first, multi: None };
                let sent = nodes.exchange(&node, &commands, time_limit).await;
                (node, asking, part.indexes, sent)
            });
        }
        while let Some(done) = sending.join_next().await {
            let Ok((node, asking, indexes, sent)) = done else { return Err(Error::closed()) };
            let frames = match sent {
                Ok(frames) => frames,
                Err(error) if error.sent() == Sent::No && error.is_transient() => {
                    again.extend(indexes.into_iter().map(|index| Left { index, elsewhere: None }));
                    waits = Some(error);
                    continue;
                }
                Err(error) => {
                    for index in indexes {
                        set(&mut replies, index, Err(error.clone()));
                    }
                    nodes.refresh_behind(version);
                    continue;
                }
            };
            let (skip, step) = if asking { (1, 2) } else { (0, 1) };
            for (index, frame) in indexes.into_iter().zip(frames.into_iter().skip(skip).step_by(step)) {
                let redirect = Redirect::of(&frame, &node);
                let elsewhere = match &redirect {
                    None => {
                        set(&mut replies, index, Ok(nodes.redact_one(frame)));
                        continue;
                    }
                    Some(Redirect::Moved { slot, to }) => {
                        nodes.moved(*slot, to);
                        Some((to.clone(), false))
                    }
                    Some(Redirect::Ask { to }) => Some((to.clone(), true)),
                    Some(Redirect::TryAgain | Redirect::Down) => None,
                };
                let why = if elsewhere.is_some() { &mut redirected } else { &mut waits };
                why.get_or_insert_with(|| nodes.error_of(&frame));
                again.push(Left { index, elsewhere });
            }
        }
        // Keep the order of the pipeline where possible.
        again.sort_by_key(|left| left.index);
        left = again;
        let outcome = match (waits, redirected) {
            (Some(error), _) => {
                let waited = retries.wait(|| error).await;
                if waited.is_ok() {
                    nodes.refresh_quietly(version, retries.time_limit).await;
                }
                waited.and_then(|()| retries.check())
            }
            (None, Some(error)) => {
                nodes.refresh_behind(version);
                retries.redirect(|| error)
            }
            (None, None) => Ok(()),
        };
        if let Err(error) = outcome {
            for Left { index, .. } in std::mem::take(&mut left) {
                set(&mut replies, index, Err(error.clone()));
            }
        }
    }
    Ok(Replies::of_each(replies, pipeline))
}

fn set(replies: &mut [Option<Result<Frame, Error>>], index: usize, reply: Result<Frame, Error>) {
    if let Some(place) = replies.get_mut(index) {
        *place = Some(reply);
    }
}
