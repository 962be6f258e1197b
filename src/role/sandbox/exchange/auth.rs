//! Keys of the simulated exchange's accounts, and the check of signed requests: RSA-PSS with
//! SHA-256 and a salt of 32 bytes over timestamp + METHOD + path.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, anyhow};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;

use super::rest::TokenBucket;

/// How far a request's timestamp may be from the exchange's clock, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: i64 = 5_000;

/// The name and the secret of an account, for whoever is to use it.
#[derive(Clone)]
pub struct Key {
    /// `KALSHI-ACCESS-KEY`.
    pub id: String,
    /// PKCS#8.
    pub private_key_pem: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Misbehaviour on demand towards one key's connections.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Gate {
    /// Handshakes are refused until then, with this HTTP status.
    pub refused_until: Option<Instant>,
    pub refused_with: u16,
    /// Pings are not answered until then.
    pub mute_until: Option<Instant>,
    /// Nothing at all is written until then.
    pub frozen_until: Option<Instant>,
}

impl Gate {
    /// Refuses handshakes until then.
    pub fn refuse(&mut self, status: u16, until: Option<Instant>) {
        (self.refused_with, self.refused_until) = (status, until);
    }

    /// Whether the account's sockets get what is sent to them.
    pub fn is_silent(&self) -> bool {
        is_ahead(self.frozen_until)
    }
}

/// Whether a moment given for the end of something lies ahead.
pub(super) fn is_ahead(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

/// One account.
pub(super) struct Account {
    pub key: Key,
    /// The public key, as RFC 8017 encodes it.
    public: Vec<u8>,
    gate: Mutex<Gate>,
    pub reads: Mutex<TokenBucket>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Account {
    /// Makes an account with a new key pair; its id follows from the generator, so that a run from
    /// the same seed has the same ids.
    pub fn generate(rng: &mut fastrand::Rng) -> anyhow::Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048)
            .map_err(|_| anyhow!("the RSA generator failed"))
            .context("generate a key pair")?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)
            .map_err(|_| anyhow!("the key has no PKCS#8 form"))
            .context("encode a private key")?;
        let bytes = rng.u128(..).to_be_bytes();
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid().to_string();
        let private_key_pem = pem("PRIVATE KEY", der.as_ref());
        Ok(Self {
            key: Key { id, private_key_pem },
            public: pair.public_key().as_ref().to_vec(),
            gate: Mutex::default(),
            reads: Mutex::default(),
        })
    }

    pub fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A PEM block with lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// A request without a valid signature. The exchange says the same whatever is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// Whether a request claims to be signed at all.
pub(super) fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key("kalshi-access-key")
}

/// Which account signed a request.
///
/// # Errors
/// When a header is missing, the key is unknown, the clock is off by more than
/// [`CLOCK_SKEW_MS_MAX`], or the signature does not fit.
pub(super) fn verify(
    accounts: &[Account],
    headers: &HeaderMap,
    method: &str,
    path: &str,
    now_ms: i64,
) -> Result<usize, Refused> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).ok_or(Refused);
    let key_id = header("kalshi-access-key")?;
    let timestamp = header("kalshi-access-timestamp")?;
    let signature = header("kalshi-access-signature")?;
    let sent_ms: i64 = timestamp.parse().map_err(|_| Refused)?;
    if now_ms.abs_diff(sent_ms) > CLOCK_SKEW_MS_MAX.unsigned_abs() {
        return Err(Refused);
    }
    let at = accounts.iter().position(|account| account.key.id == key_id).ok_or(Refused)?;
    let account = accounts.get(at).ok_or(Refused)?;
    let signature = STANDARD.decode(signature).map_err(|_| Refused)?;
    let message = format!("{timestamp}{method}{path}");
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &account.public)
        .verify(message.as_bytes(), &signature)
        .map_err(|_| Refused)?;
    Ok(at)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::RSA_PSS_SHA256;

    /// The three headers of a signed request, made from the PEM that a client gets.
    pub fn sign(key: &Key, timestamp_ms: i64, method: &str, path: &str) -> HeaderMap {
        let body: String =
            key.private_key_pem.lines().filter(|line| !line.starts_with('-')).collect();
        let pair = KeyPair::from_pkcs8(&STANDARD.decode(body).unwrap()).unwrap();
        let message = format!("{timestamp_ms}{method}{path}");
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("kalshi-access-key", key.id.parse().unwrap());
        headers.insert("kalshi-access-timestamp", timestamp_ms.to_string().parse().unwrap());
        headers.insert("kalshi-access-signature", STANDARD.encode(signature).parse().unwrap());
        headers
    }

    #[test]
    fn a_signature_counts_for_its_key_time_method_and_path_only() {
        let mut rng = fastrand::Rng::with_seed(7);
        let accounts: Vec<_> = (0..2).map(|_| Account::generate(&mut rng).unwrap()).collect();
        let now = 1_785_901_540_722;
        let path = "/trade-api/ws/v2";
        for (at, account) in accounts.iter().enumerate() {
            let headers = sign(&account.key, now, "GET", path);
            assert_eq!(verify(&accounts, &headers, "GET", path, now + 4_999), Ok(at));
            assert_eq!(verify(&accounts, &headers, "GET", path, now + 5_001), Err(Refused));
            assert_eq!(verify(&accounts, &headers, "GET", path, now - 5_001), Err(Refused));
            assert_eq!(verify(&accounts, &headers, "POST", path, now), Err(Refused));
            assert_eq!(verify(&accounts, &headers, "GET", "/other", now), Err(Refused));
        }
        let mut stolen = sign(&accounts[0].key, now, "GET", path);
        stolen.insert("kalshi-access-key", accounts[1].key.id.parse().unwrap());
        assert_eq!(verify(&accounts, &stolen, "GET", path, now), Err(Refused));
        assert_eq!(verify(&accounts, &HeaderMap::new(), "GET", path, now), Err(Refused));
        assert!(!format!("{accounts:?}").contains("PRIVATE"));
    }
}
