//! The poller against a REST server and a real journal.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::*;
use crate::kalshi::rest::Settings;
use crate::kalshi::testing::{serve_rest, soon};
use crate::log::journal::{self, Item, Position, Reader};
use crate::model::{Price, Record};
use crate::role::gather::interpret::{Interpreter, Output};

fn journal(dir: &std::path::Path) -> Journal {
    let config = journal::Config {
        dir: dir.join("journal"),
        max_age: Duration::from_secs(3600),
        max_bytes: 1 << 30,
    };
    journal::claim(config).unwrap().open().unwrap().0
}

fn poller(api: &crate::kalshi::Api, journal: &Journal, names: &[&str]) -> Poller {
    let settings = Settings { tokens_per_second: 100_000, ..Settings::default() };
    let turns = Turns::new(Duration::from_secs(3600));
    for name in names {
        turns.lock().add(Ticker::parse(name).unwrap());
    }
    Poller {
        rest: Arc::new(Rest::new(api, settings).unwrap()),
        journal: journal.clone(),
        turns: Arc::new(turns),
        metrics: Metrics::new(&mut crate::ops::metrics::registry(), journal.clone()),
        config: Config { share: 0.5, interval_min: Duration::from_secs(3600) },
    }
}

/// What an interpreter makes of the whole journal.
fn rows(journal: &Journal) -> (Vec<Record>, crate::role::gather::interpret::Counts) {
    let mut reader = Reader::open(journal, Position(0));
    let mut interpreter = Interpreter::default();
    let mut out = Output::default();
    while let Some(item) = reader.next().unwrap() {
        let Item::Record(position, record) = item else { panic!("no damage") };
        interpreter.read(position, &record, &mut out);
    }
    (out.rows.into_iter().map(|(_, row)| row).collect(), interpreter.counts)
}

#[tokio::test]
async fn replies_go_into_the_journal_and_become_rows_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path());
    let asked: Arc<StdMutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let count = AtomicUsize::new(0);
    let api = serve_rest(move |request| {
        log.lock().unwrap().push(request.target.clone());
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            return (500, "broken".to_owned());
        }
        let book = |name: &str| {
            format!(
                r#"{{"ticker":"{name}","orderbook_fp":{{"yes_dollars":[["0.4000","2.00"]],
                    "no_dollars":[["0.5000","1.00"],["0.5600","3.50"]]}}}}"#
            )
        };
        (200, format!(r#"{{"orderbooks":[{},{{"ticker":"B"}},{}]}}"#, book("A"), book("C")))
    })
    .await;
    let poller = poller(&api, &journal, &["A", "B", "C"]);
    poller.turns.lock().pays(&Ticker::parse("C").unwrap(), Price::from_micros(2_000_000));
    let shutdown = CancellationToken::new();
    let mut written = journal.written();
    let before = *written.borrow();
    let task = tokio::spawn(poller.run(shutdown.clone()));
    // The first call fails: its markets are asked for again.
    soon("a reply in the journal", written.wait_for(|end| *end > before + 200)).await.unwrap();
    shutdown.cancel();
    soon("the end", task).await.unwrap();
    let targets = asked.lock().unwrap().clone();
    let expected = "/trade-api/v2/markets/orderbooks?tickers=A&tickers=B&tickers=C";
    assert_eq!(targets, [expected, expected]);
    let ((first, counts), (second, _)) = (rows(&journal), rows(&journal));
    assert_eq!(first, second, "the same journal gives the same rows");
    assert_eq!((counts.polls_unknown, counts.decode_errors.get("poll")), (2, Some(&1)));
    let [Record::Snapshot(a), Record::Snapshot(c)] = first.as_slice() else { panic!("{first:?}") };
    assert_eq!((a.source.name(), a.anchor_ts, a.place.sid), ("rest", None, 0));
    assert_eq!((a.place.seq, c.place.seq, a.place.session), (1, 3, c.place.session));
    let no = |snapshot: &crate::model::Snapshot| -> Vec<i64> {
        snapshot.no.iter().map(|(price, _)| price.micros()).collect()
    };
    assert_eq!(no(a), [440_000, 500_000]);
    assert_eq!(no(c), [1_440_000, 1_500_000], "a contract that pays two dollars");
    journal.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_share_is_never_exceeded() {
    // As the poller takes its turns: half of Basic's 200 tokens a second, 10 a call.
    let cost = 10;
    let budget = Budget::new(1, 1);
    let (began, mut calls) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(60) {
        budget.set(share_of(200, 0.5), cost);
        budget.take(cost).await;
        calls += 1;
    }
    assert!((599..=602).contains(&calls), "{calls}");
}
