//! Books that production's functions give, against the recorded windows replayed here: the frames of
//! a file applied one by one, with nothing of the program in between.

#![expect(clippy::indexing_slicing, reason = "a frame without one of its keys fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use support::{
    Cluster, Exchange, Process, capture, deduplicator_file, gatherer_file, migrate, wait_for,
};

/// Moments at which books are compared.
const INSTANTS: usize = 1_000;

/// Size by side (true is yes) and yes-leg price, in hundredths and micro-dollars.
type Book = BTreeMap<(bool, i64), i64>;

/// What one file says about its market's book.
struct Window {
    ticker: String,
    /// The book before the first change.
    initial: Book,
    /// Changes in order: time, level, signed size.
    changes: Vec<(i64, (bool, i64), i64)>,
}

impl Window {
    /// Reads a file as an exchange publishes it: where the recorder had missed frames, the
    /// difference comes as changes one microsecond after the last.
    fn read(path: &Path) -> Self {
        let lines = BufReader::new(MultiGzDecoder::new(File::open(path).expect("open a window")));
        let mut window = Self { ticker: String::new(), initial: Book::new(), changes: Vec::new() };
        let mut book: Option<Book> = None;
        let mut last = 0;
        for line in lines.lines() {
            let line: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
            let (kind, msg) = (text(&line["event"]["type"]), &line["event"]["msg"]);
            match (kind, book.as_mut()) {
                ("orderbook_snapshot", None) => {
                    window.ticker = text(&msg["market_ticker"]).to_owned();
                    window.initial = stated(msg);
                    book = Some(window.initial.clone());
                }
                ("orderbook_snapshot", Some(book)) => {
                    let stated = stated(msg);
                    if stated.is_empty() {
                        // The market's close: no change says it, and none comes after it.
                        continue;
                    }
                    last += 1;
                    let mut levels: Vec<_> = book.keys().chain(stated.keys()).copied().collect();
                    levels.sort_unstable();
                    levels.dedup();
                    for level in levels {
                        let size = |book: &Book| book.get(&level).copied().unwrap_or(0);
                        let difference = size(&stated) - size(book);
                        if difference != 0 {
                            window.changes.push((last, level, difference));
                        }
                    }
                    *book = stated;
                }
                ("orderbook_delta", Some(book)) => {
                    let side = text(&msg["side"]) == "yes";
                    let level = (side, yes_leg(side, text(&msg["price_dollars"])));
                    let size = scaled(text(&msg["delta_fp"]), 2);
                    let at = micros(text(&msg["ts"]));
                    window.changes.push((at, level, size));
                    change(book, level, size);
                    last = last.max(at);
                }
                ("trade", _) => {}
                (kind, _) => panic!("a frame of type {kind} before the first snapshot"),
            }
        }
        assert!(window.changes.len() > 1_000, "{}", path.display());
        window
    }
}

/// A window's book, going forward in time.
struct Fold<'a> {
    changes: Vec<&'a (i64, (bool, i64), i64)>,
    applied: usize,
    book: Book,
}

impl<'a> Fold<'a> {
    fn new(window: &'a Window) -> Self {
        let mut changes: Vec<_> = window.changes.iter().collect();
        // Changes add up: their order within a moment makes no difference.
        changes.sort_by_key(|(ts, _, _)| *ts);
        Self { changes, applied: 0, book: window.initial.clone() }
    }

    /// The book after all changes up to and with a time, which is not before the last one asked for.
    fn at(&mut self, at: i64) -> &Book {
        while let Some((ts, level, size)) = self.changes.get(self.applied)
            && *ts <= at
        {
            change(&mut self.book, *level, *size);
            self.applied += 1;
        }
        &self.book
    }
}

/// From when production knows a book, and the window's last change, in microseconds.
fn known(cluster: &Cluster, window: &Window) -> (i64, i64) {
    let first = cluster.number(
        "production",
        &format!(
            "SELECT min(anchor_ts) FROM orderbook_snapshots WHERE ticker = '{}'",
            window.ticker
        ),
    );
    let times = || window.changes.iter().map(|(ts, _, _)| *ts);
    let (begin, end) = (times().min().expect("changes"), times().max().expect("changes"));
    assert!(
        first < begin + (end - begin) / 2,
        "the gatherer came late: {first} in {begin} to {end}"
    );
    (first.max(begin), end)
}

fn change(book: &mut Book, level: (bool, i64), size: i64) {
    let held = book.entry(level).or_default();
    *held += size;
    if *held == 0 {
        book.remove(&level);
    }
}

fn stated(msg: &Value) -> Book {
    let mut book = Book::new();
    for (side, key) in [(true, "yes_dollars_fp"), (false, "no_dollars_fp")] {
        for level in msg[key].as_array().into_iter().flatten() {
            book.insert((side, yes_leg(side, text(&level[0]))), scaled(text(&level[1]), 2));
        }
    }
    book
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// A decimal in units of ten to the minus `digits`.
fn scaled(decimal: &str, digits: usize) -> i64 {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let number = format!("{whole}{fraction:0<digits$}");
    number.parse().unwrap_or_else(|error| panic!("{decimal}: {error}"))
}

/// The windows were recorded in no-leg prices, of contracts that pay a dollar.
fn yes_leg(side: bool, price: &str) -> i64 {
    let price = scaled(price, 6);
    if side { price } else { 1_000_000 - price }
}

/// `2026-08-05T03:45:40.722003Z`, with 0 to 6 digits behind the point.
fn micros(time: &str) -> i64 {
    let time: jiff::Timestamp = time.parse().unwrap_or_else(|error| panic!("{time}: {error}"));
    time.as_microsecond()
}

/// Records the windows with a gatherer and merges them into production, as at any exchange. What was
/// published before the gatherer came is missing, as it would be.
fn record(files: &[PathBuf], windows: &[Window]) -> (tempfile::TempDir, Cluster) {
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(root.path());
    for database in ["g1", "production"] {
        cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
    }
    let mut arguments = vec!["--replay"];
    arguments.extend(files.iter().map(|file| file.to_str().expect("UTF-8")));
    arguments.extend(["--speed", "20"]);
    let exchange = Exchange::start(&arguments);
    let gatherer = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
    // Many snapshots in the middle of the windows, each of which books are folded from.
    let config = fs::read_to_string(&gatherer.path).expect("the configuration");
    fs::write(&gatherer.path, config + "audit: { period: 10s }\n").expect("write it");
    let gatherers = [("gatherer-1", "g1")];
    let dedup = deduplicator_file(root.path(), "dedup", &cluster, &gatherers, "production");
    migrate(&gatherer.path);
    migrate(&dedup);
    let config = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut gather =
        Process::start(&["gather", "--config", &config(&gatherer.path)], root.path().join("g.log"));
    let mut merge =
        Process::start(&["dedup", "--config", &config(&dedup)], root.path().join("d.log"));
    wait_for("the end of the replay", || (exchange.status()["finished"] == true).then_some(()));
    for Window { ticker, changes, .. } in windows {
        // Rows are written in the stream's order: with the last of them, all are there.
        let since = changes.iter().map(|(ts, _, _)| *ts).max().expect("changes") - 1_000_000;
        let expected = changes.iter().filter(|(ts, _, _)| *ts >= since).count();
        let query = format!(
            "SELECT count(*) FROM orderbook_deltas WHERE ticker = '{ticker}' AND exchange_ts >= {since}"
        );
        wait_for(&format!("the last changes of {ticker}"), || {
            (usize::try_from(cluster.number("g1", &query)) == Ok(expected)).then_some(())
        });
    }
    // Its end ends the stretches, so that they are written.
    assert!(gather.stop().success(), "{}", gather.log());
    let head = |database: &str, log: &str| {
        cluster.number(database, &format!("SELECT head FROM logs WHERE name = '{log}'"))
    };
    for log in ["orderbook_deltas", "orderbook_snapshots", "coverage"] {
        let all = head("g1", log);
        wait_for(&format!("{log} in production"), || {
            (head("production", log) >= all).then_some(())
        });
    }
    assert!(merge.stop().success(), "{}", merge.log());
    (root, cluster)
}

/// Asks production for books; each line of a request is a ticker and a time in microseconds.
fn ask(
    cluster: &Cluster,
    instants: &[(usize, i64)],
    windows: &[Window],
) -> (Vec<Book>, Vec<Duration>) {
    let mut script = String::from("\\timing on\n");
    for (window, at) in instants {
        let ticker = &windows[*window].ticker;
        script.push_str(&format!(
            "SELECT coalesce(string_agg(concat_ws(' ', side, price, size, covered), ';'), '') \
             FROM book_at('{ticker}', moment({at}));\n"
        ));
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), script).expect("write a script");
    let output = cluster.psql("production", &["-f", file.path().to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut books, mut times) = (Vec::new(), Vec::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(time) = line.strip_prefix("Time: ") {
            let ms: f64 = time.split(' ').next().and_then(|ms| ms.parse().ok()).expect("a time");
            times.push(Duration::from_secs_f64(ms / 1e3));
            continue;
        }
        let mut book = Book::new();
        for level in line.split(';').filter(|level| !level.is_empty()) {
            let mut words = level.split(' ');
            let side = words.next() == Some("t");
            let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
            book.insert((side, number()), number());
            assert_eq!(words.next(), Some("t"), "nothing was missed: {level}");
        }
        books.push(book);
    }
    (books, times)
}

#[test]
fn books_at_a_thousand_instants_are_those_of_the_recording() {
    let files = capture::windows();
    let windows: Vec<Window> = files.iter().map(|file| Window::read(file)).collect();
    let (_root, cluster) = record(&files, &windows);
    let seed = std::env::var("KALSHI_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("KALSHI_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);

    // From the gatherer's first snapshot to the last change, on which the market's close may follow.
    let spans: Vec<(i64, i64)> = windows.iter().map(|window| known(&cluster, window)).collect();

    // Any time, and times beside and on changes, where a book that is one change off would show.
    let mut instants = Vec::with_capacity(INSTANTS);
    while instants.len() < INSTANTS {
        let number = random.usize(..windows.len());
        let (first, end) = spans[number];
        let changes = &windows[number].changes;
        let at = match random.u8(..3) {
            0 => random.i64(first..end),
            _ => changes[random.usize(..changes.len())].0 - random.i64(0..=1),
        };
        if (first..end).contains(&at) {
            instants.push((number, at));
        }
    }
    instants.sort_unstable();
    let mut folds: Vec<Fold<'_>> = windows.iter().map(Fold::new).collect();
    let start = Instant::now();
    let (books, mut times) = ask(&cluster, &instants, &windows);
    let took = start.elapsed();
    assert_eq!(books.len(), INSTANTS);
    let mut levels = 0;
    for ((number, at), found) in instants.iter().zip(&books) {
        let wanted = folds[*number].at(*at);
        assert_eq!(found, wanted, "KALSHI_SEED={seed}: {} at {at}", windows[*number].ticker);
        levels += wanted.len();
    }
    assert!(levels > INSTANTS, "{levels} levels in all");
    times.sort();
    let anchors = cluster.number(
        "production",
        "SELECT count(*) FROM orderbook_snapshots WHERE anchor_ts IS NOT NULL",
    );
    println!(
        "{INSTANTS} books of {} levels on average in {took:?}: median {:?}, longest {:?}; {anchors} anchors",
        levels / INSTANTS,
        times[times.len() / 2],
        times[times.len() - 1],
    );

    // The same moments of one stretch, as a series.
    for (number, window) in windows.iter().enumerate() {
        let (first, end) = spans[number];
        let from = random.i64(first..end - 60_000_001);
        let series = cluster.sql(
            "production",
            &format!(
                "SELECT exchange_ts, coalesce(bid_dollars, 0), coalesce(ask_dollars, 0), \
                 cardinality(yes_prices) + cardinality(no_prices), covered \
                 FROM books_between('{}', moment({from}), moment({}))",
                window.ticker,
                from + 60_000_000
            ),
        );
        let (mut rows, mut fold) = (0, Fold::new(window));
        for line in series.lines() {
            let fields: Vec<&str> = line.split('|').collect();
            let book = fold.at(fields[0].parse().expect("a time"));
            let best = |price: Option<i64>| price.unwrap_or(0);
            let bid = best(book.keys().filter(|level| level.0).map(|level| level.1).max());
            let ask = best(book.keys().filter(|level| !level.0).map(|level| level.1).min());
            let dollars = |text: &str| if text == "0" { 0 } else { scaled(text, 6) };
            let found = (dollars(fields[1]), dollars(fields[2]), fields[3].parse().ok(), fields[4]);
            assert_eq!(
                found,
                (bid, ask, Some(book.len()), "t"),
                "KALSHI_SEED={seed}: {number} {line}"
            );
            rows += 1;
        }
        let span = from + 1..=from + 60_000_000;
        let times = window.changes.iter().map(|(ts, _, _)| *ts).filter(|ts| span.contains(ts));
        let moments = times.collect::<BTreeSet<i64>>().len();
        assert!((1..=moments + 1).contains(&rows), "{rows} rows of {moments} moments");
    }
}
