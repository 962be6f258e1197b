//! Writes the configuration files of the roles, as an operator would.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cluster::{Cluster, SUPERUSER};
use super::rundir::private_file;

/// Where one role answers `/health` and `/metrics`.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub health: SocketAddr,
    pub metrics: SocketAddr,
}

/// What a gatherer's configuration says.
#[derive(Debug)]
pub struct Gatherer<'a> {
    pub id: &'a str,
    pub rest_url: &'a str,
    pub ws_url: &'a str,
    pub key_id: &'a str,
    pub private_key_pem: &'a str,
    pub cluster: &'a Cluster,
    pub journal: &'a Path,
    /// Order-book connections; the global channels have two each.
    pub connections: u16,
    pub server: Server,
}

/// Writes `ID.yaml` and `ID.pem` and gives the path of the former.
///
/// # Errors
/// When a file cannot be written.
pub fn write_gatherer(dir: &Path, gatherer: &Gatherer<'_>) -> Result<PathBuf> {
    let id = gatherer.id;
    let key = dir.join(format!("{id}.pem"));
    private_file(&key, gatherer.private_key_pem)
        .with_context(|| format!("write the API key of {id}"))?;
    let text = format!(
        "gatherer_id: {id}\n\
         api:\n\
         \x20 rest_url: {rest_url}\n\
         \x20 ws_url: {ws_url}\n\
         \x20 key_id: {key_id}\n\
         \x20 private_key_file: {key}\n\
         database:\n{database}\
         {admin}\
         journal: {{ dir: {journal} }}\n\
         sessions: {{ ticker: 2, trade: 2, lifecycle: 2, orderbook: {connections}, reconnect_max: 2s }}\n\
         audit: {{ period: 20s }}\n\
         storage: {{ engine: {engine} }}\n\
         {server}",
        id = quoted(id),
        rest_url = quoted(gatherer.rest_url),
        ws_url = quoted(gatherer.ws_url),
        key_id = quoted(gatherer.key_id),
        key = quoted_path(&key),
        database = database(dir, gatherer.cluster, "gatherer", 2)?,
        admin = admin(gatherer.cluster),
        journal = quoted_path(gatherer.journal),
        connections = gatherer.connections,
        engine = gatherer.cluster.engine(),
        server = server(gatherer.server),
    );
    let path = dir.join(format!("{id}.yaml"));
    private_file(&path, &text).with_context(|| format!("write the configuration of {id}"))?;
    Ok(path)
}

/// Writes `deduplicator-1.yaml` and gives its path.
///
/// # Errors
/// When the file cannot be written.
pub fn write_deduplicator(
    dir: &Path,
    id: &str,
    gatherers: &[(&str, &Cluster)],
    production: &Cluster,
    rest_url: &str,
    archive: Option<&Path>,
    at: Server,
) -> Result<PathBuf> {
    let mut text = format!("deduplicator_id: {}\ngatherers:\n", quoted(id));
    for (gatherer, cluster) in gatherers {
        // Writing to a string cannot fail.
        write!(
            text,
            "  - id: {}\n    database:\n{}",
            quoted(gatherer),
            database(dir, cluster, "dedup_reader", 6)?
        )?;
    }
    write!(
        text,
        "production:\n{}{}\
         api: {{ rest_url: {} }}\n\
         markets: {{ refresh_interval: 2s, full_interval: 1m }}\n\
         {}",
        database(dir, production, "deduplicator", 2)?,
        admin(production),
        quoted(rest_url),
        server(at)
    )?;
    if let Some(directory) = archive {
        // Often, so that a run of a minute has something to show.
        write!(
            text,
            "archive:\n  url: {}\n  max_age: 5s\n  database:\n{}",
            quoted(&format!("file://{}", directory.display())),
            database(dir, production, "exporter", 4)?
        )?;
    }
    let path = dir.join(format!("{id}.yaml"));
    private_file(&path, &text).with_context(|| format!("write the configuration of {id}"))?;
    Ok(path)
}

/// Whoever migrates comes over the private socket.
fn admin(cluster: &Cluster) -> String {
    let socket = quoted_path(cluster.socket_dir());
    format!("admin: {{ host: {socket}, user: {SUPERUSER} }}\n")
}

/// The password is where `kalshi rotate-password` can change it while the sandbox runs.
fn database(dir: &Path, cluster: &Cluster, user: &str, indent: usize) -> Result<String> {
    let secret = std::path::absolute(dir.join(format!("{}-{user}.secret", cluster.name)))?;
    private_file(&secret, &format!("{}\n", cluster.password()))
        .with_context(|| format!("write the password of {user}"))?;
    let indent = " ".repeat(indent);
    Ok(format!(
        "{indent}host: 127.0.0.1\n\
         {indent}port: {port}\n\
         {indent}database: {database}\n\
         {indent}user: {user}\n\
         {indent}password_secret: {secret}\n\
         {indent}sslmode: disable\n",
        port = cluster.port(),
        database = cluster.kind.database(),
        secret = quoted(&format!("file:{}", secret.display())),
    ))
}

fn server(at: Server) -> String {
    let (health, metrics) = (at.health, at.metrics);
    format!(
        "server: {{ health: \"{health}\", metrics: \"{metrics}\" }}\n\
         logging: {{ level: info, format: text }}\n"
    )
}

/// A JSON string is a YAML string, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_whatever_is_in_them() {
        assert_eq!(quoted("a: \"b\"\n#c"), r##""a: \"b\"\n#c""##);
    }

    #[test]
    fn a_server_is_yaml() {
        let address = "127.0.0.1:12345".parse().unwrap();
        let text = server(Server { health: address, metrics: address });
        let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(value.pointer("/server/health").unwrap(), "127.0.0.1:12345");
    }
}
