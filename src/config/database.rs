//! A database section: fields, or one URL, to a target.

use std::path::PathBuf;

use super::read::{Field, Section};
use super::secret::PASSWORD;
use super::{units, url};
use crate::ops::secret::{Password, Secret};
use crate::pg::{Target, TlsMode};

/// What the key of a database access is called, and who the sessions belong to.
pub fn target(section: Section<'_>, application_name: String) -> Option<Target> {
    read(section, application_name, true)
}

/// The same for somebody who logs in as another: the password is none of his business.
pub fn place(section: Section<'_>, application_name: String) -> Option<Target> {
    read(section, application_name, false)
}

fn read(section: Section<'_>, application_name: String, with_password: bool) -> Option<Target> {
    let target = if section.has("url") {
        from_url(&section, application_name)
    } else {
        from_fields(&section, application_name, with_password)
    };
    section.finish();
    target
}

/// `admin`, or `verify`: another login to the database beside it, from which it takes what it does not say.
/// `beside` is none when that one is wrong, which is told already.
pub fn admin(section: Section<'_>, beside: Option<&Target>) -> Option<Target> {
    let host = section.get("host", None, |text| host(text).map(Some));
    let port = section.get("port", None, |text| units::port(text).map(Some));
    let user = section.require("user", name);
    let password = PASSWORD.password(&section);
    let tls = section.get("sslmode", None, |text| tls_mode(text).map(Some));
    let root_cert = root_cert(&section);
    section.finish();
    let beside = beside?;
    Some(Target {
        host: host?.unwrap_or_else(|| beside.host.clone()),
        port: port?.unwrap_or(beside.port),
        database: beside.database.clone(),
        user: user?,
        password: password?,
        tls: tls?.unwrap_or(beside.tls),
        root_cert: root_cert?.or_else(|| beside.root_cert.clone()),
        application_name: beside.application_name.clone(),
    })
}

/// Another login as of [`admin`], in the file of a process that never uses it: its keys are checked, its
/// password is not read.
pub fn skip_login(root: &Section<'_>, key: &'static str) {
    let section = root.section(key);
    section.skip(&["host", "port", "user", "sslmode", "sslrootcert"]);
    PASSWORD.skip(&section);
    section.finish();
}

fn from_fields(
    section: &Section<'_>,
    application_name: String,
    with_password: bool,
) -> Option<Target> {
    let host = section.require("host", host);
    let port = section.get("port", DEFAULT_PORT, units::port);
    let database = section.require("database", name);
    let user = section.require("user", name);
    let password = if with_password {
        PASSWORD.password(section)
    } else {
        PASSWORD.skip(section);
        Some(None)
    };
    let tls = section.get("sslmode", TlsMode::Prefer, tls_mode);
    let root_cert = root_cert(section);
    Some(Target {
        host: host?,
        port: port?,
        database: database?,
        user: user?,
        password: password?,
        tls: tls?,
        root_cert: root_cert?,
        application_name,
    })
}

fn from_url(section: &Section<'_>, application_name: String) -> Option<Target> {
    let mut alone = true;
    for key in ["host", "port", "database", "user"] {
        if section.has(key) {
            section.problem(key, "is given beside `url`, which says it already");
            alone = false;
        }
    }
    // These may stand beside the URL, so that it can be shown to people.
    let password = PASSWORD.password(section);
    let sslmode = section.text("sslmode");
    let root_cert = root_cert(section);
    let field = section.required("url")?;
    let problem = |message: &str| -> Option<Target> {
        field.secret_problem(section.context(), &format!("the URL {message}"));
        None
    };
    let parts = match url::parse(field.text.trim()) {
        Ok(parts) => parts,
        Err(message) => return problem(&message),
    };
    let (password, sslmode, root_cert) = (password?, sslmode?, root_cert?);
    for (key, twice) in [
        ("password", parts.password.is_some() && password.is_some()),
        ("sslmode", parts.sslmode.is_some() && sslmode.is_some()),
        ("sslrootcert", parts.sslrootcert.is_some() && root_cert.is_some()),
    ] {
        if twice {
            return problem(&format!("has a {key} that is also given beside it: keep one of them"));
        }
    }
    let tls = match (parts.sslmode, sslmode) {
        (Some(text), _) => match tls_mode(&text) {
            Ok(tls) => tls,
            Err(message) => return problem(&format!("has a sslmode that {message}")),
        },
        (None, Some(field)) => field.parse(section.context(), tls_mode)?,
        (None, None) => TlsMode::Prefer,
    };
    let Some(host) = parts.host.filter(|text| host(text).is_ok()) else {
        return problem("names no host");
    };
    let Some(database) = parts.database.filter(|text| name(text).is_ok()) else {
        return problem("names no database");
    };
    let Some(user) = parts.user.filter(|text| name(text).is_ok()) else {
        return problem("names no user");
    };
    let password = parts
        .password
        .filter(|text| !text.is_empty())
        .map(|text| Password::from(Secret::new(text)))
        .or(password);
    if !alone {
        return None;
    }
    Some(Target {
        host,
        port: parts.port.unwrap_or(DEFAULT_PORT),
        database,
        user,
        password,
        tls,
        root_cert: parts.sslrootcert.map(PathBuf::from).or(root_cert),
        application_name,
    })
}

const DEFAULT_PORT: u16 = 5432;

fn root_cert(section: &Section<'_>) -> Option<Option<PathBuf>> {
    let Some(field) = section.text("sslrootcert")? else { return Some(None) };
    exists(&field, section).map(Some)
}

/// Only that it is there: it is read anew at each connect, since authorities are replaced.
fn exists(field: &Field, section: &Section<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(&field.text);
    if path.is_file() {
        return Some(path);
    }
    field.problem(section.context(), "is not a file");
    None
}

fn tls_mode(text: &str) -> Result<TlsMode, String> {
    TlsMode::parse(text.trim())
        .ok_or_else(|| "is not one of disable, prefer, require, verify-ca, verify-full".to_owned())
}

fn host(text: &str) -> Result<String, String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | ',' | '?');
    let text = text.trim();
    let path = text.starts_with('/');
    if text.is_empty() || text.contains(odd) || (!path && text.contains('/')) {
        return Err("is not a host name, an address, or the directory of a socket".to_owned());
    }
    Ok(text.to_owned())
}

/// A database or a role: PostgreSQL cuts longer names, and two that differ only behind the cut
/// would be one.
pub fn name(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 63;
    if text.is_empty() || text.len() > BYTES_MAX || text.contains(char::is_control) {
        return Err(format!("is not a name of 1 to {BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}
