//! What `--check` asks of the archive: whether the place answers, whether it is this production's, and
//! whether the user may do what it has to. Changes nothing.

use anyhow::{Context as _, ensure};

use super::Config;
use super::manifest::{self, Archive};
use super::store::{Place, Store};
use super::table;
use crate::pg::migrate::{self, Schema, VersionError};
use crate::pg::{Options, rights};

/// A note when the archive has not begun, or when the user has more rights than it should.
///
/// # Errors
/// What does not answer or is not as it should be.
pub async fn check(config: &Config) -> anyhow::Result<Option<String>> {
    let options = Options { read_only: true, ..Options::default() };
    let client = config.database.connect_with(options).await?;
    migrate::check(&client, Schema::Production).await.map_err(VersionError::ending)?;
    let logs: Vec<&str> =
        table::ALL.iter().filter_map(|table| table.log()).map(|log| log.name()).collect();
    let found = rights::ask(&client, &[], &logs).await.context("ask for rights")?;
    let sql = "SELECT bool_and(has_table_privilege(name, 'SELECT')), \
                      has_function_privilege('move_consumer(text, bigint, bigint)', 'EXECUTE') \
               FROM unnest($1::text[]) n (name)";
    let row = client.query_one(sql, &[&logs]).await.context("ask for rights")?;
    let (may_read, may_move): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    let user = &config.database.user;
    ensure!(may_read, "user {user} may not read the logs");
    ensure!(may_move, "user {user} may not call move_consumer: it is for the role exporter");
    let mut note = found
        .is_excessive
        .then(|| format!("user {user} may change rows of the logs; the role exporter need not"));
    // Opening a directory makes it, which a check must not.
    if let Place::Directory(directory) = &config.place
        && !directory.exists()
    {
        return Ok(Some(format!("{} will be made", directory.display())));
    }
    let store = Store::open(&config.place)?;
    match manifest::read::<Archive>(&store, manifest::ARCHIVE).await? {
        None => note = note.or_else(|| Some("the archive has not begun".to_owned())),
        Some(archive) => {
            for row in client.query("SELECT name, log_id FROM logs", &[]).await? {
                let (name, log_id): (&str, uuid::Uuid) = (row.try_get(0)?, row.try_get(1)?);
                let is_ours = archive.logs.get(name).is_some_and(|log| log.log_id == log_id);
                ensure!(is_ours, "it is the archive of another production ({name})");
            }
        }
    }
    Ok(note)
}
