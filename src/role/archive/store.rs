//! Where the archive lies: a bucket of S3 or a directory, behind one handful of verbs.
//!
//! Whatever is written is written whole or not at all, and what a manifest will name is read back and
//! hashed first.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use tokio::io::AsyncWriteExt as _;

use super::http::Connector;
use crate::ops::backoff::Backoff;
use crate::ops::exit::UsageError;
use crate::ops::secret::Secret;

/// How often the creation of an object is tried before the whole span is.
const CREATE_ATTEMPTS: u32 = 6;
const CREATE_BACKOFF: Duration = Duration::from_millis(200);
/// How often an upload that came out damaged is done again at once.
const DAMAGED_MAX: u32 = 4;
/// Bytes of one request of a large upload.
const CHUNK_BYTES: usize = 16 * 1024 * 1024;
/// Requests of one large upload at a time: 64 MiB in memory.
const CHUNKS_AT_ONCE: usize = 4;
/// Between two pieces of an answer's body.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Where the archive lies.
#[derive(Debug, Clone)]
pub enum Place {
    Directory(PathBuf),
    Bucket(Bucket),
}

/// A bucket of S3, or of what speaks its protocol.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub name: String,
    /// Before every key, without slashes at its ends; may be empty.
    pub prefix: String,
    pub region: String,
    /// Another server than Amazon's.
    pub endpoint: Option<String>,
    /// Key id and secret; without them the machine's role is used.
    pub credentials: Option<(String, Secret)>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub path: String,
    pub bytes: u64,
}

/// What of a part was found when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was not there, or the same.
    Fresh,
    /// Another content is there under that name.
    Differs,
}

#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// What keys begin with, without slashes at its ends.
    prefix: String,
    /// The whole archive for people and engines, without a slash at its end.
    url: String,
}

impl Store {
    /// Makes the directory, where it is one, and removes what a process that was killed left there of files
    /// that it had not put into place yet: readers of a directory would take them for parts. For the
    /// archiver alone, since another's files may be on their way.
    ///
    /// # Errors
    /// `UsageError` when the directory cannot be used.
    pub fn prepare(place: &Place) -> anyhow::Result<()> {
        let Place::Directory(directory) = place else { return Ok(()) };
        let unusable = |error| UsageError(format!("archive {}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(unusable)?;
        sweep(&directory.join("v1")).context("remove torn files of the archive")
    }

    /// Opens it.
    ///
    /// # Errors
    /// `UsageError` when the place cannot be used at all. Whether a bucket answers is not asked.
    pub fn open(place: &Place) -> anyhow::Result<Self> {
        match place {
            Place::Directory(directory) => {
                let unusable = |error: &dyn std::fmt::Display| {
                    UsageError(format!("archive directory {}: {error}", directory.display()))
                };
                let objects = LocalFileSystem::new_with_prefix(directory)
                    .map_err(|error| unusable(&error))?;
                let directory = directory.canonicalize().map_err(|error| unusable(&error))?;
                let url = format!("file://{}", directory.display());
                Ok(Self { objects: Arc::new(objects.with_fsync(true)), prefix: String::new(), url })
            }
            Place::Bucket(bucket) => {
                let Bucket { name, prefix, region, endpoint, credentials } = bucket;
                let is_plain = endpoint.as_deref().is_some_and(|e| e.starts_with("http://"));
                let retry = RetryConfig {
                    backoff: BackoffConfig {
                        init_backoff: Duration::from_millis(200),
                        max_backoff: Duration::from_secs(5),
                        base: 2.0,
                    },
                    max_retries: 6,
                    retry_timeout: Duration::from_secs(60),
                };
                let mut builder = AmazonS3Builder::new()
                    .with_bucket_name(name)
                    .with_region(region)
                    // A body that was damaged on its way is refused by the server.
                    .with_checksum_algorithm(Checksum::SHA256)
                    .with_retry(retry)
                    .with_allow_http(is_plain)
                    .with_http_connector(Connector { is_plain });
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if let Some((id, secret)) = credentials {
                    builder =
                        builder.with_access_key_id(id).with_secret_access_key(secret.expose());
                }
                let objects =
                    builder.build().map_err(|error| UsageError(format!("archive.url: {error}")))?;
                let url = match prefix.as_str() {
                    "" => format!("s3://{name}"),
                    prefix => format!("s3://{name}/{prefix}"),
                };
                Ok(Self { objects: Arc::new(objects), prefix: prefix.clone(), url })
            }
        }
    }

    /// The address of an object, as engines take it.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    /// The address of the whole.
    pub fn root(&self) -> &str {
        &self.url
    }

    fn key(&self, path: &str) -> Path {
        if self.prefix.is_empty() {
            Path::from(path)
        } else {
            Path::from(format!("{}/{path}", self.prefix))
        }
    }

    /// The whole object; none when it is not there.
    pub async fn read(&self, path: &str) -> anyhow::Result<Option<Bytes>> {
        let found = match self.objects.get(&self.key(path)).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        };
        let bytes = tokio::time::timeout(SILENCE_MAX * 2, found.bytes()).await;
        let bytes = bytes.with_context(|| format!("read {path}: no end in time"))?;
        Ok(Some(bytes.with_context(|| format!("read {path}"))?))
    }

    /// Copies an object into a file and gives its length and hash; none when it is not there.
    pub async fn fetch(
        &self,
        path: &str,
        to: std::fs::File,
    ) -> anyhow::Result<Option<(u64, String)>> {
        let found = match self.objects.get(&self.key(path)).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        };
        let mut to = tokio::fs::File::from_std(to);
        let mut stream = found.into_stream();
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut length = 0;
        loop {
            let piece = tokio::time::timeout(SILENCE_MAX, stream.try_next()).await;
            let piece = piece.with_context(|| format!("read {path}: it fell silent"))?;
            let Some(piece) = piece.with_context(|| format!("read {path}"))? else { break };
            hash.update(&piece);
            length += u64::try_from(piece.len()).unwrap_or_default();
            to.write_all(&piece).await.context("write a temporary file")?;
        }
        to.flush().await.context("write a temporary file")?;
        Ok(Some((length, hex(hash.finish().as_ref()))))
    }

    /// Writes an object that is not there yet; false when it is. It may then be this very one, of an
    /// attempt whose answer was lost: the caller has to look.
    pub async fn create(&self, path: &str, bytes: impl Into<Bytes>) -> anyhow::Result<bool> {
        let payload = PutPayload::from(bytes.into());
        let mut backoff = Backoff::new(CREATE_BACKOFF, CREATE_BACKOFF * 16);
        let mut attempt = 1;
        loop {
            let options = PutOptions::from(PutMode::Create);
            match self.objects.put_opts(&self.key(path), payload.clone(), options).await {
                Ok(_) => return Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(false),
                // The library does not repeat what it takes for unrepeatable.
                Err(error) if attempt < CREATE_ATTEMPTS => {
                    tracing::debug!(path, %error, attempt, "could not create an object");
                }
                Err(error) => return Err(error).with_context(|| format!("create {path}")),
            }
            attempt += 1;
            backoff.wait().await;
        }
    }

    /// Writes an object, whatever was there.
    pub async fn replace(&self, path: &str, bytes: impl Into<Bytes>) -> anyhow::Result<()> {
        let payload = PutPayload::from(bytes.into());
        let put = self.objects.put(&self.key(path), payload).await;
        put.map(|_| ()).with_context(|| format!("write {path}"))
    }

    /// Writes an object that has one content by its name, and reads it back.
    ///
    /// # Errors
    /// Also when what is read back is not what was written, several times in a row.
    pub async fn write_once(&self, path: &str, bytes: &Bytes) -> anyhow::Result<Written> {
        if !self.create(path, bytes.clone()).await? {
            match self.read(path).await? {
                Some(found) if found == *bytes => return Ok(Written::Fresh),
                Some(_) => return Ok(Written::Differs),
                None => bail!("{path} was removed while it was written"),
            }
        }
        self.prove(path, bytes).await?;
        Ok(Written::Fresh)
    }

    /// Writes an object over what is there, and reads it back.
    pub async fn write_over(&self, path: &str, bytes: &Bytes) -> anyhow::Result<()> {
        self.replace(path, bytes.clone()).await?;
        self.prove(path, bytes).await
    }

    async fn prove(&self, path: &str, bytes: &Bytes) -> anyhow::Result<()> {
        for attempt in 1..=DAMAGED_MAX {
            if self.read(path).await?.as_ref() == Some(bytes) {
                return Ok(());
            }
            tracing::warn!(path, attempt, "an upload came out damaged, it is done again");
            self.replace(path, bytes.clone()).await?;
        }
        bail!("{path} comes out damaged each time it is written")
    }

    /// Uploads a file in pieces. Nothing is visible before the last of them.
    pub async fn upload(&self, path: &str, from: std::fs::File) -> anyhow::Result<()> {
        use tokio::io::AsyncReadExt as _;
        let upload = self.objects.put_multipart(&self.key(path)).await;
        let upload = upload.with_context(|| format!("begin upload of {path}"))?;
        let mut upload = object_store::WriteMultipart::new_with_chunk_size(upload, CHUNK_BYTES);
        let mut from = tokio::fs::File::from_std(from);
        let mut buffer = vec![0; 1024 * 1024];
        let sent = async {
            loop {
                let count = from.read(&mut buffer).await.context("read a temporary file")?;
                let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
                    return Ok::<_, anyhow::Error>(());
                };
                upload.wait_for_capacity(CHUNKS_AT_ONCE).await?;
                upload.write(piece);
                crate::ops::crash::point("archive.multipart");
            }
        }
        .await;
        if let Err(error) = sent {
            // What stays behind without it, the bucket's lifecycle removes.
            if let Err(failure) = upload.abort().await {
                tracing::debug!(path, error = %failure, "could not abort an upload");
            }
            return Err(error).with_context(|| format!("upload {path}"));
        }
        upload.finish().await.map(|_| ()).with_context(|| format!("end upload of {path}"))
    }

    /// Everything below a folder, in order of its path.
    pub async fn list(&self, folder: &str) -> anyhow::Result<Vec<Listed>> {
        let found = self.objects.list(Some(&self.key(folder)));
        let skip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let mut listed: Vec<Listed> = found
            .map_ok(|meta| Listed {
                path: meta.location.as_ref().get(skip..).unwrap_or_default().to_owned(),
                bytes: meta.size,
            })
            .try_collect()
            .await
            .with_context(|| format!("list {folder}"))?;
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listed)
    }
}

/// Removes files whose name says that they were to get another one when they are complete.
fn sweep(directory: &std::path::Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sweep(&entry.path())?;
        } else if entry.file_name().to_string_lossy().contains('#') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
