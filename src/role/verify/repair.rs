//! `--repair`: what the exchange still tells goes into production, and what nobody can tell any more is
//! written down as lost.
//!
//! Trades are appended as the deduplicator would: under the writer's lock, which refuses while a
//! deduplicator runs, numbered from the head, with the head moved in the same transaction. What is lost
//! is a fact of its own (table `lost`) that books are told by, and needs no lock.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use tokio_postgres::{Client, GenericClient};

use super::against::TOLERANCE_MICROS;
use super::coverage::REPAIR;
use super::intervals::DAY;
use super::report::Finding;
use super::scene::Scene;
use crate::kalshi::trades::ListedTrade;
use crate::model::{Channel, Micros};
use crate::ops::exit::HeldError;
use crate::pg::migrate::{self, Schema};
use crate::pg::partitions::{self, Ranges, create_sql};
use crate::pg::writer::{AcquireError, WriterLock};
use crate::pg::{OWNER, Target};

/// Width of production's partitions of trades.
const PARTITION_MICROS: i64 = 7 * DAY;
const HOUR_MICROS: i64 = 3_600_000_000;

/// The right to append trades, and a session to do it.
pub struct Repair {
    lock: WriterLock,
    client: Client,
    gatherer: i16,
}

/// What became of trades.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inserted {
    pub inserted: u64,
    pub too_old: u64,
}

impl Repair {
    /// Takes the writer's lock.
    ///
    /// # Errors
    /// `HeldError` while a deduplicator runs.
    pub async fn begin(scene: &Scene) -> anyhow::Result<Self> {
        let target: &Target = &scene.config.writer;
        let holder = format!("verify --repair, process {}", std::process::id());
        let lock = WriterLock::acquire(target, &holder).await.map_err(|error| match error {
            AcquireError::Held(holder) => {
                let text = format!(
                    "{holder}. To repair trades, stop the deduplicator for so long: gatherers record on, \
                     and it catches up afterwards"
                );
                anyhow::Error::new(HeldError(text))
            }
            other => other.into(),
        })?;
        let client = target.connect().await?;
        migrate::check(&client, Schema::Production).await?;
        let sql = "INSERT INTO gatherers (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
        client.execute(sql, &[&REPAIR]).await.context("note the source repair")?;
        let sql = "SELECT gatherer_id FROM gatherers WHERE name = $1";
        let row = client.query_one(sql, &[&REPAIR]).await.context("read the source repair")?;
        let gatherer = row.try_get(0)?;
        Ok(Self { lock, client, gatherer })
    }

    /// Appends trades that production lacks. One that it got meanwhile, within a second of the time, is
    /// passed over.
    ///
    /// # Errors
    /// When production refuses, or another process has taken the lock.
    pub async fn insert(&mut self, trades: &[ListedTrade]) -> anyhow::Result<Inserted> {
        let fence = self.lock.fence();
        let tx = self.client.transaction().await.context("begin")?;
        fence.check(&tx).await?;
        let sql = "SELECT head, kept_from FROM logs WHERE name = 'trades'";
        let row = tx.query_one(sql, &[]).await.context("read head")?;
        let head: i64 = row.try_get(0)?;
        let kept_from: i64 = row.try_get::<_, Option<i64>>(1)?.unwrap_or(i64::MIN);
        let kept: Vec<&ListedTrade> = trades.iter().filter(|t| t.created.0 >= kept_from).collect();
        make_partitions(&tx, kept.iter().map(|trade| trade.created.0)).await?;
        let column = |of: fn(&ListedTrade) -> i64| kept.iter().map(|t| of(t)).collect::<Vec<i64>>();
        let ids: Vec<uuid::Uuid> = kept.iter().map(|trade| trade.trade_id).collect();
        let tickers: Vec<&str> = kept.iter().map(|trade| trade.ticker.as_str()).collect();
        let no_prices: Vec<Option<i64>> =
            kept.iter().map(|trade| trade.no_price.map(|price| price.micros())).collect();
        let sides: Vec<Option<bool>> =
            kept.iter().map(|trade| trade.taker_side.map(|side| side.is_yes())).collect();
        let blocks: Vec<bool> = kept.iter().map(|trade| trade.is_block_trade).collect();
        let sql = "INSERT INTO trades (log_seq, trade_id, exchange_ts, received_at, ticker, price, \
                     no_price, size, taker_side, is_block_trade, gatherer_id) \
                   SELECT $1::bigint + row_number() OVER (ORDER BY n.exchange_ts, n.trade_id), n.trade_id, \
                     n.exchange_ts, $2::bigint, n.ticker, n.price, n.no_price, n.size, n.taker_side, n.is_block, $3::smallint \
                   FROM unnest($4::uuid[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[], \
                          $9::bigint[], $10::boolean[], $11::boolean[]) \
                     AS n (trade_id, exchange_ts, ticker, price, no_price, size, taker_side, is_block) \
                   WHERE NOT EXISTS (SELECT FROM trades t WHERE t.trade_id = n.trade_id \
                     AND t.exchange_ts BETWEEN n.exchange_ts - $12::bigint AND n.exchange_ts + $12::bigint) \
                   RETURNING exchange_ts";
        let times = column(|trade| trade.created.0);
        let (prices, sizes) = (column(|t| t.price.micros()), column(|t| t.size.hundredths()));
        let rows = tx
            .query(
                sql,
                &[
                    &head,
                    &Micros::now().0,
                    &self.gatherer,
                    &ids,
                    &times,
                    &tickers,
                    &prices,
                    &no_prices,
                    &sizes,
                    &sides,
                    &blocks,
                    &TOLERANCE_MICROS,
                ],
            )
            .await
            .context("insert trades")?;
        let mut hours: BTreeMap<i64, i64> = BTreeMap::new();
        let mut latest = i64::MIN;
        for row in &rows {
            let at: i64 = row.try_get(0)?;
            *hours.entry(at.div_euclid(HOUR_MICROS) * HOUR_MICROS).or_default() += 1;
            latest = latest.max(at);
        }
        let count = i64::try_from(rows.len()).context("count rows")?;
        if count > 0 {
            let sql = "UPDATE logs SET head = $2, time_max = greatest(time_max, $3) \
                       WHERE name = 'trades' AND head = $1";
            let moved = tx.execute(sql, &[&head, &head.saturating_add(count), &latest]).await;
            ensure!(moved.context("move head")? == 1, "the head of trades has moved meanwhile");
        }
        for (hour, offered) in hours {
            let sql = "INSERT INTO contributions AS c (gatherer, table_name, hour, offered) \
                       VALUES ($1, 'trades', $2, $3) ON CONFLICT (table_name, hour, gatherer) \
                       DO UPDATE SET offered = c.offered + excluded.offered";
            tx.execute(sql, &[&REPAIR, &hour, &offered]).await.context("note the contribution")?;
        }
        tx.commit().await.context("commit")?;
        Ok(Inserted {
            inserted: u64::try_from(count).unwrap_or_default(),
            too_old: u64::try_from(trades.len() - kept.len()).unwrap_or_default(),
        })
    }

    /// Gives the lock back.
    pub fn end(self) {
        drop(self);
    }
}

/// Makes the partitions that these times lack, as the owner, within the transaction.
async fn make_partitions(
    tx: &tokio_postgres::Transaction<'_>,
    times: impl Iterator<Item = i64>,
) -> anyhow::Result<()> {
    const TABLE: &str = "trades";
    let mut ranges =
        Ranges::read(tx, TABLE, Some(PARTITION_MICROS)).await.context("read partitions")?;
    let missing = ranges.missing(times);
    if missing.is_empty() {
        return Ok(());
    }
    tx.batch_execute(&format!("SET LOCAL ROLE {OWNER}")).await.context("become the owner")?;
    partitions::lock(tx).await.context("wait for whoever makes partitions")?;
    for time in missing {
        let (from, to) = ranges.lacking(time, PARTITION_MICROS);
        let comment =
            format!("Rows of {TABLE} from {} to {}, which is not in it.", Micros(from), Micros(to));
        // Named by its first microsecond: no other has it.
        let name = format!("{TABLE}_{}", from.to_string().replace('-', "m"));
        let sql = create_sql(TABLE, &name, &comment, (from, to));
        tx.batch_execute(&sql).await.with_context(|| format!("make partition: {sql}"))?;
        ranges.add((from, to));
    }
    tx.batch_execute("RESET ROLE").await.context("be the writer again")?;
    Ok(())
}

/// Writes down that changes of these markets and times are lost; how many.
///
/// # Errors
/// When production refuses.
pub async fn record_lost(scene: &Scene, findings: &[Finding]) -> anyhow::Result<u64> {
    let client = scene.config.writer.connect().await?;
    migrate::check(&client, Schema::Production).await?;
    let mut recorded = 0;
    for finding in findings {
        let (Some(ticker), Some(from), Some(to)) =
            (&finding.market, finding.from_ts, finding.to_ts)
        else {
            continue;
        };
        recorded += lose(&client, ticker, from, to, &finding.detail).await?;
    }
    Ok(recorded)
}

async fn lose(
    client: &impl GenericClient,
    ticker: &str,
    from: i64,
    to: i64,
    detail: &str,
) -> anyhow::Result<u64> {
    let channel = Channel::OrderbookDelta.name();
    let sql = "INSERT INTO lost (channel, ticker, from_ts, to_ts, detail, recorded_at) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    let now = Micros::now().0;
    let done = client.execute(sql, &[&channel, &ticker, &from, &to, &detail, &now]).await;
    done.context("record what is lost")
}
