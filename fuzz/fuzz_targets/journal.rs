//! Any damage to any journal.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kalshi_fuzz::journal(bytes));
