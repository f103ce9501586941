//! Reads a service's metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Timeout of a request, during which the display does not change.
const PATIENCE: Duration = Duration::from_millis(500);

/// The address of a service's HTTP endpoint, once the service has logged it.
pub(super) struct Endpoint {
    addr: Arc<OnceLock<SocketAddr>>,
}

impl Endpoint {
    pub(super) fn new(addr: Arc<OnceLock<SocketAddr>>) -> Self {
        Self { addr }
    }

    /// The body of `/metrics`; `None` if the service has no endpoint yet, or has exited.
    pub(super) fn metrics(&self) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(self.addr.get()?, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

/// The value of a metric: the first one with that name, whatever its labels.
pub(super) fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix(' ').or_else(|| Some(rest.strip_prefix('{')?.rsplit_once("} ")?.1));
        value?.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_value_is_found_by_its_full_name() {
        let text = "# TYPE lines_read_total counter\nlines_read_total 12\nlines_read 3\nup{a=\"b\"} 1\n";
        assert_eq!(super::value(text, "lines_read_total"), Some(12.0));
        let labelled = "lines_read_total{stream=\"a\",input=\"/b} c\"} 7\n";
        assert_eq!(super::value(labelled, "lines_read_total"), Some(7.0));
        assert_eq!(super::value(text, "lines_read"), Some(3.0));
        assert_eq!(super::value(text, "up"), Some(1.0));
        assert_eq!(super::value(text, "u"), None);
    }
}
