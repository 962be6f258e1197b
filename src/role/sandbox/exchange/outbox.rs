//! What waits to be written to one WebSocket: whole frames, already encoded, in chunks.
//!
//! The publisher appends bytes under its own lock and never waits; one writer task per connection
//! drains. Encoding here, not in a queue of messages, makes a frame cost one copy a subscriber.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What one write call to the socket carries at most, unless a single frame is larger.
const CHUNK_BYTES: usize = 64 * 1024;
/// Empty chunks kept for reuse, so that a steady flow allocates nothing: 4 * 64 KiB a connection.
const SPARE_CHUNKS_MAX: usize = 4;

/// WebSocket opcodes that the exchange sends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Text,
    Binary,
    Ping,
    Close,
}

/// What became of a data frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits to be written.
    Yes,
    /// There is no room for it.
    Full,
    /// The connection is ending.
    Closed,
}

impl Opcode {
    /// The first byte of an unfragmented frame (RFC 6455, section 5.2).
    const fn first_byte(self) -> u8 {
        match self {
            Self::Text => 0x81,
            Self::Binary => 0x82,
            Self::Ping => 0x89,
            Self::Close => 0x88,
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Bytes in `chunks`.
    bytes: usize,
    /// Bytes ever taken out, which tells a slow reader from one that reads nothing.
    drained: u64,
    closed: bool,
}

impl Queue {
    /// Appends to the last chunk, or to a new one when the last is full.
    fn append(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes += len;
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() + len <= CHUNK_BYTES => extend(chunk, parts),
            _ => {
                let mut chunk = self.spare.pop().unwrap_or_default();
                extend(&mut chunk, parts);
                self.chunks.push_back(chunk);
            }
        }
    }
}

fn extend(chunk: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        chunk.extend_from_slice(part);
    }
}

/// A frame's header as a server sends it: unmasked (RFC 6455, section 5.2). Returns the bytes and
/// how many of them count.
fn header(opcode: Opcode, len: usize) -> ([u8; 10], usize) {
    let first = opcode.first_byte();
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => ([first, short, 0, 0, 0, 0, 0, 0, 0, 0], 2),
        (_, Ok(medium)) => {
            let [high, low] = medium.to_be_bytes();
            ([first, 126, high, low, 0, 0, 0, 0, 0, 0], 4)
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = (len as u64).to_be_bytes();
            ([first, 127, a, b, c, d, e, f, g, h], 10)
        }
    }
}

/// The queue of one connection. Its bound is enforced by the publisher, which asks [`Self::bytes`]
/// before data frames: an overflow ends a subscription, it never drops a single frame.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every operation leaves the queue whole, so a panic elsewhere does not spoil it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one frame whose payload is the concatenation of `parts`. The writer is not woken:
    /// [`Self::wake`] does that once a batch.
    pub fn push(&self, opcode: Opcode, parts: &[&[u8]]) {
        let len = parts.iter().map(|part| part.len()).sum();
        let (bytes, header_len) = header(opcode, len);
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        queue.append(&[bytes.get(..header_len).unwrap_or(&bytes)]);
        // A frame may stand in two chunks: they are written in order and never in part.
        queue.append(parts);
    }

    /// Appends a data frame unless more than `limit` bytes would wait then.
    pub fn push_within(&self, limit: usize, parts: &[&[u8]]) -> Pushed {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let (bytes, header_len) = header(Opcode::Text, len);
        let mut queue = self.lock();
        if queue.closed {
            return Pushed::Closed;
        }
        if queue.bytes + len > limit {
            return Pushed::Full;
        }
        queue.append(&[bytes.get(..header_len).unwrap_or(&bytes)]);
        queue.append(parts);
        Pushed::Yes
    }

    /// Appends bytes that are whole frames already (pongs and close frames of the reader).
    pub fn push_encoded(&self, bytes: &[u8]) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.append(&[bytes]);
        }
        drop(queue);
        self.wake();
    }

    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Bytes ever taken by the writer.
    pub fn drained(&self) -> u64 {
        self.lock().drained
    }

    /// Lets the writer look.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Takes nothing more and forgets what waits.
    pub fn abandon(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.chunks.clear();
        queue.bytes = 0;
    }

    /// Takes nothing more; the writer ends when it has written what is there.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    /// The next bytes, if there are any.
    #[cfg(test)]
    pub fn try_next(&self) -> Option<Vec<u8>> {
        let mut queue = self.lock();
        let chunk = queue.chunks.pop_front()?;
        queue.bytes -= chunk.len();
        Some(chunk)
    }

    /// The next bytes to write, or none when the outbox is closed and empty.
    pub async fn next(&self, written: Vec<u8>) -> Option<Vec<u8>> {
        let mut written = Some(written);
        loop {
            {
                let mut queue = self.lock();
                if let Some(mut spare) = written.take()
                    && queue.spare.len() < SPARE_CHUNKS_MAX
                    && (1..=2 * CHUNK_BYTES).contains(&spare.capacity())
                {
                    spare.clear();
                    queue.spare.push(spare);
                }
                if let Some(chunk) = queue.chunks.pop_front() {
                    queue.bytes -= chunk.len();
                    queue.drained += chunk.len() as u64;
                    return Some(chunk);
                }
                if queue.closed {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_of_every_length_are_encoded_and_counted() {
        let outbox = Outbox::default();
        for len in [0, 125, 126, 65_535, 65_536, 200_000] {
            let payload = vec![b'x'; len];
            let (first, second) = payload.split_at(len / 2);
            outbox.push(Opcode::Text, &[first, second]);
        }
        let waiting = outbox.bytes();
        outbox.close();
        let mut all = Vec::new();
        let mut chunk = Vec::new();
        while let Some(next) = outbox.next(chunk).await {
            all.extend_from_slice(&next);
            chunk = next;
        }
        assert_eq!(all.len(), waiting);
        assert_eq!(outbox.bytes(), 0);
        assert_eq!(outbox.drained(), all.len() as u64);
        let header = |len: usize| {
            if len < 126 {
                2
            } else if len < 65_536 {
                4
            } else {
                10
            }
        };
        let expected: usize =
            [0, 125, 126, 65_535, 65_536, 200_000].iter().map(|&len| len + header(len)).sum();
        assert_eq!(all.len(), expected);
        assert_eq!(&all[..4], &[0x81, 0, 0x81, 125]);
    }
}
