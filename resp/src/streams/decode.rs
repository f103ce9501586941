//! Decoding of small replies by their shape. The commands of this folder share it.

use bytes::Bytes;

use crate::{Error, Frame, StreamId, Value, ValueChildren, ValueKind};

pub(super) fn count(frame: &Frame) -> Result<u64, Error> {
    frame.value().as_u64().ok_or_else(|| Error::unexpected_reply("a number", frame.value()))
}

pub(super) fn ok(frame: &Frame) -> Result<(), Error> {
    match frame.value().as_bytes() {
        Some(b"OK") => Ok(()),
        _ => Err(Error::unexpected_reply("OK", frame.value())),
    }
}

pub(super) fn flag(frame: &Frame) -> Result<bool, Error> {
    frame.value().as_bool().ok_or_else(|| Error::unexpected_reply("0 or 1", frame.value()))
}

pub(super) fn id(value: Value<'_>) -> Result<StreamId, Error> {
    value.as_bytes().and_then(StreamId::parse).ok_or_else(|| Error::unexpected_reply("a stream ID", value))
}

pub(super) fn ids(ids: Value<'_>) -> Result<Vec<StreamId>, Error> {
    list(ids)?.map(id).collect()
}

/// Returns the elements of an array.
pub(super) fn list(array: Value<'_>) -> Result<ValueChildren<'_>, Error> {
    if array.kind() == ValueKind::Array {
        Ok(array.children())
    } else {
        Err(Error::unexpected_reply("an array", array))
    }
}

/// Returns a required member of a map.
pub(super) fn number(map: Value<'_>, name: &str) -> Result<u64, Error> {
    optional_number(map, name).ok_or_else(|| missing(map, name))
}

/// Returns a member that older servers omit, or that may be null.
pub(super) fn optional_number(map: Value<'_>, name: &str) -> Option<u64> {
    map.get(name.as_bytes()).and_then(Value::as_u64)
}

pub(super) fn optional_id(map: Value<'_>, name: &str) -> Option<StreamId> {
    map.get(name.as_bytes()).and_then(Value::as_bytes).and_then(StreamId::parse)
}

pub(super) fn bytes(frame: &Frame, map: Value<'_>, name: &str) -> Result<Bytes, Error> {
    map.get(name.as_bytes()).map(|value| frame.slice(value)).ok_or_else(|| missing(map, name))
}

#[cold]
pub(super) fn missing(map: Value<'_>, name: &str) -> Error {
    Error::unexpected_reply(&format!("a map with {name}"), map)
}
