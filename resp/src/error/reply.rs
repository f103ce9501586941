//! The texts of error replies, and what takes their place if they repeat a password.
//! [`Error::server`](super::Error) and connections use it.

use bytes::BytesMut;

use super::ErrorKind;
use super::kind::classify;
use crate::redact::Secrets;
use crate::{Decoder, DecoderLimits, Frame, Value};

/// Servers put this before the arguments of an unknown command.
const ARGUMENTS: &str = ", with args beginning with";

/// How much of an error reply is kept. Real servers send a few hundred bytes.
pub(super) const MAX_TEXT: usize = 4096;

/// How much of an error reply is searched for passwords: more than is kept, because the kept part
/// may end in the middle of one.
const MAX_SEARCHED: usize = 16 * MAX_TEXT;

/// Returns the text of an error reply, without the arguments of an unknown command.
pub(super) fn server_text(reply: Value<'_>) -> String {
    let text = reply.as_error().unwrap_or_default();
    let mut text = String::from_utf8_lossy(text.get(..MAX_SEARCHED).unwrap_or(text)).into_owned();
    if let Some(at) = text.find(ARGUMENTS)
        && classify(&text).0 == ErrorKind::UnknownCommand
    {
        // Any of them may be a secret, and the caller knows them.
        text.truncate(at);
    }
    text
}

/// Returns the replacement for an error reply that repeats a password; `None` for all others.
fn without_secrets(reply: Value<'_>, secrets: &Secrets) -> Option<String> {
    let text = server_text(reply);
    secrets.occur_in(&text).then(|| {
        let (kind, code) = classify(&text);
        // An unknown code may be the password.
        withheld(kind, if kind == ErrorKind::Other && code != "DENIED" { "ERR" } else { code })
    })
}

/// Returns a text in place of one that must not be shown. It is classified as the original.
pub(super) fn withheld(kind: ErrorKind, code: &str) -> String {
    let words = match kind {
        ErrorKind::IdTooSmall => " equal or smaller than the target stream top item",
        ErrorKind::NoSuchKey => " no such key",
        ErrorKind::UnknownCommand => " unknown command",
        ErrorKind::Syntax => " syntax error",
        ErrorKind::MaxClients => " max number of clients reached",
        ErrorKind::WrongPass => " invalid password",
        ErrorKind::NoAuth => " operation not permitted",
        ErrorKind::NotAtomic => " EXEC without MULTI",
        ErrorKind::NotMaster => " unblock from blocking operation, instance state changed",
        _ => "",
    };
    let space = if code.is_empty() { "" } else { " " };
    format!("{code}{words}{space}(text withheld: it may repeat a password)")
}

/// Returns an error reply with this text.
pub(crate) fn error_reply(text: &str) -> Option<Frame> {
    let mut encoded = BytesMut::from(format!("-{text}\r\n").as_str());
    Decoder::new(DecoderLimits::default()).decode(&mut encoded).ok().flatten()
}

/// Replaces the errors in a reply that repeat a password.
#[cold]
pub(crate) fn redact_frame(frame: Frame, secrets: &Secrets) -> Frame {
    if secrets.is_empty() {
        return frame;
    }
    let whole = frame.value();
    match whole.kind().is_error().then(|| without_secrets(whole, secrets)) {
        Some(None) => frame,
        Some(Some(text)) => error_reply(&text).unwrap_or(frame),
        None => frame.replace_errors(|value| without_secrets(value, secrets)),
    }
}
