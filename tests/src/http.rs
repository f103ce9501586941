//! An HTTP GET client, and a parser of Prometheus' text format.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Timeout of a request: enough for a busy machine, and an end for a service that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Status and body of a page.
///
/// # Errors
///
/// If the service does not answer.
pub fn get(addr: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    request(addr, "GET", path)
}

/// Status and body of the response to a request without a body.
///
/// # Errors
///
/// If the service does not answer.
pub fn request(addr: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, answer.to_string());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(invalid)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
    Ok((status, body.to_owned()))
}

/// The samples of a `/metrics` page.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    /// Parses the page.
    #[must_use]
    pub fn parse(page: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let samples = page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
        Self { samples }
    }

    /// The value of a metric, summed over its labels; `None` if there is no such metric.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        let of_name = |key: &str| key.split('{').next() == Some(name);
        let values: Vec<f64> = self.samples.iter().filter(|(key, _)| of_name(key)).map(|(_, value)| *value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The names with labels, and the values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.samples.iter().map(|(name, value)| (name.as_str(), *value))
    }
}
