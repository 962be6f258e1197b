//! Intervals of time: what several gatherers saw together, how many of them, and what none saw.

use std::collections::BTreeMap;

/// From a time up to another, which is not in it; microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: i64,
    pub to: i64,
}

impl Span {
    pub const fn new(from: i64, to: i64) -> Self {
        Self { from, to }
    }

    pub const fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// Its length in microseconds.
    pub const fn micros(self) -> i64 {
        if self.is_empty() { 0 } else { self.to.saturating_sub(self.from) }
    }

    /// What both have.
    pub fn within(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
}

/// The union of spans: in order, without overlap or touch.
pub fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| !span.is_empty());
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            _ => merged.push(span),
        }
    }
    merged
}

/// What of `whole` is in none of `parts`, which are a [`union`].
pub fn holes(whole: Span, parts: &[Span]) -> Vec<Span> {
    let mut holes = Vec::new();
    let mut at = whole.from;
    for part in parts {
        if part.to <= at {
            continue;
        }
        if part.from >= whole.to {
            break;
        }
        if part.from > at {
            holes.push(Span::new(at, part.from));
        }
        at = at.max(part.to);
    }
    if at < whole.to {
        holes.push(Span::new(at, whole.to));
    }
    holes
}

/// First microsecond of the UTC day of a time.
pub const fn day_of(at: i64) -> i64 {
    at.div_euclid(DAY) * DAY
}

pub const DAY: i64 = 86_400_000_000;

/// How long each number of gatherers covered something, by day: microseconds at index 0, 1, 2, ...
pub type Depths = BTreeMap<i64, Vec<i128>>;

/// Adds to `depths`, day by day, how many of `views` (each a [`union`]) covered each moment of `whole`.
pub fn add_depths(whole: Span, views: &[Vec<Span>], depths: &mut Depths) {
    if whole.is_empty() {
        return;
    }
    let mut edges = vec![(whole.from, 0_isize), (whole.to, 0)];
    for span in views.iter().flatten() {
        let span = span.within(whole);
        if !span.is_empty() {
            edges.push((span.from, 1));
            edges.push((span.to, -1));
        }
    }
    let mut midnight = day_of(whole.from).saturating_add(DAY);
    while midnight < whole.to {
        edges.push((midnight, 0));
        midnight = midnight.saturating_add(DAY);
    }
    edges.sort_unstable();
    let mut depth = 0_isize;
    let mut at = whole.from;
    for (time, change) in edges {
        if time > at {
            let day = depths.entry(day_of(at)).or_default();
            let index = usize::try_from(depth).unwrap_or_default();
            if day.len() <= index.max(views.len()) {
                day.resize(index.max(views.len()) + 1, 0);
            }
            if let Some(sum) = day.get_mut(index) {
                *sum += i128::from(time - at);
            }
            at = time;
        }
        depth += change;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(list: &[(i64, i64)]) -> Vec<Span> {
        list.iter().map(|(from, to)| Span::new(*from, *to)).collect()
    }

    #[test]
    fn what_touches_is_one_and_what_is_between_is_a_hole() {
        let union = union(spans(&[(5, 7), (1, 3), (3, 4), (6, 9), (8, 8)]));
        assert_eq!(union, spans(&[(1, 4), (5, 9)]));
        assert_eq!(holes(Span::new(0, 12), &union), spans(&[(0, 1), (4, 5), (9, 12)]));
        assert_eq!(holes(Span::new(2, 4), &union), spans(&[]));
        assert_eq!(holes(Span::new(4, 5), &union), spans(&[(4, 5)]));
        assert_eq!(holes(Span::new(5, 5), &[]), spans(&[]));
    }

    #[test]
    fn depths_are_told_by_day() {
        let mut depths = Depths::new();
        let views = [spans(&[(DAY - 10, DAY + 5)]), spans(&[(DAY - 5, DAY + 20)]), Vec::new()];
        add_depths(Span::new(DAY - 20, DAY + 10), &views, &mut depths);
        assert_eq!(depths[&0], [10, 5, 5, 0]);
        assert_eq!(depths[&DAY], [0, 5, 5, 0]);
    }

    proptest! {
        /// Second by second, the slow way.
        #[test]
        fn every_moment_is_counted_once(
            lists in prop::collection::vec(prop::collection::vec((0_i64..40, 0_i64..40), 0..6), 1..4),
            from in 0_i64..20,
            length in 0_i64..30,
        ) {
            let whole = Span::new(from, from + length);
            let views: Vec<Vec<Span>> = lists.iter().map(|list| union(spans(list))).collect();
            let mut depths = Depths::new();
            add_depths(whole, &views, &mut depths);
            let mut expected = vec![0_i128; views.len() + 1];
            let mut uncovered = 0;
            for at in whole.from..whole.to {
                let has = |view: &&Vec<Span>| view.iter().any(|s| s.from <= at && at < s.to);
                let depth = views.iter().filter(has).count();
                expected[depth] += 1;
                uncovered += i64::from(depth == 0);
            }
            let counted = depths.remove(&0).unwrap_or_else(|| vec![0; views.len() + 1]);
            prop_assert_eq!(counted, expected);
            let all = union(views.concat());
            let sum: i64 = holes(whole, &all).iter().map(|hole| hole.micros()).sum();
            prop_assert_eq!(sum, uncovered);
        }
    }
}
