//! `archive` of `deduplicator.yaml`: where Parquet goes, and how.

use std::path::Path;
use std::time::Duration;

use super::read::{Field, Section};
use super::secret::Keys;
use super::{database, shared, units};
use crate::ops::secret::{Kind, Secret};
use crate::ops::{http, telemetry};
use crate::pg::Target;
use crate::role::archive::{Bucket, Config, Place};

const MINUTE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

const SECRET_KEY: Keys = Keys {
    value: "secret_access_key",
    file: "secret_access_key_file",
    secret: "secret_access_key_secret",
    kind: Kind::Password,
};

/// The whole file for a command that needs the archive alone. The inner `None` means that there is
/// none.
pub fn read_alone(root: Section<'_>) -> Option<(Option<Config>, telemetry::Config)> {
    root.skip(&super::deduplicator::KEYS);
    let production = database::place(root.section("production"), String::new());
    let archive = read(&root, production.as_ref(), shared::server(&root).as_ref());
    let logging = shared::logging(&root);
    root.finish();
    Some((archive?, logging?))
}

/// The outer `None` means a problem, the inner one that nothing is archived. What is none of production
/// and server is told already.
pub fn read(
    root: &Section<'_>,
    production: Option<&Target>,
    server: Option<&http::Config>,
) -> Option<Option<Config>> {
    let section = root.section("archive");
    if !root.has("archive") {
        return Some(None);
    }
    let enabled = section.get("enabled", true, units::flag);
    let place = place(&section);
    let database = database(&section, production);
    let max_age = section.get(
        "max_age",
        MINUTE * 60,
        units::duration_within(
            Duration::from_millis(100),
            MINUTE * 1440,
            "a time from 100ms to 24h",
        ),
    );
    let memory = section.get("memory", 256 * MIB, |text| match units::bytes(text)? {
        bytes if (MIB..=64 * 1024 * MIB).contains(&bytes) => Ok(bytes),
        _ => Err("is not a size from 1MiB to 64GiB".to_owned()),
    });
    let compression_level = section.get("compression_level", 3, |text| match text.trim().parse() {
        Ok(level) if (1..=22).contains(&level) => Ok(level),
        _ => Err("is not a level of zstd from 1 to 22".to_owned()),
    });
    let compact = section.get("compact", true, units::flag);
    section.finish();
    let config = Config {
        place: place?,
        database: database?,
        max_age: max_age?,
        memory: memory?,
        compression_level: compression_level?,
        compact: compact?,
        server: server?.clone(),
    };
    Some(enabled?.then_some(config))
}

/// Production by another login: what is left out is as in `production`.
fn database(section: &Section<'_>, production: Option<&Target>) -> Option<Target> {
    let own = section.section("database");
    let name = "kalshi archive".to_owned();
    if own.has("host") || own.has("url") {
        return database::target(own, name);
    }
    let target = database::admin(own, production)?;
    Some(Target { application_name: name, ..target })
}

fn place(section: &Section<'_>) -> Option<Place> {
    let url = section.required("url");
    let region = section.get("region", "us-east-1".to_owned(), |text| match text.trim() {
        "" => Err("is empty".to_owned()),
        text => Ok(text.to_owned()),
    });
    let endpoint = section.get("endpoint", None, |text| units::rest_url(text).map(Some));
    let credentials = credentials(section);
    let url = url?;
    let text = url.text.trim().trim_end_matches('/');
    if let Some(directory) = text.strip_prefix("file://") {
        for key in ["region", "endpoint", "access_key_id"] {
            if section.has(key) {
                section.problem(key, "is for s3://, and `url` is a directory");
                return None;
            }
        }
        return directory_of(section, &url, directory);
    }
    let Some(rest) = text.strip_prefix("s3://") else {
        url.problem(section.context(), "is neither s3://bucket/prefix nor file:///directory");
        return None;
    };
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let fine = |text: &str, more: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c) || more.contains(c))
    };
    let has_empty =
        !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | ".."));
    if name.is_empty() || !fine(name, "") || !fine(prefix, "/=") || has_empty {
        url.problem(section.context(), "is not a bucket and a prefix like s3://bucket/prefix");
        return None;
    }
    Some(Place::Bucket(Bucket {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
        region: region?,
        endpoint: endpoint?,
        credentials: credentials?,
    }))
}

fn directory_of(section: &Section<'_>, url: &Field, directory: &str) -> Option<Place> {
    let directory = Path::new(directory);
    let is_plain = directory.to_str().is_some_and(|text| !text.contains(['#', '%', '*', '?']));
    if !directory.is_absolute() || directory.parent().is_none() || !is_plain {
        url.problem(section.context(), "is not an absolute directory like file:///srv/archive");
        return None;
    }
    Some(Place::Directory(directory.to_owned()))
}

/// Both or neither: without them it is the machine's role that is used.
fn credentials(section: &Section<'_>) -> Option<Option<(String, Secret)>> {
    let (id, secret) = (section.text("access_key_id"), SECRET_KEY.read(section));
    match (id?, secret?) {
        (None, None) => Some(None),
        (Some(id), Some(found)) => Some(Some((id.text.trim().to_owned(), found.secret))),
        (Some(_), None) => {
            section.problem(SECRET_KEY.file, "is required beside `access_key_id`");
            None
        }
        (None, Some(_)) => {
            section.problem("access_key_id", "is required beside the secret key");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::env::Environment;
    use super::super::parse;
    use super::*;

    const BASE: &str = "deduplicator_id: d1
production: { host: p, port: 5433, database: d, user: u, password: x, sslmode: disable }
gatherers: [ { id: a, database: { host: h, database: d, user: u } } ]
";

    fn read(archive: &str) -> Result<Option<Config>, Vec<String>> {
        let source = format!("{BASE}{archive}\n");
        let environment = Environment::given::<&str, &str>([]);
        let loaded =
            parse(Path::new("d.yaml"), &source, &environment, |root| read_alone(root.section));
        loaded.map(|loaded| loaded.config).map_err(|errors| {
            errors
                .problems()
                .iter()
                .map(|problem| format!("{}: {}", problem.key, problem.message))
                .collect()
        })
    }

    #[test]
    fn a_file_without_the_section_archives_nothing() {
        assert!(read("").unwrap().is_none());
        let off = "archive: { url: 's3://b', enabled: false, database: { user: exporter } }";
        assert!(read(off).unwrap().is_none());
    }

    #[test]
    fn what_is_left_out_of_the_database_is_productions() {
        let config = read("archive: { url: 's3://b/p/q/', database: { user: exporter } }");
        let config = config.unwrap().unwrap();
        assert_eq!((config.database.host.as_str(), config.database.port), ("p", 5433));
        assert_eq!(
            (config.database.user.as_str(), config.database.database.as_str()),
            ("exporter", "d")
        );
        assert!(config.database.password.is_none(), "the other login's password is none of ours");
        let Place::Bucket(bucket) = &config.place else { panic!("{config:?}") };
        assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), ("b", "p/q"));
        assert_eq!((config.max_age, config.memory, config.compact), (MINUTE * 60, 256 * MIB, true));
    }

    #[test]
    fn a_secret_key_is_shown_nowhere() {
        let text = "archive: { url: s3://b, access_key_id: AK, secret_access_key: hidden-away, \
                    endpoint: 'http://127.0.0.1:5000', database: { user: e } }";
        let config = read(text).unwrap().unwrap();
        assert!(!format!("{config:?}").contains("hidden-away"));
        let Place::Bucket(bucket) = config.place else { panic!() };
        assert_eq!(bucket.credentials.unwrap().1.expose(), "hidden-away");
        assert_eq!(bucket.endpoint.as_deref(), Some("http://127.0.0.1:5000"));
    }

    #[test]
    fn wrong_places_are_named() {
        for (archive, key) in [
            ("url: 'gs://b'", "archive.url"),
            ("url: 's3://'", "archive.url"),
            ("url: 's3://b/a//c'", "archive.url"),
            ("url: 's3://b/a b'", "archive.url"),
            ("url: 'file://relative'", "archive.url"),
            ("url: 'file:///'", "archive.url"),
            ("url: 'file:///x', region: eu-west-1", "archive.region"),
            ("url: 's3://b', endpoint: 'http://s3.example.com'", "archive.endpoint"),
            ("url: 's3://b', access_key_id: x", "archive.secret_access_key_file"),
            ("url: 's3://b', max_age: 2d", "archive.max_age"),
            ("url: 's3://b', memory: 1kB", "archive.memory"),
            ("url: 's3://b', compression_level: 23", "archive.compression_level"),
            ("url: 's3://b', bucket: x", "archive.bucket"),
        ] {
            let problems =
                read(&format!("archive: {{ {archive}, database: {{ user: e }} }}")).unwrap_err();
            assert!(
                problems.iter().any(|p| p.starts_with(&format!("{key}: "))),
                "{archive}: {problems:?}"
            );
            assert_eq!(problems.len(), 1, "{archive}: {problems:?}");
        }
    }
}
