//! Any text as a configuration file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kalshi_fuzz::config(bytes));
