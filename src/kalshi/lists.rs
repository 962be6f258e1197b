//! The exchange's lists as they are sent: series, events and markets, page by page, each item whole.
//!
//! Nothing of an item is judged here: whoever keeps all of it must not lose one to a field that is
//! new. The registry of a gatherer reads the same pages through [`super::calls::MarketPages`].

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::kalshi::calls::decode;
use crate::kalshi::rest::{Rest, RestError, encode};
use crate::model::Micros;

/// Tickers named in one request: their longest names still make a URL that servers take.
pub const NAMES_MAX: usize = 100;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum List {
    /// Not paged; about 20 MB in 2026.
    Series,
    /// Without multivariate events.
    Events,
    /// Multivariate events, which the list of events leaves out; it knows no `min_updated_ts`.
    MultivariateEvents,
    Markets,
}

impl List {
    /// The path below the base.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Series => "/series",
            Self::Events => "/events",
            Self::MultivariateEvents => "/events/multivariate",
            Self::Markets => "/markets",
        }
    }

    /// The reply's field that holds the items.
    const fn field(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Events | Self::MultivariateEvents => "events",
            Self::Markets => "markets",
        }
    }

    /// The most items of one page; none where there is one page.
    const fn limit(self) -> Option<u32> {
        match self {
            Self::Series => None,
            Self::Events | Self::MultivariateEvents => Some(200),
            Self::Markets => Some(1000),
        }
    }
}

/// What of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Changed since, by other things than trading, in Unix seconds.
    pub min_updated_ts: Option<i64>,
    /// Leaves multivariate markets out. The one filter beside which the exchange takes
    /// `min_updated_ts`.
    pub exclude_multivariate: bool,
    /// Only these, [`NAMES_MAX`] at most; all when empty.
    pub tickers: Vec<String>,
}

/// One page as sent.
#[derive(Debug, Clone, Default)]
pub struct RawPage {
    pub items: Vec<Value>,
    /// The cursor of the next page; none on the last one.
    pub next: Option<String>,
    /// When the reply was there.
    pub received_at: Micros,
}

/// The pages of one list. Dropping it ends the list.
pub struct RawPages {
    list: List,
    walk: Walk,
}

impl Rest {
    /// A list from its beginning, or from a cursor that an earlier page of the same list gave.
    pub fn list(self: &Arc<Self>, list: List, wanted: &Wanted, cursor: Option<String>) -> RawPages {
        let mut fixed = String::new();
        let mut pair = |name: &str, value: &str| {
            let mark = if fixed.is_empty() { "" } else { "&" };
            // Writing to a String cannot fail.
            let _written = write!(fixed, "{mark}{name}={value}");
        };
        if let Some(limit) = list.limit() {
            pair("limit", &limit.to_string());
        }
        if wanted.exclude_multivariate && list == List::Markets {
            pair("mve_filter", "exclude");
        }
        if let Some(since) = wanted.min_updated_ts {
            pair("min_updated_ts", &since.to_string());
        }
        if !wanted.tickers.is_empty() {
            assert!(wanted.tickers.len() <= NAMES_MAX, "a URL takes no more names");
            let names: Vec<String> = wanted.tickers.iter().map(|name| encode(name)).collect();
            pair("tickers", &names.join(","));
        }
        let mut walk = Walk::new(Arc::clone(self), list.path(), fixed);
        walk.cursor = cursor.unwrap_or_default();
        RawPages { list, walk }
    }

    /// What the exchange serves in its historical lists alone: markets settled before this.
    ///
    /// # Errors
    /// As every request.
    pub async fn settled_cutoff(&self) -> Result<Micros, RestError> {
        #[derive(Deserialize)]
        struct Wire {
            market_settled_ts: String,
        }
        let wire: Wire = self.get("/historical/cutoff", "").await?;
        Micros::parse_rfc3339(&wire.market_settled_ts)
            .map_err(|error| RestError::Decode(format!("`market_settled_ts`: {error}")))
    }
}

impl RawPages {
    /// The next page, `None` after the last one. A page may be empty and have a next one.
    ///
    /// # Errors
    /// As every request, when a cursor repeats, or when there are more pages than the limit. The
    /// same page can be asked for again after an error of the connection.
    pub async fn next(&mut self) -> Result<Option<RawPage>, RestError> {
        let Some(body) = self.walk.ask().await? else { return Ok(None) };
        let received_at = Micros::now();
        let list = self.list;
        // A page of 1000 markets takes some 20 ms to parse, too long for a thread that others use.
        let parsed = tokio::task::spawn_blocking(move || parse(list, &body)).await;
        let (items, cursor) =
            parsed.map_err(|error| RestError::Decode(format!("parse a page: {error}")))??;
        let next = cursor.filter(|cursor| !cursor.is_empty());
        self.walk.turn(next.clone())?;
        Ok(Some(RawPage { items, next, received_at }))
    }
}

/// The items of a page and its cursor.
fn parse(list: List, body: &Bytes) -> Result<(Vec<Value>, Option<String>), RestError> {
    let mut page: Map<String, Value> = decode(list.path(), body)?;
    let wrong = |what: &str| RestError::Decode(format!("GET {}: {what}", list.path()));
    let items = match page.remove(list.field()) {
        Some(Value::Array(items)) => items,
        // An empty list may come as null.
        Some(Value::Null) => Vec::new(),
        Some(_) => return Err(wrong(&format!("field `{}` is no list", list.field()))),
        None => return Err(wrong(&format!("missing field `{}`", list.field()))),
    };
    match page.remove("cursor") {
        None | Some(Value::Null) => Ok((items, None)),
        Some(Value::String(cursor)) => Ok((items, Some(cursor))),
        Some(_) => Err(wrong("field `cursor` is no text")),
    }
}

/// The walk along a list's cursors, whatever its items are.
pub(super) struct Walk {
    rest: Arc<Rest>,
    path: &'static str,
    fixed: String,
    cursor: String,
    /// Every cursor so far: a longer cycle than one page would go round for ever too.
    seen: HashSet<String>,
    pages: usize,
    done: bool,
}

impl Walk {
    pub(super) fn new(rest: Arc<Rest>, path: &'static str, fixed: String) -> Self {
        Self {
            rest,
            path,
            fixed,
            cursor: String::new(),
            seen: HashSet::new(),
            pages: 0,
            done: false,
        }
    }

    /// The body of the page that is next; none after the last one.
    pub(super) async fn ask(&mut self) -> Result<Option<Bytes>, RestError> {
        if self.done {
            return Ok(None);
        }
        if self.pages >= self.rest.settings.pages_max {
            return Err(RestError::PagesMax(self.rest.settings.pages_max));
        }
        let query = match (self.cursor.as_str(), self.fixed.as_str()) {
            ("", fixed) => fixed.to_owned(),
            (cursor, "") => format!("cursor={}", encode(cursor)),
            (cursor, fixed) => format!("{fixed}&cursor={}", encode(cursor)),
        };
        self.rest.get_bytes(self.path, &query).await.map(Some)
    }

    /// Goes on to the cursor that the page gave.
    pub(super) fn turn(&mut self, next: Option<String>) -> Result<(), RestError> {
        self.pages += 1;
        match next.filter(|cursor| !cursor.is_empty()) {
            Some(cursor) if cursor == self.cursor || !self.seen.insert(cursor.clone()) => {
                return Err(RestError::CursorRepeats { page: self.pages });
            }
            Some(cursor) => self.cursor = cursor,
            None => self.done = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::kalshi::rest::Settings;
    use crate::kalshi::testing::{serve_rest, soon};

    #[tokio::test]
    async fn pages_come_whole_and_a_cursor_goes_on_where_it_was_given() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let api = serve_rest(move |asked| {
            seen.lock().unwrap().push(asked.target.clone());
            let body = match asked.param("cursor") {
                None => r#"{"markets":[{"ticker":"A","new":[1]},7],"cursor":"c1"}"#,
                Some("c1") => r#"{"markets":null,"cursor":"c2"}"#,
                Some(_) => r#"{"markets":[{"ticker":"B"}]}"#,
            };
            (200, body.to_owned())
        })
        .await;
        let rest = Arc::new(Rest::new(&api, Settings::default()).unwrap());
        let wanted = Wanted {
            min_updated_ts: Some(5),
            exclude_multivariate: true,
            tickers: vec!["A B".to_owned(), "C".to_owned()],
        };
        let mut pages = rest.list(List::Markets, &wanted, None);
        let first = soon("a page", pages.next()).await.unwrap().unwrap();
        assert_eq!((first.items.len(), first.next.as_deref()), (2, Some("c1")));
        let mut resumed = rest.list(List::Markets, &wanted, first.next);
        let empty = soon("a page", resumed.next()).await.unwrap().unwrap();
        assert!(empty.items.is_empty() && empty.next.is_some());
        let last = soon("a page", resumed.next()).await.unwrap().unwrap();
        assert_eq!((last.items.len(), last.next), (1, None));
        assert!(soon("the end", resumed.next()).await.unwrap().is_none());
        let asked = asked.lock().unwrap();
        let fixed = "limit=1000&mve_filter=exclude&min_updated_ts=5&tickers=A%20B,C";
        assert_eq!(asked[0], format!("/trade-api/v2/markets?{fixed}"));
        assert_eq!(asked[1], format!("/trade-api/v2/markets?{fixed}&cursor=c1"));
    }

    #[tokio::test]
    async fn a_cursor_that_repeats_is_an_error_also_after_a_resumption() {
        let api = serve_rest(|_| (200, r#"{"events":[],"cursor":"c1"}"#.to_owned())).await;
        let rest = Arc::new(Rest::new(&api, Settings::default()).unwrap());
        let mut pages = rest.list(List::Events, &Wanted::default(), Some("c1".to_owned()));
        let error = soon("a page", pages.next()).await.unwrap_err();
        assert!(matches!(error, RestError::CursorRepeats { page: 1 }), "{error}");
    }

    #[test]
    fn a_page_without_its_list_is_named() {
        let error = parse(List::Series, &Bytes::from_static(b"{\"x\":1}")).unwrap_err();
        assert!(error.to_string().contains("`series`"), "{error}");
    }
}
