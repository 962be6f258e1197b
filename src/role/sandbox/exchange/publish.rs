//! Publishing: each fact changes the state, goes to everybody who watches, and into the ledger, all
//! under the one lock.

use serde_json::Value;

use super::frames::{self, Change, TradeFact};
use super::ledger::{LedgerLifecycle, PlaceKind};
use super::market::{Listing, MarketId, Status};
use super::venue::{Message, Venue};
use crate::model::identity::text_content;
use crate::model::{Book, Channel, Micros, Ticker};

impl Venue {
    /// Lists a market.
    pub fn list(&mut self, listing: Listing) -> MarketId {
        let id = self.catalog.list(listing);
        if let Some(market) = self.catalog.market(id) {
            self.ledger.list(id, &market.ticker, &market.book);
        }
        id
    }

    /// Changes a level and tells everybody who watches the market.
    pub fn publish_delta(&mut self, id: MarketId, change: &Change, synthetic: bool) {
        let (mut text, mut no_leg) = self.take_texts();
        let Some(market) = self.catalog.market_mut(id) else { return };
        if market.book.apply(change.side, change.price, change.size_delta).is_err() {
            self.happenings.below_zero += 1;
        }
        frames::put_delta(&mut text, market, change, true);
        if !change.side.is_yes() {
            frames::put_delta(&mut no_leg, market, change, false);
        }
        let message = Message {
            channel: Channel::OrderbookDelta,
            kind: "orderbook_delta",
            text: &text,
            no_leg: (!no_leg.is_empty()).then_some(no_leg.as_str()),
        };
        let receivers = self.fan_out(Some(id), message);
        self.ledger.add_delta(id, change, synthetic, receivers);
        self.put_back(text, no_leg);
    }

    /// Counts a trade into its market and tells everybody who watches trades.
    pub fn publish_trade(&mut self, id: MarketId, trade: TradeFact, opens: bool) {
        let (mut text, no_leg) = self.take_texts();
        let Some(market) = self.catalog.market_mut(id) else { return };
        market.figures.trade(trade.yes_price, trade.size, opens);
        frames::put_trade(&mut text, market, &trade);
        let message = Message { channel: Channel::Trade, kind: "trade", text: &text, no_leg: None };
        let receivers = self.fan_out(Some(id), message);
        self.ledger.add_trade(id, trade, receivers);
        self.put_back(text, no_leg);
    }

    /// Tells everybody who watches tickers the market's quote, unless this millisecond saw the very
    /// same one.
    pub fn publish_ticker(&mut self, id: MarketId, at: Micros) {
        let Some(market) = self.catalog.market(id) else { return };
        let update = frames::quote(market, at);
        if self.ledger.has_ticker(id, &update) {
            return;
        }
        let (mut text, no_leg) = self.take_texts();
        let Some(market) = self.catalog.market_mut(id) else { return };
        frames::put_ticker(&mut text, market, &update);
        market.last_ticker = Some(text.as_str().into());
        let message =
            Message { channel: Channel::Ticker, kind: "ticker", text: &text, no_leg: None };
        let receivers = self.fan_out(Some(id), message);
        self.ledger.add_ticker(id, &update, receivers);
        self.put_back(text, no_leg);
    }

    /// Tells everybody who watches the lifecycle. `kind` is the frame's type; what is about
    /// multivariate markets has a channel of its own.
    pub fn publish_lifecycle(
        &mut self,
        subject: &Ticker,
        kind: &str,
        msg: &Value,
        multivariate: bool,
    ) {
        // A `Value` keeps its keys sorted, so this is the canonical form.
        let text = msg.to_string();
        let channel =
            if multivariate { Channel::MultivariateLifecycle } else { Channel::Lifecycle };
        let message = Message { channel, kind, text: &text, no_leg: None };
        let receivers = self.fan_out(None, message);
        let event_type = msg.get("event_type").and_then(Value::as_str).unwrap_or(kind).to_owned();
        self.ledger.add_lifecycle(LedgerLifecycle {
            subject: subject.clone(),
            event_type,
            content_hash: text_content(&text),
            multivariate,
            receivers,
        });
    }

    /// Closes a market: its book is gone without any change, which an unsolicited empty snapshot
    /// says (sometimes twice).
    pub fn publish_close(&mut self, id: MarketId) {
        let (mut text, no_leg) = self.take_texts();
        let updated = self.catalog.market(id).map_or(Micros(0), |market| market.updated);
        self.catalog.set_status(id, Status::Closed, updated);
        let Some(market) = self.catalog.market_mut(id) else { return };
        market.book = Book::default();
        frames::put_snapshot(&mut text, market, true);
        let message = Message {
            channel: Channel::OrderbookDelta,
            kind: "orderbook_snapshot",
            text: &text,
            no_leg: None,
        };
        let heard = !self.fan_out(Some(id), message).is_empty();
        self.ledger.add_place(id, PlaceKind::Closed { heard }, Book::default());
        self.put_back(text, no_leg);
    }
}
