//! A minimal RESP2 client, independent of the project's own library.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// No value.
    Nil,
    /// A number.
    Int(i64),
    /// A simple or a bulk string.
    Bytes(Vec<u8>),
    /// An error inside the results of a transaction; elsewhere errors are an `Err`.
    Error(String),
    /// An array.
    List(Vec<Self>),
}

impl Value {
    /// The number, or the number in a string.
    #[must_use]
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            Self::Bytes(_) => self.text().parse().unwrap_or_else(|_| panic!("not a number: {self:?}")),
            _ => panic!("not a number: {self:?}"),
        }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => panic!("not a string: {self:?}"),
        }
    }

    /// The elements; none for nil.
    #[must_use]
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(values) => values,
            Self::Nil => &[],
            _ => panic!("not a list: {self:?}"),
        }
    }

    /// The value after `name` in a list of names and values, such as XINFO's.
    #[must_use]
    pub fn field(&self, name: &str) -> &Self {
        let pair = self.list().chunks_exact(2).find(|pair| pair[0].bytes() == name.as_bytes());
        &pair.unwrap_or_else(|| panic!("no field {name} in {self:?}"))[1]
    }
}

/// A connection over a Unix socket.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If nobody listens on the socket.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its reply. The inner error is Redis' error reply.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Result<Value, String>> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args.iter().map(AsRef::as_ref) {
            write!(request, "${}\r\n", arg.len())?;
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request)?;
        Ok(match self.value()? {
            Value::Error(refusal) => Err(refusal),
            value => Ok(value),
        })
    }

    fn value(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let number = || rest.parse::<i64>().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        Ok(match kind {
            "+" => Value::Bytes(rest.as_bytes().to_vec()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Int(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Value::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Value::Bytes(bytes)
                }
            },
            "*" => match usize::try_from(number()?) {
                Err(_) => Value::Nil,
                Ok(length) => Value::List((0..length).map(|_| self.value()).collect::<io::Result<_>>()?),
            },
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, line.to_owned())),
        })
    }
}
