//! The shared ingestion core: the journal in which frames are recorded before anything parses
//! them, and the appenders that bring decoded rows into a database's dense logs.

pub mod appender;
pub mod chunk;
pub mod journal;
