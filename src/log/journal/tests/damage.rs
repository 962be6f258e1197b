//! Damage anywhere: readers step over it, tell it, and never give what was not written.

use std::path::Path;

use super::*;

/// Small segments, so that a few thousand records make several.
const SEGMENT: u64 = 64 << 10;

fn text(number: usize) -> Vec<u8> {
    let mut text = format!(r#"{{"type":"orderbook_delta","sid":2,"seq":{number},"msg":{{"pad":""#);
    text.push_str(&"x".repeat(number % 97));
    text.push_str("\"}}");
    text.into_bytes()
}

/// A journal of `count` frames, closed, and what it holds. All full segments are compressed, or none
/// is.
async fn filled(config: &Config, count: usize, sealed: bool) -> Vec<(Position, Record)> {
    let patience = if sealed { Duration::ZERO } else { Duration::MAX };
    let (journal, _) = claim(config.clone()).unwrap().open_with(SEGMENT, patience).unwrap();
    for number in 0..count {
        append(&journal, &text(number)).await;
        if number % 100 == 0 {
            // The segments' size is looked at between two turns of the writing thread.
            let end = journal.end().0;
            journal.written().wait_for(|at| *at >= end).await.unwrap();
        }
    }
    let plain = |config: &Config| {
        segment::list(&config.dir).unwrap().iter().filter(|segment| !segment.sealed).count()
    };
    while sealed && plain(config) > 1 {
        tokio::task::yield_now().await;
    }
    journal.close().await;
    let all = read_all(&journal, Position(0));
    assert_eq!(all.len(), count + 1);
    all
}

/// A copy of the files, which the test may damage. The last segments may still be being sealed: a file
/// that went meanwhile stands there under another name, so the copy begins anew.
fn copied(from: &Path, to: &Path) {
    let copy = || -> std::io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    };
    while let Err(error) = copy() {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        fs::remove_dir_all(to).unwrap();
    }
}

/// Reads a damaged copy and compares it with what was written: what is given was written there, and
/// what is not given lies in a hole.
async fn check(config: &Config, written: &[(Position, Record)], what: &str) -> Vec<Hole> {
    let (journal, _) = open(config.clone()).unwrap();
    journal.close().await;
    let mut given = Vec::new();
    let mut holes: Vec<Hole> = Vec::new();
    for item in read_items(&journal, Position(0)) {
        match item {
            Item::Record(position, record) => given.push((position, record)),
            Item::Hole(hole) => holes.push(hole),
        }
    }
    // The last one is of the process that read.
    assert_eq!(given.pop().unwrap().1.kind, Kind::Start, "{what}");
    let begin = *given.last().map(|(position, _)| position).unwrap_or(&Position(0));
    let mut rest = given.iter().peekable();
    for wanted in written {
        if rest.peek() == Some(&wanted) {
            rest.next();
            continue;
        }
        let held = holes.iter().any(|hole| hole.from <= wanted.0 && wanted.0 < hole.to);
        // At the end of the last segment damage looks like a torn tail: cut when it was opened, and
        // before a new process's beginning.
        assert!(
            held || wanted.0 > begin,
            "{what}: lost {:?} without a hole in {holes:?}",
            wanted.0
        );
    }
    assert_eq!(rest.next(), None, "{what}: given, but never written");
    holes
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_anywhere_lose_only_what_is_told() {
    let seed = 20_261_122;
    let mut rng = fastrand::Rng::with_seed(seed);
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let original = config(&dir, 1 << 30);
        let written = filled(&original, 4000, sealed).await;
        let mut told = 0;
        for round in 0..120 {
            let copy = Config { dir: dir.path().join(format!("copy-{round}")), ..original.clone() };
            copied(&original.dir, &copy.dir);
            let segments = segment::list(&copy.dir).unwrap();
            assert!(segments.len() > 4, "{} segments", segments.len());
            for _ in 0..rng.usize(1..4) {
                let segment = &segments[rng.usize(..segments.len())];
                let mut bytes = fs::read(&segment.path).unwrap();
                let at = rng.usize(..bytes.len());
                for byte in bytes.iter_mut().skip(at).take(rng.usize(1..40)) {
                    *byte = rng.u8(..);
                }
                fs::write(&segment.path, bytes).unwrap();
            }
            let what = format!("seed {seed}, sealed {sealed}, round {round}");
            told += check(&copy, &written, &what).await.len();
        }
        assert!(told > 100, "{told} holes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_costs_what_it_hit() {
    let dir = tempfile::tempdir().unwrap();
    let original = config(&dir, 1 << 30);
    let written = filled(&original, 3000, false).await;
    let segments = segment::list(&original.dir).unwrap();
    let second = segments[1].base;
    let inside = written.iter().position(|(at, _)| at.0 > second + 1000).unwrap();
    let (from, to) = (written[inside].0, written[inside + 1].0);
    let offset = usize::try_from(from.0 - second).unwrap();
    type Blow = fn(&mut Vec<u8>, usize);
    let blows: [(&str, Blow); 5] = [
        ("checksum", |bytes, at| bytes[at + 4] ^= 1),
        ("length too long", |bytes, at| bytes[at + 2] ^= 0x40),
        ("length too short", |bytes, at| bytes[at] ^= 0x10),
        ("kind", |bytes, at| bytes[at + 8] = 77),
        ("payload", |bytes, at| bytes[at + PAYLOAD_AT + 3] ^= 0x80),
    ];
    for (what, blow) in blows {
        let copy = Config { dir: dir.path().join(what), ..original.clone() };
        copied(&original.dir, &copy.dir);
        let path = segment::plain_path(&copy.dir, second);
        let mut bytes = fs::read(&path).unwrap();
        blow(&mut bytes, offset);
        fs::write(path, bytes).unwrap();
        let holes = check(&copy, &written, what).await;
        // The file may be sealed as it is by now.
        assert_eq!((holes.len(), holes[0].from, holes[0].to), (1, from, to), "{what}");
    }
    // A whole segment is gone.
    let copy = Config { dir: dir.path().join("missing"), ..original.clone() };
    copied(&original.dir, &copy.dir);
    fs::remove_file(segment::plain_path(&copy.dir, second)).unwrap();
    let holes = check(&copy, &written, "missing").await;
    assert_eq!(holes.len(), 1);
    assert_eq!((holes[0].from.0, holes[0].to.0), (second, segments[2].base));
    // The middle of the last one: what follows is kept when the next process opens it.
    let copy = Config { dir: dir.path().join("last"), ..original.clone() };
    copied(&original.dir, &copy.dir);
    let last = segments.last().unwrap();
    let path = segment::plain_path(&copy.dir, last.base);
    let mut bytes = fs::read(&path).unwrap();
    bytes[PAYLOAD_AT + 1] ^= 1;
    fs::write(&path, bytes).unwrap();
    let holes = check(&copy, &written, "last").await;
    assert_eq!((holes.len(), holes[0].from.0), (1, last.base));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_inside_a_hole_is_not_the_readers_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, 1 << 30);
    let written = filled(&config, 3000, false).await;
    let second = segment::list(&config.dir).unwrap()[1].base;
    let path = segment::plain_path(&config.dir, second);
    let mut bytes = fs::read(&path).unwrap();
    bytes[PAYLOAD_AT] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (journal, _) = open(config).unwrap();
    journal.close().await;
    let mut reader = Reader::open(&journal, Position(0));
    let mut last = Position(0);
    while let Some(item) = reader.next().unwrap() {
        assert!(reader.position() > last);
        last = reader.position();
        let Item::Hole(hole) = item else { continue };
        assert_eq!(hole.from, Position(second));
        assert_eq!(reader.position(), hole.to);
        // What comes next stands there.
        let Some(Item::Record(at, _)) = reader.next().unwrap() else { panic!("a record") };
        assert_eq!(at, hole.to);
        assert!(written.iter().any(|(position, _)| *position == at));
        return;
    }
    panic!("a hole");
}
