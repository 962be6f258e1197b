//! The markets of a generated run: names, price steps and first books, all from the seed.

use std::ops::RangeInclusive;

use fastrand::Rng;

use super::market::{Event, Listing, MarketId, NOTIONAL_MICROS, Status};
use super::venue::Venue;
use crate::model::{Book, Micros, Price, Size, Ticker};

/// Markets of one event.
const EVENT_MARKETS: usize = 10;
/// Events of one series.
const SERIES_EVENTS: usize = 20;
/// Only the busiest markets begin with a deep book: the many quiet ones of a large exchange have two
/// levels a side.
const DEEP_BOOKS_MAX: usize = 20_000;
/// The collection of all multivariate markets.
const COLLECTION: &str = "KXMVESIM-R";
/// A market closes so long after it was listed unless the run closes it early, in seconds.
const OPEN_SECS: i64 = 86_400;

/// What a market is told at its birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Character {
    /// The step between two prices, in micro-dollars.
    pub tick_micros: i64,
    /// The price around which it trades, in micro-dollars: a multiple of the step.
    pub center_micros: i64,
}

impl Character {
    /// One market in ten has steps finer than a cent.
    pub fn draw(rng: &mut Rng) -> Self {
        let tick_micros = match rng.u32(..100) {
            0..=1 => 100,
            2..=9 => 1_000,
            _ => 10_000,
        };
        let center_micros = rng.i64(10..=90) * 10_000;
        Self { tick_micros, center_micros }
    }
}

/// A size: mostly small and whole, some fractional. Fractions gather on levels, so that about one
/// change in ten shows one.
pub fn draw_size(rng: &mut Rng) -> Size {
    let contracts = match rng.u32(..10) {
        0..=4 => rng.i64(1..=20),
        5..=8 => rng.i64(20..=300),
        _ => rng.i64(300..=3_000),
    };
    let hundredths = if rng.u32(..14) == 0 { rng.i64(1..=99) } else { 0 };
    Size::from_hundredths(contracts * 100 + hundredths)
}

/// A book around the centre: yes bids below it, the no side above it.
fn draw_book(rng: &mut Rng, character: Character, levels: RangeInclusive<usize>) -> Book {
    let mut side = |sign: i64| -> Vec<(Price, Size)> {
        let count = rng.usize(levels.clone());
        let mut distance = 0;
        let mut levels = Vec::with_capacity(count);
        for _ in 0..count {
            distance += rng.i64(1..=3);
            let micros = character.center_micros + sign * distance * character.tick_micros;
            if (character.tick_micros..NOTIONAL_MICROS).contains(&micros) {
                levels.push((Price::from_micros(micros), draw_size(rng)));
            }
        }
        levels
    };
    let (yes, no) = (side(-1), side(1));
    Book::from_levels(&yes, &no)
}

/// `A`, `B`, ... `Z`, `AA`, ...
fn letters(mut number: usize) -> String {
    let mut out = Vec::new();
    loop {
        out.push(b'A' + u8::try_from(number % 26).unwrap_or(0));
        if number < 26 {
            break;
        }
        number = number / 26 - 1;
    }
    out.reverse();
    String::from_utf8_lossy(&out).into_owned()
}

/// A ticker of our own making, which is printable by construction.
pub fn ticker(text: &str) -> Ticker {
    match Ticker::parse(text) {
        Ok(ticker) => ticker,
        Err(error) => unreachable!("{text}: {error}"),
    }
}

/// The event that the `number`-th market belongs to, listed when it is new; and whether it is.
pub fn event_of(venue: &mut Venue, number: usize, now: Micros) -> (usize, bool) {
    let at = number / EVENT_MARKETS;
    if let Some(event) = venue.catalog.generated.get(at) {
        return (*event, false);
    }
    let letters = letters(at / SERIES_EVENTS);
    let series = ticker(&format!("KXSIM{letters}"));
    let title = format!("Simulated question {letters}");
    let index = venue.catalog.series_index(&series, &title, "Simulation");
    let event = venue.catalog.add_event(Event {
        ticker: ticker(&format!("{series}-26DEC31E{:02}", at % SERIES_EVENTS)),
        series: index,
        title: format!("{title}, case {}", at % SERIES_EVENTS),
        updated: now,
        markets: Vec::new(),
        template: None,
    });
    venue.catalog.generated.push(event);
    (event, true)
}

/// Lists the `number`-th market.
pub fn list_market(
    venue: &mut Venue,
    rng: &mut Rng,
    number: usize,
    status: Status,
    now: Micros,
) -> (MarketId, Character) {
    let (event, _) = event_of(venue, number, now);
    let name = venue.catalog.events.get(event).map_or("", |event| event.ticker.as_str());
    let name = format!("{name}-T{:02}", number % EVENT_MARKETS * 10 + 5);
    let character = Character::draw(rng);
    let filled = status == Status::Active && rng.u32(..10) < 7;
    let levels = if number < DEEP_BOOKS_MAX { 3..=10 } else { 2..=2 };
    let book = if filled { draw_book(rng, character, levels) } else { Book::default() };
    let id = venue.list(Listing {
        ticker: ticker(&name),
        uuid: uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid(),
        event,
        book,
        tick_micros: character.tick_micros,
        status,
        since: Micros(now.0 - now.0.rem_euclid(1_000_000)),
        close: Micros(now.0 - now.0.rem_euclid(1_000_000) + OPEN_SECS * 1_000_000),
        template: None,
        collection: None,
    });
    (id, character)
}

/// Lists the `number`-th multivariate market, all of them in one event.
pub fn list_multivariate(
    venue: &mut Venue,
    rng: &mut Rng,
    number: usize,
    status: Status,
    now: Micros,
) -> (MarketId, Character) {
    let name = ticker("KXMVESIM-26DEC31");
    let known = venue.catalog.events.iter().rposition(|event| event.ticker == name);
    let event = known.unwrap_or_else(|| {
        let title = "Simulated combination";
        let series = venue.catalog.series_index(&ticker("KXMVESIM"), title, "Simulation");
        venue.catalog.add_event(Event {
            ticker: name.clone(),
            series,
            title: title.to_owned(),
            updated: now,
            markets: Vec::new(),
            template: None,
        })
    });
    let character = Character::draw(rng);
    let since = Micros(now.0 - now.0.rem_euclid(1_000_000));
    let id = venue.list(Listing {
        ticker: ticker(&format!("{name}-S{number:05}")),
        uuid: uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid(),
        event,
        book: draw_book(rng, character, 3..=6),
        tick_micros: character.tick_micros,
        status,
        since,
        close: Micros(since.0 + OPEN_SECS * 1_000_000),
        template: None,
        collection: Some(COLLECTION),
    });
    (id, character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_have_names_without_end() {
        let names: Vec<_> = [0, 25, 26, 27, 701, 702].into_iter().map(letters).collect();
        assert_eq!(names, ["A", "Z", "AA", "AB", "ZZ", "AAA"]);
    }
}
