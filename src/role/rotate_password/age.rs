//! How old each password is, for a timer: `--check-age`.

use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use serde_json::json;

use super::Job;
use crate::ops::exit::DiscrepancyError;

/// What is known of one secret.
struct Age {
    role: String,
    secret: String,
    /// Of the current version.
    age: Option<Duration>,
    is_unfinished: bool,
    error: Option<String>,
}

/// Prints the ages and compares them with `max`.
///
/// # Errors
/// [`DiscrepancyError`] when one is older; another when one cannot be told.
pub async fn check(jobs: &[Job], max: Duration, as_json: bool) -> Result<()> {
    let mut ages = Vec::new();
    for job in jobs {
        ages.push(look(job).await);
    }
    let mut stdout = io::stdout();
    if as_json {
        let roles: Vec<_> = ages.iter().map(|age| json(age, max)).collect();
        let text = json!({ "max_age_seconds": max.as_secs(), "roles": roles });
        writeln!(stdout, "{text}").context("write to stdout")?;
    } else {
        write!(stdout, "{}", table(&ages, max)).context("write to stdout")?;
    }
    let old = names(&ages, |age| age.age.is_some_and(|age| age > max));
    if !old.is_empty() {
        let text = format!("older than {}: {old}: run kalshi rotate-password", days(max));
        return Err(DiscrepancyError(text).into());
    }
    let unknown: Vec<&str> = ages.iter().filter_map(|age| age.error.as_deref()).collect();
    anyhow::ensure!(unknown.is_empty(), "{}", unknown.join("; "));
    Ok(())
}

fn names(ages: &[Age], which: impl Fn(&Age) -> bool) -> String {
    let names = ages.iter().filter(|age| which(age)).map(|age| age.role.as_str());
    names.collect::<Vec<_>>().join(", ")
}

async fn look(job: &Job) -> Age {
    let (role, secret) = (job.role.clone(), job.store.place().to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let told = job.store.candidates().await;
    let (age, is_unfinished, error) = match told {
        Ok(versions) => match versions.current {
            Some(current) => {
                let made = u64::try_from(current.created_at).unwrap_or_default();
                let age = now.saturating_sub(Duration::from_micros(made));
                (Some(age), versions.pending.is_some(), None)
            }
            None => (None, false, Some(format!("{secret} has no current version"))),
        },
        Err(error) => (None, false, Some(error.to_string())),
    };
    Age { role, secret, age, is_unfinished, error }
}

fn json(age: &Age, max: Duration) -> serde_json::Value {
    json!({
        "role": age.role,
        "secret": age.secret,
        "age_seconds": age.age.map(|age| age.as_secs()),
        "is_too_old": age.age.map(|age| age > max),
        "is_unfinished": age.is_unfinished,
        "error": age.error,
    })
}

fn table(ages: &[Age], max: Duration) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["role", "secret", "age", "verdict"]);
    for age in ages {
        let mut verdict = match (&age.error, age.age) {
            (Some(error), _) => error.clone(),
            (None, Some(age)) if age > max => format!("older than {}", days(max)),
            _ => "fine".to_owned(),
        };
        if age.is_unfinished {
            verdict.push_str("; a rotation is under way or was left");
        }
        let shown = age.age.map_or("?".to_owned(), days);
        table.add_row([age.role.clone(), age.secret.clone(), shown, verdict]);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Whole days, or what is less in hours and minutes.
fn days(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match (minutes / (24 * 60), minutes / 60, minutes) {
        (0, 0, 0) => format!("{} s", age.as_secs()),
        (0, 0, minutes) => format!("{minutes} m"),
        (0, hours, _) => format!("{hours} h"),
        (days, _, _) => format!("{days} d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_their_largest_unit() {
        let seconds = [(59, "59 s"), (60, "1 m"), (7200, "2 h"), (90 * 86_400 + 5, "90 d")];
        for (given, shown) in seconds {
            assert_eq!(days(Duration::from_secs(given)), shown);
        }
    }
}
