//! Who sees what: which account takes which market, and whether anything is withheld from it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::connection::slot;
use super::hub::Hub;
use super::keys::Keys;
use super::market::{MarketId, Status};
use super::venue::Venue;
use crate::model::{Channel, Micros};

/// How long a new market may be without a subscription before whoever lacks it is said to miss it:
/// as long as the flow waits for subscriptions.
pub(super) const NEW_FOR: Duration = Duration::from_secs(15);

/// Subscriptions and order books by account and channel.
pub(super) type Reach = BTreeMap<(usize, usize), (usize, usize)>;

impl Venue {
    /// Accounts that take a market's order book over a subscription that is alive.
    pub fn takers(&self, market: MarketId) -> Keys {
        let books = slot(Channel::OrderbookDelta);
        let Some(market) = self.catalog.market(market) else { return Keys::default() };
        let watching = market.watchers.book.iter().filter_map(|id| self.seat(*id));
        watching
            .filter(|c| {
                c.subscriptions.get(books).and_then(Option::as_ref).is_some_and(|s| !s.dead)
            })
            .map(|c| c.key)
            .collect()
    }

    /// Order-book subscriptions that are live, counted as (key, market): a market that two
    /// connections of one key watch counts once.
    pub fn subscribed_markets(&self) -> usize {
        let ids = (0..).map(MarketId).take(self.catalog.markets.len());
        let counts = ids.map(|id| self.takers(id).count());
        counts.map(|count| usize::try_from(count).unwrap_or(0)).sum()
    }

    /// Whether every key that takes order books at all takes this market's.
    pub fn is_watched_by_all(&self, market: MarketId) -> bool {
        let books = slot(Channel::OrderbookDelta);
        let wanting: Keys = self
            .connections()
            .filter(|(_, c)| c.subscriptions.get(books).is_some_and(Option::is_some))
            .map(|(_, c)| c.key)
            .collect();
        self.takers(market).covers(wanting)
    }

    /// Whether an account is sent everything that is published, as far as the state knows: every
    /// channel, and every book that trades.
    fn hears(&self, key: usize) -> bool {
        let channels =
            [Channel::OrderbookDelta, Channel::Trade, Channel::Ticker, Channel::Lifecycle];
        let has = |channel: &Channel| {
            self.connections().any(|(_, connection)| {
                let subscription = connection.subscriptions.get(slot(*channel));
                let subscription = subscription.and_then(Option::as_ref);
                connection.key == key && subscription.is_some_and(|s| !s.dead)
            })
        };
        let young = Micros::now().0.saturating_sub(micros(NEW_FOR));
        let trading = (0..).map(MarketId).zip(&self.catalog.markets).filter(|(_, market)| {
            market.status == Status::Active && !market.is_multivariate() && market.created.0 < young
        });
        channels.iter().all(has)
            && !self.pending.is_dropping(key)
            && trading.into_iter().all(|(id, _)| self.takers(id).contains(key))
    }

    /// Markets that are open for trading and that everybody takes: multivariate ones are not.
    pub fn open_markets(&self) -> usize {
        let open = Status::Active.filter();
        self.catalog.count(open) - self.catalog.multivariate_open
    }

    /// What everybody is subscribed to.
    pub fn reach(&self) -> Reach {
        let mut reach = Reach::new();
        for (_, connection) in self.connections() {
            for (at, subscription) in connection.subscriptions.iter().enumerate() {
                let Some(subscription) = subscription else { continue };
                let entry = reach.entry((connection.key, at)).or_default();
                entry.0 += 1;
                entry.1 += subscription.filter.count();
            }
        }
        reach
    }

    /// Whether everybody is back who was there, but for `lost` markets that ended meanwhile.
    pub fn has_reach(&self, wanted: &Reach, lost: usize) -> bool {
        let now = self.reach();
        wanted.iter().all(|(place, (subscriptions, markets))| {
            now.get(place)
                .is_some_and(|(have, books)| have >= subscriptions && books + lost >= *markets)
        })
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

impl Hub {
    /// Whether an account is sent everything that is published at the moment.
    pub fn hears(&self, key: usize) -> bool {
        let silent = self.accounts.get(key).is_none_or(|account| account.gate().is_silent());
        !silent && self.with(|venue| venue.active && venue.hears(key))
    }
}
