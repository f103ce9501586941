//! Types that can be arguments of untyped commands.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::protocol::cast::wide;
use crate::{CommandWriter, StreamId};

/// An argument of [`Cmd::arg`](crate::Cmd::arg).
///
/// | type | arguments |
/// |---|---|
/// | text and bytes: `str`, `String`, `char`, `[u8]`, `[u8; N]`, `Vec<u8>`, [`Bytes`], [`BytesMut`] | one |
/// | integers, `f64`, `f32` | one, in decimal |
/// | `bool` | one, `1` or `0` |
/// | [`StreamId`] | one |
/// | `Option<T>` | none for `None` |
/// | slices, arrays, vectors, deques, sets and maps of other types | those of each element |
/// | tuples of up to eight | those of each part |
/// | references, `Box`, `Rc`, `Arc` and `Cow` of these | the same |
///
/// ```
/// use resp::{RespCodec, cmd};
/// use tokio_util::codec::Encoder;
///
/// let nothing: Option<&str> = None;
/// let command = cmd::<()>("ZADD").arg("board").arg(nothing).arg([(1.5, "ann"), (2.0, "bob")]);
///
/// let mut out = bytes::BytesMut::new();
/// RespCodec::default().encode(&command, &mut out)?;
/// let words: Vec<_> = std::str::from_utf8(&out)?.lines().skip(2).step_by(2).collect();
/// assert_eq!(words, ["ZADD", "board", "1.5", "ann", "2", "bob"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Units and formats are yours to choose: write a `Duration`, a time or an address as a number or
/// as text, for example with `.arg(timeout.as_secs())` or `.arg(address.to_string())`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a command",
    note = "convert it to text or a number, for example with `.to_string()`",
    note = "for the items of an iterator, use `.args(…)`"
)]
pub trait CommandArg {
    /// Writes the arguments.
    fn write(&self, out: &mut CommandWriter<'_>);

    /// Writes the arguments of a list, one element after the other. A list of bytes is one
    /// argument.
    fn write_list(list: &[Self], out: &mut CommandWriter<'_>)
    where
        Self: Sized,
    {
        for arg in list {
            arg.write(out);
        }
    }
}

macro_rules! pointers {
    ($($type:ty),*) => {
        $(impl<A: CommandArg + ?Sized> CommandArg for $type {
            fn write(&self, out: &mut CommandWriter<'_>) {
                (**self).write(out);
            }
        })*
    };
}

pointers!(&A, &mut A, Box<A>, Rc<A>, Arc<A>);

impl<A: CommandArg + ToOwned + ?Sized> CommandArg for Cow<'_, A> {
    fn write(&self, out: &mut CommandWriter<'_>) {
        (**self).write(out);
    }
}

impl<A: CommandArg> CommandArg for Option<A> {
    fn write(&self, out: &mut CommandWriter<'_>) {
        if let Some(arg) = self {
            arg.write(out);
        }
    }
}

impl<A: CommandArg> CommandArg for [A] {
    fn write(&self, out: &mut CommandWriter<'_>) {
        A::write_list(self, out);
    }
}

impl<A: CommandArg, const N: usize> CommandArg for [A; N] {
    fn write(&self, out: &mut CommandWriter<'_>) {
        A::write_list(self, out);
    }
}

impl<A: CommandArg> CommandArg for Vec<A> {
    fn write(&self, out: &mut CommandWriter<'_>) {
        A::write_list(self, out);
    }
}

macro_rules! collections {
    ($($type:ty: ($($param:ident),+)),* $(,)?) => {
        $(impl<$($param),+> CommandArg for $type
        where
            for<'a> <&'a Self as IntoIterator>::Item: CommandArg,
        {
            fn write(&self, out: &mut CommandWriter<'_>) {
                for arg in self {
                    arg.write(out);
                }
            }
        })*
    };
}

collections!(
    VecDeque<A>: (A),
    BTreeSet<A>: (A),
    HashSet<A, S>: (A, S),
    BTreeMap<K, V>: (K, V),
    HashMap<K, V, S>: (K, V, S),
);

macro_rules! tuples {
    ($(($($part:ident $index:tt),+);)+) => {
        $(impl<$($part: CommandArg),+> CommandArg for ($($part,)+) {
            fn write(&self, out: &mut CommandWriter<'_>) {
                $(self.$index.write(out);)+
            }
        })+
    };
}

tuples! {
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
}

macro_rules! bytes {
    ($($type:ty),*) => {
        $(impl CommandArg for $type {
            fn write(&self, out: &mut CommandWriter<'_>) {
                out.arg(self);
            }
        })*
    };
}

bytes!(str, String, Bytes, BytesMut);

impl CommandArg for char {
    fn write(&self, out: &mut CommandWriter<'_>) {
        out.arg(self.encode_utf8(&mut [0; 4]));
    }
}

impl CommandArg for StreamId {
    fn write(&self, out: &mut CommandWriter<'_>) {
        out.arg_id(*self);
    }
}

impl CommandArg for bool {
    fn write(&self, out: &mut CommandWriter<'_>) {
        out.arg(if *self { "1" } else { "0" });
    }
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl CommandArg for $type {
            fn write(&self, out: &mut CommandWriter<'_>) {
                out.arg_int(*self);
            }
        })*
    };
}

integers!(u16, u32, u64, i8, i16, i32, i64, i128);

/// A list of bytes is one argument.
impl CommandArg for u8 {
    fn write(&self, out: &mut CommandWriter<'_>) {
        out.arg_int(*self);
    }

    fn write_list(list: &[Self], out: &mut CommandWriter<'_>) {
        out.arg(list);
    }
}

impl CommandArg for usize {
    fn write(&self, out: &mut CommandWriter<'_>) {
        out.arg_int(wide(*self));
    }
}

impl CommandArg for isize {
    fn write(&self, out: &mut CommandWriter<'_>) {
        // An `isize` has at most 64 bits.
        out.arg_int(i64::try_from(*self).unwrap_or_default());
    }
}

impl CommandArg for u128 {
    fn write(&self, out: &mut CommandWriter<'_>) {
        out.arg(self.to_string());
    }
}

macro_rules! floats {
    ($($type:ty),*) => {
        /// The shortest text that parses to the same number.
        $(impl CommandArg for $type {
            fn write(&self, out: &mut CommandWriter<'_>) {
                let text = format!("{self:?}");
                out.arg(text.strip_suffix(".0").unwrap_or(&text));
            }
        })*
    };
}

floats!(f32, f64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, cmd, command};

    /// Returns the arguments of a command after its name; the header must announce them all.
    fn written(arg: impl CommandArg) -> Vec<String> {
        let mut out = BytesMut::new();
        command::encode(&cmd::<Frame>("C").arg(arg), &mut out);
        let command = crate::Decoder::default().decode(&mut out).unwrap().unwrap();
        assert!(out.is_empty(), "the header announces fewer arguments");
        command.to::<Vec<String>>().unwrap().split_off(1)
    }

    #[test]
    fn common_argument_types() {
        let text = String::from("text");
        assert_eq!(written("a"), ["a"]);
        assert_eq!(written(&text), ["text"]);
        assert_eq!(written(Cow::Borrowed("cow")), ["cow"]);
        assert_eq!(written(Arc::<str>::from("arc")), ["arc"]);
        assert_eq!(written('ß'), ["ß"]);
        assert_eq!(written(b"bytes"), ["bytes"]);
        assert_eq!(written(&b"bytes"[..]), ["bytes"]);
        assert_eq!(written(vec![b'a', b'b']), ["ab"]);
        assert_eq!(written(Bytes::from("b")), ["b"]);
        assert_eq!(written(Some(3)), ["3"]);
        assert_eq!(written(None::<i32>), [""; 0]);
        assert_eq!(written(["a", "b"]), ["a", "b"]);
        assert_eq!(written(&["a", "b"][..]), ["a", "b"]);
        assert_eq!(written(vec![text.clone(), text]), ["text", "text"]);
        assert_eq!(written([("a", 1), ("b", 2)]), ["a", "1", "b", "2"]);
        assert_eq!(written((StreamId::MIN, true, false)), ["0-1", "1", "0"]);
        assert_eq!(written([i64::MIN, -1]), ["-9223372036854775808", "-1"]);
        assert_eq!(written(usize::MAX), [usize::MAX.to_string()]);
        assert_eq!(written((i128::MIN, u128::MAX)), [i128::MIN.to_string(), u128::MAX.to_string()]);
        assert_eq!(written((1, "b", 'c', 4.5)), ["1", "b", "c", "4.5"]);
        assert_eq!(written(BTreeSet::from(["a", "b"])), ["a", "b"]);
        assert_eq!(written(VecDeque::from([b'a', b'b'])), ["97", "98"]);
        assert_eq!(written(HashMap::from([("a", 1)])), ["a", "1"]);
    }

    #[test]
    fn floats_round_trip() {
        for n in [0.0, 1.0, -1.5, 0.1, 1e300, 1e-300, f64::MAX, f64::MIN_POSITIVE, 123456789.0, f64::INFINITY] {
            let text = written(n).remove(0);
            assert_eq!(text.parse::<f64>(), Ok(n), "{text}");
            assert!(text.len() < 25, "{text}");
        }
        assert_eq!(written([1.0, 0.5, f64::NEG_INFINITY]), ["1", "0.5", "-inf"]);
        assert_eq!(written(0.1f32), ["0.1"]);
    }
}
