//! A record that is made up and right: what three gatherers would have written of an exchange whose every
//! change is known.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::support::Cluster;

pub const SECOND: i64 = 1_000_000;
pub const MARKETS: [&str; 4] = ["KXA-1", "KXA-2", "KXB-1", "KXB-2"];
/// Seconds of the record, and between two snapshots of a market.
pub const LENGTH: i64 = 600;
pub const AUDIT: i64 = 120;

/// What a gatherer recorded of an exchange that is made up here, second by second.
pub struct World {
    /// The first moment, in the first minutes of an hour that is over.
    begin: i64,
    deltas: Vec<String>,
    trades: Vec<String>,
    snapshots: Vec<String>,
    coverage: Vec<String>,
}

impl World {
    /// The record of one gatherer. `without` is the ordinal of a change that it missed.
    pub fn of(gatherer: i64, begin: i64, without: Option<usize>) -> Self {
        let mut world = Self {
            begin,
            deltas: Vec::new(),
            trades: Vec::new(),
            snapshots: Vec::new(),
            coverage: Vec::new(),
        };
        // Our clock is a little behind the exchange's.
        let clock = |at: i64| at + 20_000 + gatherer * 1_000;
        let mut made = 0;
        for (number, ticker) in (0_i64..).zip(MARKETS) {
            let mut book: BTreeMap<(bool, i64), i64> = BTreeMap::new();
            for second in 0..=LENGTH {
                let at = begin + second * SECOND + number * 1_000;
                if second % AUDIT == 0 {
                    world.snapshot(ticker, at - 1, clock(at), &book, number * 1_000 + second);
                }
                if second == LENGTH {
                    break;
                }
                let price = (30 + second % 7 + number) * 10_000;
                let is_yes = second % 2 == 0;
                let level = (is_yes, if is_yes { price } else { price + 400_000 });
                let mut changes = vec![(at, level, 100 + second % 5 * 10)];
                if second % 10 == 9 {
                    // A trade takes what was just placed.
                    let size = 100 + second % 5 * 10;
                    changes.push((at + 500_000, level, -size));
                    // A taker on yes takes the no side, and the other way round.
                    let seq = world.trades.len() + 1;
                    world.trades.push(format!(
                        "({seq}, '00000000-0000-0000-0000-{:012}', {}, {}, '{ticker}', {}, {}, {size}, {}, \
                         false, {begin}, 2, {seq})",
                        number * 10_000 + second,
                        at + 500_000,
                        clock(at + 500_000),
                        level.1,
                        1_000_000 - level.1,
                        !is_yes,
                    ));
                }
                for (at, (is_yes, price), size) in changes {
                    *book.entry((is_yes, price)).or_default() += size;
                    made += 1;
                    if without == Some(made) {
                        continue;
                    }
                    let seq = world.deltas.len() + 1;
                    world.deltas.push(format!(
                        "({seq}, {at}, {}, '{ticker}', {is_yes}, {price}, {size}, 1, {begin}, 1, {})",
                        clock(at),
                        number * 100_000 + second * 10 + i64::from(size < 0),
                    ));
                }
            }
            // A book is covered from its first snapshot on.
            let first = clock(begin + number * 1_000);
            world.stretches("orderbook_delta", ticker, (gatherer, first), 1, 700);
        }
        for channel in ["trade", "ticker", "market_lifecycle_v2"] {
            world.stretches(channel, "", (gatherer, begin + gatherer * 10_000), 2, 180);
        }
        world
    }

    fn snapshot(
        &mut self,
        ticker: &str,
        anchor: i64,
        clock: i64,
        book: &BTreeMap<(bool, i64), i64>,
        place: i64,
    ) {
        let array = |side: bool, of: fn((&(bool, i64), &i64)) -> i64| {
            let levels = book.iter().filter(|(level, size)| level.0 == side && **size != 0);
            let values: Vec<String> = levels.map(|level| of(level).to_string()).collect();
            format!("'{{{}}}'", values.join(","))
        };
        let [yes, no] = [true, false].map(|side| {
            format!("{}, {}", array(side, |(level, _)| level.1), array(side, |(_, size)| *size))
        });
        let (seq, begin) = (self.snapshots.len() + 1, self.begin);
        // In the stream it stands before the change of its second.
        let place = place / 1_000 * 100_000 + place % 1_000 * 10 - 1;
        self.snapshots.push(format!(
            "({seq}, {clock}, {anchor}, '{ticker}', 'ws', {yes}, {no}, {begin}, 1, {place})"
        ));
    }

    /// Two stretches that follow one another without a hole.
    fn stretches(
        &mut self,
        channel: &str,
        ticker: &str,
        (gatherer, from): (i64, i64),
        sid: i64,
        records: i64,
    ) {
        let begin = self.begin;
        let to = begin + (LENGTH + 5) * SECOND;
        let middle = begin + LENGTH / 2 * SECOND + gatherer;
        for (from, to, end) in [(from, middle, "continues"), (middle, to, "stop")] {
            let seq = self.coverage.len() + 1;
            self.coverage.push(format!(
                "({seq}, '{channel}', '{ticker}', {from}, {to}, {}, {}, {records}, '{end}', '', {begin}, {sid})",
                from + SECOND,
                to - SECOND,
            ));
        }
    }

    /// Puts it into a gatherer's database.
    pub fn fill(&self, cluster: &Cluster, root: &Path, database: &str) {
        let mut script = String::new();
        for (table, rows) in [
            ("orderbook_deltas", &self.deltas),
            ("trades", &self.trades),
            ("orderbook_snapshots", &self.snapshots),
            ("coverage", &self.coverage),
        ] {
            writeln!(script, "INSERT INTO {table} VALUES\n{};", rows.join(",\n")).expect("write");
            writeln!(script, "UPDATE logs SET head = {} WHERE name = '{table}';", rows.len())
                .expect("write");
        }
        let file = root.join(format!("{database}.sql"));
        fs::write(&file, script).expect("write a script");
        let output = cluster.psql(database, &["-f", file.to_str().expect("UTF-8")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
