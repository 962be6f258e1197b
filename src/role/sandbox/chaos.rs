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
    /// SIGTERM of a gatherer, started again at once: every gatherer in turn.
    RestartGatherer,
    /// A gatherer ends itself as by kill -9 at a place in its code that matters. Needs a build with
    /// `--features failpoints`.
    CrashGatherer,
    /// kill -9 of the deduplicator, started again after 2 to 5 s.
    KillDedup,
    /// A gatherer's PostgreSQL is stopped as by a crash, and started again after 2 to 5 s.
    KillPostgres,
    /// A gatherer's PostgreSQL is away for the length of the outage.
    StopPostgres,
    /// Production is stopped as by a crash, and started again after 2 to 5 s.
    KillProduction,
    /// Production is away for the length of the outage.
    StopProduction,
    /// The deduplicator ends itself as by kill -9 at a stage of a batch. Needs a build with
    /// `--features failpoints`.
    CrashDedup,
    /// A database takes connections and answers nothing.
    HangDatabase,
    /// A database's sessions are ended again and again.
    CutSessions,
    /// Somebody locks the table that every batch needs.
    LockDatabase,
    /// Every batch takes half a second longer.
    SlowDatabase,
    /// A database is read only.
    ReadOnly,
    /// A database has room for one session only.
    FewConnections,
    /// A database does not know our password.
    WrongPassword,
    /// A gatherer is stopped, its database dropped and made anew, and it starts again.
    WipeGatherer,
    /// Nothing is written to a gatherer for some seconds; then all of it comes.
    Stall,
    /// A gatherer's sockets stay open and nothing ever comes again.
    HalfOpen,
    /// Frames are left out.
    Skip,
    /// Frames come twice under the same number.
    Repeat,
    /// The numbers of subscriptions begin again.
    Reset,
    /// Subscriptions end by an error without an id (10 and 25).
    Terminate,
    /// Subscriptions fall silent while their sockets live.
    DeadSid,
    /// Commands get errors.
    CommandErrors,
    /// Commands are not answered.
    CommandTimeouts,
    /// Sockets end, and handshakes get 401, 403, 429, 500 or 503.
    Refuse,
    /// Close frames of services that restart and of keys that are not welcome.
    CloseCodes,
    /// REST refuses, is slow, repeats cursors, shows empty and shifted pages.
    Rest,
    /// The exchange closes, throws everybody out, and opens again.
    Maintenance,
    /// A thousand markets a minute are born and end.
    Churn,
    /// Frames that make no sense.
    Garbage,
    /// Frames that end in their middle, have a broken head, or announce 65 MiB.
    Mangle,
    /// Thousands of pings.
    PingFlood,
    /// Fifty times the rate for a moment.
    Burst,
    /// The exchange ignores that yes-leg prices were asked for. What is recorded then is wrong
    /// unless the gatherer refuses it, so this is never part of everything.
    YesPrice,
}

/// What is never part of everything, and what needs a generated flow.
const NEVER: [Kind; 1] = [Kind::YesPrice];
const GENERATED: [Kind; 2] = [Kind::Churn, Kind::Burst];

impl Kind {
    pub const ALL: [Self; 37] = [
        Self::Cut,
        Self::KillGatherer,
        Self::RestartGatherer,
        Self::CrashGatherer,
        Self::KillDedup,
        Self::KillPostgres,
        Self::StopPostgres,
        Self::KillProduction,
        Self::StopProduction,
        Self::CrashDedup,
        Self::HangDatabase,
        Self::CutSessions,
        Self::LockDatabase,
        Self::SlowDatabase,
        Self::ReadOnly,
        Self::FewConnections,
        Self::WrongPassword,
        Self::WipeGatherer,
        Self::Stall,
        Self::HalfOpen,
        Self::Skip,
        Self::Repeat,
        Self::Reset,
        Self::Terminate,
        Self::DeadSid,
        Self::CommandErrors,
        Self::CommandTimeouts,
        Self::Refuse,
        Self::CloseCodes,
        Self::Rest,
        Self::Maintenance,
        Self::Churn,
        Self::Garbage,
        Self::Mangle,
        Self::PingFlood,
        Self::Burst,
        Self::YesPrice,
    ];

    /// All that can end well in such a run.
    pub fn fitting(gatherers: usize, is_replay: bool) -> Vec<Self> {
        let fits = |kind: &Self| {
            !NEVER.contains(kind)
                && kind.is_built_in()
                && (gatherers > 1 || !kind.blinds())
                && !(is_replay && kind.needs_generated())
        };
        Self::ALL.into_iter().filter(fits).collect()
    }

    /// Whether this program can do it: crashes need one with crash points.
    pub const fn is_built_in(self) -> bool {
        cfg!(feature = "failpoints") || !matches!(self, Self::CrashGatherer | Self::CrashDedup)
    }

    /// Whether it befalls a database that stays up: each gatherer's in turn, and production.
    pub const fn is_of_database(self) -> bool {
        matches!(
            self,
            Self::HangDatabase
                | Self::CutSessions
                | Self::LockDatabase
                | Self::SlowDatabase
                | Self::ReadOnly
                | Self::FewConnections
                | Self::WrongPassword
        )
    }

    /// Whether it changes the pace of a generated flow.
    pub fn needs_generated(self) -> bool {
        GENERATED.contains(&self)
    }

    /// The name on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::KillGatherer => "kill-gatherer",
            Self::RestartGatherer => "restart-gatherer",
            Self::CrashGatherer => "crash-gatherer",
            Self::KillDedup => "kill-dedup",
            Self::KillPostgres => "kill-postgres",
            Self::StopPostgres => "stop-postgres",
            Self::KillProduction => "kill-production",
            Self::StopProduction => "stop-production",
            Self::CrashDedup => "crash-dedup",
            Self::HangDatabase => "hang-database",
            Self::CutSessions => "cut-sessions",
            Self::LockDatabase => "lock-database",
            Self::SlowDatabase => "slow-database",
            Self::ReadOnly => "read-only",
            Self::FewConnections => "few-connections",
            Self::WrongPassword => "wrong-password",
            Self::WipeGatherer => "wipe-gatherer",
            Self::Stall => "stall",
            Self::HalfOpen => "half-open",
            Self::Skip => "skip",
            Self::Repeat => "repeat",
            Self::Reset => "reset",
            Self::Terminate => "terminate",
            Self::DeadSid => "dead-sid",
            Self::CommandErrors => "command-errors",
            Self::CommandTimeouts => "command-timeouts",
            Self::Refuse => "refuse",
            Self::CloseCodes => "close-codes",
            Self::Rest => "rest",
            Self::Maintenance => "maintenance",
            Self::Churn => "churn",
            Self::Garbage => "garbage",
            Self::Mangle => "mangle",
            Self::PingFlood => "ping-flood",
            Self::Burst => "burst",
            Self::YesPrice => "yes-price",
        }
    }

    /// What it does, for the command line's help.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Cut => "Each gatherer in turn has no connection for a third of the run",
            Self::KillGatherer => "kill -9 of a gatherer",
            Self::RestartGatherer => "An orderly restart of each gatherer in turn",
            Self::CrashGatherer => {
                "A gatherer dies before and after it writes, decodes or commits (build with failpoints)"
            }
            Self::KillDedup => "kill -9 of the deduplicator",
            Self::KillPostgres => {
                "A gatherer's PostgreSQL crashes and comes back after some seconds"
            }
            Self::StopPostgres => "A gatherer's PostgreSQL is away for the length of the outage",
            Self::KillProduction => "Production crashes and comes back after some seconds",
            Self::StopProduction => "Production is away for the length of the outage",
            Self::CrashDedup => {
                "The deduplicator dies before and after it reads, writes or commits (build with failpoints)"
            }
            Self::HangDatabase => {
                "A database takes connections and answers nothing for some seconds"
            }
            Self::CutSessions => "A database's sessions are ended again and again for some seconds",
            Self::LockDatabase => "A table that every batch needs is locked for some seconds",
            Self::SlowDatabase => "Every batch into a database takes half a second longer",
            Self::ReadOnly => "A database is read only for some seconds, its sessions for longer",
            Self::FewConnections => "A database has room for one session for some seconds",
            Self::WrongPassword => "A database refuses our password for some seconds",
            Self::WipeGatherer => {
                "A gatherer's database is dropped and made anew; its journal stays"
            }
            Self::Stall => "A gatherer's sockets are silent for some seconds",
            Self::HalfOpen => "A gatherer's sockets stay open and are silent for ever",
            Self::Skip => "A gatherer is not sent some frames; their numbers are missing",
            Self::Repeat => "A gatherer is sent frames twice",
            Self::Reset => "The sequence numbers of a gatherer's subscriptions begin again",
            Self::Terminate => "A gatherer's subscriptions end by errors 10 and 25",
            Self::DeadSid => "A gatherer's subscriptions fall silent while the sockets live",
            Self::CommandErrors => "A gatherer's commands get errors",
            Self::CommandTimeouts => "A gatherer's commands are not answered",
            Self::Refuse => "A gatherer's handshakes get 401, 403, 429, 500 or 503",
            Self::CloseCodes => "A gatherer's sockets are closed with 1012, 1013, 4000 and others",
            Self::Rest => "REST refuses, is slow, and its pages go wrong",
            Self::Maintenance => "The exchange closes, throws everybody out, and opens again",
            Self::Churn => "A thousand markets a minute are born and end",
            Self::Garbage => "A gatherer is sent frames that make no sense",
            Self::Mangle => "A gatherer's sockets bring torn, broken and enormous frames",
            Self::PingFlood => "A gatherer is sent thousands of pings",
            Self::Burst => "Fifty times the rate for a moment",
            Self::YesPrice => {
                "The exchange ignores use_yes_price: what is recorded is wrong, so not part of `all`"
            }
        }
    }

    /// Whether the gatherer may miss something meanwhile, so that another must see everything.
    pub const fn blinds(self) -> bool {
        !self.is_of_database()
            && !matches!(
                self,
                Self::KillDedup
                    | Self::KillPostgres
                    | Self::StopPostgres
                    | Self::KillProduction
                    | Self::StopProduction
                    | Self::CrashDedup
                    | Self::Repeat
                    | Self::Maintenance
                    | Self::Churn
                    | Self::PingFlood
                    | Self::Burst
            )
    }

    /// Whether it befalls everything rather than one gatherer.
    const fn is_everywhere(self) -> bool {
        matches!(
            self,
            Self::KillDedup
                | Self::KillProduction
                | Self::StopProduction
                | Self::CrashDedup
                | Self::Maintenance
                | Self::Churn
                | Self::Burst
        )
    }

    /// Whether processes or databases go rather than something at the exchange.
    pub const fn is_local(self) -> bool {
        self.is_of_database()
            || matches!(
                self,
                Self::KillGatherer
                    | Self::RestartGatherer
                    | Self::CrashGatherer
                    | Self::KillDedup
                    | Self::KillPostgres
                    | Self::StopPostgres
                    | Self::KillProduction
                    | Self::StopProduction
                    | Self::CrashDedup
                    | Self::WipeGatherer
            )
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
    /// Index of the gatherer it befalls; none for the deduplicator and for the exchange as a whole.
    pub gatherer: Option<usize>,
    /// How long what it befalls is away.
    pub lasts: Duration,
    /// Counts the events of a kind: which of its variants this is.
    pub nth: usize,
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
/// Of what goes wrong at the exchange, because there are so many kinds: one for this much of the run,
/// at most [`TROUBLES_MAX`].
const SECONDS_PER_TROUBLE: f64 = 60.0;
const TROUBLES_MAX: u32 = 6;

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
            Kind::StopPostgres | Kind::StopProduction => {
                once(kind, run, (0.05, 0.15), run.outage, &mut rng, &mut events)
            }
            // Late enough that there is something to lose.
            Kind::WipeGatherer => {
                once(kind, run, (0.4, 0.6), Duration::ZERO, &mut rng, &mut events)
            }
            Kind::Churn => once(kind, run, (0.1, 0.4), run.length / 3, &mut rng, &mut events),
            Kind::YesPrice => once(kind, run, (0.2, 0.4), run.length / 6, &mut rng, &mut events),
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
        events.push(Event { at, kind: Kind::Cut, gatherer: Some(gatherer), lasts: third, nth: 0 });
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
    let gatherer = Some(rng.usize(0..run.gatherers.max(1))).filter(|_| !kind.is_everywhere());
    events.push(Event { at, kind, gatherer, lasts, nth: 0 });
}

fn kills(kind: Kind, run: Run, rng: &mut Rng, events: &mut Vec<Event>) {
    // A slot for each, so that they spread over the run and every gatherer has its turn.
    let (each, most) = if kind.is_local() && !kind.is_of_database() {
        (SECONDS_PER_KILL, KILLS_MAX)
    } else {
        (SECONDS_PER_TROUBLE, TROUBLES_MAX)
    };
    // Databases: a gatherer's and production's in turn.
    let mut slots = if kind.is_of_database() { 2 } else { 1 };
    while slots < most && run.length.as_secs_f64() >= f64::from(slots + 1) * each {
        slots += 1;
    }
    let slot = run.length / slots;
    let first = rng.usize(0..run.gatherers.max(1));
    // Which variant comes first is drawn too, so that many seeds try all of them.
    for ((slot_at, turn), nth) in (0..slots).zip(first..).zip(rng.usize(0..100)..) {
        let at = slot * slot_at + slot.mul_f64(0.15 + 0.6 * rng.f64());
        let lasts = Duration::from_millis(rng.u64(2000..=5000));
        let is_production = kind.is_of_database() && slot_at % 2 == 1;
        let is_everywhere = kind.is_everywhere() || is_production;
        let gatherer = (!is_everywhere).then_some(turn % run.gatherers.max(1));
        events.push(Event { at, kind, gatherer, lasts, nth });
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
    fn faults_of_databases_befall_a_gatherers_and_productions() {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_of_database()) {
            let events = schedule(&[kind], RUN, 5);
            assert_eq!(events.len(), 2);
            assert_eq!(events.iter().filter(|event| event.gatherer.is_none()).count(), 1);
        }
    }

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!(Kind::fitting(1, false).iter().filter(|kind| kind.blinds()).count(), 0);
        assert!(!Kind::fitting(3, true).contains(&Kind::Churn));
        assert_eq!(Kind::fitting(3, false).len(), Kind::ALL.len() - 1);
        assert!("rain".parse::<Kind>().unwrap_err().contains("stop-postgres"));
    }
}
