//! No room: the budget, and a disk that is really full.

use super::*;
use crate::ops::small_disk::SmallDisk;

fn config_on(disk: &SmallDisk) -> Config {
    Config {
        dir: disk.path().join("journal"),
        max_age: Duration::from_secs(3600),
        max_bytes: 1 << 40,
    }
}

/// Appends `count` frames of 10,000 bytes that do not compress; the first bytes are the number.
fn append_many(journal: &Journal, count: u32) -> tokio::task::JoinHandle<()> {
    let journal = journal.clone();
    tokio::spawn(async move {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut frame = vec![0; 10_000];
        for number in 0..count {
            rng.fill(&mut frame);
            frame[..4].copy_from_slice(&number.to_le_bytes());
            append(&journal, &frame).await;
        }
    })
}

fn number(record: &Record) -> u32 {
    u32::from_le_bytes(record.payload[..4].try_into().unwrap())
}

async fn until_full(journal: &Journal) {
    let wait = async {
        while !journal.usage().full {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the journal gets full");
}

/// Waits until recording stands still. A journal may be full for a moment only: while a segment is
/// being sealed both forms of it take room.
async fn until_stuck(journal: &Journal) {
    loop {
        until_full(journal).await;
        let before = (journal.end(), *journal.written().borrow());
        tokio::time::sleep(Duration::from_millis(500)).await;
        if journal.usage().full && before == (journal.end(), *journal.written().borrow()) {
            break;
        }
    }
}

/// Reads frames as they come and says that they were consumed, until `count` were read. Everything
/// comes once and in order.
async fn consume(journal: &Journal, count: u32) {
    let mut reader = Reader::open(journal, Position(0));
    let mut written = journal.written();
    let mut next = 0;
    while next < count {
        let item = tokio::task::block_in_place(|| reader.next()).unwrap();
        match item {
            Some(Item::Record(_, record)) if record.kind == Kind::Frame => {
                assert_eq!(number(&record), next);
                next += 1;
            }
            Some(Item::Record(..)) => {}
            Some(Item::Hole(hole)) => panic!("nothing is damaged: {hole:?}"),
            None => {
                journal.consumed(reader.position());
                let more = tokio::time::timeout(Duration::from_secs(60), written.changed());
                more.await.expect("recording goes on").unwrap();
            }
        }
    }
    journal.consumed(reader.position());
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_cap_recording_pauses_until_the_logs_have_passed() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) =
        claim(config(&dir, 12 << 20)).unwrap().open_with(2 << 20, Duration::ZERO).unwrap();
    let task = append_many(&journal, 6000);
    until_stuck(&journal).await;
    assert!(!task.is_finished());
    let usage = journal.usage();
    // A segment that is being sealed stands beside its sealed copy for a moment.
    assert!(usage.bytes <= usage.limit + (2 << 20), "{usage:?}");
    assert_eq!(usage.percent(), 100);
    consume(&journal, 6000).await;
    task.await.unwrap();
    journal.close().await;
    assert!(!journal.usage().full);
    assert_eq!(journal.failure(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_pauses_recording_and_loses_nothing() {
    let disk = SmallDisk::mount(8);
    for segment_bytes in [1 << 20, SEGMENT_BYTES] {
        let config = config_on(&disk);
        let (journal, _) =
            claim(config.clone()).unwrap().open_with(segment_bytes, Duration::ZERO).unwrap();
        // 60 MB through 8 MB: the disk, a full buffer and as much in hand are 40.
        let count = 6000;
        let task = append_many(&journal, count);
        until_stuck(&journal).await;
        assert!(!task.is_finished());
        let usage = journal.usage();
        assert!(usage.bytes > 6 << 20 && usage.budget() <= 8 << 20, "{usage:?}");
        // Nothing is left of a record that fitted in part, nor of a segment that was to be sealed.
        let (mut last, mut frames) = (0, 0);
        let mut reader = Reader::open(&journal, Position(0));
        while let Some(item) = reader.next().unwrap() {
            let Item::Record(_, record) = item else { panic!("damage: {item:?}") };
            frames += u32::from(record.kind == Kind::Frame);
            last = reader.position().0;
        }
        assert!(frames > 500 && frames < 900, "{frames}");
        assert_eq!(last, *journal.written().borrow());
        consume(&journal, count).await;
        task.await.unwrap();
        journal.close().await;
        assert_eq!(journal.failure(), None);
        let names = fs::read_dir(&config.dir).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
        drop(journal);
        fs::remove_dir_all(&config.dir).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_begins_on_a_full_disk_and_records_once_there_is_room() {
    let disk = SmallDisk::mount(8);
    let config = config_on(&disk);
    let (journal, _) = claim(config.clone()).unwrap().open_with(1 << 20, Duration::ZERO).unwrap();
    append(&journal, b"before").await;
    journal.close().await;
    drop(journal);
    let ballast = disk.path().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    drop(file);
    let (journal, _) = claim(config).unwrap().open_with(1 << 20, Duration::ZERO).unwrap();
    append(&journal, b"after").await;
    until_full(&journal).await;
    fs::remove_file(&ballast).unwrap();
    let end = journal.end().0;
    let written = tokio::time::timeout(Duration::from_secs(60), async {
        journal.written().wait_for(|at| *at >= end).await.map(|_| ())
    });
    written.await.expect("recording goes on").unwrap();
    journal.close().await;
    let all = read_all(&journal, Position(0));
    assert_eq!(payloads(&all), [b"before".to_vec(), b"after".to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_on_a_full_disk_ends_and_says_what_is_lost() {
    let disk = SmallDisk::mount(8);
    let (journal, _) = claim(config_on(&disk)).unwrap().open_with(1 << 20, Duration::ZERO).unwrap();
    let task = append_many(&journal, 6000);
    until_stuck(&journal).await;
    task.abort();
    journal.drain();
    let end = tokio::time::timeout(Duration::from_secs(20), journal.close()).await.expect("ends");
    assert!(end < journal.end(), "what could not be written does not count");
    assert!(journal.failure().unwrap().contains("the disk is full"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_had_to_wait_says_how_long() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) =
        claim(config(&dir, 4 << 20)).unwrap().open_with(1 << 20, Duration::ZERO).unwrap();
    let task = append_many(&journal, 6000);
    // The buffer still takes some: the wait begins when nothing enters it any more.
    until_stuck(&journal).await;
    // The wait itself is what is tested: longer than the least that counts.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    journal.drain();
    task.await.unwrap();
    journal.close().await;
    let all = read_all(&journal, Position(0));
    let at = all.iter().position(|(_, record)| record.kind == Kind::Pause).expect("a pause");
    let pause = &all[at].1;
    let waited = i64::from_le_bytes(pause.payload.as_ref().try_into().unwrap());
    assert!((1_000_000..60_000_000).contains(&waited), "{waited}");
    assert_eq!((pause.session, all[at + 1].1.kind), (7, Kind::Frame));
    let pauses = all.iter().filter(|(_, record)| record.kind == Kind::Pause).count();
    assert_eq!(pauses, 1);
}
