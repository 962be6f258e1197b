//! The generated flow: a few busy markets and many quiet ones, bursts, replaced orders, trades that
//! take from the book, quotes that follow.
//!
//! Which change follows which is decided by the seed alone; the wall clock decides when it happens,
//! and (for markets born during the run) when the recorders are ready for them.

use fastrand::Rng;

use super::frames::{Change, TradeFact};
use super::market::{MarketId, NOTIONAL_MICROS, other_leg};
use super::schedule::Schedule;
use super::universe::{Character, draw_size, list_market, list_multivariate};
use super::venue::Venue;
use crate::model::{Book, Micros, Price, Side, Size};

/// Levels of a side below which orders are added rather than removed.
const LEVELS_MIN: usize = 3;
/// Levels of a side above which orders are removed rather than added.
const LEVELS_MAX: usize = 25;
/// One change in so many is repeated: same microsecond, level and size.
const IDENTICAL_ONE_IN: u32 = 2_000;
/// How steeply activity falls with a market's rank.
const ZIPF_EXPONENT: f64 = 1.1;

/// How a market trades, and what keeps trades and cancellations of one millisecond apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub id: MarketId,
    character: Character,
    /// The last millisecond with a reduction that was no trade.
    reduced_ms: i64,
    /// The last millisecond with a trade.
    traded_ms: i64,
    pub open: bool,
}

/// The source of a generated run.
#[derive(Debug)]
pub struct Generator {
    pub(super) rng: Rng,
    /// Draws that the wall clock decides about: they may not shift the others.
    jitter: Rng,
    pub(super) flows: Vec<Flow>,
    /// Flows behind the listed ones that may trade: multivariate markets, and those born during the
    /// run.
    pub(super) others: Vec<usize>,
    /// Running sums of the flows' activity.
    weights: Vec<f64>,
    /// The last time given out: never goes back.
    clock: Micros,
    /// Changes published.
    pub published: u64,
    pub(super) schedule: Schedule,
}

impl Generator {
    /// Lists the markets and, behind them, the multivariate ones. `rate` (changes a second) spaces
    /// the births and deaths of markets.
    pub(super) fn new(
        venue: &mut Venue,
        seed: u64,
        (markets, multivariate): (usize, usize),
        rate: f64,
    ) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Micros::now();
        let mut flows = Vec::with_capacity(markets);
        let mut weights = Vec::with_capacity(markets);
        for number in 0..markets {
            let status = super::market::Status::Active;
            let (id, character) = list_market(venue, &mut rng, number, status, now);
            flows.push(Flow::new(id, character));
        }
        let mut total = 0.0;
        for rank in 1..=u32::try_from(markets).unwrap_or(u32::MAX) {
            total += f64::from(rank).powf(-ZIPF_EXPONENT);
            weights.push(total);
        }
        // Numbers of their own, so that they do not change what the others do.
        let mut other = Rng::with_seed(seed ^ 0x6D76_6500);
        for number in 0..multivariate {
            let status = super::market::Status::Active;
            let (id, character) = list_multivariate(venue, &mut other, number, status, now);
            flows.push(Flow::new(id, character));
        }
        let others = (markets..flows.len()).collect();
        let schedule = Schedule::new(rate, markets, multivariate);
        let jitter = Rng::with_seed(seed ^ 0x6A69_7474);
        Self { rng, jitter, flows, others, weights, clock: now, published: 0, schedule }
    }

    /// The clock: the last time given out.
    pub fn clock(&self) -> Micros {
        self.clock
    }

    /// Publishes one group of changes that belong together, at about `at`.
    pub(super) fn step(&mut self, venue: &mut Venue, at: Micros) {
        self.clock = self.clock.max(at);
        self.run_schedule(venue);
        let Some(flow) = self.choose(venue) else { return };
        match self.rng.u32(..100) {
            0..=3 => self.trade(venue, flow),
            4..=27 => self.add(venue, flow),
            28..=45 => self.cancel(venue, flow),
            46..=96 => self.replace(venue, flow),
            _ => self.burst(venue, flow),
        }
    }

    /// A market by its activity; now and then one of those born during the run.
    fn choose(&mut self, venue: &mut Venue) -> Option<usize> {
        for _ in 0..16 {
            let listed = self.weights.len();
            let other = if !self.others.is_empty() && self.rng.u32(..100) < 4 {
                let nth = self.rng.usize(..self.others.len());
                self.others.get(nth).copied()
            } else {
                None
            };
            let at = if let Some(at) = other {
                at
            } else {
                let total = self.weights.last().copied().unwrap_or(0.0);
                let point = self.rng.f64() * total;
                self.weights.partition_point(|sum| *sum <= point).min(listed.saturating_sub(1))
            };
            let Some(flow) = self.flows.get(at) else { continue };
            // A market just born trades when every recorder watches it: what nobody was sent
            // nobody could have recorded.
            if flow.open && (at < listed || self.schedule.is_ready(venue, flow.id)) {
                return Some(at);
            }
        }
        None
    }

    fn flow(&self, at: usize) -> Option<Flow> {
        self.flows.get(at).copied()
    }

    fn book<'a>(venue: &'a Venue, flow: &Flow) -> Option<&'a Book> {
        venue.catalog.market(flow.id).map(|market| &market.book)
    }

    /// Publishes a change, rarely twice.
    fn change(&mut self, venue: &mut Venue, flow: usize, side: Side, price: Price, size: i64) {
        let Some(state) = self.flows.get_mut(flow) else { return };
        if size < 0 {
            state.reduced_ms = self.clock.0.div_euclid(1000);
        }
        let id = state.id;
        let size_delta = Size::from_hundredths(size);
        let change = Change { at: self.clock, side, price, size_delta };
        venue.publish_delta(id, &change, false);
        self.published += 1;
        if self.rng.u32(..IDENTICAL_ONE_IN) == 0 {
            let Some(market) = venue.catalog.market(id) else { return };
            let left = level(&market.book, side, price);
            if left + size >= 0 {
                venue.publish_delta(id, &change, false);
                self.published += 1;
            }
        }
    }

    /// Moves the clock to the next millisecond when this one has what must not meet the next step.
    fn part_from(&mut self, millisecond: i64) {
        if self.clock.0.div_euclid(1000) == millisecond {
            self.clock = Micros((millisecond + 1) * 1000 + self.jitter.i64(0..200));
        }
    }

    fn side(&mut self) -> Side {
        if self.rng.bool() { Side::Yes } else { Side::No }
    }

    /// A price for a new order that does not cross the book.
    fn draw_price(&mut self, book: &Book, flow: &Flow, side: Side) -> Option<Price> {
        let Character { tick_micros: tick, center_micros: center } = flow.character;
        // Most orders stand near the touch.
        let distance = 1 + self.rng.i64(0..=8).min(self.rng.i64(0..=20));
        let micros = match side {
            Side::Yes => {
                let ask = book.best_yes_ask().map_or(i64::MAX, |ask| ask.micros() - tick);
                (center - distance * tick).min(ask)
            }
            Side::No => {
                let bid = book.best_yes_bid().map_or(i64::MIN, |bid| bid.micros() + tick);
                (center + distance * tick).max(bid)
            }
        };
        (tick..=NOTIONAL_MICROS - tick).contains(&micros).then(|| Price::from_micros(micros))
    }

    fn add(&mut self, venue: &mut Venue, at: usize) {
        let side = self.side();
        self.drift(at);
        let Some(flow) = self.flow(at) else { return };
        let Some(book) = Self::book(venue, &flow) else { return };
        if book.levels(side).nth(LEVELS_MAX).is_some() {
            return self.reduce(venue, at, side);
        }
        let Some(price) = self.draw_price(book, &flow, side) else { return };
        let size = draw_size(&mut self.rng);
        self.quoted(venue, at, |this, venue| {
            this.change(venue, at, side, price, size.hundredths());
        });
    }

    fn cancel(&mut self, venue: &mut Venue, at: usize) {
        let side = self.side();
        let Some(flow) = self.flow(at) else { return };
        let Some(book) = Self::book(venue, &flow) else { return };
        if book.levels(side).nth(LEVELS_MIN).is_none() {
            return self.add(venue, at);
        }
        self.reduce(venue, at, side);
    }

    /// Takes an order, or a part of one, off a level.
    fn reduce(&mut self, venue: &mut Venue, at: usize, side: Side) {
        let Some(flow) = self.flow(at) else { return };
        self.part_from(flow.traded_ms);
        let Some((price, size)) = self.draw_reduction(venue, &flow, side) else { return };
        self.quoted(venue, at, |this, venue| this.change(venue, at, side, price, -size));
    }

    fn draw_reduction(&mut self, venue: &Venue, flow: &Flow, side: Side) -> Option<(Price, i64)> {
        let book = Self::book(venue, flow)?;
        let count = book.levels(side).count();
        if count == 0 {
            return None;
        }
        let (price, size) = book.levels(side).nth(self.rng.usize(..count))?;
        let size = size.hundredths();
        // Most orders are whole: a fraction stays behind on its level until its own order goes.
        let whole = size - size % 100;
        let part = match self.rng.u32(..6) {
            0 => size,
            _ if whole == 0 => size,
            1..=2 => self.rng.i64(1..=whole / 100) * 100,
            _ => whole,
        };
        Some((price, part))
    }

    /// An order moves: off one level and onto another in the same microsecond.
    fn replace(&mut self, venue: &mut Venue, at: usize) {
        let side = self.side();
        self.drift(at);
        let Some(flow) = self.flow(at) else { return };
        self.part_from(flow.traded_ms);
        let Some((from, size)) = self.draw_reduction(venue, &flow, side) else {
            return self.add(venue, at);
        };
        self.quoted(venue, at, |this, venue| {
            this.change(venue, at, side, from, -size);
            let Some(flow) = this.flow(at) else { return };
            let Some(book) = Self::book(venue, &flow) else { return };
            if let Some(price) = this.draw_price(book, &flow, side) {
                this.change(venue, at, side, price, size);
            }
        });
    }

    /// Several changes within one or two milliseconds.
    fn burst(&mut self, venue: &mut Venue, at: usize) {
        for _ in 0..self.rng.u32(4..=20) {
            self.clock = Micros(self.clock.0 + self.rng.i64(0..=60));
            match self.rng.u32(..3) {
                0 => self.add(venue, at),
                1 => self.cancel(venue, at),
                _ => self.replace(venue, at),
            }
        }
    }

    /// A taker takes resting size, from the best level on: a trade and a reduction a level, which
    /// are equal, and no other reduction of that market in the same millisecond.
    fn trade(&mut self, venue: &mut Venue, at: usize) {
        let taker = self.side();
        let maker = if taker.is_yes() { Side::No } else { Side::Yes };
        let Some(flow) = self.flow(at) else { return };
        if Self::book(venue, &flow).is_none_or(|book| book.levels(maker).nth(1).is_none()) {
            return self.add(venue, at);
        }
        self.part_from(flow.reduced_ms);
        let mut wanted = draw_size(&mut self.rng).hundredths();
        let block = self.rng.u32(..200) == 0;
        for _ in 0..3 {
            let Some(market) = venue.catalog.market(flow.id) else { return };
            // The best of either side: the highest yes bid, the lowest no-side price.
            let best = match maker {
                Side::Yes => market.book.levels(maker).last(),
                Side::No => market.book.levels(maker).next(),
            };
            let Some((price, resting)) = best else { break };
            let size = Size::from_hundredths(wanted.min(resting.hundredths()));
            if !block {
                let size_delta = Size::from_hundredths(-size.hundredths());
                let change = Change { at: self.clock, side: maker, price, size_delta };
                venue.publish_delta(flow.id, &change, false);
                self.published += 1;
            }
            let trade = TradeFact {
                trade_id: uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes())
                    .into_uuid(),
                at: self.clock,
                yes_price: price,
                no_price: other_leg(price),
                size,
                taker,
                // A block trade was agreed elsewhere and never touches the book.
                is_block_trade: block,
            };
            let opens = self.rng.u32(..3) > 0;
            venue.publish_trade(flow.id, trade, opens);
            wanted -= size.hundredths();
            if wanted <= 0 || block {
                break;
            }
        }
        if let Some(state) = self.flows.get_mut(at) {
            state.traded_ms = self.clock.0.div_euclid(1000);
        }
        venue.publish_ticker(flow.id, self.clock);
    }

    /// Lets the price around which a market trades wander.
    fn drift(&mut self, at: usize) {
        let steps = match self.rng.u32(..40) {
            0 => -1,
            1 => 1,
            _ => return,
        };
        if let Some(Flow { character, .. }) = self.flows.get_mut(at) {
            let moved = character.center_micros + steps * character.tick_micros;
            let edge = 5 * character.tick_micros;
            character.center_micros = moved.clamp(edge, NOTIONAL_MICROS - edge);
        }
    }

    /// Does something, then tells the quote when its top changed. The exchange coalesces these, so
    /// only some are told.
    fn quoted(&mut self, venue: &mut Venue, at: usize, act: impl FnOnce(&mut Self, &mut Venue)) {
        let Some(flow) = self.flow(at) else { return };
        let top = |venue: &Venue| {
            let book = Self::book(venue, &flow)?;
            Some((book.levels(Side::Yes).last(), book.levels(Side::No).next()))
        };
        let before = top(venue);
        act(self, venue);
        let told = self.rng.u32(..100) < 40;
        if told && before != top(venue) {
            venue.publish_ticker(flow.id, self.clock);
        }
    }
}

impl Flow {
    pub fn new(id: MarketId, character: Character) -> Self {
        Self { id, character, reduced_ms: -1, traded_ms: -1, open: true }
    }
}

/// The size at a level, in hundredths.
fn level(book: &Book, side: Side, price: Price) -> i64 {
    let mut levels = book.levels(side);
    levels.find(|(at, _)| *at == price).map_or(0, |(_, size)| size.hundredths())
}
