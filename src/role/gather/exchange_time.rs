//! The exchange's time at a moment of ours, as far as the frames tell it.

use super::hashing::FastMap;
use crate::model::{Micros, Ticker};

/// How long the quickest frame counts, at least; twice that at most.
const WINDOW_MICROS: i64 = 60_000_000;
/// Times of one market that are further from those of all markets are not of today: a replay.
const REPLAY_MICROS: i64 = 60_000_000;

/// The exchange's clock less ours, by the quickest frames of the last minute or two. A frame that
/// was late, in the network or because this machine was busy, would tell a time that has passed, and
/// a snapshot placed there would stand before changes that it holds.
#[derive(Debug, Clone, Copy)]
pub struct Offset {
    since: Micros,
    greatest: i64,
    /// Of the window before.
    before: Option<i64>,
}

impl Offset {
    /// By a frame with the exchange's time, which we received at `received_at`.
    pub fn new(exchange_ts: Micros, received_at: Micros) -> Self {
        Self { since: received_at, greatest: exchange_ts.since(received_at), before: None }
    }

    /// By one more frame.
    pub fn read(&mut self, exchange_ts: Micros, received_at: Micros) {
        let offset = exchange_ts.since(received_at);
        // Frames of several connections are a little out of order; a clock may be set back.
        if received_at.since(self.since).abs() >= WINDOW_MICROS {
            let before = Some(self.greatest);
            *self = Self { since: received_at, greatest: offset, before };
        } else {
            self.greatest = self.greatest.max(offset);
        }
    }

    /// Takes a frame over, the first one too.
    pub fn take(offset: &mut Option<Self>, exchange_ts: Micros, received_at: Micros) {
        match offset {
            Some(offset) => offset.read(exchange_ts, received_at),
            None => *offset = Some(Self::new(exchange_ts, received_at)),
        }
    }

    fn micros(self) -> i64 {
        self.before.map_or(self.greatest, |before| before.max(self.greatest))
    }

    /// The exchange's time at a moment of ours.
    pub fn at(self, received_at: Micros) -> Micros {
        Micros(received_at.0.saturating_add(self.micros()))
    }

    /// The offset that counts for a market: that of all markets, which more frames tell, unless the
    /// market's times are of another day.
    pub fn of_market(market: Option<Self>, all: Option<Self>) -> Option<Self> {
        let is_replay = |market: &Self, all: &Self| {
            market.micros().saturating_sub(all.micros()).saturating_abs() > REPLAY_MICROS
        };
        match (market, all) {
            (Some(market), Some(all)) if !is_replay(&market, &all) => Some(all),
            (market, all) => market.or(all),
        }
    }
}

/// Our time up to which a frame proves that everything came. The exchange sent it at `exchange_ts`, so
/// what was published between then and `received_at` may still have been on its way when the
/// connection ended. Clocks that differ make the answer earlier, never later. None while nothing
/// tells what a time of another day means here.
pub fn proved(exchange_ts: Micros, received_at: Micros, offset: Option<Offset>) -> Option<Micros> {
    let apart = exchange_ts.since(received_at);
    if apart.saturating_abs() <= REPLAY_MICROS {
        return Some(exchange_ts.min(received_at));
    }
    let offset = offset?.micros();
    Some(Micros(exchange_ts.0.saturating_sub(offset)).min(received_at))
}

/// The offsets of markets whose subscription ended: the next one's first snapshot is placed by them.
/// Bounded: two generations, of which the older is dropped when the newer is full.
#[derive(Debug, Default)]
pub struct Kept {
    current: FastMap<Ticker, Offset>,
    previous: FastMap<Ticker, Offset>,
}

/// Markets of a generation: some 6 MiB.
const KEPT_MAX: usize = 1 << 16;

impl Kept {
    pub fn keep(&mut self, ticker: &Ticker, offset: Offset) {
        if self.current.len() >= KEPT_MAX {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(ticker.clone(), offset);
    }

    pub fn get(&self, ticker: &Ticker) -> Option<Offset> {
        self.current.get(ticker).or_else(|| self.previous.get(ticker)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_frame_does_not_set_the_time_back() {
        let mut offset = Offset::new(Micros(1_000), Micros(1_100));
        offset.read(Micros(2_000), Micros(3_900));
        assert_eq!(offset.at(Micros(4_000)), Micros(3_900));
        offset.read(Micros(4_990), Micros(5_000));
        assert_eq!(offset.at(Micros(5_000)), Micros(4_990));
    }

    #[test]
    fn what_is_two_minutes_old_is_forgotten() {
        let mut offset = Offset::new(Micros(500), Micros(0));
        let minute = WINDOW_MICROS;
        offset.read(Micros(minute - 100), Micros(minute));
        assert_eq!(offset.at(Micros(0)), Micros(500), "the window before still counts");
        offset.read(Micros(2 * minute - 200), Micros(2 * minute));
        assert_eq!(offset.at(Micros(0)), Micros(-100));
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed() {
        let mut offset = Offset::new(Micros(0), Micros(0));
        for minute in 1..3 {
            let at = Micros(-3_600_000_000 + minute * WINDOW_MICROS);
            offset.read(Micros(at.0 + 3_600_000_000), at);
        }
        assert_eq!(offset.at(Micros(0)), Micros(3_600_000_000));
    }

    #[test]
    fn a_market_of_another_day_has_its_own_time() {
        let of = |micros| Some(Offset::new(Micros(micros), Micros(0)));
        let counts =
            |market, all| Offset::of_market(market, all).map(|offset| offset.at(Micros(0)));
        assert_eq!(counts(of(-900), of(-10)), Some(Micros(-10)));
        assert_eq!(counts(of(-86_400_000_000), of(-10)), Some(Micros(-86_400_000_000)));
        assert_eq!(counts(of(-900), None), Some(Micros(-900)));
        assert_eq!(counts(None, of(-10)), Some(Micros(-10)));
        assert_eq!(counts(None, None), None);
    }
}
