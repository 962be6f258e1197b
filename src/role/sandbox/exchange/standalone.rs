//! The exchange alone, for any client: says on its first line where it is and how to sign.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Config, Exchange, Key};

/// A directory of our own that goes when this is dropped.
struct PrivateDir(PathBuf);

impl PrivateDir {
    /// Makes it with a name that nobody can guess, readable by us alone.
    fn create() -> anyhow::Result<Self> {
        let name = format!("kalshi-exchange-{}", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    fn keep(&self, name: &str, key: &Key) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        write_private(&path, &key.private_key_pem)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "remove the directory of the keys");
        }
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Serves until `stop`. The first line on stdout is a JSON object with `rest_url`, `ws_url`,
/// `key_id`, `private_key_file` (the first account's) and `keys` with all of them. The flow begins
/// at once: a client that comes later gets the books as they are.
///
/// # Errors
/// When the exchange does not start, or the line cannot be written.
pub async fn run_standalone(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let exchange = Exchange::start(config, stop.clone()).await?;
    let folder = PrivateDir::create()?;
    let mut keys: Vec<Value> = Vec::new();
    for number in 0..exchange.keys() {
        let key = exchange.key(number);
        let file = folder.keep(&format!("key-{number}.pem"), &key)?;
        keys.push(json!({"key_id": key.id, "private_key_file": file}));
    }
    let first = keys.first().cloned().unwrap_or_default();
    let line = json!({
        "rest_url": exchange.rest_url(),
        "ws_url": exchange.ws_url(),
        "control_url": exchange.control_url(),
        "key_id": first.get("key_id"),
        "private_key_file": first.get("private_key_file"),
        "keys": keys,
    });
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("write the first line")?;
    }
    exchange.publish();
    stop.cancelled().await;
    exchange.stopped().await;
    Ok(())
}
