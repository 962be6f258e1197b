//! Records as rows of a gatherer's tables: the columns of each log and their encoding.

use crate::model::{Log, Record, Side};
use crate::pg::copy::Rows;

/// The statement that copies rows into a log, in the order in which [`encode`] writes the fields.
pub fn copy_statement(log: Log) -> String {
    let columns = match log {
        Log::Trades => {
            "log_seq, trade_id, exchange_ts, received_at, ticker, price, no_price, size, \
             taker_side, is_block_trade, session_id, sid, seq"
        }
        Log::OrderbookDeltas => {
            "log_seq, exchange_ts, received_at, ticker, side, price, size_delta, occurrence, \
             session_id, sid, seq"
        }
        Log::OrderbookSnapshots => {
            "log_seq, received_at, anchor_ts, ticker, source, yes_prices, yes_sizes, no_prices, \
             no_sizes, session_id, sid, seq"
        }
        Log::Tickers => {
            "log_seq, exchange_ts, received_at, ticker, last_price, yes_bid, yes_ask, \
             yes_bid_size, yes_ask_size, last_trade_size, volume, open_interest, dollar_volume, \
             dollar_open_interest, content_hash, session_id, sid"
        }
        Log::MarketLifecycle => {
            "log_seq, subject, event_type, exchange_ts, received_at, payload, content_hash, \
             session_id, sid, seq"
        }
        Log::Coverage => {
            "log_seq, channel, ticker, covered_from, covered_to, first_exchange_ts, \
             last_exchange_ts, records, ended_by, detail, session_id, sid"
        }
    };
    format!("COPY {} ({columns}) FROM STDIN (FORMAT binary)", log.name())
}

/// Encodes a record as row `log_seq` of its log.
pub fn encode(rows: &mut Rows, log_seq: i64, record: &Record) {
    match record {
        Record::Delta(delta) => {
            rows.begin(11);
            rows.i64(log_seq);
            rows.i64(delta.exchange_ts.0);
            rows.i64(delta.received_at.0);
            rows.text(delta.ticker.as_str());
            rows.bool(delta.side.is_yes());
            rows.i64(delta.price.micros());
            rows.i64(delta.size_delta.hundredths());
            rows.i32(delta.occurrence);
            rows.i64(delta.place.session);
            rows.i64(delta.place.sid);
            rows.i64(delta.place.seq);
        }
        Record::Trade(trade) => {
            rows.begin(13);
            rows.i64(log_seq);
            rows.uuid(trade.trade_id);
            rows.i64(trade.exchange_ts.0);
            rows.i64(trade.received_at.0);
            rows.text(trade.ticker.as_str());
            rows.i64(trade.price.micros());
            rows.opt_i64(trade.no_price.map(|price| price.micros()));
            rows.i64(trade.size.hundredths());
            rows.opt_bool(trade.taker_side.map(Side::is_yes));
            rows.bool(trade.is_block_trade);
            rows.i64(trade.place.session);
            rows.i64(trade.place.sid);
            rows.i64(trade.place.seq);
        }
        Record::Snapshot(snapshot) => {
            rows.begin(12);
            rows.i64(log_seq);
            rows.i64(snapshot.received_at.0);
            rows.opt_i64(snapshot.anchor_ts.map(|at| at.0));
            rows.text(snapshot.ticker.as_str());
            rows.text(snapshot.source.name());
            for side in [&snapshot.yes, &snapshot.no] {
                rows.i64_array(side.iter().map(|(price, _)| price.micros()));
                rows.i64_array(side.iter().map(|(_, size)| size.hundredths()));
            }
            rows.i64(snapshot.place.session);
            rows.i64(snapshot.place.sid);
            rows.i64(snapshot.place.seq);
        }
        Record::Ticker(update) => {
            rows.begin(17);
            rows.i64(log_seq);
            rows.i64(update.exchange_ts.0);
            rows.i64(update.received_at.0);
            rows.text(update.ticker.as_str());
            for price in [update.last_price, update.yes_bid, update.yes_ask] {
                rows.opt_i64(price.map(|price| price.micros()));
            }
            let sizes = [
                update.yes_bid_size,
                update.yes_ask_size,
                update.last_trade_size,
                update.volume,
                update.open_interest,
            ];
            for size in sizes {
                rows.opt_i64(size.map(|size| size.hundredths()));
            }
            rows.opt_i64(update.dollar_volume);
            rows.opt_i64(update.dollar_open_interest);
            rows.i64(update.content_hash);
            rows.i64(update.place.session);
            rows.i64(update.place.sid);
        }
        Record::Lifecycle(lifecycle) => {
            rows.begin(10);
            rows.i64(log_seq);
            rows.text(lifecycle.subject.as_str());
            rows.text(&lifecycle.event_type);
            rows.opt_i64(lifecycle.exchange_ts.map(|at| at.0));
            rows.i64(lifecycle.received_at.0);
            rows.jsonb(&lifecycle.payload);
            rows.i64(lifecycle.content_hash);
            rows.i64(lifecycle.place.session);
            rows.i64(lifecycle.place.sid);
            rows.i64(lifecycle.place.seq);
        }
        Record::Coverage(coverage) => {
            rows.begin(12);
            rows.i64(log_seq);
            rows.text(coverage.channel.name());
            rows.text(coverage.ticker.as_ref().map_or("", |ticker| ticker.as_str()));
            rows.i64(coverage.covered_from.0);
            rows.i64(coverage.covered_to.0);
            rows.opt_i64(coverage.first_exchange_ts.map(|at| at.0));
            rows.opt_i64(coverage.last_exchange_ts.map(|at| at.0));
            rows.opt_i64(coverage.records);
            rows.text(coverage.end.name());
            rows.text(&coverage.detail);
            rows.i64(coverage.session);
            rows.i64(coverage.sid);
        }
    }
}
