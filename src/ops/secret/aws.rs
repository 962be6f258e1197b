//! A secret in AWS Secrets Manager, through AWS' own SDK: region and credentials by its default chain,
//! the address of the service by `AWS_ENDPOINT_URL` or the profile where it is another.
//!
//! A version is asked for by its label, always: without one the service may answer with the version that
//! was current when it was last asked.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{Place, Secret, SecretError, Version, Versions};

const CURRENT: &str = "AWSCURRENT";
const PENDING: &str = "AWSPENDING";
const PREVIOUS: &str = "AWSPREVIOUS";

/// The member that says who logs in, as AWS' own rotations call it.
const USERNAME: &str = "username";

const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// One try; there are up to three, with a pause that grows.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(6);
const ATTEMPTS_MAX: u32 = 3;

/// A secret by name or ARN. Clones share the client.
#[derive(Clone)]
pub struct AwsSecret {
    name: String,
    key: Option<String>,
    client: Arc<OnceCell<Client>>,
}

impl fmt::Debug for AwsSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSecret").field("name", &self.name).field("key", &self.key).finish()
    }
}

/// A version as the service has it, with everything that the secret holds.
struct Raw {
    id: String,
    created_at: i64,
    text: Zeroizing<String>,
}

impl AwsSecret {
    pub fn new(name: String, key: Option<String>) -> Self {
        Self { name, key, client: Arc::default() }
    }

    pub async fn current(&self) -> Result<Option<Version>, SecretError> {
        self.version(CURRENT).await
    }

    pub async fn candidates(&self) -> Result<Versions, SecretError> {
        let (current, pending) = tokio::join!(self.version(CURRENT), self.version(PENDING));
        Ok(Versions { current: current?, pending: pending?, previous: None })
    }

    pub async fn versions(&self) -> Result<Versions, SecretError> {
        let (found, previous) = tokio::join!(self.candidates(), self.version(PREVIOUS));
        let versions = Versions { previous: previous?, ..found? };
        if versions.current.is_none() && versions.pending.is_none() {
            // No version, or no secret: the answer to the question for a version does not tell.
            let client = self.client().await;
            let asked = client.describe_secret().secret_id(&self.name).send();
            Box::pin(asked).await.map_err(|error| self.failure("look for", &error))?;
        }
        Ok(versions)
    }

    pub async fn put_pending(
        &self,
        value: &Secret,
        username: Option<&str>,
    ) -> Result<Version, SecretError> {
        let current = self.raw(CURRENT).await?;
        let text = self.compose(current.as_ref(), value, username)?;
        let client = self.client().await;
        // The SDK's own retries carry the same token, so no retry makes a second version.
        let id = Uuid::new_v4().to_string();
        let put = client
            .put_secret_value()
            .secret_id(&self.name)
            .client_request_token(&id)
            .secret_string(text.as_str())
            .version_stages(PENDING)
            .send();
        Box::pin(put).await.map_err(|error| self.failure("add a version to", &error))?;
        // As the service has it: its own clock made the time.
        let kept = self.version(PENDING).await?.filter(|version| version.id == id);
        kept.ok_or_else(|| self.lasting("did not keep the new version"))
    }

    pub async fn stage_previous(&self) -> Result<(), SecretError> {
        let previous = self.id(PREVIOUS).await?;
        let previous = previous.ok_or_else(|| self.lasting("has no previous version"))?;
        let pending = self.id(PENDING).await?;
        if pending.as_deref() == Some(previous.as_str()) {
            return Ok(());
        }
        self.move_label(PENDING, Some(&previous), pending.as_deref()).await
    }

    pub async fn promote(&self, pending: &Version) -> Result<(), SecretError> {
        if self.id(PENDING).await?.as_deref() != Some(pending.id.as_str()) {
            return Err(self.lasting("was changed by somebody else meanwhile"));
        }
        let current = self.id(CURRENT).await?;
        if current.as_deref() == Some(pending.id.as_str()) {
            return Ok(());
        }
        // The service moves the label of the previous version itself.
        self.move_label(CURRENT, Some(&pending.id), current.as_deref()).await
    }

    pub async fn settle(&self) -> Result<(), SecretError> {
        match self.id(PENDING).await? {
            None => Ok(()),
            Some(id) => self.move_label(PENDING, None, Some(&id)).await,
        }
    }

    async fn move_label(
        &self,
        label: &str,
        to: Option<&str>,
        from: Option<&str>,
    ) -> Result<(), SecretError> {
        let client = self.client().await;
        let moved = client
            .update_secret_version_stage()
            .secret_id(&self.name)
            .version_stage(label)
            .set_move_to_version_id(to.map(str::to_owned))
            .set_remove_from_version_id(from.map(str::to_owned))
            .send();
        let moved = Box::pin(moved).await;
        moved.map(drop).map_err(|error| self.failure("move a label of", &error))
    }

    async fn id(&self, label: &str) -> Result<Option<String>, SecretError> {
        Ok(self.raw(label).await?.map(|raw| raw.id))
    }

    async fn version(&self, label: &str) -> Result<Option<Version>, SecretError> {
        let Some(raw) = self.raw(label).await? else { return Ok(None) };
        let (value, username) = self.take_apart(&raw)?;
        Ok(Some(Version { id: raw.id, created_at: raw.created_at, username, value }))
    }

    async fn raw(&self, label: &str) -> Result<Option<Raw>, SecretError> {
        let client = self.client().await;
        let asked = client.get_secret_value().secret_id(&self.name).version_stage(label).send();
        let answer = match Box::pin(asked).await {
            Ok(answer) => answer,
            Err(SdkError::ServiceError(error)) if error.err().is_resource_not_found_exception() => {
                return Ok(None);
            }
            Err(error) => return Err(self.failure("read", &error)),
        };
        let id = answer.version_id.unwrap_or_default();
        let created_at = answer.created_date.map_or(0, |at| {
            let micros = at.as_nanos() / 1000;
            i64::try_from(micros).unwrap_or_default()
        });
        let text = answer.secret_string.map(Zeroizing::new);
        let text = text.ok_or_else(|| self.lasting("holds bytes, not a text"))?;
        Ok(Some(Raw { id, created_at, text }))
    }

    /// The secret's value, and who logs in with it if that stands beside it.
    fn take_apart(&self, raw: &Raw) -> Result<(Secret, Option<String>), SecretError> {
        let Some(key) = &self.key else {
            if raw.text.trim_start().starts_with('{') && self.object(&raw.text).is_ok() {
                let clause = "holds a JSON object: say which of its members, as #password";
                return Err(self.lasting(clause));
            }
            return Ok((Secret::new(super::file::without_line_end(&raw.text)), None));
        };
        let mut object = self.object(&raw.text)?;
        let username = match object.remove(USERNAME) {
            Some(Value::String(name)) => Some(name),
            _ => None,
        };
        match object.remove(key) {
            Some(Value::String(value)) => Ok((Secret::new(value), username)),
            Some(_) => Err(self.lasting(format!("holds something else than a text as {key:?}"))),
            None => Err(self.lasting(format!("holds no {key:?}"))),
        }
    }

    /// What a new version holds: everything that the current one does, but for the value.
    fn compose(
        &self,
        current: Option<&Raw>,
        value: &Secret,
        username: Option<&str>,
    ) -> Result<Zeroizing<String>, SecretError> {
        let Some(key) = &self.key else {
            if username.is_some() {
                let clause =
                    "has no place for a user's name: use a JSON object, as aws:NAME#password";
                return Err(self.lasting(clause));
            }
            return Ok(Zeroizing::new(value.expose().to_owned()));
        };
        let mut object = current.map_or(Ok(Map::new()), |raw| self.object(&raw.text))?;
        object.insert(key.clone(), Value::String(value.expose().to_owned()));
        if let Some(username) = username {
            object.insert(USERNAME.to_owned(), Value::String(username.to_owned()));
        }
        Ok(Zeroizing::new(Value::Object(object).to_string()))
    }

    /// The parser's own words may quote what it found, so they are not repeated.
    fn object(&self, text: &str) -> Result<Map<String, Value>, SecretError> {
        serde_json::from_str(text).map_err(|_quoting| self.lasting("does not hold a JSON object"))
    }

    fn lasting(&self, clause: impl fmt::Display) -> SecretError {
        SecretError::lasting(format!("{} {clause}", self.place()))
    }

    fn place(&self) -> Place {
        Place::Aws { name: self.name.clone(), key: self.key.clone() }
    }

    /// What went wrong, in the service's words where it answered. The SDK's own account of an error can
    /// hold the whole answer, so only the causes' plain texts are repeated.
    fn failure<E>(&self, what: &str, error: &SdkError<E>) -> SecretError
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let place = self.place();
        if let SdkError::ServiceError(answer) = error {
            let code = answer.err().code().unwrap_or("an unknown error");
            let said = answer.err().message().unwrap_or("no reason given");
            let reason = format!("{what} {place}: {said} ({code})");
            let is_passing = answer.raw().status().as_u16() >= 500
                || ["ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"]
                    .contains(&code);
            return SecretError { is_passing, reason };
        }
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            source = cause.source();
        }
        let causes = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
        let hint = match error {
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
                " (AWS' region and credentials come from the environment, the profile or the machine's role)"
            }
            _ => "",
        };
        SecretError::passing(format!(
            "{what} {place}: Secrets Manager gave no answer: {causes}{hint}"
        ))
    }

    async fn client(&self) -> &Client {
        self.client
            .get_or_init(|| async {
                let http = aws_smithy_http_client::Builder::new()
                    .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
                    .build_https();
                let timeouts = TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .operation_timeout(OPERATION_TIMEOUT)
                    .build();
                let mut loader = aws_config::defaults(BehaviorVersion::latest())
                    .http_client(http)
                    .timeout_config(timeouts)
                    .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX));
                if let Some(region) = region_of(&self.name) {
                    loader = loader.region(Region::new(region.to_owned()));
                }
                Client::new(&Box::pin(loader.load()).await)
            })
            .await
    }
}

/// An ARN says its region: `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`.
fn region_of(name: &str) -> Option<&str> {
    let mut parts = name.split(':');
    let is_arn = parts.next() == Some("arn") && parts.nth(1) == Some("secretsmanager");
    parts.next().filter(|region| is_arn && !region.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Raw {
        Raw { id: "1".into(), created_at: 0, text: Zeroizing::new(text.to_owned()) }
    }

    fn secret(key: Option<&str>) -> AwsSecret {
        AwsSecret::new("kalshi/x".into(), key.map(str::to_owned))
    }

    #[test]
    fn a_value_is_the_whole_text_or_a_member_and_the_rest_stays() {
        let (value, username) = secret(None).take_apart(&raw("pw\n")).unwrap();
        assert_eq!((value.expose(), username), ("pw", None));
        let object = r#"{"username":"u","password":"pw","port":5432}"#;
        let (value, username) = secret(Some("password")).take_apart(&raw(object)).unwrap();
        assert_eq!((value.expose(), username.as_deref()), ("pw", Some("u")));
        let new = secret(Some("password"))
            .compose(Some(&raw(object)), &Secret::new("new"), Some("v"))
            .unwrap();
        let new: Value = serde_json::from_str(&new).unwrap();
        assert_eq!(new, serde_json::json!({"username": "v", "password": "new", "port": 5432}));
        let first = secret(Some("password")).compose(None, &Secret::new("new"), None).unwrap();
        assert_eq!(first.as_str(), r#"{"password":"new"}"#);
    }

    #[test]
    fn what_does_not_fit_is_said_without_what_it_holds() {
        for (key, text) in [
            (None, r#"{"password":"canary-4"}"#),
            (Some("password"), "canary-4"),
            (Some("password"), r#"{"other":"canary-4"}"#),
            (Some("password"), r#"{"password":["canary-4"]}"#),
        ] {
            let error = secret(key).take_apart(&raw(text)).map(|_| ()).unwrap_err();
            assert!(!format!("{error}{error:?}").contains("canary"), "{error}");
            assert!(error.to_string().starts_with("aws:kalshi/x"), "{error}");
        }
        assert!(secret(None).compose(None, &Secret::new("x"), Some("u")).is_err());
    }

    #[test]
    fn an_arn_says_its_region() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:kalshi/db-AbCdEf";
        assert_eq!(region_of(arn), Some("eu-west-1"));
        assert_eq!(region_of("kalshi/db"), None);
    }
}
