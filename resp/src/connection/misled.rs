//! What answers say that the server is not (any more) the one that was looked for.

use crate::Frame;

/// A replica takes no writes.
const ANSWERS: [&[u8]; 2] = [b"READONLY ", b"MASTERDOWN "];

/// Whether the server says that another one has its place.
///
/// A transaction is refused with the same words, behind others.
pub(crate) fn is_misled(reply: &Frame) -> bool {
    let Some(error) = reply.value().as_error() else { return false };
    let text = match error.strip_prefix(b"EXECABORT ") {
        Some(text) => text.rsplit(|byte| *byte == b':').next().map(<[u8]>::trim_ascii_start).unwrap_or_default(),
        None => error,
    };
    ANSWERS.iter().any(|answer| text.starts_with(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, Limits};

    fn misled(reply: &str) -> bool {
        let mut input = bytes::BytesMut::from(reply);
        is_misled(&Decoder::new(Limits::default()).decode(&mut input).unwrap().unwrap())
    }

    #[test]
    fn a_demoted_server_is_known_by_its_answers() {
        assert!(misled("-READONLY You can't write against a read only replica.\r\n"));
        assert!(misled("-MASTERDOWN Link with MASTER is down\r\n"));
        assert!(misled("-EXECABORT Transaction discarded because of: READONLY You can't write\r\n"));
        assert!(!misled("-EXECABORT Transaction discarded because of previous errors.\r\n"));
        assert!(!misled("-ERR READONLY is not what this says\r\n"));
        assert!(!misled("+READONLY \r\n"));
    }
}
