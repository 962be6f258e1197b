//! What the REST poller writes into the journal: the reply as it came, behind one line that says
//! what reading it back needs.
//!
//! A polled book has no place in any stream. Its row gets a session of its own (one a start of the
//! poller), sid 0 and, as seq, the ordinal of the book in that session.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kalshi::market::ONE_DOLLAR;
use crate::model::Price;

/// The line before a reply.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Header {
    /// The ordinal of the reply's first book, from 1.
    pub first: i64,
    /// What a contract pays at most, in micro-dollars, of the markets where it is not one dollar.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notional: BTreeMap<String, i64>,
}

impl Header {
    /// The record's payload.
    pub fn before(&self, body: &[u8]) -> Vec<u8> {
        // Numbers and texts of ours; their JSON cannot fail.
        let mut payload = serde_json::to_vec(self).unwrap_or_default();
        payload.push(b'\n');
        payload.extend_from_slice(body);
        payload
    }

    /// Takes a payload apart; none when it is not what [`Header::before`] writes.
    pub fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let end = payload.iter().position(|byte| *byte == b'\n')?;
        let header = serde_json::from_slice(payload.get(..end)?).ok()?;
        Some((header, payload.get(end + 1..)?))
    }

    /// What a contract of a market pays at most.
    pub fn notional_of(&self, ticker: &str) -> Price {
        Price::from_micros(self.notional.get(ticker).copied().unwrap_or(ONE_DOLLAR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let notional = BTreeMap::from([("A".to_owned(), 100_000_000)]);
        let header = Header { first: 101, notional };
        let payload = header.before(b"{\"a\":\n1}");
        let (read, body) = Header::split(&payload).unwrap();
        assert_eq!((&read, body), (&header, b"{\"a\":\n1}".as_slice()));
        assert_eq!(read.notional_of("A").micros(), 100_000_000);
        assert_eq!(read.notional_of("B").micros(), 1_000_000);
        for payload in ["", "{}", "x\n{}", "{\"first\":\"1\"}\n"] {
            assert_eq!(Header::split(payload.as_bytes()), None, "{payload}");
        }
    }
}
