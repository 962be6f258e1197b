//! What a database says of the migrations that it got, compared with those of this program.

use refinery::Migration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::error::VersionError;
use super::{Schema, newest};

/// A line of the database's history, or of the program's list when it is not applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub version: i32,
    pub name: String,
    /// RFC 3339, UTC; none while pending.
    pub applied_at: Option<String>,
    pub checksum: String,
}

impl Entry {
    /// A migration of this program that the database does not have.
    pub(super) fn pending(migration: &Migration) -> Self {
        Self {
            version: migration.version(),
            name: migration.name().to_owned(),
            applied_at: None,
            checksum: migration.checksum().to_string(),
        }
    }

    fn is(&self, migration: &Migration) -> bool {
        migration.version() == self.version
            && migration.name() == self.name
            && migration.checksum().to_string() == self.checksum
    }

    /// The kind of database that has exactly this migration.
    fn kind(&self) -> Option<Schema> {
        [Schema::Gatherer, Schema::Production]
            .into_iter()
            .find(|schema| schema.migrations().iter().any(|migration| self.is(migration)))
    }

    fn label(&self) -> String {
        format!("V{}__{} (checksum {})", self.version, self.name, self.checksum)
    }
}

/// What `refinery_schema_history` says.
#[derive(Debug)]
pub struct History {
    /// The database's own name.
    pub database: String,
    pub applied: Vec<Entry>,
    /// The program that applied the last one, when it left its name.
    pub by: Option<String>,
}

/// How the name of the program is left behind: as the table's comment, which any program can read.
pub const MADE_BY: &str = "Made by ";

impl History {
    pub async fn read(client: &Client) -> Result<Self, VersionError> {
        let sql = "SELECT current_database()::text, version::int4, name, applied_on, checksum, \
                     obj_description('refinery_schema_history'::regclass, 'pg_class') \
                   FROM refinery_schema_history ORDER BY version";
        let rows = match client.query(sql, &[]).await {
            Ok(rows) => rows,
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                return Self::none(client).await;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(first) = rows.first() else { return Self::none(client).await };
        let (database, comment) = (first.try_get(0)?, first.try_get::<_, Option<String>>(5)?);
        let mut applied = Vec::with_capacity(rows.len());
        for row in rows {
            applied.push(Entry {
                version: row.try_get(1)?,
                name: row.try_get::<_, Option<String>>(2)?.unwrap_or_default(),
                applied_at: row.try_get(3)?,
                checksum: row.try_get::<_, Option<String>>(4)?.unwrap_or_default(),
            });
        }
        let by = comment.and_then(|text| Some(text.strip_prefix(MADE_BY)?.to_owned()));
        Ok(Self { database, applied, by })
    }

    /// Of a database without a history, unless it is only hidden from us.
    async fn none(client: &Client) -> Result<Self, VersionError> {
        let sql = "SELECT current_database()::text, current_user::text, \
                     coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace \
                               WHERE nspname = 'public'), true)";
        let row = client.query_one(sql, &[]).await?;
        let (database, user, sees): (String, String, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if !sees {
            return Err(VersionError::Hidden { database, user });
        }
        Ok(Self { database, applied: Vec::new(), by: None })
    }

    pub fn version(&self) -> i32 {
        self.applied.last().map_or(0, |entry| entry.version)
    }

    /// The migrations that are still to be applied, when what was applied is a beginning of the list.
    pub fn pending(&self, migrations: &[Migration]) -> Result<Vec<Migration>, VersionError> {
        let (database, newest) = (self.database.clone(), newest(migrations));
        for entry in &self.applied {
            match migrations.iter().find(|known| known.version() == entry.version) {
                None if entry.version > newest => {
                    let (version, by) = (self.version(), self.by.clone());
                    return Err(VersionError::Newer { database, version, needed: newest, by });
                }
                None => {
                    let migration = entry.label();
                    return Err(VersionError::Unknown { database, migration });
                }
                Some(known) if entry.is(known) => {}
                Some(known) => {
                    if let Some(kind) = entry.kind() {
                        return Err(VersionError::OtherKind { database, kind });
                    }
                    let (migration, known) = (entry.label(), Entry::pending(known).label());
                    return Err(VersionError::Changed { database, migration, known });
                }
            }
        }
        let mut pending = Vec::new();
        for migration in migrations {
            if self.applied.iter().any(|entry| entry.version == migration.version()) {
                continue;
            }
            if migration.version() < self.version() {
                let migration = Entry::pending(migration).label();
                return Err(VersionError::Skipped { database, migration });
            }
            pending.push(migration.clone());
        }
        Ok(pending)
    }
}
