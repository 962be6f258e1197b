//! The shared ingestion core: the journal in which frames are recorded before anything parses
//! them, the appenders that bring decoded rows into a database's dense logs, and the parts that these logs
//! are kept in.

pub mod appender;
pub mod chunk;
pub mod journal;
pub mod parts;
pub mod retention;
#[cfg(test)]
mod tests;
