//! Births and deaths of markets during a generated run, with the lifecycle messages of each.
//!
//! They are spaced by counts of changes, not by the clock, so that a seed means one order of events.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::flow::whole;
use super::generator::{Flow, Generator};
use super::market::{Market, MarketId, Outcome, Status};
use super::sight::NEW_FOR;
use super::universe::{event_of, list_market, list_multivariate};
use super::venue::Venue;
use super::views::price_level_structure;
use crate::model::{Channel, Micros, Price, Side, Ticker};

/// Seconds of flow between two births.
const BIRTH_SECS: f64 = 3.0;
/// Seconds of flow between two deaths.
const DEATH_SECS: f64 = 4.0;
/// Seconds of flow that a market lives that was asked for.
const LIFE_SECS: f64 = 8.0;
/// Markets born at once at most, when the source was held up.
const CHURN_MAX: usize = 50;
/// One birth in so many is a multivariate market's, where there are any.
const MULTIVARIATE_ONE_IN: usize = 5;
/// Markets born in a run at most, but for those that were asked for.
const BIRTHS_MAX: usize = 300;

/// One result in so many is contested before it stands; nothing tells of it but REST.
const DISPUTED_ONE_IN: u32 = 4;
/// One result in so many is neither yes nor no.
const SCALAR_ONE_IN: u32 = 5;

/// How a market is decided that would be decided for a side: by its number, so that the draws of the
/// seed stay as they are.
fn outcome(id: MarketId, side: Side) -> Outcome {
    if id.0 % SCALAR_ONE_IN == 1 {
        return Outcome::Scalar(Price::from_micros(i64::from(id.0 % 99 + 1) * 10_000));
    }
    Outcome::Side(side)
}

/// What comes next in a closed market's life.
#[derive(Debug, Clone, Copy)]
enum Step {
    Determine,
    /// Some results are contested, and looked at again.
    Dispute,
    Amend,
    Settle,
}

/// What is due at which count of changes.
#[derive(Debug)]
pub(super) struct Schedule {
    birth_every: u64,
    death_every: u64,
    next_birth: u64,
    next_death: u64,
    births: usize,
    deaths: usize,
    /// Markets that may die: a quarter of those listed, never the busiest.
    deaths_max: usize,
    /// Markets born and not activated yet, with the count at which they are.
    activations: VecDeque<(u64, MarketId)>,
    endings: VecDeque<(u64, MarketId, Step)>,
    /// How many multivariate markets there were ever; 0 means that none are born either.
    multivariate: usize,
    /// When the next market is born of those that somebody asked for beside the run's own.
    churn_next: Option<Instant>,
    /// When markets born like that end, by the count of changes.
    lives: VecDeque<(u64, usize)>,
    /// Changes in such a life.
    life: u64,
    /// Markets born that do not trade yet, with the time until they are waited for.
    waiting: HashMap<MarketId, Option<Instant>>,
}

/// A number of changes from a number of seconds, at least `least`.
fn changes(rate: f64, secs: f64, least: u64) -> u64 {
    whole(rate * secs).max(least)
}

impl Schedule {
    pub fn new(rate: f64, markets: usize, multivariate: usize) -> Self {
        let (birth_every, death_every) =
            (changes(rate, BIRTH_SECS, 100), changes(rate, DEATH_SECS, 150));
        Self {
            birth_every,
            death_every,
            next_birth: birth_every,
            next_death: death_every,
            births: 0,
            deaths: 0,
            deaths_max: markets / 4,
            activations: VecDeque::new(),
            endings: VecDeque::new(),
            multivariate,
            churn_next: None,
            lives: VecDeque::new(),
            life: changes(rate, LIFE_SECS, 100),
            waiting: HashMap::new(),
        }
    }

    /// Whether a market that was not listed from the beginning may trade.
    pub fn is_ready(&mut self, venue: &Venue, id: MarketId) -> bool {
        let is_multivariate = venue.catalog.market(id).is_some_and(Market::is_multivariate);
        if is_multivariate && (venue.takers(id).is_empty() || !venue.is_watched_by_all(id)) {
            // Nobody has to record them.
            return false;
        }
        match self.waiting.get(&id) {
            None => true,
            Some(Some(until)) if Instant::now() < *until && !venue.is_watched_by_all(id) => false,
            // Not activated yet.
            Some(None) => false,
            Some(_) => {
                self.waiting.remove(&id);
                true
            }
        }
    }
}

fn seconds(at: Micros) -> i64 {
    at.0.div_euclid(1_000_000)
}

impl Generator {
    /// Does what is due.
    pub(super) fn run_schedule(&mut self, venue: &mut Venue) {
        if self.published >= self.schedule.next_birth && self.schedule.births < BIRTHS_MAX {
            self.schedule.next_birth += self.schedule.birth_every;
            self.give_birth(venue);
        }
        self.run_churn(venue);
        while let Some((due, id)) = self.schedule.activations.front().copied()
            && self.published >= due
        {
            self.schedule.activations.pop_front();
            self.activate(venue, id);
        }
        if self.published >= self.schedule.next_death
            && self.schedule.deaths < self.schedule.deaths_max
        {
            self.schedule.next_death += self.schedule.death_every;
            self.close(venue);
        }
        while let Some((due, at)) = self.schedule.lives.front().copied()
            && self.published >= due
        {
            self.schedule.lives.pop_front();
            if let Some(flow) = self.flows.get(at) {
                self.schedule.waiting.remove(&flow.id);
            }
            self.close_market(venue, at);
        }
        while let Some((due, id, step)) = self.schedule.endings.front().copied()
            && self.published >= due
        {
            self.schedule.endings.pop_front();
            self.end(venue, id, step);
        }
    }

    /// Does at once what a market's life still lacks: called when the run ends.
    pub(super) fn finish(&mut self, venue: &mut Venue) {
        while let Some((_, id, step)) = self.schedule.endings.pop_front() {
            self.end(venue, id, step);
        }
    }

    /// Lets the markets be born that somebody asked for: by the clock, because they are no part of
    /// the run's own order.
    fn run_churn(&mut self, venue: &mut Venue) {
        let now = Instant::now();
        let Some((per_minute, _)) = venue.pace.churn.filter(|(_, until)| now < *until) else {
            (venue.pace.churn, self.schedule.churn_next) = (None, None);
            return;
        };
        let every = Duration::try_from_secs_f64(60.0 / per_minute).unwrap_or(Duration::MAX);
        for _ in 0..CHURN_MAX {
            let next = *self.schedule.churn_next.get_or_insert(now);
            if next > now {
                break;
            }
            self.schedule.churn_next = next.checked_add(every);
            let at = self.flows.len();
            self.give_birth(venue);
            self.schedule.births -= 1;
            self.schedule.lives.push_back((self.published + self.schedule.life, at));
        }
    }

    fn give_birth(&mut self, venue: &mut Venue) {
        let combos = self.schedule.multivariate;
        let number = venue.catalog.markets.len() - combos;
        let now = self.clock();
        self.schedule.births += 1;
        let is_multivariate = combos > 0 && self.flows.len().is_multiple_of(MULTIVARIATE_ONE_IN);
        let (id, character) = if is_multivariate {
            self.schedule.multivariate += 1;
            let number = combos;
            list_multivariate(venue, &mut self.rng, number, Status::Initialized, now)
        } else {
            let (event, is_new) = event_of(venue, number, now);
            if is_new {
                announce_event(venue, event);
            }
            list_market(venue, &mut self.rng, number, Status::Initialized, now)
        };
        self.others.push(self.flows.len());
        self.flows.push(Flow::new(id, character));
        self.schedule.waiting.insert(id, None);
        let due = self.published + self.schedule.birth_every / 10;
        self.schedule.activations.push_back((due, id));
        let Some(market) = venue.catalog.market(id) else { return };
        let event = venue.catalog.events.get(market.event);
        let msg = json!({
            "market_ticker": market.ticker.as_str(),
            "event_type": "created",
            "exchange_index": 0,
            "open_ts": seconds(market.open),
            "close_ts": seconds(market.close),
            "price_level_structure": price_level_structure(market),
            "additional_metadata": {
                "name": market.ticker.as_str(),
                "title": event.map_or("", |event| event.title.as_str()),
                "yes_sub_title": "Yes",
                "no_sub_title": "No",
                "rules_primary": "",
                "rules_secondary": "",
                "can_close_early": true,
                "event_ticker": event.map_or("", |event| event.ticker.as_str()),
                "expected_expiration_ts": seconds(market.close) + 300,
            },
        });
        tell(venue, id, &msg);
    }

    fn activate(&mut self, venue: &mut Venue, id: MarketId) {
        let until = Instant::now().checked_add(NEW_FOR);
        self.schedule.waiting.insert(id, until);
        let now = self.clock();
        venue.catalog.set_status(id, Status::Active, now);
        let Some(market) = venue.catalog.market(id) else { return };
        let ticker = market.ticker.as_str().to_owned();
        tell(venue, id, &json!({"market_ticker": ticker, "event_type": "activated"}));
    }

    /// Closes a market before its time: the book goes without a change, and then it is told.
    fn close(&mut self, venue: &mut Venue) {
        self.schedule.deaths += 1;
        let listed = self.flows.len();
        // The upper tenth of the ranks trades on.
        let at = self.rng.usize((listed / 10).min(listed.saturating_sub(1))..listed.max(1));
        self.close_market(venue, at);
    }

    fn close_market(&mut self, venue: &mut Venue, at: usize) {
        let twice = self.rng.u32(..3) == 0;
        let now = self.clock();
        let Some(flow) = self.flows.get_mut(at) else { return };
        let id = flow.id;
        let trades = venue.catalog.market(id).is_some_and(|m| m.status == Status::Active);
        if !flow.open || !trades || self.schedule.waiting.contains_key(&id) {
            return;
        }
        flow.open = false;
        if let Some(nth) = self.others.iter().position(|other| *other == at) {
            self.others.swap_remove(nth);
        }
        venue.publish_close(id);
        if twice {
            venue.publish_close(id);
        }
        let Some(market) = venue.catalog.market_mut(id) else { return };
        (market.close, market.updated) = (Micros::from_secs(seconds(now)), now);
        let msg = json!({
            "market_ticker": market.ticker.as_str(),
            "event_type": "close_date_updated",
            "close_ts": seconds(now),
        });
        tell(venue, id, &msg);
        let pause = self.schedule.death_every / 4;
        self.schedule.endings.push_back((self.published + pause, id, Step::Determine));
    }

    fn then(&mut self, id: MarketId, step: Step) {
        let pause = self.schedule.death_every / 4;
        self.schedule.endings.push_back((self.published + pause, id, step));
    }

    fn end(&mut self, venue: &mut Venue, id: MarketId, step: Step) {
        let now = self.clock();
        match step {
            Step::Determine => {
                let result = if self.rng.bool() { Side::Yes } else { Side::No };
                determine(venue, id, outcome(id, result), now);
                let next =
                    if id.0.is_multiple_of(DISPUTED_ONE_IN) { Step::Dispute } else { Step::Settle };
                self.then(id, next);
            }
            Step::Dispute => {
                venue.catalog.set_status(id, Status::Disputed, now);
                self.then(id, Step::Amend);
            }
            Step::Amend => {
                venue.catalog.set_status(id, Status::Amended, now);
                self.then(id, Step::Settle);
            }
            Step::Settle => settle(venue, id, now),
        }
    }
}

/// Says and notes how a market was decided.
pub(super) fn determine(venue: &mut Venue, id: MarketId, result: Outcome, now: Micros) {
    venue.catalog.set_status(id, Status::Determined, now);
    let Some(market) = venue.catalog.market_mut(id) else { return };
    market.result = Some(result);
    let msg = json!({
        "market_ticker": market.ticker.as_str(),
        "event_type": "determined",
        "determination_ts": seconds(now),
        "result": result.name(),
        "settlement_value": result.value().to_string(),
    });
    tell(venue, id, &msg);
}

/// Says and notes that a market is settled.
pub(super) fn settle(venue: &mut Venue, id: MarketId, now: Micros) {
    venue.catalog.set_status(id, Status::Finalized, now);
    let Some(market) = venue.catalog.market(id) else { return };
    let msg = json!({
        "market_ticker": market.ticker.as_str(),
        "event_type": "settled",
        "settled_ts": seconds(now),
    });
    tell(venue, id, &msg);
}

fn tell(venue: &mut Venue, id: MarketId, msg: &Value) {
    let market = venue.catalog.market(id);
    let market = market.map(|market| (market.ticker.clone(), market.is_multivariate()));
    if let Some((ticker, is_multivariate)) = market {
        let channel =
            if is_multivariate { Channel::MultivariateLifecycle } else { Channel::Lifecycle };
        venue.publish_lifecycle(&ticker, channel.name(), msg, is_multivariate);
    }
}

/// Says that an event is new.
fn announce_event(venue: &mut Venue, at: usize) {
    let Some(event) = venue.catalog.events.get(at) else { return };
    let series = venue.catalog.series.get(event.series);
    let msg = json!({
        "event_ticker": event.ticker.as_str(),
        "exchange_index": 0,
        "title": event.title,
        "subtitle": "",
        "collateral_return_type": "",
        "series_ticker": series.map_or("", |series| series.ticker.as_str()),
    });
    let ticker: Ticker = event.ticker.clone();
    venue.publish_lifecycle(&ticker, "event_lifecycle", &msg, false);
}
