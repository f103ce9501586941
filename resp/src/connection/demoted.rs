//! Replies which show that the server is no longer the one to talk to: a demoted master, or a node
//! that lost the slot.

use crate::Frame;

/// A replica refuses writes; a cluster node does not own the slot, or is disconnected.
const ANSWERS: [&[u8]; 5] = [b"READONLY ", b"MASTERDOWN ", b"MOVED ", b"ASK ", b"CLUSTERDOWN "];

/// Returns whether the reply says that another server has taken over.
pub(crate) fn is_demoted(reply: &Frame) -> bool {
    says(reply, &ANSWERS)
}

/// Returns whether the reply says that the server is a read-only replica.
pub(crate) fn is_read_only(reply: &Frame) -> bool {
    says(reply, &[b"READONLY "])
}

/// Returns whether the reply names the node to send the command to.
pub(super) fn is_redirect(reply: &Frame) -> bool {
    let error = reply.value().as_error().unwrap_or_default();
    error.starts_with(b"MOVED ") || error.starts_with(b"ASK ")
}

/// A refused transaction carries the same text after `EXECABORT`.
fn says(reply: &Frame, answers: &[&[u8]]) -> bool {
    let Some(error) = reply.value().as_error() else { return false };
    let text = match error.strip_prefix(b"EXECABORT ") {
        Some(text) => text.rsplit(|byte| *byte == b':').next().map(<[u8]>::trim_ascii_start).unwrap_or_default(),
        None => error,
    };
    answers.iter().any(|answer| text.starts_with(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, DecoderLimits};

    fn demoted(reply: &str) -> bool {
        let mut input = bytes::BytesMut::from(reply);
        is_demoted(&Decoder::new(DecoderLimits::default()).decode(&mut input).unwrap().unwrap())
    }

    #[test]
    fn demotion_is_recognised() {
        assert!(demoted("-READONLY You can't write against a read only replica.\r\n"));
        assert!(
            demoted("-MOVED 1 h:1\r\n")
                && demoted("-ASK 1 h:1\r\n")
                && demoted("-CLUSTERDOWN Hash slot not served\r\n")
        );
        assert!(!demoted("-TRYAGAIN Multiple keys\r\n"));
        assert!(demoted("-MASTERDOWN Link with MASTER is down\r\n"));
        assert!(demoted("-EXECABORT Transaction discarded because of: READONLY You can't write\r\n"));
        assert!(!demoted("-EXECABORT Transaction discarded because of previous errors.\r\n"));
        assert!(!demoted("-ERR READONLY is not what this says\r\n"));
        assert!(!demoted("+READONLY \r\n"));
    }
}
