//! TCP ports that no other test uses.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};

use rustix::fs::FlockOperation;

/// Below the kernel's range for outgoing connections, so that a server that restarts finds its port
/// free.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A port of 127.0.0.1, reserved among all processes that use this module until this value is
/// dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port that nobody listens on.
    #[must_use]
    pub fn take() -> Self {
        let dir = std::env::temp_dir().join("e2e-ports");
        std::fs::create_dir_all(&dir).expect("a folder for port locks");
        loop {
            let number = fastrand::u16(PORTS);
            let lock = File::create(dir.join(number.to_string())).expect("a port lock");
            let free = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
                && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
            if free {
                return Self { number, _lock: lock };
            }
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }
}
