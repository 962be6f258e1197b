//! The journal over real files: order, restarts, torn tails, sealing and the lock.

mod damage;
mod full;

use std::fs;
use std::io::Write as _;

use proptest::prelude::*;

use super::reader::Hole;
use super::record::{PAYLOAD_AT, Parsed, encode, parse};
use super::writer::Opened;
use super::*;
use crate::model::Micros;

fn config(dir: &tempfile::TempDir, max_bytes: u64) -> Config {
    let max_age = Duration::from_secs(72 * 3600);
    Config { dir: dir.path().join("journal"), max_age, max_bytes }
}

fn open(config: Config) -> anyhow::Result<(Journal, Opened)> {
    claim(config)?.open_with(SEGMENT_BYTES, Duration::ZERO)
}

async fn append(journal: &Journal, payload: &[u8]) {
    journal.append(Kind::Frame, 7, Micros(5), payload).await;
}

/// Everything from a position on, until the position that `close` gave.
fn read_items(journal: &Journal, from: Position) -> Vec<Item> {
    let mut reader = Reader::open(journal, from);
    let mut all = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        all.push(item);
    }
    assert!(reader.is_caught_up());
    all
}

/// The same of a journal without damage.
fn read_all(journal: &Journal, from: Position) -> Vec<(Position, Record)> {
    let whole = |item| match item {
        Item::Record(position, record) => (position, record),
        Item::Hole(hole) => panic!("no damage: {hole:?}"),
    };
    read_items(journal, from).into_iter().map(whole).collect()
}

fn payloads(all: &[(Position, Record)]) -> Vec<Vec<u8>> {
    let frames = all.iter().filter(|(_, record)| record.kind == Kind::Frame);
    frames.map(|(_, record)| record.payload.to_vec()).collect()
}

#[tokio::test]
async fn what_is_appended_is_read_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, opened) = open(config(&dir, 1 << 30)).unwrap();
    assert_eq!(opened.begin, Position(0));
    let id = journal.id();
    for text in ["a", "", "ccc"] {
        append(&journal, text.as_bytes()).await;
    }
    let end = journal.close().await;
    let all = read_all(&journal, Position(0));
    assert_eq!(all.first().unwrap().1.kind, Kind::Start);
    assert_eq!(payloads(&all), [b"a".to_vec(), b"".to_vec(), b"ccc".to_vec()]);
    let second = all.get(2).unwrap().0;
    assert_eq!(payloads(&read_all(&journal, second)), [b"".to_vec(), b"ccc".to_vec()]);
    drop(journal);

    let (journal, opened) = open(config(&dir, 1 << 30)).unwrap();
    assert_eq!((journal.id(), opened.torn_bytes), (id, 0));
    assert_eq!(opened.begin, Position(end.0 + RESTART_HOLE_BYTES));
    append(&journal, b"d").await;
    journal.close().await;
    let all = read_all(&journal, Position(0));
    assert_eq!(payloads(&all).last().unwrap(), b"d");
    assert_eq!(all.iter().filter(|(_, record)| record.kind == Kind::Start).count(), 2);
    // A place inside the hole, as a database may hold after a power cut, means the next record.
    let after_hole = read_all(&journal, Position(end.0 + 1000));
    assert_eq!(payloads(&after_hole), [b"d".to_vec()]);
}

#[tokio::test]
async fn a_torn_tail_is_cut_at_the_last_whole_record() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, 1 << 30);
    let (journal, _) = open(config.clone()).unwrap();
    append(&journal, b"whole").await;
    journal.close().await;
    drop(journal);
    let path = segment::list(&config.dir).unwrap().pop().unwrap().path;
    let mut torn = Vec::new();
    encode(&mut torn, Kind::Frame, 1, Micros(1), b"torn");
    torn.pop();
    fs::File::options().append(true).open(&path).unwrap().write_all(&torn).unwrap();
    let (journal, opened) = open(config).unwrap();
    assert_eq!(opened.torn_bytes, u64::try_from(torn.len()).unwrap());
    append(&journal, b"next").await;
    journal.close().await;
    let all = read_all(&journal, Position(0));
    assert_eq!(payloads(&all), [b"whole".to_vec(), b"next".to_vec()]);
}

#[tokio::test]
async fn an_empty_first_segment_does_not_hinder_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, 1 << 30);
    fs::create_dir_all(&config.dir).unwrap();
    fs::write(segment::plain_path(&config.dir, 0), b"").unwrap();
    let (journal, opened) = open(config.clone()).unwrap();
    assert_eq!(opened.begin, Position(RESTART_HOLE_BYTES));
    append(&journal, b"a").await;
    journal.close().await;
    assert_eq!(payloads(&read_all(&journal, Position(0))), [b"a".to_vec()]);
}

#[tokio::test]
async fn an_emptied_journal_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, 1 << 30);
    let (journal, _) = open(config.clone()).unwrap();
    let id = journal.id();
    journal.close().await;
    drop(journal);
    for segment in segment::list(&config.dir).unwrap() {
        fs::remove_file(segment.path).unwrap();
    }
    let (journal, opened) = open(config).unwrap();
    assert_ne!(journal.id(), id);
    assert_eq!(opened.begin, Position(0));
    journal.close().await;
}

#[tokio::test]
async fn full_segments_are_sealed_and_read_like_open_ones() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, 1 << 30);
    let (journal, _) = open(config.clone()).unwrap();
    let frame = vec![b'x'; 1 << 20];
    let count: usize = 150;
    for _ in 0..count {
        append(&journal, &frame).await;
    }
    journal.close().await;
    // Sealing runs behind the writer; reading does not depend on how far it is.
    assert_eq!(payloads(&read_all(&journal, Position(0))).len(), count);
    drop(journal);
    // A new process seals what an old one left.
    let (journal, _) = open(config.clone()).unwrap();
    journal.close().await;
    let mut watched = 0;
    while segment::list(&config.dir).unwrap().iter().filter(|s| s.sealed).count() < 2 {
        watched += 1;
        assert!(watched < 1_000_000, "two segments are full");
        tokio::task::yield_now().await;
    }
    let all = read_all(&journal, Position(0));
    assert_eq!(payloads(&all).len(), count);
    let middle = all.get(100).unwrap().0;
    assert_eq!(payloads(&read_all(&journal, middle)).len(), count - 99);
    let warm = Reader::warm_up(&journal, middle).unwrap();
    assert_eq!(warm, Position(0));
    let sealed = segment::list(&config.dir).unwrap().into_iter().find(|s| s.sealed).unwrap();
    assert!(sealed.disk_bytes < SEGMENT_BYTES / 100, "{} bytes", sealed.disk_bytes);
}

/// A reader that misses one takes it for a hole, and steps over what it holds.
#[test]
fn a_segment_is_listed_also_while_it_is_being_sealed() {
    const SEGMENTS: usize = 2000;
    let dir = tempfile::tempdir().unwrap();
    let bases = || (0..SEGMENTS).map(|base| u64::try_from(base).unwrap());
    for base in bases() {
        fs::write(segment::plain_path(dir.path(), base), b"").unwrap();
    }
    std::thread::scope(|scope| {
        let sealing = scope.spawn(|| {
            for base in bases() {
                segment::seal(dir.path(), base).unwrap();
            }
        });
        while !sealing.is_finished() {
            assert_eq!(segment::list(dir.path()).unwrap().len(), SEGMENTS);
        }
    });
    assert!(segment::list(dir.path()).unwrap().iter().all(|segment| segment.sealed));
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(config(&dir, 1 << 30)).unwrap();
    let error = open(config(&dir, 1 << 30)).err().unwrap();
    assert!(format!("{error:#}").contains("in use by another process"), "{error:#}");
    assert_eq!(crate::ops::exit::Exit::of(&error), crate::ops::exit::Exit::Held);
    journal.close().await;
}

proptest! {
    #[test]
    fn any_cut_or_flipped_byte_is_seen(payload in proptest::collection::vec(any::<u8>(), 0..64), at in 0_usize..90, flip in 1_u8..) {
        let mut bytes = Vec::new();
        let len = encode(&mut bytes, Kind::Frame, -3, Micros(9), &payload);
        let Parsed::Whole(head, parsed_len) = parse(&bytes) else { panic!("whole") };
        prop_assert_eq!((head.session, head.received_at), (-3, Micros(9)));
        prop_assert_eq!((bytes[PAYLOAD_AT..].to_vec(), parsed_len), (payload, len));
        if at < len {
            prop_assert!(matches!(parse(&bytes[..at]), Parsed::Short(_)));
            bytes[at] ^= flip;
            prop_assert!(!matches!(parse(&bytes), Parsed::Whole(..)));
        }
    }
}
