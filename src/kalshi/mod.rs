//! The exchange adapter: handshakes, REST, frames, decoding, sessions and sequence numbers.
//!
//! It knows Kalshi's protocol and our model, and neither a database nor a journal: what a session
//! receives goes to a [`session::FrameSink`] that its caller provides.

pub mod sequence;
pub mod wire;
