//! Pure values: prices, sizes, times, tickers, books and the records of the six logs.
//!
//! Nothing here does I/O, awaits, or knows SQL or JSON frames; every other module may use it.

pub mod book;
pub mod channel;
pub mod decimal;
pub mod identity;
pub mod record;
pub mod ticker;
pub mod time;

pub use book::Book;
pub use channel::{Channel, Log};
pub use decimal::{NumberError, Price, Size};
pub use record::{
    Coverage, CoverageEnd, Delta, Lifecycle, Place, Record, Side, Snapshot, SnapshotSource,
    TickerUpdate, Trade,
};
pub use ticker::Ticker;
pub use time::{Micros, TimeError};
