//! Whatever the gatherers missed, in whatever order, batches and restarts it comes: production is the
//! multiset union, each identity as often as the gatherer that saw it most.
//!
//! Each case is drawn from a seed that is printed; built with `KALSHI_MERGE_SEED` the tests repeat one.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::rig::{Delta, Rig, append_deltas};

/// Cases of one run of the tests: each makes its databases anew.
const CASES: u64 = 6;
/// Changes that the exchange publishes in a case, at most.
const CHANGES_MAX: i64 = 3_000;

/// What the exchange published: few markets, few prices and times that stand still now and then, so
/// that identical changes are common.
fn published(rng: &mut Rng) -> Vec<Delta> {
    let mut at = 1_800_000_000_000_000;
    let changes = rng.i64(1..CHANGES_MAX);
    (0..changes)
        .map(|_| {
            at += *rng.choice(&[0, 0, 1, 40, 70_000]).unwrap();
            Delta {
                ticker: format!("KXP-{}", rng.u8(0..5)),
                exchange_ts: at,
                price: 10_000 * rng.i64(1..4),
                size_delta: 100 * rng.i64(1..3),
                occurrence: 0,
            }
        })
        .collect()
}

/// What one gatherer has of it: stretches are missing, single changes are missing, the order within a
/// few changes is another (other connections), and ordinals are counted as the gatherer counts them.
fn seen(all: &[Delta], rng: &mut Rng) -> Vec<Delta> {
    let mut rest = 0;
    let mut blind = false;
    let mut seen: Vec<Delta> = Vec::new();
    for change in all {
        if rest == 0 {
            rest = rng.usize(1..400);
            blind = rng.f64() < 0.3;
        }
        rest -= 1;
        if !blind && rng.f64() > 0.01 {
            seen.push(change.clone());
        }
    }
    for at in (0..seen.len().saturating_sub(5)).step_by(5) {
        rng.shuffle(&mut seen[at..at + 5]);
    }
    let mut counts = BTreeMap::new();
    for change in &mut seen {
        let count = counts.entry(change.clone()).or_insert(0);
        *count += 1;
        change.occurrence = *count;
    }
    seen
}

/// The multiset union by definition: of each change the most that one gatherer has.
fn expected(parts: &[Vec<Delta>]) -> BTreeMap<Delta, i32> {
    let mut union = BTreeMap::new();
    for part in parts {
        let mut own = BTreeMap::new();
        for change in part {
            *own.entry(Delta { occurrence: 0, ..change.clone() }).or_insert(0) += 1;
        }
        for (change, count) in own {
            let most = union.entry(change).or_insert(0);
            *most = count.max(*most);
        }
    }
    union
}

async fn one_case(seed: u64) {
    println!("seed {seed}: KALSHI_MERGE_SEED={seed} repeats it");
    let mut rng = Rng::with_seed(seed);
    let gatherers = rng.usize(1..4);
    let rig = Rig::start(gatherers).await;
    let all = published(&mut rng);
    let parts: Vec<Vec<Delta>> = (0..gatherers).map(|_| seen(&all, &mut rng)).collect();
    let mut left: Vec<&[Delta]> = parts.iter().map(Vec::as_slice).collect();
    let mut running = Some(rig.run());
    while left.iter().any(|part| !part.is_empty()) {
        match rng.u8(0..10) {
            // Killed, or stopped in order, and started again at some later moment.
            0 => match running.take() {
                Some(running) if rng.bool() => running.kill().await,
                Some(running) => running.stop().await.unwrap(),
                None => running = Some(rig.run()),
            },
            _ => {
                let gatherer = rng.usize(0..gatherers);
                let part = left[gatherer];
                let batch = rng.usize(1..600).min(part.len());
                if batch > 0 {
                    append_deltas(&rig.gatherers[gatherer], &part[..batch]).await;
                    left[gatherer] = &part[batch..];
                }
            }
        }
    }
    let running = running.unwrap_or_else(|| rig.run());
    rig.caught_up("orderbook_deltas").await;
    let mut merged = BTreeMap::new();
    for change in rig.deltas().await {
        *merged.entry(Delta { occurrence: 0, ..change }).or_insert(0) += 1;
    }
    let expected = expected(&parts);
    assert!(merged == expected, "seed {seed}: production is not the multiset union");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_is_the_multiset_union() {
    if let Some(seed) = option_env!("KALSHI_MERGE_SEED") {
        return one_case(seed.parse().expect("a number")).await;
    }
    for _ in 0..CASES {
        one_case(fastrand::u64(..)).await;
    }
}
