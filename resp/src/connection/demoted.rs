//! What answers say that the server is not (any more) the one that was looked for.

use crate::Frame;

/// A replica takes no writes; a node of a cluster does not have the slot, or has lost touch.
const ANSWERS: [&[u8]; 5] = [b"READONLY ", b"MASTERDOWN ", b"MOVED ", b"ASK ", b"CLUSTERDOWN "];

/// Whether the server says that another one has its place.
pub(crate) fn is_demoted(reply: &Frame) -> bool {
    says(reply, &ANSWERS)
}

/// Whether the server says that it is a replica, and so takes no writes.
pub(crate) fn is_read_only(reply: &Frame) -> bool {
    says(reply, &[b"READONLY "])
}

/// A transaction is refused with the same words, behind others.
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
    fn a_demoted_server_is_known_by_its_answers() {
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
