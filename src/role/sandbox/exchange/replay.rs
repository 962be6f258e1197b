//! Replays a capture as an exchange would have published it: consistent books, unchanged times.
//!
//! Where the recorder had missed frames (a snapshot that is not empty in the middle of a file), the
//! difference between the two books is published as changes first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::capture::{Capture, Fact, Timed};
use super::frames::Change;
use super::hub::Hub;
use super::ledger::PlaceKind;
use super::market::{Event, Listing, MarketId, Outcome, Status};
use super::schedule::{determine, settle};
use super::universe::ticker;
use super::venue::Venue;
use crate::model::{Book, Micros, Side, Size, Ticker};

/// Facts published in one go at most, so that commands and connections get their turn.
const BATCH_FACTS: usize = 256;
/// The replayed markets are said to have opened so long ago, and to close so far ahead: recorded
/// times lie in the past, and a market that seems closed would be watched by nobody.
const OPENED_AGO_SECS: i64 = 900;
const CLOSES_IN_SECS: i64 = 86_400;

/// A market in the middle of its replay.
#[derive(Debug)]
struct Playing {
    id: MarketId,
    last: Option<Micros>,
    closed: bool,
    /// Facts still to come.
    left: usize,
    result: Option<Side>,
}

/// A capture that is listed and ready to play.
#[derive(Debug)]
pub(super) struct Replay {
    facts: Vec<Timed>,
    markets: Vec<Playing>,
}

fn text<'a>(object: Option<&'a Map<String, Value>>, key: &str) -> Option<&'a str> {
    object?.get(key)?.as_str().filter(|text| !text.is_empty())
}

/// A ticker from metadata, or one made from the market's own.
fn named(object: Option<&Map<String, Value>>, key: &str, otherwise: &str) -> Ticker {
    let name = text(object, key).and_then(|name| Ticker::parse(name).ok());
    name.unwrap_or_else(|| ticker(otherwise))
}

impl Replay {
    /// Lists the markets of a capture, each with its first book.
    pub fn list(venue: &mut Venue, capture: Capture) -> Self {
        let now = Micros::now();
        let second = now.0 - now.0.rem_euclid(1_000_000);
        let since = Micros(second - OPENED_AGO_SECS * 1_000_000);
        let close = Micros(second + CLOSES_IN_SECS * 1_000_000);
        let mut markets = Vec::with_capacity(capture.markets.len());
        for recorded in capture.markets {
            let own = recorded.ticker.as_str();
            let before_dash = |name: &'_ str, dash: Option<usize>| {
                dash.filter(|at| *at > 0).and_then(|at| name.get(..at)).map(str::to_owned)
            };
            let event_name = before_dash(own, own.rfind('-')).unwrap_or_else(|| own.to_owned());
            let series_name = before_dash(&event_name, event_name.find('-'))
                .unwrap_or_else(|| event_name.clone());
            let event = recorded.event.as_ref();
            let series = named(event, "series_ticker", &series_name);
            let category = text(event, "category").unwrap_or("Recorded");
            let event_ticker = named(event, "event_ticker", &event_name);
            let known = venue.catalog.events.iter().position(|e| e.ticker == event_ticker);
            let event_at = known.unwrap_or_else(|| {
                let series = venue.catalog.series_index(&series, series.as_str(), category);
                venue.catalog.add_event(Event {
                    title: text(event, "title").unwrap_or(own).to_owned(),
                    ticker: event_ticker,
                    series,
                    updated: since,
                    markets: Vec::new(),
                    template: recorded.event.clone().map(Box::new),
                })
            });
            let result = text(recorded.market.as_ref(), "result").and_then(Side::from_name);
            let id = venue.list(Listing {
                ticker: recorded.ticker,
                uuid: recorded.uuid,
                event: event_at,
                book: recorded.initial,
                tick_micros: 10_000,
                status: Status::Active,
                since,
                close,
                template: recorded.market.map(Box::new),
                collection: None,
            });
            markets.push(Playing { id, last: None, closed: false, left: 0, result });
        }
        for fact in &capture.facts {
            if let Some(playing) = markets.get_mut(fact.market) {
                playing.left += 1;
            }
        }
        Self { facts: capture.facts, markets }
    }

    /// Plays everything at `speed` times the recorded pace, waiting only for readers that are far
    /// behind. Ends early when the exchange stops.
    pub async fn play(mut self, hub: Arc<Hub>, speed: f64) {
        let mut start = Instant::now();
        let facts = std::mem::take(&mut self.facts);
        let mut rest = facts.as_slice();
        while let Some(first) = rest.first() {
            if hub.stop.is_cancelled() {
                return;
            }
            if !hub.with(|venue| venue.trading) {
                let pause = Duration::from_millis(20);
                tokio::time::sleep(pause).await;
                start += pause;
                continue;
            }
            let played = |fact: &Timed| when(fact, speed);
            let elapsed = start.elapsed();
            if let Some(wait) = played(first).checked_sub(elapsed).filter(|wait| !wait.is_zero()) {
                tokio::time::sleep(wait.min(Duration::from_millis(100))).await;
                continue;
            }
            let due = rest.iter().take(BATCH_FACTS).take_while(|fact| played(fact) <= elapsed);
            let (batch, tail) = rest.split_at(due.count().max(1).min(rest.len()));
            hub.with(|venue| {
                for fact in batch {
                    self.publish(venue, fact);
                }
            });
            rest = tail;
            hub.pace().await;
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn publish(&mut self, venue: &mut Venue, timed: &Timed) {
        let Some(playing) = self.markets.get_mut(timed.market) else { return };
        playing.left = playing.left.saturating_sub(1);
        match &timed.fact {
            Fact::Change(change) => {
                venue.publish_delta(playing.id, change, false);
                playing.last = playing.last.max(Some(change.at));
            }
            Fact::Trade(trade) => {
                // The recording does not say which trades open contracts.
                let opens = trade.trade_id.as_u128() % 3 > 0;
                let (id, at) = (playing.id, trade.at);
                venue.publish_trade(id, trade.as_ref().clone(), opens);
                venue.publish_ticker(id, at);
            }
            Fact::Snapshot(stated) if stated.is_empty() => {
                playing.closed = true;
                venue.publish_close(playing.id);
            }
            Fact::Snapshot(stated) => {
                let otherwise = Micros::from_millis(timed.recv_ms);
                let at = playing.last.map_or(otherwise, |last| Micros(last.0 + 1));
                playing.last = Some(at);
                correct(venue, playing.id, stated, at);
            }
        }
        if playing.left == 0 && playing.closed {
            let now = Micros::now();
            let result = playing.result.unwrap_or(Side::Yes);
            determine(venue, playing.id, Outcome::Side(result), now);
            settle(venue, playing.id, now);
        }
    }

    /// The facts, in the order of replay.
    #[cfg(test)]
    pub fn facts(&self) -> &[Timed] {
        &self.facts
    }
}

/// When a fact is due, counted from the start.
fn when(fact: &Timed, speed: f64) -> Duration {
    let recorded = Duration::from_millis(u64::try_from(fact.offset_ms).unwrap_or(0));
    Duration::try_from_secs_f64(recorded.as_secs_f64() / speed).unwrap_or(Duration::ZERO)
}

/// Publishes what makes the served book equal to the stated one, all at one time.
fn correct(venue: &mut Venue, id: MarketId, stated: &Book, at: Micros) {
    let Some(market) = venue.catalog.market(id) else { return };
    let mut changes = Vec::new();
    for side in [Side::Yes, Side::No] {
        let mut difference = std::collections::BTreeMap::new();
        for (price, size) in market.book.levels(side) {
            *difference.entry(price).or_insert(0) -= size.hundredths();
        }
        for (price, size) in stated.levels(side) {
            *difference.entry(price).or_insert(0) += size.hundredths();
        }
        changes.extend(difference.into_iter().filter(|(_, size)| *size != 0).map(
            |(price, size)| Change { at, side, price, size_delta: Size::from_hundredths(size) },
        ));
    }
    for change in &changes {
        venue.publish_delta(id, change, true);
    }
    venue.ledger.add_place(id, PlaceKind::Resubscribed, stated.clone());
}
