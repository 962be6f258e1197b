//! `postgres://user:password@host:port/database?sslmode=...` in its parts.
//!
//! The driver's own parser knows neither `verify-full` nor `sslrootcert`, and its errors quote the URL.

/// The parts that the URL gives; the rest takes its defaults.
#[derive(Default)]
pub struct Parts {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub database: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub sslmode: Option<String>,
    pub sslrootcert: Option<String>,
}

const PARAMETERS: [&str; 7] =
    ["host", "port", "dbname", "user", "password", "sslmode", "sslrootcert"];

/// Takes a URL apart. The error is a clause about "the URL" and quotes nothing of it but the names of
/// parameters.
pub fn parse(url: &str) -> Result<Parts, String> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or("does not begin with postgres://")?;
    if rest.contains('#') {
        return Err("has a `#` in it: write it as %23".to_owned());
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(r, q)| (r, Some(q)));
    let (authority, database) = rest.split_once('/').map_or((rest, None), |(a, d)| (a, Some(d)));
    let mut parts = Parts::default();
    // The last `@` ends the password: one in it that is not written %40 is forgiven.
    let (login, place) =
        authority.rsplit_once('@').map_or((None, authority), |(l, p)| (Some(l), p));
    if let Some(login) = login {
        let (user, password) = login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)));
        parts.user = filled(user)?;
        parts.password = password.map(decode).transpose()?;
    }
    if place.contains(',') {
        return Err("names several hosts: only one is supported".to_owned());
    }
    let (host, port) = split_port(place)?;
    parts.host = filled(host)?;
    parts.port = port.map(port_of).transpose()?;
    if let Some(database) = database {
        if database.contains('/') {
            return Err("has a `/` in the database's name: write it as %2F".to_owned());
        }
        parts.database = filled(database)?;
    }
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').ok_or("has a parameter without `=`")?;
        let (name, value) = (decode(name)?, decode(value)?);
        match name.as_str() {
            "host" => parts.host = Some(value),
            "port" => parts.port = Some(port_of(&value)?),
            "dbname" => parts.database = Some(value),
            "user" => parts.user = Some(value),
            "password" => parts.password = Some(value),
            "sslmode" => parts.sslmode = Some(value),
            "sslrootcert" => parts.sslrootcert = Some(value),
            other => {
                // A malformed URL can have a piece of its password here: only a plain word is quoted.
                let plain =
                    other.len() <= 40 && other.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let known = PARAMETERS.join(", ");
                return Err(if plain {
                    format!("has the parameter `{other}`, which is not one of {known}")
                } else {
                    format!("has a parameter that is not one of {known}")
                });
            }
        }
    }
    Ok(parts)
}

/// `host`, `host:port`, `[::1]:port`.
fn split_port(place: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("has a `[` without `]`")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("has something other than a port after `]`".to_owned()),
        };
    }
    match place.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            Err("has more than one `:` in its host: write an IPv6 address in brackets".to_owned())
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((place, None)),
    }
}

fn port_of(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| "does not have a port from 1 to 65535 after its host".to_owned())
}

fn filled(text: &str) -> Result<Option<String>, String> {
    let text = decode(text)?;
    Ok((!text.is_empty()).then_some(text))
}

/// `%2F` as `/`; everything else as it stands.
fn decode(text: &str) -> Result<String, String> {
    let error = || "has a `%` that two hexadecimal digits of UTF-8 do not follow".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            rest.next()
                .and_then(|byte| char::from(byte).to_digit(16))
                .and_then(|digit| u8::try_from(digit).ok())
                .ok_or_else(error)
        };
        let (high, low) = (digit()?, digit()?);
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts() {
        let url = "postgres://us%65r:p%40ss%2Fw%3A%25@db.internal:6432/kalshi_prod?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem";
        let parts = parse(url).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(parts.user.as_deref(), Some("user"));
        assert_eq!(parts.password.as_deref(), Some("p@ss/w:%"));
        assert_eq!(parts.host.as_deref(), Some("db.internal"));
        assert_eq!(parts.port, Some(6432));
        assert_eq!(parts.database.as_deref(), Some("kalshi_prod"));
        assert_eq!(parts.sslmode.as_deref(), Some("verify-full"));
        assert_eq!(parts.sslrootcert.as_deref(), Some("/etc/ca.pem"));
    }

    #[test]
    fn sockets_and_addresses() {
        let host = |url| parse(url).unwrap_or_else(|e| panic!("{e}")).host;
        assert_eq!(
            host("postgresql://u@%2Frun%2Fpostgresql/db").as_deref(),
            Some("/run/postgresql")
        );
        assert_eq!(
            host("postgres://u@/db?host=/run/postgresql").as_deref(),
            Some("/run/postgresql")
        );
        assert_eq!(host("postgres://u@[::1]:5433/db").as_deref(), Some("::1"));
        assert_eq!(host("postgres:///db"), None);
        assert_eq!(host("postgres://u:a@b@h/db").as_deref(), Some("h"));
    }

    #[test]
    fn errors_quote_no_secret() {
        for bad in [
            "mysql://u:canary@h/db",
            "host=h password=canary",
            "postgres://u:canary@h:port/db",
            "postgres://u:canary@h:0/db",
            "postgres://u:canary@h,h2/db",
            "postgres://u:canary@::1/db",
            "postgres://u:canary@[::1/db",
            "postgres://u:canary@h/db/x",
            "postgres://u:canary%4@h/db",
            "postgres://u:canary%ff@h/db",
            "postgres://u:x?canary%40=1@h/db",
            "postgres://u:x#canary@h/db",
            "postgres://u:canary@h/db?sslmod=require",
            "postgres://u:canary@h/db?sslmode",
        ] {
            let error = parse(bad).map(|_| ()).unwrap_err();
            assert!(!error.contains("canary"), "{bad}: {error}");
        }
        assert!(parse("postgres://h/db?sslmod=x").map(|_| ()).unwrap_err().contains("`sslmod`"));
    }
}
