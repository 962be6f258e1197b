//! The program's modules, compiled once more so that the fuzz targets reach them: it is one executable
//! and no library. What is fuzzed, and what must hold, stands beside the code that it is about.

// Most of the program is never called from here.
#![allow(dead_code, unused_imports)]

#[path = "../../src/config/mod.rs"]
mod config;
#[path = "../../src/kalshi/mod.rs"]
mod kalshi;
#[path = "../../src/log/mod.rs"]
mod log;
#[path = "../../src/model/mod.rs"]
mod model;
#[path = "../../src/ops/mod.rs"]
mod ops;
#[path = "../../src/pg/mod.rs"]
mod pg;
#[path = "../../src/role/mod.rs"]
mod role;

pub use config::fuzz::check as config;
pub use kalshi::decode::fuzz::check as decoder;
pub use log::journal::fuzz::check as journal;
