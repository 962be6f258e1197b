//! Any bytes as a frame of the exchange.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kalshi_fuzz::decoder(bytes));
