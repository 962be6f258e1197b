//! The archive's tables as each engine wants them declared, from the schema that the parts are written
//! by.

use std::fmt::Write as _;

use super::table::{ALL, CONTRACTS, Column, DOLLARS, Kind, PRECISION, Table};

/// An engine that reads the archive as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Athena,
    Trino,
    Spark,
    Clickhouse,
    Duckdb,
}

impl Engine {
    pub const ALL: [Self; 5] =
        [Self::Athena, Self::Trino, Self::Spark, Self::Clickhouse, Self::Duckdb];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Athena => "athena",
            Self::Trino => "trino",
            Self::Spark => "spark",
            Self::Clickhouse => "clickhouse",
            Self::Duckdb => "duckdb",
        }
    }

    /// What a kind is called.
    fn type_of(self, kind: Kind) -> String {
        let list = |scale| match self {
            Self::Athena | Self::Spark => format!("array<decimal({PRECISION},{scale})>"),
            Self::Trino => format!("array(decimal({PRECISION},{scale}))"),
            Self::Clickhouse => format!("Array(Decimal({PRECISION}, {scale}))"),
            Self::Duckdb => format!("DECIMAL({PRECISION},{scale})[]"),
        };
        let decimal = |scale| match self {
            Self::Clickhouse => format!("Decimal({PRECISION}, {scale})"),
            _ => format!("decimal({PRECISION},{scale})"),
        };
        match (self, kind) {
            (_, Kind::Dollars) => decimal(DOLLARS),
            (_, Kind::Contracts) => decimal(CONTRACTS),
            (_, Kind::DollarsList) => list(DOLLARS),
            (_, Kind::ContractsList) => list(CONTRACTS),
            (Self::Clickhouse, Kind::Seq | Kind::Number | Kind::Hash) => "Int64".to_owned(),
            (_, Kind::Seq | Kind::Number | Kind::Hash) => "bigint".to_owned(),
            (Self::Clickhouse, Kind::Small) => "Int32".to_owned(),
            (Self::Athena, Kind::Small) => "int".to_owned(),
            (_, Kind::Small) => "integer".to_owned(),
            (Self::Clickhouse, Kind::Flag) => "Bool".to_owned(),
            (_, Kind::Flag) => "boolean".to_owned(),
            (Self::Clickhouse, Kind::Micros) => "DateTime64(6, 'UTC')".to_owned(),
            (Self::Trino, Kind::Micros) => "timestamp(6)".to_owned(),
            (Self::Duckdb, Kind::Micros) => "TIMESTAMPTZ".to_owned(),
            (_, Kind::Micros) => "timestamp".to_owned(),
            (Self::Clickhouse, Kind::Word | Kind::Text) => "String".to_owned(),
            (Self::Athena | Self::Spark, Kind::Word | Kind::Text) => "string".to_owned(),
            (_, Kind::Word | Kind::Text) => "varchar".to_owned(),
        }
    }

    /// A text as a literal. Hive's dialects take two quotes for the end of one text and the beginning of
    /// another.
    fn quoted(self, text: &str) -> String {
        match self {
            Self::Athena | Self::Spark => format!("'{}'", text.replace('\'', "\\'")),
            Self::Trino | Self::Clickhouse | Self::Duckdb => {
                format!("'{}'", text.replace('\'', "''"))
            }
        }
    }

    fn columns(self, table: &Table) -> String {
        let declare = |column: &Column| {
            let (name, kind) = (column.name, self.type_of(column.kind));
            let comment = self.quoted(column.comment);
            match self {
                Self::Athena | Self::Trino | Self::Spark => {
                    format!("  {name} {kind} COMMENT {comment}")
                }
                Self::Clickhouse if column.nullable => format!("{name} Nullable({kind})"),
                Self::Clickhouse | Self::Duckdb => format!("{name} {kind}"),
            }
        };
        let columns: Vec<String> = table.columns.iter().map(declare).collect();
        columns.join(if self == Self::Clickhouse { ", " } else { ",\n" })
    }
}

impl std::str::FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|engine| engine.name() == text);
        found.ok_or_else(|| format!("{text} is no engine that is known here"))
    }
}

/// What declares all tables of the archive at `url`, which has no slash at its end.
pub fn script(engine: Engine, url: &str) -> String {
    let mut text = format!("-- The archive at {url}, for {}.\n", engine.name());
    text.push_str(match engine {
        Engine::Athena => {
            "-- Days are projected: nothing has to be added as they come. The lists below v1/symlink\n\
             -- name the parts of each day, large ones where they were made. Athena shows timestamps of\n\
             -- such tables in milliseconds; Iceberg tables (etc/archive/iceberg.py) have all six digits.\n\
             CREATE DATABASE IF NOT EXISTS kalshi;\n"
        }
        Engine::Trino => {
            "-- In the catalogue hive, whose timestamp precision should be MICROSECONDS.\n\
             CREATE SCHEMA IF NOT EXISTS hive.kalshi;\n"
        }
        Engine::Spark => {
            "-- New days are seen after MSCK REPAIR TABLE.\n\
             CREATE DATABASE IF NOT EXISTS kalshi;\n"
        }
        Engine::Clickhouse => "CREATE DATABASE IF NOT EXISTS kalshi;\n",
        Engine::Duckdb => {
            "-- For S3: INSTALL httpfs; CREATE SECRET (TYPE s3, PROVIDER credential_chain);\n\
             SET TimeZone = 'UTC';\n"
        }
    });
    for table in ALL {
        text.push('\n');
        declare(&mut text, engine, url, table);
    }
    text
}

fn declare(text: &mut String, engine: Engine, url: &str, table: &Table) {
    let (name, columns) = (table.name, engine.columns(table));
    let (comment, first) = (engine.quoted(table.comment), "2021-01-01");
    // Writing to a string cannot fail.
    let _written = match engine {
        Engine::Athena => writeln!(
            text,
            "CREATE EXTERNAL TABLE IF NOT EXISTS kalshi.{name} (\n{columns}\n)\nCOMMENT {comment}\n\
             PARTITIONED BY (dt date)\n\
             ROW FORMAT SERDE 'org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe'\n\
             STORED AS INPUTFORMAT 'org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat'\n\
             OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'\n\
             LOCATION '{url}/v1/symlink/{name}/'\n\
             TBLPROPERTIES (\n  'projection.enabled' = 'true',\n  'projection.dt.type' = 'date',\n  \
             'projection.dt.format' = 'yyyy-MM-dd',\n  'projection.dt.range' = '{first},NOW',\n  \
             'storage.location.template' = '{url}/v1/symlink/{name}/dt=${{dt}}/'\n);"
        ),
        Engine::Trino => writeln!(
            text,
            "CREATE TABLE IF NOT EXISTS hive.kalshi.{name} (\n{columns},\n  dt date WITH (\n    \
             partition_projection_type = 'DATE',\n    partition_projection_format = 'yyyy-MM-dd',\n    \
             partition_projection_range = ARRAY['{first}', 'NOW']\n  )\n)\nCOMMENT {comment}\n\
             WITH (\n  format = 'PARQUET',\n  external_location = '{url}/v1/{name}/',\n  \
             partitioned_by = ARRAY['dt'],\n  partition_projection_enabled = true\n);"
        ),
        Engine::Spark => writeln!(
            text,
            "CREATE TABLE IF NOT EXISTS kalshi.{name} (\n{columns},\n  dt date\n)\nUSING parquet\n\
             PARTITIONED BY (dt)\nCOMMENT {comment}\nLOCATION '{}/v1/{name}';\n\
             MSCK REPAIR TABLE kalshi.{name};",
            url.replace("s3://", "s3a://")
        ),
        Engine::Clickhouse => {
            let pattern = format!("v1/{name}/dt=*/*.parquet");
            let from = match url.strip_prefix("file://") {
                // Below user_files_path, the only place that ClickHouse reads.
                Some(directory) => format!("file('{directory}/{pattern}', Parquet"),
                None => format!("s3('{url}/{pattern}', 'Parquet'"),
            };
            writeln!(
                text,
                "CREATE OR REPLACE VIEW kalshi.{name} AS\n\
                 SELECT *, toDate(extract(_path, 'dt=([0-9-]+)')) AS dt\n\
                 FROM {from}, {})\nCOMMENT {comment};",
                engine.quoted(&columns)
            )
        }
        Engine::Duckdb => writeln!(
            text,
            "CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet(\n  \
             '{}/v1/{name}/dt=*/*.parquet', hive_partitioning = true, hive_types = {{dt: DATE}});",
            url.strip_prefix("file://").unwrap_or(url)
        ),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_declares_every_table_with_every_column() {
        for engine in Engine::ALL {
            assert_eq!(engine.name().parse(), Ok(engine));
            let text = script(engine, "s3://bucket/prefix");
            for table in ALL {
                let place = if engine == Engine::Athena { "v1/symlink" } else { "v1" };
                let is_there = text.contains(&format!("s3://bucket/prefix/{place}/{}", table.name))
                    || text.contains(&format!("s3a://bucket/prefix/{place}/{}", table.name));
                assert!(is_there, "{engine:?}: {}", table.name);
                for column in table.columns {
                    // DuckDB reads names and types from the parts.
                    let is_named = text.contains(column.name) || engine == Engine::Duckdb;
                    assert!(is_named, "{engine:?}: {}", column.name);
                }
            }
            for word in ["double", "float", "real"] {
                assert!(!text.to_lowercase().contains(&format!(" {word}")), "{engine:?}: {word}");
            }
        }
        let text = script(Engine::Athena, "s3://b");
        assert!(text.contains("'s3://b/v1/symlink/trades/dt=${dt}/'"), "{text}");
        assert!(text.contains(r"'The exchange\'s clock.'"), "{text}");
        assert!(script(Engine::Trino, "s3://b").contains("'The exchange''s clock.'"));
        assert!(script(Engine::Spark, "s3://b").contains("'s3a://b/v1/trades'"));
    }
}
