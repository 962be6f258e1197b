//! What is broken when: a schedule made from a seed alone, so that a run can be repeated.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Each gatherer in turn has no connection to the exchange for a third of the run.
    Cut,
    /// kill -9 of a gatherer, started again after 2 to 5 s.
    KillGatherer,
    /// kill -9 of the deduplicator, started again after 2 to 5 s.
    KillDedup,
    /// A gatherer's PostgreSQL is stopped as by a crash, and started again after 2 to 5 s.
    KillPostgres,
    /// A gatherer's PostgreSQL is away for the length of the outage.
    StopPostgres,
    /// A gatherer is stopped, its database dropped and made anew, and it starts again.
    WipeGatherer,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Cut,
        Self::KillGatherer,
        Self::KillDedup,
        Self::KillPostgres,
        Self::StopPostgres,
        Self::WipeGatherer,
    ];

    /// The name on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::KillGatherer => "kill-gatherer",
            Self::KillDedup => "kill-dedup",
            Self::KillPostgres => "kill-postgres",
            Self::StopPostgres => "stop-postgres",
            Self::WipeGatherer => "wipe-gatherer",
        }
    }

    /// Whether the gatherer receives nothing meanwhile, so that another must see everything.
    pub const fn blinds(self) -> bool {
        matches!(self, Self::Cut | Self::KillGatherer | Self::WipeGatherer)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("{text:?} is none of {}", names.join(", "))
        })
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// From the moment at which the exchange begins to publish.
    pub at: Duration,
    pub kind: Kind,
    /// Index of the gatherer it befalls; none for the deduplicator.
    pub gatherer: Option<usize>,
    /// How long what it befalls is away.
    pub lasts: Duration,
}

/// The run that a schedule is made for.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub gatherers: usize,
    pub length: Duration,
    /// How long [`Kind::StopPostgres`] lasts.
    pub outage: Duration,
}

/// One kill of each kind for this much of the run, at least one and at most [`KILLS_MAX`].
const SECONDS_PER_KILL: f64 = 15.0;
const KILLS_MAX: u32 = 20;

/// Draws the faults of a run, ordered by time. The same seed gives the same schedule.
pub fn schedule(kinds: &[Kind], run: Run, seed: u64) -> Vec<Event> {
    let mut events = Vec::new();
    for kind in Kind::ALL {
        if !kinds.contains(&kind) {
            continue;
        }
        // Each kind draws from its own stream: adding one leaves the others as they were.
        let mut rng = Rng::with_seed(seed ^ fold_name(kind.name()));
        match kind {
            Kind::Cut => cuts(run, &mut events),
            Kind::StopPostgres => once(kind, run, (0.05, 0.15), run.outage, &mut rng, &mut events),
            // Late enough that there is something to lose.
            Kind::WipeGatherer => {
                once(kind, run, (0.4, 0.6), Duration::ZERO, &mut rng, &mut events)
            }
            _ => kills(kind, run, &mut rng, &mut events),
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

/// Each gatherer misses another third; with two, the middle third lets the first come back.
fn cuts(run: Run, events: &mut Vec<Event>) {
    let third = run.length / 3;
    let thirds: &[u32] = if run.gatherers == 2 { &[0, 2] } else { &[0, 1, 2] };
    for (gatherer, nth) in (0..run.gatherers).zip(thirds.iter().cycle()) {
        let at = third * *nth;
        events.push(Event { at, kind: Kind::Cut, gatherer: Some(gatherer), lasts: third });
    }
}

/// One event of one gatherer, between two shares of the run.
fn once(
    kind: Kind,
    run: Run,
    (from, to): (f64, f64),
    lasts: Duration,
    rng: &mut Rng,
    events: &mut Vec<Event>,
) {
    let at = run.length.mul_f64(from + (to - from) * rng.f64());
    let gatherer = Some(rng.usize(0..run.gatherers.max(1)));
    events.push(Event { at, kind, gatherer, lasts });
}

fn kills(kind: Kind, run: Run, rng: &mut Rng, events: &mut Vec<Event>) {
    // A slot for each, so that they spread over the run and every gatherer has its turn.
    let mut slots = 1;
    while slots < KILLS_MAX && run.length.as_secs_f64() >= f64::from(slots + 1) * SECONDS_PER_KILL {
        slots += 1;
    }
    let slot = run.length / slots;
    let first = rng.usize(0..run.gatherers.max(1));
    for (nth, turn) in (0..slots).zip(first..) {
        let at = slot * nth + slot.mul_f64(0.15 + 0.6 * rng.f64());
        let lasts = Duration::from_millis(rng.u64(2000..=5000));
        let gatherer = (kind != Kind::KillDedup).then_some(turn % run.gatherers.max(1));
        events.push(Event { at, kind, gatherer, lasts });
    }
}

fn fold_name(name: &str) -> u64 {
    name.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(131).wrapping_add(u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run =
        Run { gatherers: 3, length: Duration::from_secs(60), outage: Duration::from_secs(60) };

    #[test]
    fn a_seed_gives_one_schedule() {
        let all = schedule(&Kind::ALL, RUN, 7);
        assert_eq!(all, schedule(&Kind::ALL, RUN, 7));
        assert_ne!(all, schedule(&Kind::ALL, RUN, 8));
        assert!(all.is_sorted_by_key(|event| event.at));
        assert!(all.iter().all(|event| event.at < RUN.length));
        let alone = schedule(&[Kind::KillDedup], RUN, 7);
        let among: Vec<Event> =
            all.into_iter().filter(|event| event.kind == Kind::KillDedup).collect();
        assert_eq!(alone, among);
    }

    #[test]
    fn every_gatherer_is_cut_for_another_third() {
        let cuts = schedule(&[Kind::Cut], RUN, 1);
        let spans: Vec<_> =
            cuts.iter().map(|cut| (cut.at.as_secs(), cut.gatherer.unwrap())).collect();
        assert_eq!(spans, [(0, 0), (20, 1), (40, 2)]);
        assert!(cuts.iter().all(|cut| cut.lasts == Duration::from_secs(20)));
        let two = schedule(&[Kind::Cut], Run { gatherers: 2, ..RUN }, 1);
        let spans: Vec<_> = two.iter().map(|cut| cut.at.as_secs()).collect();
        assert_eq!(spans, [0, 40]);
    }

    #[test]
    fn kills_take_turns_and_last_two_to_five_seconds() {
        let kills = schedule(&[Kind::KillGatherer], RUN, 3);
        assert_eq!(kills.len(), 4);
        let mut struck: Vec<_> = kills.iter().map(|kill| kill.gatherer.unwrap()).collect();
        struck.sort_unstable();
        struck.dedup();
        assert_eq!(struck, [0, 1, 2]);
        assert!(kills.iter().all(|kill| (2000..=5000).contains(&kill.lasts.as_millis())));
        assert_eq!(
            schedule(&[Kind::KillPostgres], Run { length: Duration::from_secs(5), ..RUN }, 3).len(),
            1
        );
    }

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("rain".parse::<Kind>().unwrap_err().contains("stop-postgres"));
    }
}
