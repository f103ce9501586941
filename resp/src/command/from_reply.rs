//! Conversion of replies to the type that the caller asks for. Untyped commands
//! ([`Cmd`](super::Cmd)) use it.

use std::any::type_name;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hash};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Error, Frame, StreamId, Value, ValueKind};

/// A type that a reply can be converted to.
///
/// The requested type decides:
///
/// ```no_run
/// # async fn example(client: &resp::Client) -> Result<(), resp::Error> {
/// use std::collections::HashMap;
/// use resp::cmd;
///
/// let name: String = client.send(cmd("GET").arg("name")).await?;
/// let missing: Option<String> = client.send(cmd("GET").arg("missing")).await?;
/// let users: HashMap<String, u64> = client.send(cmd("HGETALL").arg("users")).await?;
/// let (seconds, micros): (u64, u32) = client.send(cmd("TIME")).await?;
/// // Where nothing names the type, the command does.
/// client.send(cmd::<()>("SET").arg("name").arg("ann")).await?;
/// # Ok(())
/// # }
/// ```
///
/// | type | replies |
/// |---|---|
/// | `()` | any reply but an error |
/// | `String`, `Box<str>`, `Rc<str>`, `Arc<str>`, `Cow<str>` | strings in UTF-8, and numbers |
/// | `char` | strings of one character |
/// | [`Bytes`] (shares the read buffer), `Vec<u8>` | the same, any bytes |
/// | `u8` … `u128`, `i8` … `i128`, `usize`, `isize` | integers and decimal strings, if they fit |
/// | `f64`, `f32` | doubles, integers, decimal strings |
/// | `bool` | booleans, 1 and 0 |
/// | [`StreamId`] | strings of the form `ms-seq` |
/// | `Option<T>` | null is `None` |
/// | `Vec<T>`, `VecDeque<T>`, `[T; N]`, sets | arrays, sets and pushes |
/// | tuples | arrays with this number of elements |
/// | maps, `Vec<(K, V)>` | maps, and the flat or nested arrays that replace them in RESP2 |
/// | [`Entries`](crate::streams::Entries), [`StreamEntries`](crate::streams::StreamEntries) | replies of `XRANGE` and of `XREAD` |
/// | [`Frame`] | every reply, including errors in arrays |
///
/// A reply of another kind is [`ErrorKind::UnexpectedReply`](crate::ErrorKind::UnexpectedReply),
/// and the error names both types. An error in an array becomes the error of the whole reply.
///
/// You can implement the trait:
///
/// ```
/// use resp::{Error, Frame, FromReply, Value};
///
/// /// What `HGETALL user:7` gives.
/// #[derive(Debug, PartialEq)]
/// struct User {
///     name: String,
///     age: u8,
/// }
///
/// impl FromReply for User {
///     fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
///         let field = |name: &str| {
///             value.get(name.as_bytes()).ok_or_else(|| Error::unexpected_reply(&format!("a field {name:?}"), value))
///         };
///         Ok(Self { name: frame.get(field("name")?)?, age: frame.get(field("age")?)? })
///     }
/// }
///
/// # use bytes::BytesMut;
/// # use resp::Decoder;
/// let reply = "%2\r\n+name\r\n+ann\r\n+age\r\n:42\r\n";
/// let frame = Decoder::default().decode(&mut BytesMut::from(reply))?.expect("complete");
/// assert_eq!(frame.to::<User>()?, User { name: "ann".to_owned(), age: 42 });
/// # Ok::<(), resp::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "a reply cannot be converted to `{Self}`",
    note = "to ignore the reply, write `cmd::<()>(…)` or `let () = …`",
    note = "if the shape of the reply is unknown, use `resp::Frame`"
)]
pub trait FromReply: Sized {
    /// Converts a value of `frame`.
    ///
    /// # Errors
    ///
    /// The value has another kind, or is an error.
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error>;

    /// Converts a whole reply.
    ///
    /// # Errors
    ///
    /// As [`from_value`](Self::from_value).
    fn from_frame(frame: Frame) -> Result<Self, Error> {
        Self::from_value(frame.value(), &frame)
    }

    /// Converts a list, one item per element. Types whose lists have another form override this, as
    /// bytes and pairs do.
    ///
    /// # Errors
    ///
    /// As [`from_value`](Self::from_value).
    fn list_from_value(value: Value<'_>, frame: &Frame) -> Result<Vec<Self>, Error> {
        elements::<Vec<Self>>(value)?.map(|element| Self::from_value(element, frame)).collect()
    }
}

impl Frame {
    /// Converts the reply.
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// # use resp::Decoder;
    /// let frame = Decoder::default().decode(&mut BytesMut::from("*2\r\n:1\r\n$1\r\n2\r\n"))?.expect("complete");
    /// assert_eq!(frame.to::<Vec<u64>>()?, [1, 2]);
    /// let error = frame.to::<u64>().unwrap_err();
    /// assert_eq!(error.to_string(), "expected u64, got array [integer 1, string of 1 byte]");
    /// # Ok::<(), resp::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`FromReply::from_value`].
    pub fn to<T: FromReply>(&self) -> Result<T, Error> {
        T::from_value(self.value(), self)
    }

    /// Converts a value of this frame.
    ///
    /// # Errors
    ///
    /// As [`FromReply::from_value`].
    pub fn get<T: FromReply>(&self, value: Value<'_>) -> Result<T, Error> {
        T::from_value(value, self)
    }
}

/// Returns the error for a value that is no `T`.
#[cold]
fn mismatch<T>(value: Value<'_>) -> Error {
    if value.kind().is_error() { Error::server(value) } else { Error::unexpected_reply(&short_name::<T>(), value) }
}

/// Returns the name of a type without its modules.
fn short_name<T>() -> String {
    let mut name = String::new();
    let mut word = String::new();
    for c in type_name::<T>().chars() {
        match c {
            ':' => word.clear(),
            _ if c.is_alphanumeric() || c == '_' => word.push(c),
            _ => {
                let _ = write!(name, "{word}{c}");
                word.clear();
            }
        }
    }
    name + &word
}

/// Returns the elements of an array, set or push, for a list of type `T`.
fn elements<'a, T>(value: Value<'a>) -> Result<impl ExactSizeIterator<Item = Value<'a>> + Clone, Error> {
    match value.kind() {
        ValueKind::Array | ValueKind::Set | ValueKind::Push => Ok(value.children()),
        _ => Err(mismatch::<T>(value)),
    }
}

/// Returns the bytes of a value that is text.
fn text<T>(value: Value<'_>) -> Result<&[u8], Error> {
    match value.kind() {
        ValueKind::Boolean | ValueKind::SimpleError | ValueKind::BulkError => None,
        _ => value.as_bytes(),
    }
    .ok_or_else(|| mismatch::<T>(value))
}

impl FromReply for Frame {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        Ok(frame.extract(value))
    }

    fn from_frame(frame: Frame) -> Result<Self, Error> {
        Ok(frame)
    }
}

impl FromReply for () {
    fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
        if value.kind().is_error() { Err(Error::server(value)) } else { Ok(()) }
    }
}

impl FromReply for Bytes {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        text::<Self>(value).map(|bytes| frame.share(bytes))
    }
}

macro_rules! texts {
    ($($type:ty),*) => {
        $(impl FromReply for $type {
            fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
                let text = std::str::from_utf8(text::<Self>(value)?).map_err(|_| mismatch::<Self>(value))?;
                Ok(text.into())
            }
        })*
    };
}

texts!(String, Box<str>, Rc<str>, Arc<str>);

/// Always owned.
impl<B: ToOwned<Owned: FromReply> + ?Sized> FromReply for Cow<'_, B> {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        B::Owned::from_value(value, frame).map(Self::Owned)
    }
}

impl FromReply for char {
    fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
        let text = text::<Self>(value)?;
        std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| mismatch::<Self>(value))
    }
}

macro_rules! integers {
    ($($type:ty: $get:ident),*) => {
        $(impl FromReply for $type {
            #[inline]
            fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
                value.$get().and_then(|n| n.try_into().ok()).ok_or_else(|| mismatch::<Self>(value))
            }
        })*
    };
}

integers!(u16: as_u64, u32: as_u64, u64: as_u64, usize: as_u64);
integers!(i8: as_int, i16: as_int, i32: as_int, i64: as_int, isize: as_int);

macro_rules! wide_integers {
    ($($type:ty),*) => {
        /// A big number may be larger than 64 bits.
        $(impl FromReply for $type {
            fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
                let is_number = !matches!(value.kind(), ValueKind::Double | ValueKind::VerbatimString);
                let text = std::str::from_utf8(text::<Self>(value)?).ok().filter(|_| is_number);
                text.and_then(|text| text.parse().ok()).ok_or_else(|| mismatch::<Self>(value))
            }
        })*
    };
}

wide_integers!(i128, u128);

/// A list of bytes is a string: see [`FromReply::list_from_value`].
impl FromReply for u8 {
    fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
        value.as_u64().and_then(|n| n.try_into().ok()).ok_or_else(|| mismatch::<Self>(value))
    }

    fn list_from_value(value: Value<'_>, frame: &Frame) -> Result<Vec<Self>, Error> {
        match value.kind() {
            ValueKind::Array | ValueKind::Set | ValueKind::Push => {
                value.children().map(|element| Self::from_value(element, frame)).collect()
            }
            _ => text::<Vec<Self>>(value).map(<[Self]>::to_vec),
        }
    }
}

impl FromReply for f64 {
    fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
        value.as_f64().ok_or_else(|| mismatch::<Self>(value))
    }
}

impl FromReply for f32 {
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "an f32 is asked for")]
    fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
        value.as_f64().map(|n| n as Self).ok_or_else(|| mismatch::<Self>(value))
    }
}

impl FromReply for bool {
    fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
        value.as_bool().ok_or_else(|| mismatch::<Self>(value))
    }
}

impl FromReply for StreamId {
    #[inline]
    fn from_value(value: Value<'_>, _: &Frame) -> Result<Self, Error> {
        value.as_bytes().and_then(Self::parse).ok_or_else(|| mismatch::<Self>(value))
    }
}

impl<T: FromReply> FromReply for Option<T> {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        if value.is_null() { Ok(None) } else { T::from_value(value, frame).map(Some) }
    }

    fn from_frame(frame: Frame) -> Result<Self, Error> {
        if frame.value().is_null() { Ok(None) } else { T::from_frame(frame).map(Some) }
    }
}

impl<T: FromReply> FromReply for Vec<T> {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        T::list_from_value(value, frame)
    }
}

impl<T: FromReply> FromReply for VecDeque<T> {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        T::list_from_value(value, frame).map(Self::from)
    }
}

impl<T: FromReply> FromReply for Box<[T]> {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        T::list_from_value(value, frame).map(Self::from)
    }
}

impl<T: FromReply, const N: usize> FromReply for [T; N] {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        T::list_from_value(value, frame)?.try_into().map_err(|_| mismatch::<Self>(value))
    }
}

impl<T: FromReply + Eq + Hash, S: BuildHasher + Default> FromReply for HashSet<T, S> {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        elements::<Self>(value)?.map(|element| T::from_value(element, frame)).collect()
    }
}

impl<T: FromReply + Ord> FromReply for BTreeSet<T> {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        elements::<Self>(value)?.map(|element| T::from_value(element, frame)).collect()
    }
}

impl<K: FromReply + Eq + Hash, V: FromReply, S: BuildHasher + Default> FromReply for HashMap<K, V, S> {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        pairs::<Self, _, _>(value, frame)
    }
}

impl<K: FromReply + Ord, V: FromReply> FromReply for BTreeMap<K, V> {
    fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
        pairs::<Self, _, _>(value, frame)
    }
}

/// Returns keys and values of a map, or of what replaces it: a flat array, or an array of pairs.
fn pairs<T: FromIterator<(K, V)>, K: FromReply, V: FromReply>(value: Value<'_>, frame: &Frame) -> Result<T, Error> {
    let pair = |(key, value)| Ok((K::from_value(key, frame)?, V::from_value(value, frame)?));
    match value.kind() {
        ValueKind::Map => value.pairs().map(pair).collect(),
        ValueKind::Array if is_nested(value, 2) => {
            value.children().map(|element| <(K, V)>::from_value(element, frame)).collect()
        }
        ValueKind::Array if value.children().len().is_multiple_of(2) => value.pairs().map(pair).collect(),
        _ => Err(mismatch::<T>(value)),
    }
}

/// Returns whether the elements of a list are lists of this length.
fn is_nested(list: Value<'_>, len: usize) -> bool {
    let mut elements = list.children();
    elements.all(|element| element.kind() == ValueKind::Array && element.children().len() == len)
}

macro_rules! tuples {
    ($(($len:literal: $($name:ident),+);)+) => {
        $(impl<$($name: FromReply),+> FromReply for ($($name,)+) {
            fn from_value(value: Value<'_>, frame: &Frame) -> Result<Self, Error> {
                let mut elements = elements::<Self>(value)?;
                if elements.len() != $len {
                    return Err(mismatch::<Self>(value));
                }
                let mut next = || elements.next().ok_or_else(|| mismatch::<Self>(value));
                Ok(($($name::from_value(next()?, frame)?,)+))
            }

            /// Converts a list of pairs, or a flat list. A map is a list of pairs.
            fn list_from_value(value: Value<'_>, frame: &Frame) -> Result<Vec<Self>, Error> {
                let mut elements = match value.kind() {
                    ValueKind::Map if $len == 2 => value.children(),
                    ValueKind::Array | ValueKind::Set | ValueKind::Push if !is_nested(value, $len) => value.children(),
                    _ => return elements::<Vec<Self>>(value)?.map(|element| Self::from_value(element, frame)).collect(),
                };
                if !elements.len().is_multiple_of($len) {
                    return Err(mismatch::<Vec<Self>>(value));
                }
                let mut list = Vec::with_capacity(elements.len() / $len);
                while elements.len() > 0 {
                    let mut next = || elements.next().ok_or_else(|| mismatch::<Vec<Self>>(value));
                    list.push(($($name::from_value(next()?, frame)?,)+));
                }
                Ok(list)
            }
        })+
    };
}

tuples! {
    (2: A, B);
    (3: A, B, C);
    (4: A, B, C, D);
    (5: A, B, C, D, E);
    (6: A, B, C, D, E, F);
    (7: A, B, C, D, E, F, G);
    (8: A, B, C, D, E, F, G, H);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{Entries, StreamEntries};
    use crate::{Decoder, ErrorKind};
    use bytes::BytesMut;

    /// Spaces stand for line ends.
    fn frame(reply: &str) -> Frame {
        let reply = reply.replace(' ', "\r\n") + "\r\n";
        Decoder::default().decode(&mut BytesMut::from(reply.as_str())).unwrap().unwrap()
    }

    fn to<T: FromReply>(reply: &str) -> Result<T, String> {
        T::from_frame(frame(reply)).map_err(|error| error.to_string())
    }

    /// The converted value, or the text of the error.
    macro_rules! gives {
        ($($reply:literal as $type:ty => $expected:expr;)+) => {
            $(assert_eq!(to::<$type>($reply), Ok($expected), "{} as {}", $reply, stringify!($type));)+
        };
    }

    macro_rules! refuses {
        ($($reply:literal as $type:ty => $expected:expr;)+) => {
            $(assert_eq!(to::<$type>($reply), Err($expected.to_owned()), "{}", $reply);)+
        };
    }

    fn s(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn scalars() {
        gives! {
            "+OK" as () => ();
            "_" as () => ();
            "$5 hello" as String => s("hello");
            "=7 txt:abc" as String => s("abc");
            ":5" as String => s("5");
            "$2 hi" as Rc<str> => "hi".into();
            "$2 hi" as Cow<'_, str> => "hi".into();
            "$2 hi" as Cow<'_, [u8]> => b"hi"[..].into();
            "$2 ß" as char => 'ß';
            "$?\r\n;2 he ;3 llo ;0" as String => s("hello");
            "$2 hi" as Box<str> => "hi".into();
            "$2 hi" as Arc<str> => "hi".into();
            "$3 a\0b" as Vec<u8> => b"a\0b".to_vec();
            "*2 :1 :2" as Vec<u8> => vec![1, 2];
            "$3 abc" as Bytes => Bytes::from("abc");
            ":255" as u8 => 255;
            "$2 -7" as i16 => -7;
            "$20 18446744073709551615" as u64 => u64::MAX;
            "$1 7" as usize => 7;
            ":-5" as i128 => -5;
            "(-170141183460469231731687303715884105728" as i128 => i128::MIN;
            "(340282366920938463463374607431768211455" as u128 => u128::MAX;
            "$1 7" as u128 => 7;
            ",1.5" as f64 => 1.5;
            "$3 1.5" as f64 => 1.5;
            ":3" as f32 => 3.0;
            ",inf" as f64 => f64::INFINITY;
            "#t" as bool => true;
            ":0" as bool => false;
            "$3 7-1" as StreamId => StreamId::new(7, 1);
            "_" as Option<u64> => None;
            "$-1" as Option<String> => None;
            "*-1" as Option<Vec<u64>> => None;
            ":1" as Option<u64> => Some(1);
        }
    }

    #[test]
    fn the_error_names_both_types() {
        refuses! {
            "$5 hello" as u64 => "expected u64, got string of 5 bytes";
            "+OK" as u64 => "expected u64, got string \"OK\"";
            ":300" as u8 => "expected u8, got integer 300";
            ":4294967296" as u32 => "expected u32, got integer of 10 digits";
            ":-1" as u64 => "expected u64, got integer -1";
            "_" as String => "expected String, got null";
            "#t" as String => "expected String, got boolean t";
            "*0" as String => "expected String, got array []";
            "*1 :1" as HashMap<String, Vec<Option<u64>>> => "expected HashMap<String, Vec<Option<u64>>>, got array [integer 1]";
            "*2 :1 +x" as Vec<u64> => "expected u64, got string of 1 byte";
            "*3 :1 :2 :3" as (u64, u64) => "expected (u64, u64), got array [integer 1, integer 2, integer 3]";
            "*1 :1" as [u64; 2] => "expected [u64; 2], got array [integer 1]";
            "_" as Vec<String> => "expected Vec<String>, got null";
            "(340282366920938463463374607431768211456" as u128 => "expected u128, got big number of 39 digits";
            ",1" as i128 => "expected i128, got double";
            ":-1" as u128 => "expected u128, got integer -1";
            "$2 hi" as char => "expected char, got string of 2 bytes";
            ":2" as bool => "expected bool, got integer 2";
            "%1 +a :1" as u64 => "expected u64, got map {string of 1 byte: integer 1}";
        }
        let invalid = Decoder::default().decode(&mut BytesMut::from(&b"$1\r\n\xff\r\n"[..])).unwrap().unwrap();
        assert_eq!(
            invalid.to::<String>().unwrap_err().to_string(),
            "expected String, got string of 1 byte that is not UTF-8"
        );
        // The message is short, however long the reply is.
        let long = to::<u64>(&format!("*3000 {}:1", ":1 ".repeat(2999))).unwrap_err();
        assert!(long.len() < 200 && long.ends_with('…'), "{long}");
    }

    #[test]
    fn errors_inside_are_errors() {
        let reply = frame("*2 :1 -WRONGTYPE\u{a0}of\u{a0}key");
        assert_eq!(reply.to::<Vec<u64>>().unwrap_err().kind(), ErrorKind::Other);
        let reply = frame("*1 -NOGROUP");
        assert_eq!(reply.to::<Vec<String>>().unwrap_err().kind(), ErrorKind::NoGroup);
        assert_eq!(reply.to::<Vec<()>>().unwrap_err().kind(), ErrorKind::NoGroup);
        assert!(reply.to::<Vec<Frame>>().unwrap()[0].kind().is_error(), "a frame may be one");
    }

    #[test]
    fn collections() {
        let map = HashMap::from([(s("a"), 1u64), (s("b"), 2)]);
        gives! {
            "*2 +a +b" as Vec<String> => vec![s("a"), s("b")];
            "~2 +a +b" as BTreeSet<String> => BTreeSet::from([s("a"), s("b")]);
            "*2 +a +a" as HashSet<String> => HashSet::from([s("a")]);
            "*2 :1 :2" as VecDeque<u8> => VecDeque::from([1, 2]);
            "*2 :1 :2" as Box<[i64]> => vec![1, 2].into();
            "*2 :1 :2" as [u32; 2] => [1, 2];
            "*2 :1 +x" as (u64, String) => (1, s("x"));
            "*2 :1 *2 _ #t" as (u8, (Option<u8>, bool)) => (1, (None, true));
            "%2 +a :1 +b :2" as HashMap<String, u64> => map.clone();
            "*4 +a :1 +b :2" as HashMap<String, u64> => map.clone();
            "*2 *2 +a :1 *2 +b :2" as HashMap<String, u64> => map;
            "%1 +a *2 :1 :2" as BTreeMap<String, Vec<u64>> => BTreeMap::from([(s("a"), vec![1, 2])]);
            "*0" as BTreeMap<String, u64> => BTreeMap::new();
            "*0" as Vec<(String, u64)> => vec![];
            "%1 +a :1" as Vec<(String, u64)> => vec![(s("a"), 1)];
            "*4 +a :1 +b :2" as Vec<(String, u64)> => vec![(s("a"), 1), (s("b"), 2)];
            "*2 *2 +a ,1 *2 +b ,2.5" as Vec<(String, f64)> => vec![(s("a"), 1.0), (s("b"), 2.5)];
            "*1 *3 +a :1 :2" as Vec<(String, u64, u64)> => vec![(s("a"), 1, 2)];
        }
        refuses! {
            "*3 +a :1 +b" as Vec<(String, u64)> => "expected Vec<(String, u64)>, got array [string of 1 byte, integer 1, string of 1 byte]";
        }
    }

    #[test]
    fn bytes_share_the_buffer() {
        let reply = frame("*2 $3 abc $3 def");
        let parts: Vec<Bytes> = reply.to().unwrap();
        let wire = reply.as_wire().as_ptr_range();
        assert!(parts.iter().all(|part| wire.contains(&part.as_ptr())), "{parts:?}");
    }

    #[test]
    fn entries() {
        let entries: Vec<Entries> = frame("*1 *1 *2 $3 1-1 *2 +a +b").to().unwrap();
        assert_eq!(entries[0].first().and_then(|entry| entry.field(b"a")), Some(&b"b"[..]));
        let read: StreamEntries = frame("%1 +s *1 *2 $3 1-1 *0").to().unwrap();
        assert_eq!(read.len(), 1);
    }
}
