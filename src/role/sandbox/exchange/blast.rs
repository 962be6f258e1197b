//! Throughput: changes over the subscribed markets as fast as the readers take them, with as little
//! work a frame as a frame can have. They add up to nothing in every book.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::connection::slot;
use super::frames::cut_time;
use super::hub::Hub;
use super::market::{MarketId, NOTIONAL_MICROS};
use super::outbox::Pushed;
use super::venue::Venue;
use crate::model::{Channel, Micros, Price, Side};

/// Markets that take their turn under one hold of the lock.
const BATCH_MARKETS: usize = 256;
/// Changes of a market in one turn, an even number: each order comes and goes.
const TURN_CHANGES: u64 = 4;
/// The blast waits while more bytes than this wait for a connection: some milliseconds of work for
/// its reader, and far below every limit.
const WAITING_BYTES_MAX: usize = 2 << 20;
/// How long it waits when no reader has room.
const PAUSE: Duration = Duration::from_micros(500);

/// How far it is. The ledger does not know these changes: only how many there were.
#[derive(Debug, Default)]
pub(super) struct Blast {
    running: AtomicBool,
    asked: AtomicU64,
    published: AtomicU64,
    frames: AtomicU64,
}

impl Blast {
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "running": self.running.load(Ordering::Acquire),
            "asked": self.asked.load(Ordering::Relaxed),
            "published": self.published.load(Ordering::Relaxed),
            "frames": self.frames.load(Ordering::Relaxed),
            "in_ledger": false,
        })
    }

    /// Begins one of so many changes and says how many it will be, because each order comes and
    /// goes; none while another goes on.
    pub fn begin(&self, changes: u64) -> Option<u64> {
        if self.running.swap(true, Ordering::AcqRel) {
            return None;
        }
        let changes = changes.saturating_add(changes % 2);
        self.asked.store(changes, Ordering::Relaxed);
        self.published.store(0, Ordering::Relaxed);
        self.frames.store(0, Ordering::Relaxed);
        Some(changes)
    }
}

/// The two changes of a market, ready but for their numbers and time.
struct Shell {
    id: MarketId,
    side: Side,
    /// In the convention of a subscription that asked for yes-leg prices, and of one that did not:
    /// up to the size, and from behind it to the time.
    heads: [Vec<u8>; 2],
}

/// What stands between the size and the time.
fn middle(side: Side) -> &'static [u8] {
    match side {
        Side::Yes => b"\",\"side\":\"yes\",\"ts\":\"",
        Side::No => b"\",\"side\":\"no\",\"ts\":\"",
    }
}

impl Shell {
    fn of(venue: &Venue, id: MarketId) -> Option<Self> {
        let market = venue.catalog.market(id)?;
        let tick = market.tick_micros;
        // Far from the touch, where no book of the generator is crossed by it.
        let (side, price) = if id.0.is_multiple_of(2) {
            (Side::Yes, Price::from_micros(tick))
        } else {
            (Side::No, Price::from_micros(NOTIONAL_MICROS - tick))
        };
        let head = |yes_leg: bool| {
            let shown = super::market::shown_price(side, price, yes_leg);
            format!(
                "{{\"market_ticker\":\"{}\",\"market_id\":\"{}\",\"price_dollars\":\"{shown}\",\
                 \"delta_fp\":\"",
                market.ticker, market.uuid
            )
            .into_bytes()
        };
        Some(Self { id, side, heads: [head(true), head(false)] })
    }
}

/// Publishes until as many changes as asked for are out, nobody is subscribed, or the exchange
/// stops.
pub(super) async fn run(hub: Arc<Hub>, changes: u64) {
    let mut last = Micros::now();
    let mut shells: Vec<Shell> = Vec::new();
    let mut at = 0;
    let mut left = changes;
    let mut frame = Vec::with_capacity(512);
    while left > 0 && !hub.stop.is_cancelled() {
        if at >= shells.len() {
            // Once a round, because subscriptions come and go.
            shells = hub.with(|venue| {
                let subscribed = venue.catalog.markets.iter().zip((0..).map(MarketId));
                let subscribed = subscribed.filter(|(market, _)| !market.watchers.book.is_empty());
                let ids: Vec<MarketId> = subscribed.map(|(_, id)| id).collect();
                ids.into_iter().filter_map(|id| Shell::of(venue, id)).collect()
            });
            at = 0;
            if shells.is_empty() {
                break;
            }
        }
        if hub.with(|venue| !venue.trading || venue.is_filled(WAITING_BYTES_MAX)) {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let batch = shells.get(at..).unwrap_or_default();
        let batch = batch.get(..BATCH_MARKETS.min(batch.len())).unwrap_or_default();
        at += batch.len();
        let (published, frames) = hub.with(|venue| {
            let (mut published, mut frames) = (0, 0);
            for shell in batch {
                let turn = TURN_CHANGES.min(left - published);
                frames += venue.blast_turn(shell, turn, &mut last, &mut frame);
                published += turn;
                if published == left {
                    break;
                }
            }
            (published, frames)
        });
        left -= published;
        hub.blast.published.fetch_add(published, Ordering::Relaxed);
        hub.blast.frames.fetch_add(frames, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
    hub.blast.running.store(false, Ordering::Release);
}

impl Venue {
    /// Whether so much waits for somebody that a blast should wait too.
    fn is_filled(&self, limit: usize) -> bool {
        self.connections().any(|(_, connection)| connection.outbox.bytes() > limit)
    }

    /// Sends a market's changes: orders of five contracts that come and go under one hold of the
    /// lock, so that no snapshot ever shows them. Returns the frames.
    fn blast_turn(
        &mut self,
        shell: &Shell,
        changes: u64,
        last: &mut Micros,
        frame: &mut Vec<u8>,
    ) -> u64 {
        let watchers = match self.catalog.market(shell.id) {
            Some(market) => market.watchers.book.clone(),
            None => return 0,
        };
        let mut frames = 0;
        // One time a turn: what is alike in it is told apart by its ordinal, as real changes are.
        *last = Micros((last.0 + 1).max(Micros::now().0));
        let time = cut_time(*last);
        let millis = last.0.div_euclid(1000);
        for nth in 0..changes {
            let size: &[u8] = if nth % 2 == 0 { b"5.00" } else { b"-5.00" };
            for &id in &watchers {
                let limit = self.limits.outbox_bytes;
                let Some(connection) = self.connection(id) else { continue };
                let channel = slot(Channel::OrderbookDelta);
                let Some(subscription) =
                    connection.subscriptions.get_mut(channel).and_then(Option::as_mut)
                else {
                    continue;
                };
                if subscription.dead {
                    continue;
                }
                let [yes_leg, no_leg] = &shell.heads;
                let head = if subscription.yes_leg { yes_leg } else { no_leg };
                frame.clear();
                let written = write!(
                    frame,
                    "{{\"type\":\"orderbook_delta\",\"sid\":{},\"seq\":{},\"msg\":",
                    subscription.sid,
                    subscription.seq + 1
                );
                debug_assert!(written.is_ok(), "writing to memory");
                frame.extend_from_slice(head);
                frame.extend_from_slice(size);
                frame.extend_from_slice(middle(shell.side));
                frame.extend_from_slice(time.as_bytes());
                let written = write!(frame, "\",\"ts_ms\":{millis}}}}}");
                debug_assert!(written.is_ok(), "writing to memory");
                if connection.outbox.push_within(limit, &[frame]) == Pushed::Yes {
                    subscription.seq += 1;
                    frames += 1;
                    self.mark(id);
                }
            }
        }
        frames
    }
}
