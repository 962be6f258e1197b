//! Free loopback ports, from below the range that the kernel gives to outgoing connections: a
//! client that keeps trying the port of a stopped server must not be given that very port.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

const PORT_MIN: u16 = 10_240;
/// Where the range of outgoing ports begins when the system does not say.
const OUTGOING_MIN_DEFAULT: u16 = 32_768;
const TRIES_MAX: usize = 200;

/// Hands out each port once.
#[derive(Debug, Default)]
pub struct Ports {
    given: Mutex<HashSet<u16>>,
}

impl Ports {
    /// A port on which nothing listened a moment ago.
    ///
    /// # Errors
    /// When none of 200 random ports is free.
    pub fn free(&self) -> io::Result<u16> {
        let end = outgoing_min().max(PORT_MIN + 1);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES_MAX {
            let port = fastrand::u16(PORT_MIN..end);
            if given.contains(&port) {
                continue;
            }
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                given.insert(port);
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port on the loopback address"))
    }

    /// A free loopback address.
    ///
    /// # Errors
    /// As [`Ports::free`].
    pub fn address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, self.free()?)))
    }
}

fn outgoing_min() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .filter(|&port: &u16| port > PORT_MIN + 1000)
        .unwrap_or(OUTGOING_MIN_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports = Ports::default();
        let given: HashSet<u16> = (0..50).map(|_| ports.free().unwrap()).collect();
        assert_eq!(given.len(), 50);
        assert!(given.iter().all(|&port| port < outgoing_min()));
    }
}
