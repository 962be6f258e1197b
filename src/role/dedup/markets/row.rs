//! An object of the exchange as a row: its columns, the whole of it, and the hash that tells whether
//! it is another version. Nothing that is odd about an object refuses it but the lack of a key.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::kind::{As, Kind, LAST, is_trading, production_status};
use crate::model::{Micros, Price, Size, identity};
use crate::pg::copy::Rows;

/// The longest key, in bytes: an index takes no more than some 2,700, and tickers have 200 at most.
const KEY_BYTES_MAX: usize = 500;
/// How much of an odd value is shown to people, in characters.
const EXCERPT_CHARS_MAX: usize = 60;

/// The value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Null,
    Text(String),
    Integer(i64),
    Flag(bool),
}

/// A row as it will stand in the table, apart from its `valid_from`.
#[derive(Debug, Clone)]
pub struct Row {
    pub key: String,
    pub hash: i64,
    cells: Vec<Cell>,
    raw: String,
}

/// What became of a page's objects.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Each key once: the last object that names it.
    pub rows: Vec<Row>,
    /// Objects without a usable key, as text for people.
    pub refused: Vec<String>,
    /// Values of columns that could not be read and are null there; `raw` has them.
    pub unreadable: Vec<String>,
    /// Statuses that this version does not know, one for each row that has one.
    pub unknown_statuses: Vec<String>,
}

impl Parsed {
    /// Turns a page's objects into rows.
    pub fn of(kind: Kind, items: Vec<Value>) -> Self {
        let mut parsed = Self::default();
        let mut places: HashMap<String, usize> = HashMap::new();
        for item in items {
            match parsed.row(kind, item) {
                Ok(row) => match places.get(&row.key).and_then(|at| parsed.rows.get_mut(*at)) {
                    Some(place) => *place = row,
                    None => {
                        places.insert(row.key.clone(), parsed.rows.len());
                        parsed.rows.push(row);
                    }
                },
                Err(why) => parsed.refused.push(why),
            }
        }
        parsed
    }

    fn row(&mut self, kind: Kind, item: Value) -> Result<Row, String> {
        let Value::Object(mut object) = item else {
            return Err(format!("is no object: {}", excerpt(&item)));
        };
        let key = match object.get(kind.key()) {
            Some(Value::String(key)) if !key.is_empty() && key.len() <= KEY_BYTES_MAX => {
                key.replace('\0', "\u{fffd}")
            }
            Some(other) => return Err(format!("`{}` is no key: {}", kind.key(), excerpt(other))),
            None => return Err(format!("missing field `{}`", kind.key())),
        };
        let mut cells = Vec::with_capacity(kind.columns().len());
        for column in kind.columns() {
            let value = object.get(column.field).unwrap_or(&Value::Null);
            let cell = match column.kind {
                As::Status => Some(self.status(value)),
                as_kind => cell(as_kind, value),
            };
            cells.push(cell.unwrap_or_else(|| {
                self.unreadable.push(format!("`{}` {}", column.field, excerpt(value)));
                Cell::Null
            }));
        }
        let raw = text_of(&object);
        object.retain(|field, _| !is_trading(field));
        let hash = identity::text_content(&text_of(&object));
        Ok(Row { key, hash, cells, raw })
    }

    fn status(&mut self, value: &Value) -> Cell {
        let Value::String(status) = value else { return Cell::Null };
        match production_status(status) {
            Some(production) => Cell::Text(production.to_owned()),
            None => {
                self.unknown_statuses.push(status.clone());
                Cell::Null
            }
        }
    }
}

impl Row {
    /// Appends the row, valid from a time on.
    pub fn encode(&self, rows: &mut Rows, presence: &str, valid_from: Micros) {
        let fields = 1 + self.cells.len() + LAST.len();
        let Ok(fields) = i16::try_from(fields) else { unreachable!("a table of {fields} columns") };
        rows.begin(fields);
        rows.text(&self.key);
        for cell in &self.cells {
            match cell {
                Cell::Null => rows.null(),
                Cell::Text(text) => rows.text(text),
                Cell::Integer(value) => rows.i64(*value),
                Cell::Flag(value) => rows.bool(*value),
            }
        }
        rows.jsonb(&self.raw);
        rows.i64(self.hash);
        rows.text(presence);
        rows.i64(valid_from.0);
    }
}

/// The column's value; none when the field holds something that cannot be one.
fn cell(kind: As, value: &Value) -> Option<Cell> {
    let plain = match value {
        Value::Null => return Some(Cell::Null),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Array(_) | Value::Object(_) => return None,
    };
    let is_text = matches!(kind, As::Text | As::Name | As::Plain);
    if plain.is_empty() && !is_text {
        return Some(Cell::Null);
    }
    match (kind, value) {
        (As::Text, Value::String(_)) | (As::Plain, _) => Some(Cell::Text(plain)),
        (As::Name, Value::String(_)) if plain.len() <= KEY_BYTES_MAX => Some(Cell::Text(plain)),
        (As::Dollars, _) => Price::parse(&plain).ok().map(|price| Cell::Integer(price.micros())),
        (As::Contracts, _) => Size::parse(&plain).ok().map(|size| Cell::Integer(size.hundredths())),
        (As::Time, Value::String(_)) => {
            Micros::parse_rfc3339(&plain).ok().map(|at| Cell::Integer(at.0))
        }
        (As::Time, Value::Number(number)) => {
            number.as_i64().and_then(|secs| secs.checked_mul(1_000_000)).map(Cell::Integer)
        }
        (As::Integer, _) => plain.parse().ok().map(Cell::Integer),
        (As::Flag, Value::Bool(flag)) => Some(Cell::Flag(*flag)),
        _ => None,
    }
}

/// Fields in the order of their names, so that the exchange's order means nothing.
fn text_of(object: &Map<String, Value>) -> String {
    // Only a map with keys that are no text cannot be written.
    serde_json::to_string(object).unwrap_or_default()
}

fn excerpt(value: &Value) -> String {
    value.to_string().chars().take(EXCERPT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(row: &Row, column: &str) -> Cell {
        let place = Kind::Markets.columns().iter().position(|c| c.name == column).unwrap();
        row.cells[place].clone()
    }

    fn market(more: Value) -> Row {
        let mut all = json!({"ticker": "T", "event_ticker": "E", "status": "active"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let parsed = Parsed::of(Kind::Markets, vec![all]);
        assert!(parsed.refused.is_empty(), "{:?}", parsed.refused);
        parsed.rows.into_iter().next().unwrap()
    }

    #[test]
    fn numbers_and_times_are_exact() {
        let row = market(json!({
            "last_price_dollars": "0.4801", "volume_fp": "46.02", "notional_value_dollars": "100",
            "settlement_value_dollars": "0.374250", "settlement_ts": "2026-08-05T03:45:40.722003Z",
            "close_time": 1_785_901_540, "settlement_timer_seconds": 300, "floor_strike": 99.5,
            "cap_strike": "110", "open_time": "", "result": "",
        }));
        for (column, cell) in [
            ("last_price", Cell::Integer(480_100)),
            ("volume", Cell::Integer(4602)),
            ("notional_value", Cell::Integer(100_000_000)),
            ("settlement_value", Cell::Integer(374_250)),
            ("settlement_ts", Cell::Integer(1_785_901_540_722_003)),
            ("close_ts", Cell::Integer(1_785_901_540_000_000)),
            ("settlement_timer_seconds", Cell::Integer(300)),
            ("floor_strike", Cell::Text("99.5".to_owned())),
            ("cap_strike", Cell::Text("110".to_owned())),
            ("open_ts", Cell::Null),
            ("result", Cell::Text(String::new())),
            ("status", Cell::Text("open".to_owned())),
            ("exchange_status", Cell::Text("active".to_owned())),
        ] {
            assert_eq!(at(&row, column), cell, "{column}");
        }
    }

    #[test]
    fn what_is_odd_is_noted_and_refuses_nothing_but_a_missing_key() {
        let parsed = Parsed::of(
            Kind::Markets,
            vec![
                json!({"ticker": "A", "status": "brand_new", "last_price_dollars": "much",
                       "title": ["x"], "event_ticker": "E".repeat(600)}),
                json!({"ticker": 7}),
                json!({"title": "x"}),
                json!("A"),
                json!({"ticker": "B".repeat(501)}),
            ],
        );
        assert_eq!((parsed.rows.len(), parsed.refused.len()), (1, 4), "{:?}", parsed.refused);
        assert_eq!(parsed.unknown_statuses, ["brand_new"]);
        assert_eq!(parsed.unreadable.len(), 3, "{:?}", parsed.unreadable);
        let row = &parsed.rows[0];
        assert_eq!(at(row, "status"), Cell::Null);
        assert_eq!(at(row, "exchange_status"), Cell::Text("brand_new".to_owned()));
        assert!(row.raw.contains("\"much\""), "{}", row.raw);
    }

    #[test]
    fn trading_is_no_other_version_and_everything_else_is() {
        let before = market(json!({"volume_fp": "1", "yes_bid_dollars": "0.4"}));
        let traded = market(json!({"volume_fp": "2", "yes_bid_dollars": "0.5"}));
        assert_eq!(before.hash, traded.hash);
        assert_ne!(before.raw, traded.raw);
        for more in [json!({"status": "closed"}), json!({"new_field": 1}), json!({"title": "t"})] {
            assert_ne!(market(more.clone()).hash, market(json!({})).hash, "{more}");
        }
    }

    #[test]
    fn the_last_of_two_objects_with_one_key_counts() {
        let items = vec![
            json!({"event_ticker": "E", "title": "a"}),
            json!({"event_ticker": "F"}),
            json!({"event_ticker": "E", "title": "b"}),
        ];
        let parsed = Parsed::of(Kind::Events, items);
        let keys: Vec<_> = parsed.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["E", "F"]);
        assert!(parsed.rows[0].raw.contains("\"b\""));
    }
}
