//! Reads recorded frames: gzipped NDJSON of `{"recv_ms":..., "event":{...the frame...}}`, in no-leg
//! prices, and the metadata that lie beside them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::frames::{Change, TradeFact};
use super::market::other_leg;
use crate::model::{Book, Micros, Price, Side, Size, Ticker};

/// Something that was recorded of a market.
#[derive(Debug, Clone)]
pub(super) enum Fact {
    Change(Change),
    Trade(Box<TradeFact>),
    /// A book in yes-leg prices; empty at the market's close.
    Snapshot(Box<Book>),
}

/// A fact with its place in time.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    /// Milliseconds of the recorder's clock since the file's first frame.
    pub offset_ms: i64,
    /// The recorder's clock.
    pub recv_ms: i64,
    /// The market, by place in [`Capture::markets`].
    pub market: usize,
    pub fact: Fact,
}

/// A recorded market.
#[derive(Debug)]
pub(super) struct Recorded {
    pub ticker: Ticker,
    pub uuid: Uuid,
    /// The file's first snapshot.
    pub initial: Book,
    /// The market and its event as REST returned them, when they were kept.
    pub market: Option<Map<String, Value>>,
    pub event: Option<Map<String, Value>>,
}

/// All files together, in the order of replay.
#[derive(Debug, Default)]
pub(super) struct Capture {
    pub markets: Vec<Recorded>,
    pub facts: Vec<Timed>,
}

#[derive(Deserialize)]
struct Line<'a> {
    recv_ms: i64,
    #[serde(borrow)]
    event: Frame<'a>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    msg: Message<'a>,
}

/// The fields of all the types together.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    market_ticker: Cow<'a, str>,
    #[serde(default, borrow)]
    market_id: Cow<'a, str>,
    #[serde(default, borrow)]
    yes_dollars_fp: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    #[serde(default, borrow)]
    no_dollars_fp: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    #[serde(default, borrow)]
    price_dollars: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    delta_fp: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    side: Option<Cow<'a, str>>,
    #[serde(default)]
    ts: Option<Value>,
    #[serde(default)]
    ts_ms: Option<i64>,
    #[serde(default)]
    trade_id: Option<Uuid>,
    #[serde(default, borrow)]
    yes_price_dollars: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    no_price_dollars: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    count_fp: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    taker_outcome_side: Option<Cow<'a, str>>,
    #[serde(default)]
    is_block_trade: bool,
}

fn needed<'a, T>(value: &'a Option<T>, name: &str) -> anyhow::Result<&'a T> {
    value.as_ref().ok_or_else(|| anyhow!("{name} is missing"))
}

fn side(name: &str) -> anyhow::Result<Side> {
    Side::from_name(name).ok_or_else(|| anyhow!("{name:?} is no side"))
}

/// A price of a side in yes-leg terms.
fn yes_leg(side: Side, text: &str) -> anyhow::Result<Price> {
    let price = Price::parse(text)?;
    Ok(if side.is_yes() { price } else { other_leg(price) })
}

impl Message<'_> {
    /// `ts` when it carries a fraction of a second, else `ts_ms`, else `ts` in whole seconds.
    fn time(&self) -> anyhow::Result<Micros> {
        let text = self.ts.as_ref().and_then(Value::as_str);
        if let Some(text) = text.filter(|text| text.contains('.')) {
            return Ok(Micros::parse_rfc3339(text)?);
        }
        if let Some(millis) = self.ts_ms {
            return Ok(Micros::from_millis(millis));
        }
        match (text, self.ts.as_ref().and_then(Value::as_i64)) {
            (Some(text), _) => Ok(Micros::parse_rfc3339(text)?),
            (None, Some(secs)) => Ok(Micros::from_secs(secs)),
            (None, None) => bail!("no exchange time"),
        }
    }

    fn change(&self) -> anyhow::Result<Change> {
        let side = side(needed(&self.side, "side")?)?;
        Ok(Change {
            at: self.time()?,
            side,
            price: yes_leg(side, needed(&self.price_dollars, "price_dollars")?)?,
            size_delta: Size::parse_signed(needed(&self.delta_fp, "delta_fp")?)?,
        })
    }

    fn trade(&self) -> anyhow::Result<TradeFact> {
        let trade_id = *needed(&self.trade_id, "trade_id")?;
        // The stream shows milliseconds and REST microseconds: the missing digits are made up, the
        // same ones each time.
        let digits = i64::try_from(trade_id.as_u128() % 1000)?;
        let millis = self.time()?.0.div_euclid(1000);
        Ok(TradeFact {
            trade_id,
            at: Micros(millis * 1000 + digits),
            yes_price: Price::parse(needed(&self.yes_price_dollars, "yes_price_dollars")?)?,
            no_price: Price::parse(needed(&self.no_price_dollars, "no_price_dollars")?)?,
            size: Size::parse(needed(&self.count_fp, "count_fp")?)?,
            taker: side(needed(&self.taker_outcome_side, "taker_outcome_side")?)?,
            is_block_trade: self.is_block_trade,
        })
    }

    fn book(&self) -> anyhow::Result<Book> {
        let levels = |side: Side, levels: &[(Cow<'_, str>, Cow<'_, str>)]| {
            let level = |(price, size): &(Cow<'_, str>, Cow<'_, str>)| {
                anyhow::Ok((yes_leg(side, price)?, Size::parse(size)?))
            };
            levels.iter().map(level).collect::<anyhow::Result<Vec<_>>>()
        };
        let yes = levels(Side::Yes, &self.yes_dollars_fp)?;
        let no = levels(Side::No, &self.no_dollars_fp)?;
        Ok(Book::from_levels(&yes, &no))
    }
}

impl Capture {
    /// Reads the files. They play at the same time, each from its own first frame.
    ///
    /// # Errors
    /// When a file cannot be read, or holds a line that is not a frame of the three kinds.
    pub fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        if files.is_empty() {
            bail!("no files to replay");
        }
        let mut capture = Self::default();
        for file in files {
            capture.read_file(file).with_context(|| format!("read {}", file.display()))?;
        }
        // Stable: frames of one file keep their order.
        capture.facts.sort_by_key(|fact| fact.offset_ms);
        Ok(capture)
    }

    fn read_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let mut metadata = read_metadata(path)?;
        let mut reader = BufReader::new(MultiGzDecoder::new(File::open(path)?));
        let mut places: HashMap<Ticker, usize> = HashMap::new();
        let mut text = String::new();
        let mut first_ms = None;
        for number in 1_u64.. {
            text.clear();
            if reader.read_line(&mut text)? == 0 {
                break;
            }
            let line = || format!("line {number}");
            let parsed: Line<'_> = serde_json::from_str(&text).with_context(line)?;
            let first_ms = *first_ms.get_or_insert(parsed.recv_ms);
            let msg = &parsed.event.msg;
            let fact = match parsed.event.kind.as_ref() {
                "orderbook_delta" => Fact::Change(msg.change().with_context(line)?),
                "orderbook_snapshot" => Fact::Snapshot(Box::new(msg.book().with_context(line)?)),
                "trade" => Fact::Trade(Box::new(msg.trade().with_context(line)?)),
                other => bail!("line {number}: a frame of type {other:?}"),
            };
            let ticker = Ticker::parse(&msg.market_ticker).with_context(line)?;
            let (market, is_first) = match places.get(&ticker) {
                Some(place) => (*place, false),
                None => {
                    places.insert(ticker.clone(), self.markets.len());
                    let (market, event) = metadata.remove(ticker.as_str()).unwrap_or_default();
                    self.markets.push(Recorded {
                        ticker,
                        uuid: Uuid::parse_str(&msg.market_id).unwrap_or_default(),
                        initial: Book::default(),
                        market,
                        event,
                    });
                    (self.markets.len() - 1, true)
                }
            };
            if let (true, Fact::Snapshot(book)) = (is_first, &fact)
                && let Some(recorded) = self.markets.get_mut(market)
            {
                recorded.initial = book.as_ref().clone();
                continue;
            }
            let (recv_ms, offset_ms) = (parsed.recv_ms, parsed.recv_ms.saturating_sub(first_ms));
            self.facts.push(Timed { offset_ms, recv_ms, market, fact });
        }
        Ok(())
    }
}

/// A market and its event as REST returned them.
type Metadata = (Option<Map<String, Value>>, Option<Map<String, Value>>);

/// The metadata beside a file: `metadata/*.json`, by market.
fn read_metadata(file: &Path) -> anyhow::Result<HashMap<String, Metadata>> {
    let mut found = HashMap::new();
    let folder = file.parent().unwrap_or(Path::new(".")).join("metadata");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(found) };
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let context = || format!("read {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(context)?;
        let all: Value = serde_json::from_str(&text).with_context(context)?;
        let event = all.pointer("/response/event").and_then(Value::as_object);
        let markets = all.pointer("/response/markets").and_then(Value::as_array);
        for market in markets.into_iter().flatten().filter_map(Value::as_object) {
            if let Some(ticker) = market.get("ticker").and_then(Value::as_str) {
                found.insert(ticker.to_owned(), (Some(market.clone()), event.cloned()));
            }
        }
    }
    Ok(found)
}
