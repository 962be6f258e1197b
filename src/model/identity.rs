//! Content hashes: what tells two updates of one millisecond apart, the same for every gatherer.

use xxhash_rust::xxh3::Xxh3;

use super::TickerUpdate;

/// The content of a ticker message: every field but `received_at`, the place and the hash itself.
/// 64 bits suffice because it only tells apart updates of one market and one millisecond.
pub fn ticker_content(update: &TickerUpdate) -> i64 {
    let mut hasher = Xxh3::new();
    hasher.update(update.ticker.as_str().as_bytes());
    let fields = [
        Some(update.exchange_ts.0),
        update.last_price.map(|price| price.micros()),
        update.yes_bid.map(|price| price.micros()),
        update.yes_ask.map(|price| price.micros()),
        update.yes_bid_size.map(|size| size.hundredths()),
        update.yes_ask_size.map(|size| size.hundredths()),
        update.last_trade_size.map(|size| size.hundredths()),
        update.volume.map(|size| size.hundredths()),
        update.open_interest.map(|size| size.hundredths()),
        update.dollar_volume,
        update.dollar_open_interest,
    ];
    for field in fields {
        // An absent field must not hash like one that is 0.
        hasher.update(&[u8::from(field.is_some())]);
        hasher.update(&field.unwrap_or_default().to_le_bytes());
    }
    hasher.digest().cast_signed()
}

/// The content of a message kept as text.
pub fn text_content(text: &str) -> i64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()).cast_signed()
}
