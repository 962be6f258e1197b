//! Text frames made binary on their way in, so that a text which is not UTF-8 costs itself and not
//! the connection.
//!
//! The WebSocket library must fail a connection on such a text and drops its bytes, as the standard
//! wants; a recorder must keep the bytes and go on. So this stands between the socket and the
//! library and changes one bit in the header of each text frame. Everything else passes as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What an accepted handshake begins with; anything else is an answer in plain HTTP.
const ACCEPTED: &[u8] = b"HTTP/1.1 101";
/// What ends the handshake.
const BLANK_LINE: &[u8] = b"\r\n\r\n";
const OPCODE_MASK: u8 = 0x0F;
const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;
const MASKED: u8 = 0x80;
const MASK_BYTES: u64 = 4;

/// See the module.
#[derive(Debug)]
pub struct Lenient<S> {
    inner: S,
    frames: Frames,
}

impl<S> Lenient<S> {
    /// Around a socket on which nothing was read yet.
    pub fn new(inner: S) -> Self {
        Self { inner, frames: Frames::Status { matched: 0 } }
    }
}

/// Where in the stream of bytes we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frames {
    /// In the first bytes of the answer to the handshake.
    Status {
        matched: usize,
    },
    /// In its headers; how much of the blank line came last.
    Headers {
        matched: usize,
    },
    /// The handshake was refused: no frames follow.
    Refused,
    /// Before a frame's first byte, and its second.
    Opcode,
    Length,
    /// In the bytes of a longer length: how many are left, and what they say so far.
    Extended {
        left: u8,
        length: u64,
        mask: u64,
    },
    /// In the mask and the payload.
    Payload {
        left: u64,
    },
}

impl Frames {
    /// Follows the bytes and changes the opcodes among them.
    fn pass(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes.iter_mut();
        while let Some(byte) = rest.next() {
            *self = match *self {
                Self::Status { matched } if ACCEPTED.get(matched) == Some(&*byte) => {
                    let matched = matched + 1;
                    if matched == ACCEPTED.len() {
                        Self::Headers { matched: 0 }
                    } else {
                        Self::Status { matched }
                    }
                }
                Self::Status { .. } | Self::Refused => {
                    *self = Self::Refused;
                    return;
                }
                Self::Headers { matched } => match BLANK_LINE.get(matched) {
                    Some(wanted) if *wanted == *byte && matched + 1 == BLANK_LINE.len() => {
                        Self::Opcode
                    }
                    Some(wanted) if *wanted == *byte => Self::Headers { matched: matched + 1 },
                    // A carriage return may begin the blank line anew.
                    _ => Self::Headers { matched: usize::from(*byte == b'\r') },
                },
                Self::Opcode => {
                    if *byte & OPCODE_MASK == OPCODE_TEXT {
                        *byte = (*byte & !OPCODE_MASK) | OPCODE_BINARY;
                    }
                    Self::Length
                }
                Self::Length => {
                    let mask = if *byte & MASKED == 0 { 0 } else { MASK_BYTES };
                    match *byte & !MASKED {
                        126 => Self::Extended { left: 2, length: 0, mask },
                        127 => Self::Extended { left: 8, length: 0, mask },
                        length => Self::payload(u64::from(length) + mask),
                    }
                }
                Self::Extended { left, length, mask } => {
                    let length = (length << 8) | u64::from(*byte);
                    match left {
                        0 | 1 => Self::payload(length.saturating_add(mask)),
                        _ => Self::Extended { left: left - 1, length, mask },
                    }
                }
                Self::Payload { left } => {
                    // This byte and as many of the rest as belong to the payload, in one step.
                    let more = usize::try_from(left - 1).unwrap_or(usize::MAX).min(rest.len());
                    if let Some(last) = more.checked_sub(1) {
                        rest.nth(last);
                    }
                    // `more` is at most `left - 1`.
                    Self::payload(left - 1 - u64::try_from(more).unwrap_or(0))
                }
            };
        }
    }

    fn payload(left: u64) -> Self {
        if left == 0 { Self::Opcode } else { Self::Payload { left } }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        let result = Pin::new(&mut this.inner).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = result
            && let Some(new) = buf.filled_mut().get_mut(before..)
        {
            this.frames.pass(new);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HANDSHAKE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\r\n\r\n";

    /// A frame as a server sends it.
    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        let length = payload.len();
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short < 126 => bytes.push(short),
            (_, Ok(medium)) => {
                bytes.push(126);
                bytes.extend(medium.to_be_bytes());
            }
            _ => {
                bytes.push(127);
                bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    proptest! {
        #[test]
        fn only_the_opcodes_of_text_change_however_the_bytes_are_cut(
            frames in vec((prop_oneof![Just(0_u8), Just(1), Just(2), Just(8), Just(9), Just(10)],
                prop_oneof![0_usize..300, 65_530_usize..65_540]), 0..8),
            cuts in vec(1_usize..70_000, 1..40),
        ) {
            let build = |text: u8| {
                let mut bytes = HANDSHAKE.to_vec();
                for (opcode, length) in &frames {
                    let opcode = if *opcode == OPCODE_TEXT { text } else { *opcode };
                    // The payload looks like headers of text frames.
                    bytes.extend(frame(opcode, &vec![0x81; *length]));
                }
                bytes
            };
            let mut bytes = build(OPCODE_TEXT);
            let mut state = Frames::Status { matched: 0 };
            let mut rest = bytes.as_mut_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at_mut((*cut).min(rest.len()));
                state.pass(now);
                rest = later;
            }
            prop_assert_eq!(state, Frames::Opcode);
            prop_assert!(bytes == build(OPCODE_BINARY));
        }
    }

    #[test]
    fn a_refusal_passes_as_it_is() {
        let refusal = b"HTTP/1.1 401 Unauthorized\r\n\r\n\x81\x01aaaa".to_vec();
        let mut bytes = refusal.clone();
        Frames::Status { matched: 0 }.pass(&mut bytes);
        assert_eq!(bytes, refusal);
    }
}
