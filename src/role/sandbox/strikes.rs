//! Carries out the schedule of faults and notes what really happened when.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::chaos::{Event, Kind};
use super::children::{Role, Spec};
use super::cluster::{Cluster, Stop};
use super::database_faults;
use super::display::Screen;
use super::exchange::Exchange;
use super::observe::View;
use super::upset;

/// How long a fault that blinds a gatherer waits for another one that sees everything.
const WITNESS_SECONDS_MAX: u64 = 60;
/// After a blind gatherer can see again: until its own word that it is whole counts.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a gatherer may take to notice what befell it and to hear everything again.
const RECOVERY_SECONDS_MAX: u64 = 90;
/// How often that is looked at; and until what ends at the exchange has ended there.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A maintenance is announced so long before.
const NOTICE: Duration = Duration::from_secs(2);
/// Markets born a minute.
const BIRTHS_PER_MINUTE: f64 = 1_000.0;
/// A burst is so many times the rate, for so long.
const BURST: f64 = 50.0;
const BURST_LASTS: Duration = Duration::from_millis(500);
/// How long a database that returned may take to be caught up, before we stop looking.
const CATCH_UP_SECONDS_MAX: u64 = 600;

/// Places at which a gatherer can be made to end itself, with how often each is passed before.
const CRASH_POINTS: [(&str, usize); 5] = [
    ("journal-before-write", 40),
    ("journal-before-flush", 25),
    ("decode-before-parse", 900),
    ("copy-before-end", 12),
    ("append-after-commit", 12),
];
/// How long a gatherer may take to get there.
const CRASH_WITHIN: Duration = Duration::from_secs(20);

/// The same of the deduplicator.
const DEDUP_CRASH_POINTS: [(&str, usize); 5] = [
    ("dedup-before-read", 30),
    ("dedup-after-read", 30),
    ("dedup-within-insert", 8),
    ("dedup-before-commit", 10),
    ("dedup-after-commit", 10),
];

/// Where the `nth` crash happens, as the crate `fail` reads it.
fn crash_point(points: &[(&str, usize)], nth: usize) -> String {
    let place = points.get(nth.checked_rem(points.len()).unwrap_or_default());
    let (name, passes) = place.copied().unwrap_or(("journal-before-write", 1));
    // Another distance each time: not always the first batch after a start.
    format!("{name}={}*off->return", passes + nth * 7 % 50)
}

/// A fault as it happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Struck {
    /// From the moment at which the exchange began to publish.
    pub at_seconds: f64,
    pub kind: &'static str,
    pub target: String,
    pub lasted_seconds: f64,
    /// Of databases: from their return until everything journalled meanwhile was committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught_up_seconds: Option<f64>,
    /// It could not be done safely: no other gatherer saw everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

/// A gatherer as a target.
pub struct Target {
    pub role: Arc<Role>,
    pub cluster: Arc<Cluster>,
    /// Brings its database to the present schema.
    pub migration: Spec,
    /// Faults of one gatherer follow each other.
    busy: AsyncMutex<()>,
}

impl Target {
    pub fn new(role: Arc<Role>, cluster: Arc<Cluster>, migration: Spec) -> Self {
        Self { role, cluster, migration, busy: AsyncMutex::new(()) }
    }
}

/// Which gatherers receive nothing at the moment.
#[derive(Debug, Clone, Copy)]
struct Sight {
    blinded: u32,
    since_sight: Option<Instant>,
}

/// Everything that can be struck.
pub struct Strikes {
    pub exchange: Arc<Exchange>,
    pub gatherers: Vec<Target>,
    pub deduplicator: Arc<Role>,
    pub production: Arc<Cluster>,
    pub views: watch::Receiver<View>,
    pub screen: Arc<Screen>,
    production_busy: AsyncMutex<()>,
    sight: Mutex<Vec<Sight>>,
    done: Mutex<Vec<Struck>>,
}

impl Strikes {
    pub fn new(
        exchange: Arc<Exchange>,
        gatherers: Vec<Target>,
        deduplicator: Arc<Role>,
        production: Arc<Cluster>,
        views: watch::Receiver<View>,
        screen: Arc<Screen>,
    ) -> Self {
        let sight = vec![Sight { blinded: 0, since_sight: None }; gatherers.len()];
        Self {
            exchange,
            gatherers,
            deduplicator,
            production,
            views,
            screen,
            production_busy: AsyncMutex::new(()),
            sight: Mutex::new(sight),
            done: Mutex::default(),
        }
    }

    /// What was struck so far, by time.
    pub fn done(&self) -> Vec<Struck> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        done.sort_by(|a, b| a.at_seconds.total_cmp(&b.at_seconds));
        done
    }

    /// Carries out one event at its time, and undoes it.
    ///
    /// # Errors
    /// When what was ended cannot be started again.
    pub async fn strike(&self, event: Event, started: Instant) -> Result<()> {
        sleep_until(started + event.at).await;
        let Some(index) = event.gatherer else { return self.strike_all(event, started).await };
        let Some(target) = self.gatherers.get(index) else { return Ok(()) };
        let name = target.role.name();
        // A cut leaves the gatherer's processes alone, so it may fall together with their faults.
        let turn = if event.kind == Kind::Cut { None } else { Some(target.busy.lock().await) };
        let lasts = if event.kind.blinds() {
            match self.blind(index, event, started).await {
                Some(lasts) => lasts,
                None => return Ok(()),
            }
        } else {
            event.lasts
        };
        if !event.kind.is_local() && self.exchange.is_finished() {
            // It waited for its turn until there was nothing left to disturb.
            if event.kind.blinds() {
                self.see_again(index);
            }
            return Ok(());
        }
        let began = Instant::now();
        self.tell(event.kind, name);
        let mut caught_up = None;
        match event.kind {
            Kind::KillGatherer | Kind::KillDedup => {
                target.role.kill().await;
                sleep(lasts).await;
                target.role.start().await?;
            }
            Kind::RestartGatherer => {
                target.role.stop().await?;
                target.role.start().await?;
            }
            Kind::CrashGatherer => {
                target.role.kill().await;
                self.crash(&target.role, &crash_point(&CRASH_POINTS, event.nth)).await?;
            }
            Kind::WipeGatherer => {
                target.role.stop().await?;
                target.cluster.wipe().await?;
                target.migration.run().await?;
                target.role.start().await?;
            }
            Kind::KillPostgres | Kind::StopPostgres => {
                let how = match event.kind {
                    Kind::KillPostgres => Stop::Immediate,
                    _ => Stop::Fast,
                };
                target.cluster.stop(how).await;
                sleep(lasts).await;
                target.cluster.start().await?;
                let returned = Instant::now();
                drop(turn);
                caught_up = Some((returned, self.catch_up(index, returned).await));
            }
            kind if kind.is_of_database() => {
                database_faults::strike(kind, &target.cluster, self.pass(lasts)).await?;
            }
            _ => self.upset(index, &event, lasts).await,
        }
        if event.kind.blinds() {
            self.see_again(index);
        }
        self.note(event.kind, name, started, began, caught_up);
        Ok(())
    }

    /// Strikes what all gatherers share.
    async fn strike_all(&self, event: Event, started: Instant) -> Result<()> {
        let name = match event.kind {
            Kind::KillDedup | Kind::CrashDedup => self.deduplicator.name(),
            kind if kind.is_local() => &self.production.name,
            _ => "exchange",
        };
        // What befalls production and the deduplicator follows each other.
        let turn =
            if event.kind.is_local() { Some(self.production_busy.lock().await) } else { None };
        if !event.kind.is_local() && self.exchange.is_finished() {
            return Ok(());
        }
        let began = Instant::now();
        self.tell(event.kind, name);
        match event.kind {
            Kind::Maintenance => self.exchange.maintain(NOTICE, event.lasts).await,
            Kind::Churn => {
                self.exchange.churn(BIRTHS_PER_MINUTE, event.lasts);
                self.pass(event.lasts).await;
            }
            Kind::Burst => {
                self.exchange.burst(BURST, BURST_LASTS);
                self.pass(BURST_LASTS).await;
            }
            Kind::KillProduction | Kind::StopProduction => {
                let is_crash = event.kind == Kind::KillProduction;
                let how = if is_crash { Stop::Immediate } else { Stop::Fast };
                self.production.stop(how).await;
                sleep(event.lasts).await;
                self.production.start().await?;
            }
            Kind::CrashDedup => {
                let place = crash_point(&DEDUP_CRASH_POINTS, event.nth);
                self.crash(&self.deduplicator, &place).await?;
            }
            kind if kind.is_of_database() => {
                database_faults::strike(kind, &self.production, self.pass(event.lasts)).await?;
            }
            _ => {
                self.deduplicator.kill().await;
                sleep(event.lasts).await;
                self.deduplicator.start().await?;
            }
        }
        drop(turn);
        self.note(event.kind, name, started, began, None);
        Ok(())
    }

    /// Has a process end itself at a place in its code, and starts it again.
    async fn crash(&self, role: &Role, place: &str) -> Result<()> {
        role.kill().await;
        if !role.start_to_crash(place, CRASH_WITHIN).await? {
            self.screen.note(&format!("{} did not reach {place}: it is killed", role.name()));
            role.kill().await;
        }
        role.start().await
    }

    /// Waits, but not beyond the end of the flow.
    async fn pass(&self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = self.exchange.finished() => {}
        }
    }

    /// Makes trouble at the exchange for one gatherer, and waits until it hears everything again.
    async fn upset(&self, index: usize, event: &Event, lasts: Duration) {
        if let Some(rule) = upset::rest_rule(event, index, lasts) {
            self.exchange.rest_fault(rule);
        }
        let mut befallen = 0;
        for trouble in upset::troubles(event, lasts) {
            befallen += self.exchange.trouble(index, trouble);
        }
        let waits = matches!(event.kind, Kind::Cut | Kind::Stall | Kind::Refuse | Kind::YesPrice);
        self.pass(if waits { lasts } else { LOOK_INTERVAL }).await;
        if !event.kind.blinds() {
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(RECOVERY_SECONDS_MAX);
        while !self.exchange.hears(index) && !self.exchange.is_finished() {
            if Instant::now() > deadline {
                let name = self.gatherers.get(index).map_or("", |target| target.role.name());
                self.screen.note(&format!(
                    "{name} does not hear everything {RECOVERY_SECONDS_MAX} s after {} ({befallen} \
                     connections): its sockets are cut",
                    event.kind
                ));
                self.exchange.trouble(index, super::exchange::Trouble::Cut(Duration::ZERO));
                break;
            }
            sleep(LOOK_INTERVAL).await;
        }
        for trouble in upset::remedy(event.kind) {
            self.exchange.trouble(index, trouble);
        }
    }

    /// Marks a gatherer as blind once another sees everything. Gives how long it is to last: a cut
    /// that had to wait ends when it should have. None: there was no such moment.
    async fn blind(&self, index: usize, event: Event, started: Instant) -> Option<Duration> {
        let until = started + event.at + event.lasts;
        let patience = Duration::from_secs(WITNESS_SECONDS_MAX).min(event.lasts.max(SETTLE * 5));
        let deadline = Instant::now() + patience;
        loop {
            {
                let view = self.views.borrow();
                let mut sight = self.sight.lock().unwrap_or_else(PoisonError::into_inner);
                let hears = |other| self.exchange.hears(other);
                if has_witness(&sight, &view, hears, index) {
                    if let Some(own) = sight.get_mut(index) {
                        own.blinded += 1;
                    }
                    return Some(match event.kind {
                        Kind::Cut => until.saturating_duration_since(Instant::now()),
                        _ => event.lasts,
                    });
                }
            }
            if Instant::now() > deadline {
                let name = self.gatherers.get(index).map_or("", |target| target.role.name());
                self.screen.note(&format!(
                    "{} of {name} is left out: no other gatherer sees everything",
                    event.kind
                ));
                self.push(Struck {
                    at_seconds: (Instant::now() - started).as_secs_f64(),
                    kind: event.kind.name(),
                    target: name.to_owned(),
                    lasted_seconds: 0.0,
                    caught_up_seconds: None,
                    skipped: true,
                });
                return None;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn see_again(&self, index: usize) {
        let mut sight = self.sight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = sight.get_mut(index) {
            own.blinded = own.blinded.saturating_sub(1);
            own.since_sight = Some(Instant::now());
        }
    }

    /// Waits until everything that was journalled when the database returned is committed.
    async fn catch_up(&self, index: usize, returned: Instant) -> Option<Duration> {
        let mut views = self.views.clone();
        let limit = Duration::from_secs(CATCH_UP_SECONDS_MAX);
        let mut behind = None;
        tokio::time::timeout(limit, async {
            loop {
                if views.changed().await.is_err() {
                    return None;
                }
                let view = views.borrow_and_update();
                let gatherer = view.gatherers.get(index)?;
                let (Some(at), Some(written), Some(committed)) =
                    (view.at, gatherer.journal_written, gatherer.journal_committed)
                else {
                    continue;
                };
                if at < returned {
                    continue;
                }
                if committed >= *behind.get_or_insert(written) {
                    return Some(at - returned);
                }
            }
        })
        .await
        .ok()
        .flatten()
    }

    fn tell(&self, kind: Kind, name: &str) {
        self.screen.note(&format!("{kind} {name}"));
    }

    fn note(
        &self,
        kind: Kind,
        name: &str,
        started: Instant,
        began: Instant,
        database: Option<(Instant, Option<Duration>)>,
    ) {
        let ended = database.map_or_else(Instant::now, |(returned, _)| returned);
        let caught_up = database.and_then(|(_, caught_up)| caught_up);
        let after = caught_up.map_or(String::new(), |caught_up| {
            format!(", caught up {:.1} s after its return", caught_up.as_secs_f64())
        });
        let lasted = (ended - began).as_secs_f64();
        self.screen.note(&format!("{kind} {name} is over after {lasted:.1} s{after}"));
        self.push(Struck {
            at_seconds: rounded((began - started).as_secs_f64()),
            kind: kind.name(),
            target: name.to_owned(),
            lasted_seconds: rounded(lasted),
            caught_up_seconds: caught_up.map(|caught_up| rounded(caught_up.as_secs_f64())),
            skipped: false,
        });
    }

    fn push(&self, struck: Struck) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(struck);
    }
}

/// Whether a gatherer other than this one receives everything.
fn has_witness(sight: &[Sight], view: &View, hears: impl Fn(usize) -> bool, index: usize) -> bool {
    let others = sight.iter().enumerate().filter(|(other, _)| *other != index);
    others.map(|(other, sight)| (other, sight, view.gatherers.get(other))).any(|found| {
        let (other, sight, gatherer) = found;
        let since = match sight.since_sight {
            _ if sight.blinded > 0 || !hears(other) => return false,
            // It has been whole since the run began.
            None => return true,
            Some(since) => since,
        };
        view.at.is_some_and(|at| at > since + SETTLE)
            && gatherer.is_some_and(|gatherer| gatherer.is_whole)
    })
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::observe::GathererView;
    use super::*;

    #[test]
    fn nobody_is_blinded_without_a_witness() {
        let now = Instant::now();
        let sees = Sight { blinded: 0, since_sight: None };
        let blind = Sight { blinded: 1, since_sight: None };
        let back = Sight { blinded: 0, since_sight: Some(now) };
        let whole = GathererView { is_whole: true, ..GathererView::default() };
        let view = |after, gatherer: &GathererView| View {
            at: Some(now + after),
            gatherers: vec![gatherer.clone(), gatherer.clone()],
            ..View::default()
        };
        let partial = GathererView::default();
        let (soon, later) = (SETTLE / 2, SETTLE * 2);
        assert!(has_witness(&[sees, sees], &view(soon, &partial), |_| true, 0));
        assert!(!has_witness(&[sees], &view(later, &whole), |_| true, 0), "itself is no witness");
        assert!(!has_witness(&[sees, blind], &view(later, &whole), |_| true, 0));
        assert!(
            !has_witness(&[sees, back], &view(soon, &whole), |_| true, 0),
            "its word may be old"
        );
        assert!(!has_witness(&[sees, back], &view(later, &partial), |_| true, 0));
        assert!(has_witness(&[sees, back], &view(later, &whole), |_| true, 0));
        assert!(
            !has_witness(&[sees, sees], &view(later, &whole), |_| false, 0),
            "the exchange knows"
        );
    }
}
