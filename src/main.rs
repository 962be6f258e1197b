//! Parses the command line, loads the configuration, runs the role, and maps its result to an exit
//! code.

#![forbid(unsafe_code)]

mod kalshi;
mod model;

fn main() {}
