//! What the exchange does to one gatherer for each kind of fault.

use std::time::Duration;

use super::chaos::{Event, Kind};
use super::exchange::{Lasting, Mangled, RestFault, RestRule, Trouble};
use crate::model::Channel;

/// Frames left out or repeated, at most.
const FRAMES_MAX: u64 = 20;
/// Commands that go wrong in a row.
const COMMANDS: u64 = 3;
/// Pings of a flood on each socket.
const PINGS: u32 = 2_000;
/// Error codes that pass: 26 is left out, because it teaches a client a bound that is not there.
const CODES: [u8; 4] = [18, 1, 27, 19];
const STATUSES: [u16; 5] = [429, 503, 401, 500, 403];
const CLOSES: [u16; 6] = [1012, 4000, 1013, 1001, 4003, 4999];
const MANGLED: [Mangled; 3] = [Mangled::Torn, Mangled::Flipped, Mangled::Oversize];
/// Items by which pages shift.
const ITEMS: usize = 7;
/// How much longer REST goes wrong than the rest of it.
const REST_EXTRA: Duration = Duration::from_secs(3);

/// The `nth` of some variants.
fn variant<T: Copy>(of: &[T], nth: usize) -> Option<T> {
    of.get(nth.checked_rem(of.len())?).copied()
}

/// The channel that a fault of the sequence befalls: order books first of all.
fn channel(nth: usize) -> Channel {
    match nth % 3 {
        2 => Channel::Trade,
        _ => Channel::OrderbookDelta,
    }
}

/// What to do to the gatherer's account.
pub fn troubles(event: &Event, lasts: Duration) -> Vec<Trouble> {
    let (nth, books) = (event.nth, Channel::OrderbookDelta);
    // At least one, and another number each time.
    let frames = nth as u64 * 7 % FRAMES_MAX + 1;
    let code = if nth.is_multiple_of(2) { 10 } else { 25 };
    match event.kind {
        Kind::Cut => vec![Trouble::Cut(lasts)],
        Kind::Stall => vec![Trouble::Stall(lasts)],
        Kind::HalfOpen => vec![Trouble::HalfOpen],
        Kind::Skip => vec![Trouble::Skip(channel(nth), frames)],
        Kind::Repeat => vec![Trouble::Repeat(channel(nth), frames)],
        Kind::Reset => vec![Trouble::Reset(channel(nth))],
        Kind::Terminate => vec![Trouble::Terminate(channel(nth), code)],
        Kind::DeadSid => {
            vec![Trouble::DeadSid { channel: books, known: nth.is_multiple_of(2) }]
        }
        // A client has few commands to send unless it has lost something.
        Kind::CommandErrors => variant(&CODES, nth)
            .into_iter()
            .flat_map(|code| [Trouble::FailCommands(code, COMMANDS), Trouble::Terminate(books, 10)])
            .collect(),
        Kind::CommandTimeouts => {
            vec![Trouble::IgnoreCommands(COMMANDS), Trouble::Terminate(books, 10)]
        }
        Kind::Refuse => variant(&STATUSES, nth)
            .into_iter()
            .flat_map(|status| [Trouble::Cut(lasts), Trouble::Refuse(status, lasts)])
            .collect(),
        Kind::CloseCodes => variant(&CLOSES, nth).into_iter().map(Trouble::Close).collect(),
        // Whoever lost its lifecycle lists again.
        Kind::Rest => vec![Trouble::Terminate(Channel::Lifecycle, 10)],
        Kind::Garbage => vec![
            Trouble::Garbage(books),
            Trouble::Garbage(Channel::Trade),
            Trouble::Garbage(Channel::Lifecycle),
            Trouble::EarlyData(COMMANDS),
            Trouble::Terminate(books, 10),
            Trouble::Garbage(Channel::Ticker),
        ],
        Kind::Mangle => variant(&MANGLED, nth).into_iter().map(Trouble::Mangle).collect(),
        Kind::PingFlood => vec![Trouble::PingFlood(PINGS)],
        Kind::YesPrice => vec![Trouble::IgnoreYesPrice(true), Trouble::Terminate(books, 10)],
        Kind::KillGatherer
        | Kind::RestartGatherer
        | Kind::CrashGatherer
        | Kind::KillDedup
        | Kind::KillPostgres
        | Kind::StopPostgres
        | Kind::KillProduction
        | Kind::StopProduction
        | Kind::CrashDedup
        | Kind::HangDatabase
        | Kind::CutSessions
        | Kind::LockDatabase
        | Kind::SlowDatabase
        | Kind::ReadOnly
        | Kind::FewConnections
        | Kind::WrongPassword
        | Kind::WipeGatherer
        | Kind::Maintenance
        | Kind::Churn
        | Kind::Burst => Vec::new(),
    }
}

/// What goes wrong with REST for the gatherer, beside.
pub fn rest_rule(event: &Event, key: usize, lasts: Duration) -> Option<RestRule> {
    if event.kind != Kind::Rest {
        return None;
    }
    let pages = [
        RestFault::RepeatCursor,
        RestFault::EmptyPage,
        RestFault::ShiftBack(ITEMS),
        RestFault::ShiftOn(ITEMS),
        RestFault::Slow(Duration::from_secs(2)),
    ];
    let fault = if event.nth.is_multiple_of(2) {
        variant(&STATUSES, event.nth / 2).map(RestFault::Status)
    } else {
        variant(&pages, event.nth / 2)
    };
    let until = std::time::Instant::now().checked_add(lasts + REST_EXTRA)?;
    Some(RestRule {
        fault: fault?,
        lasting: Lasting::Until(until),
        key: Some(key),
        path: String::new(),
    })
}

/// What ends a trouble that does not end by itself.
pub fn remedy(kind: Kind) -> Vec<Trouble> {
    let books = Channel::OrderbookDelta;
    match kind {
        Kind::YesPrice => vec![Trouble::IgnoreYesPrice(false), Trouble::Terminate(books, 10)],
        Kind::CommandErrors => vec![Trouble::FailCommands(1, 0)],
        Kind::CommandTimeouts => vec![Trouble::IgnoreCommands(0)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_at_the_exchange_does_something() {
        let lasts = Duration::from_secs(3);
        for kind in Kind::ALL {
            for nth in 0..12 {
                let event = Event { at: Duration::ZERO, kind, gatherer: Some(1), lasts, nth };
                let everywhere = matches!(kind, Kind::Maintenance | Kind::Churn | Kind::Burst);
                let is_idle = troubles(&event, lasts).is_empty();
                assert_eq!(is_idle, kind.is_local() || everywhere, "{kind} {nth}");
                let rule = rest_rule(&event, 1, lasts);
                assert_eq!(rule.is_some(), kind == Kind::Rest);
            }
        }
    }
}
