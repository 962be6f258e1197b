//! One complete list of a table under way: its pages as rows, one ahead of what is being written, and
//! which keys it showed.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::kind::Kind;
use super::row::Parsed;
use super::store::{Bookmark, key_hash};
use crate::kalshi::lists::{RawPages, Wanted};
use crate::kalshi::rest::{Rest, RestError};
use crate::model::Micros;

/// Between two lines about how far a complete list is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// A page as rows.
#[derive(Debug)]
pub struct Page {
    pub parsed: Parsed,
    pub received_at: Micros,
    /// Where the page behind it is; none behind the last.
    pub next: Option<(i16, Option<String>)>,
}

/// The pages of all the lists that together are complete.
pub struct Source {
    rest: Arc<Rest>,
    kind: Kind,
    multivariate: bool,
    part: usize,
    pages: Option<RawPages>,
}

impl Source {
    /// From the beginning, or from a place in one of the lists.
    pub fn new(rest: Arc<Rest>, kind: Kind, multivariate: bool, from: Option<&Bookmark>) -> Self {
        let part = from.and_then(|from| usize::try_from(from.part).ok()).unwrap_or(0);
        let mut source = Self { rest, kind, multivariate, part, pages: None };
        source.pages = source.open(from.and_then(|from| from.cursor.clone()));
        source
    }

    fn open(&self, cursor: Option<String>) -> Option<RawPages> {
        let list = self.kind.lists(self.multivariate).get(self.part)?;
        let wanted = Wanted { exclude_multivariate: !self.multivariate, ..Wanted::default() };
        Some(self.rest.list(*list, &wanted, cursor))
    }

    /// The next page; none after the last one. After an error of the connection it can be asked
    /// again.
    pub async fn next(&mut self) -> Result<Option<Page>, RestError> {
        loop {
            let Some(pages) = &mut self.pages else { return Ok(None) };
            if let Some(raw) = pages.next().await? {
                let next = match raw.next {
                    Some(cursor) => Some((self.part, Some(cursor))),
                    None => {
                        let part = self.part + 1;
                        (part < self.kind.lists(self.multivariate).len()).then_some((part, None))
                    }
                };
                let next = next.map(|(part, cursor)| (i16::try_from(part).unwrap_or(0), cursor));
                let parsed = parse(self.kind, raw.items).await?;
                return Ok(Some(Page { parsed, received_at: raw.received_at, next }));
            }
            self.part += 1;
            self.pages = self.open(None);
        }
    }
}

/// Objects as rows, on a thread of their own: a page of 1000 markets takes some 20 ms.
pub async fn parse(kind: Kind, items: Vec<serde_json::Value>) -> Result<Parsed, RestError> {
    tokio::task::spawn_blocking(move || Parsed::of(kind, items))
        .await
        .map_err(|error| RestError::Decode(format!("read a page's rows: {error}")))
}

/// A complete list under way. Memory: two pages of rows (some 5 MB each of 1000 markets), and 8 bytes
/// a key with a hash set's slack, so about 10 MB for 425,000 and 200 MB at the limit of 10,000 pages.
/// Series come in one page of some 20 MB, whose objects take several times that while they are read.
pub struct Pass {
    pub source: Source,
    /// Pages that wait to be written: the one that is, and the one read meanwhile.
    pub ready: VecDeque<Page>,
    /// When it began.
    pub from: Micros,
    /// The last complete list before it, by which a production that was made anew is noticed.
    pub base: Option<Micros>,
    /// Whether it goes on where an earlier process stopped, so that `seen` is not all it showed.
    pub resumed: bool,
    /// The keys that it showed, by their hash.
    pub seen: HashSet<u64>,
    /// Rows of the pages so far.
    pub rows: i64,
    /// Rows that are new to us although the exchange had them before the last complete list.
    pub old_news: u64,
    progress: Progress,
}

impl Pass {
    /// Begins one, or goes on with one that a process before left.
    pub fn begin(source: Source, from: Option<&Bookmark>, base: Option<Micros>) -> Self {
        let rows = from.map_or(0, |from| from.rows);
        Self {
            source,
            ready: VecDeque::with_capacity(2),
            from: from.map_or_else(Micros::now, |from| from.from),
            base,
            resumed: from.is_some(),
            seen: HashSet::new(),
            rows,
            old_news: 0,
            progress: Progress::new(rows, Instant::now()),
        }
    }

    /// Counts a page that is written.
    pub fn written(&mut self, page: &Page) {
        self.rows = self.rows.saturating_add(rows_of(page));
        self.seen.extend(page.parsed.rows.iter().map(|row| key_hash(&row.key)));
    }

    /// A line on how far it is, now and then. `expected` is how many keys the last one showed.
    pub fn progress(&mut self, kind: Kind, expected: Option<i64>) -> Option<String> {
        self.progress.line(kind, self.rows, expected, Instant::now())
    }
}

/// Rows of a page.
pub fn rows_of(page: &Page) -> i64 {
    i64::try_from(page.parsed.rows.len()).unwrap_or(i64::MAX)
}

/// How fast it goes.
#[derive(Debug)]
struct Progress {
    began: Instant,
    began_with: i64,
    said: Instant,
}

impl Progress {
    fn new(rows: i64, now: Instant) -> Self {
        Self { began: now, began_with: rows, said: now }
    }

    /// The exchange does not say how many rows there are, so an estimate exists only where a complete
    /// list was read before.
    fn line(
        &mut self,
        kind: Kind,
        rows: i64,
        expected: Option<i64>,
        now: Instant,
    ) -> Option<String> {
        if now.duration_since(self.said) < PROGRESS_INTERVAL {
            return None;
        }
        self.said = now;
        let name = kind.name();
        let elapsed_ms = i64::try_from(now.duration_since(self.began).as_millis()).ok()?.max(1);
        let done = rows.saturating_sub(self.began_with);
        let per_second = done.saturating_mul(1000) / elapsed_ms;
        let left = expected.map(|expected| expected.saturating_sub(rows)).filter(|left| *left > 0);
        Some(match (left, per_second) {
            (Some(left), 1..) => format!(
                "loading {name}: {rows} of about {}, {per_second} a second, about {} s left",
                rows.saturating_add(left),
                left / per_second + 1
            ),
            _ => format!(
                "loading {name}: {rows} so far, {per_second} a second; how many there are the \
                 exchange does not say"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_given_only_where_there_is_one() {
        let began = Instant::now();
        let mut progress = Progress::new(1_000, began);
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(progress.line(Kind::Markets, 2_000, Some(9_000), at(9)), None);
        let line = progress.line(Kind::Markets, 5_000, Some(9_000), at(10)).unwrap();
        assert_eq!(line, "loading markets: 5000 of about 9000, 400 a second, about 11 s left");
        assert_eq!(progress.line(Kind::Markets, 5_000, Some(9_000), at(19)), None, "said just now");
        let line = progress.line(Kind::Markets, 9_000, None, at(20)).unwrap();
        assert!(line.contains("9000 so far, 400 a second"), "{line}");
        let line = progress.line(Kind::Markets, 10_000, Some(9_000), at(30)).unwrap();
        assert!(line.contains("so far"), "more than the last time: {line}");
    }
}
