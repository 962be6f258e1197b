//! The channels that cover all markets: trades, quotes and lifecycle messages, each once.

use super::stretches::opened;
use super::{Interpreter, Output, stream_of};
use crate::kalshi::decode::{LifecycleMessage, TickerMessage, TradeMessage};
use crate::log::journal::Position;
use crate::model::{
    Channel, Lifecycle, Micros, Place, Record, Ticker, TickerUpdate, Trade, identity,
};
use crate::role::gather::exchange_time::{Offset, proved};

impl Interpreter {
    /// A record of a channel that covers all markets.
    pub(super) fn count_in_channel(
        &mut self,
        position: Position,
        place: Place,
        channel: Channel,
        at: Micros,
        exchange_ts: Option<Micros>,
        out: &mut Output,
    ) {
        let proof = exchange_ts.and_then(|time| proved(time, at, self.offset));
        if let Some(exchange_ts) = exchange_ts {
            Offset::take(&mut self.offset, exchange_ts, at);
            self.anchors.clock_known(at);
        }
        let stream = stream_of(&mut self.sessions, place.session, place.sid, channel, at);
        stream.last_frame = proof.map_or(stream.last_frame, |proof| proof.max(stream.last_frame));
        if stream.all_markets.is_none() {
            // Its beginning, or what came before this frame, is lost: what it brings counts from here.
            self.all_markets_begin(position, (place.session, place.sid), at, out);
        }
        let stream = stream_of(&mut self.sessions, place.session, place.sid, channel, at);
        if let Some(stretch) = &mut stream.all_markets
            && stretch.count(exchange_ts)
        {
            let place = (place.session, place.sid);
            out.open.push((position, opened(place, String::new(), channel, stretch)));
        }
    }

    pub(super) fn trade(
        &mut self,
        position: Position,
        place: Place,
        at: Micros,
        trade: TradeMessage,
        out: &mut Output,
    ) {
        let Ok(ticker) = Ticker::parse(&trade.ticker) else { return };
        let exchange_ts = Some(trade.exchange_ts);
        self.count_in_channel(position, place, Channel::Trade, at, exchange_ts, out);
        if !self.seen.is_new(&[b"trade", trade.trade_id.as_bytes()]) {
            self.counts.copies += 1;
            return;
        }
        if trade.taker_side.is_none() {
            self.complain("trade", "taker_outcome_side", "an outcome that we do not know");
        }
        out.rows.push((
            position,
            Record::Trade(Trade {
                trade_id: trade.trade_id,
                ticker,
                exchange_ts: trade.exchange_ts,
                received_at: at,
                price: trade.price,
                no_price: trade.no_price,
                size: trade.size,
                taker_side: trade.taker_side,
                is_block_trade: trade.is_block_trade,
                place,
            }),
        ));
    }

    pub(super) fn ticker(
        &mut self,
        position: Position,
        place: Place,
        at: Micros,
        message: TickerMessage,
        out: &mut Output,
    ) {
        let Ok(ticker) = Ticker::parse(&message.ticker) else { return };
        let exchange_ts = Some(message.exchange_ts);
        self.count_in_channel(position, place, Channel::Ticker, at, exchange_ts, out);
        let mut update = TickerUpdate {
            ticker,
            exchange_ts: message.exchange_ts,
            received_at: at,
            last_price: message.last_price,
            yes_bid: message.yes_bid,
            yes_ask: message.yes_ask,
            yes_bid_size: message.yes_bid_size,
            yes_ask_size: message.yes_ask_size,
            last_trade_size: message.last_trade_size,
            volume: message.volume,
            open_interest: message.open_interest,
            dollar_volume: message.dollar_volume,
            dollar_open_interest: message.dollar_open_interest,
            content_hash: 0,
            place,
        };
        update.content_hash = identity::ticker_content(&update);
        let (name, time) = (update.ticker.as_str().as_bytes(), update.exchange_ts.0.to_le_bytes());
        if !self.seen.is_new(&[b"ticker", name, &time, &update.content_hash.to_le_bytes()]) {
            self.counts.copies += 1;
            return;
        }
        out.rows.push((position, Record::Ticker(update)));
    }

    pub(super) fn lifecycle(
        &mut self,
        position: Position,
        place: Place,
        at: Micros,
        message: LifecycleMessage,
        out: &mut Output,
    ) {
        let Ok(subject) = Ticker::parse(&message.subject) else { return };
        // Its times are of the market's life, not of the stream.
        self.count_in_channel(position, place, Channel::Lifecycle, at, None, out);
        let hash = message.content_hash.to_le_bytes();
        let (name, kind) = (subject.as_str().as_bytes(), message.event_type.as_bytes());
        if !self.seen.is_new(&[b"lifecycle", name, kind, &hash]) {
            self.counts.copies += 1;
            return;
        }
        out.rows.push((
            position,
            Record::Lifecycle(Lifecycle {
                subject,
                event_type: message.event_type,
                exchange_ts: message.exchange_ts,
                received_at: at,
                payload: message.payload,
                content_hash: message.content_hash,
                place,
            }),
        ));
    }
}
