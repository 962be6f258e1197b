//! Whether a session's user has the rights that its work takes, and not many more.

use tokio_postgres::{Client, Error};

use super::OWNER;

/// What a user lacks, and whether it has more than it should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// In words; none when it has all.
    pub missing: Option<String>,
    /// It may change or remove rows of a log.
    pub is_excessive: bool,
}

/// Asks for rights on tables, each as its name and a verb (`SELECT`, `INSERT`, `UPDATE` of at least one
/// column, `DELETE`), and for membership in [`OWNER`].
///
/// # Errors
/// Also when one of the tables is not there.
pub async fn ask(client: &Client, needed: &[(&str, &str)], logs: &[&str]) -> Result<Rights, Error> {
    let (tables, verbs): (Vec<&str>, Vec<&str>) = needed.iter().copied().unzip();
    let sql = "SELECT string_agg(needed, ', '), bool_or(is_excessive) FROM ( \
                 SELECT verb || ' on ' || name, false FROM unnest($1::text[], $2::text[]) n (name, verb) \
                 WHERE NOT CASE verb WHEN 'DELETE' THEN has_table_privilege(name, verb) \
                                     ELSE has_any_column_privilege(name, verb) END \
                 UNION ALL \
                 SELECT 'membership in ' || rolname, false FROM pg_roles WHERE rolname = $3 \
                   AND NOT pg_has_role(oid, CASE WHEN current_setting('server_version_num')::int4 < 160000 \
                                                 THEN 'MEMBER' ELSE 'SET' END) \
                 UNION ALL \
                 SELECT NULL, true FROM unnest($4::text[]) l (name) \
                 WHERE has_table_privilege(name, 'UPDATE, DELETE, TRUNCATE') \
               ) found (needed, is_excessive)";
    let row = client.query_one(sql, &[&tables, &verbs, &OWNER, &logs]).await?;
    let is_excessive: Option<bool> = row.try_get(1)?;
    Ok(Rights { missing: row.try_get(0)?, is_excessive: is_excessive.unwrap_or(false) })
}
