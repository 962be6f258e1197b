//! What REST lists (series, events, markets), version by version. They are no log: a version counts by
//! the time at which it was received, and that is no order of commits. So a day is archived as a whole
//! once it has been over for a while, and looked at again for as long as production has it: should a
//! version have come late after all, the day is written anew beside the first writing and the manifest
//! names the new one.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;

use super::manifest::{self, Part};
use super::part;
use super::rows::{DAY, day_name};
use super::span::{Work, copy};
use super::store::{Written, sha256};
use super::table::{Source, Table};
use crate::model::Micros;
use crate::ops::crash;

/// A version is committed within moments of being received; this is for a production that was away.
const GRACE: Duration = Duration::from_secs(3600);

/// A day of production's versions.
#[derive(Debug)]
struct Found {
    day: i64,
    fingerprint: String,
}

/// Archives every past day of a table whose versions are not in the archive as they are in production.
pub async fn archive(work: &Work<'_>, table: &'static Table) -> anyhow::Result<()> {
    let Source::Versions { view } = table.source else { return Ok(()) };
    let grace = i64::try_from(GRACE.as_micros()).context("measure a grace")?;
    let today = (Micros::now().0 - grace).div_euclid(DAY);
    let paths = manifest::latest_paths(work.store, table).await?;
    for found in days(work, table, view, today).await? {
        let dt = day_name(found.day);
        let known = match paths.get(&dt) {
            Some(path) => manifest::read::<manifest::Manifest>(work.store, path).await?,
            None => None,
        };
        let is_same = known.as_ref().is_some_and(|known| {
            let mut parts = known.parts.iter();
            parts.all(|part| part.fingerprint.as_ref() == Some(&found.fingerprint))
        });
        if !is_same {
            let parts = write(work, table, view, &found, known.is_some()).await?;
            manifest::revise(work.store, table, &dt, |_| Some(parts.clone())).await?;
            let rows: u64 = parts.iter().map(|part| part.rows).sum();
            tracing::info!(table = table.name, dt, rows, "archived the versions of a day");
        }
    }
    Ok(())
}

async fn days(
    work: &Work<'_>,
    table: &Table,
    view: &str,
    before: i64,
) -> anyhow::Result<Vec<Found>> {
    // Sums, since the order of rows means nothing.
    let sql = format!(
        "SELECT valid_from / {DAY}, count(*) || ':' || \
           sum(('x' || left(md5(concat_ws('/', {}, valid_from, content_hash, presence)), 15)) \
               ::bit(60)::bigint)::text \
         FROM {view} WHERE valid_from < $1 GROUP BY 1 ORDER BY 1",
        table.key
    );
    let rows = work.session.query(&sql, &[&(before * DAY)]).await;
    let rows = rows.with_context(|| format!("look at the versions of {}", table.name))?;
    rows.iter()
        .map(|row| Ok(Found { day: row.try_get(0)?, fingerprint: row.try_get(1)? }))
        .collect()
}

/// Writes the versions of a day, in as many parts as memory asks for.
async fn write(
    work: &Work<'_>,
    table: &'static Table,
    view: &str,
    found: &Found,
    is_again: bool,
) -> anyhow::Result<Vec<Part>> {
    let (dt, name, key) = (day_name(found.day), table.name, table.key);
    let (from, to) = (found.day * DAY, (found.day + 1) * DAY);
    let mut behind: Option<(String, i64)> = None;
    let mut parts: Vec<Part> = Vec::new();
    loop {
        let rest = behind.as_ref().map_or_else(String::new, |(last, at)| {
            format!("AND ({key}, valid_from) > ('{}', {at})", last.replace('\'', "''"))
        });
        let sql = format!(
            "COPY (SELECT {} FROM {view} WHERE valid_from >= {from} AND valid_from < {to} {rest} \
             ORDER BY {key}, valid_from) TO STDOUT (FORMAT binary)",
            table.select()
        );
        let (mut rows, is_cut) = copy(work.database, table, &sql, Some(work.memory)).await?;
        behind = rows.last_key().map(str::to_owned).zip(rows.last("valid_from"));
        if is_cut {
            rows.cut();
        }
        let count = rows.len();
        if count > 0 {
            let level = work.level;
            let encoded = tokio::task::spawn_blocking(move || {
                let sorted = rows.finish()?;
                let day = sorted.days.first().context("rows without a day")?.clone();
                part::encode(&sorted, &day, level)
            });
            let bytes = Bytes::from(encoded.await.context("encode a part")??);
            let number = parts.len();
            let path = if is_again {
                let mark = sha256(found.fingerprint.as_bytes());
                let mark = mark.get(..8).unwrap_or_default();
                format!("v1/compact/{name}/dt={dt}/part-{number:04}-{mark}.parquet")
            } else {
                format!("v1/{name}/dt={dt}/part-{number:04}.parquet")
            };
            if work.store.write_once(&path, &bytes).await? == Written::Differs {
                work.store.write_over(&path, &bytes).await?;
            }
            crash::point("archive.uploaded");
            parts.push(Part {
                dt: dt.clone(),
                path,
                rows: u64::try_from(count).context("count rows")?,
                bytes: u64::try_from(bytes.len()).context("count bytes")?,
                sha256: sha256(&bytes),
                pieces: Vec::new(),
                fingerprint: Some(found.fingerprint.clone()),
            });
        }
        if !is_cut {
            return Ok(parts);
        }
    }
}
