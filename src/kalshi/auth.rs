//! Credentials of the exchange's API: a key id and the private key that signs each request.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{self, PemObject};

/// The names of the three headers, in lower case as HTTP libraries want them.
pub const KEY_HEADER: &str = "kalshi-access-key";
pub const TIMESTAMP_HEADER: &str = "kalshi-access-timestamp";
pub const SIGNATURE_HEADER: &str = "kalshi-access-signature";

/// A key id with its private key. `Debug` shows the id and the kind of key, never the key.
pub struct Credentials {
    key_id: String,
    key: Key,
}

/// The credentials in force, which a running process may replace: everybody who shares it signs with
/// the new ones from then on.
#[derive(Debug, Clone)]
pub struct Signer(Arc<RwLock<Arc<Credentials>>>);

impl Signer {
    pub fn new(credentials: Credentials) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(credentials))))
    }

    /// What the next request is signed with.
    pub fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over the credentials of another one. Returns whether they differ from what it had.
    pub fn replace(&self, other: &Self) -> bool {
        let new = other.current();
        let differs = !self.current().is_same(&new);
        if differs {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
        differs
    }
}

enum Key {
    /// Signs with RSA-PSS, SHA-256, MGF1-SHA-256 and a salt as long as the digest (32 bytes).
    Rsa(RsaKeyPair),
    /// Plain Ed25519, which the exchange's own client accepts too.
    Ed25519(Ed25519KeyPair),
}

/// Why a private key cannot be used. No variant holds any part of the key.
#[derive(Debug)]
pub enum CredentialsError {
    /// The key id is empty or cannot stand in a header.
    KeyId,
    /// The text is not PEM, or holds no private key.
    Pem(pem::Error),
    /// A private key of a kind or size that the exchange does not take.
    Unsupported(&'static str),
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyId => f.write_str("the key id is empty or not printable ASCII"),
            Self::Pem(pem::Error::NoItemsFound) => f.write_str(
                "no private key in the PEM text (expected BEGIN RSA PRIVATE KEY or BEGIN PRIVATE KEY)",
            ),
            Self::Pem(error) => write!(f, "the private key is not PEM: {error}"),
            Self::Unsupported(why) => write!(f, "the private key cannot be used: {why}"),
        }
    }
}

impl std::error::Error for CredentialsError {}

/// Signing failed: the operating system gave no randomness, or the key is unusable.
#[derive(Debug)]
pub struct SignError;

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request could not be signed with the private key")
    }
}

impl std::error::Error for SignError {}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.key {
            Key::Rsa(_) => "rsa",
            Key::Ed25519(_) => "ed25519",
        };
        f.debug_struct("Credentials")
            .field("key_id", &self.key_id)
            .field("key", &format_args!("[redacted {kind}]"))
            .finish()
    }
}

impl Credentials {
    /// Reads the first private key of a PEM text: RSA as PKCS#1 or PKCS#8, or Ed25519 as PKCS#8.
    ///
    /// # Errors
    /// When the id cannot be sent, the text holds no such key, or the key is encrypted, of another
    /// kind, or smaller than 2048 bits.
    pub fn from_pem(key_id: impl Into<String>, pem: &[u8]) -> Result<Self, CredentialsError> {
        let key_id = key_id.into();
        if key_id.is_empty() || !key_id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(CredentialsError::KeyId);
        }
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(CredentialsError::Pem)?;
        let key = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .map(Key::Rsa)
                .map_err(|_rejected| CredentialsError::Unsupported("not a valid RSA key")),
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                RsaKeyPair::from_pkcs8(der)
                    .map(Key::Rsa)
                    .or_else(|_rejected| Ed25519KeyPair::from_pkcs8(der).map(Key::Ed25519))
                    .map_err(|_rejected| {
                        CredentialsError::Unsupported("neither a valid RSA nor an Ed25519 key")
                    })
            }
            _ => Err(CredentialsError::Unsupported("an elliptic curve key (SEC1)")),
        }?;
        if let Key::Rsa(pair) = &key
            && pair.public_modulus_len() < RSA_MODULUS_BYTES_MIN
        {
            return Err(CredentialsError::Unsupported("an RSA key of less than 2048 bits"));
        }
        Ok(Self { key_id, key })
    }

    /// The id that the exchange knows this key by.
    #[cfg(test)]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Whether both are the same id with the same key.
    fn is_same(&self, other: &Self) -> bool {
        self.key_id == other.key_id && self.public_key() == other.public_key()
    }

    /// The three headers that prove who sends a request.
    ///
    /// `path` is the full path without the query (`/trade-api/v2/markets`), `now_ms` Unix
    /// milliseconds. Each signature is fresh: PSS is randomised, and the exchange refuses old times.
    ///
    /// # Errors
    /// When the system's randomness fails.
    pub fn headers(
        &self,
        method: &str,
        path: &str,
        now_ms: i64,
    ) -> Result<[(&'static str, String); 3], SignError> {
        let timestamp = now_ms.to_string();
        let message = format!("{timestamp}{method}{path}");
        let signature = self.sign(message.as_bytes())?;
        Ok([
            (KEY_HEADER, self.key_id.clone()),
            (TIMESTAMP_HEADER, timestamp),
            (SIGNATURE_HEADER, STANDARD.encode(signature)),
        ])
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.key {
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature)
                    .map_err(|_unspecified| SignError)?;
                Ok(signature)
            }
            Key::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// The public half: PKCS#1 DER of an RSA key, or the 32 bytes of an Ed25519 key.
    pub fn public_key(&self) -> &[u8] {
        match &self.key {
            Key::Rsa(pair) => <RsaKeyPair as KeyPair>::public_key(pair).as_ref(),
            Key::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }
}

/// 2048 bits. The library verifies nothing smaller with PSS, and the exchange issues nothing smaller.
const RSA_MODULUS_BYTES_MIN: usize = 256;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::{ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;
    use crate::kalshi::testing::{pem, rsa_pem};

    const MESSAGE: &str = "1785901540722GET/trade-api/v2/markets";

    fn signature(credentials: &Credentials) -> Vec<u8> {
        let headers =
            credentials.headers("GET", "/trade-api/v2/markets", 1_785_901_540_722).unwrap();
        let [(KEY_HEADER, id), (TIMESTAMP_HEADER, at), (SIGNATURE_HEADER, signature)] = headers
        else {
            panic!("three headers in this order")
        };
        assert_eq!((id.as_str(), at.as_str()), ("key-1", "1785901540722"));
        STANDARD.decode(signature).unwrap()
    }

    fn openssl(arguments: &[&str], dir: &Path) -> Option<String> {
        let output = Command::new("openssl").args(arguments).current_dir(dir).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        Some(text)
    }

    #[test]
    fn rsa_signatures_verify_and_no_two_are_equal() {
        let credentials = Credentials::from_pem("key-1", rsa_pem().as_bytes()).unwrap();
        let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, credentials.public_key());
        let (one, two) = (signature(&credentials), signature(&credentials));
        public.verify(MESSAGE.as_bytes(), &one).unwrap();
        public.verify(MESSAGE.as_bytes(), &two).unwrap();
        assert_ne!(one, two);
        assert!(public.verify(b"another message", &one).is_err());
    }

    #[test]
    fn ed25519_signatures_verify() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&pair).unwrap();
        let credentials =
            Credentials::from_pem("key-1", pem("PRIVATE KEY", der.as_ref()).as_bytes()).unwrap();
        UnparsedPublicKey::new(&ED25519, credentials.public_key())
            .verify(MESSAGE.as_bytes(), &signature(&credentials))
            .unwrap();
    }

    #[test]
    fn openssl_makes_keys_that_load_and_accepts_our_signatures() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        if openssl(&["version"], dir).is_none() {
            eprintln!("SKIPPED: no openssl on this machine");
            return;
        }
        std::fs::write(dir.join("message"), MESSAGE).unwrap();
        openssl(&["genrsa", "-out", "pkcs8.pem", "2048"], dir);
        openssl(&["rsa", "-in", "pkcs8.pem", "-traditional", "-out", "pkcs1.pem"], dir);
        openssl(&["rsa", "-in", "pkcs8.pem", "-pubout", "-out", "public.pem"], dir);
        for (file, label) in
            [("pkcs8.pem", "BEGIN PRIVATE KEY"), ("pkcs1.pem", "BEGIN RSA PRIVATE")]
        {
            let text = std::fs::read_to_string(dir.join(file)).unwrap();
            assert!(text.contains(label), "{file}");
            let credentials = Credentials::from_pem("key-1", text.as_bytes()).unwrap();
            std::fs::write(dir.join("signature"), signature(&credentials)).unwrap();
            let verify = "dgst -sha256 -verify public.pem -sigopt rsa_padding_mode:pss -sigopt \
                          rsa_pss_saltlen:32 -sigopt rsa_mgf1_md:sha256 -signature signature message";
            let arguments: Vec<&str> = verify.split_whitespace().collect();
            assert_eq!(openssl(&arguments, dir).unwrap().trim(), "Verified OK");
        }
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", "ed.pem"], dir);
        openssl(&["pkey", "-in", "ed.pem", "-pubout", "-out", "ed-public.pem"], dir);
        let text = std::fs::read_to_string(dir.join("ed.pem")).unwrap();
        let credentials = Credentials::from_pem("key-1", text.as_bytes()).unwrap();
        std::fs::write(dir.join("signature"), signature(&credentials)).unwrap();
        let verify =
            "pkeyutl -verify -pubin -inkey ed-public.pem -rawin -in message -sigfile signature";
        let arguments: Vec<&str> = verify.split_whitespace().collect();
        assert!(openssl(&arguments, dir).unwrap().contains("Verified Successfully"));
        // Kinds and sizes that the exchange does not take.
        openssl(&["genrsa", "-out", "small.pem", "1024"], dir);
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-out", "ec.pem"], dir);
        for file in ["small.pem", "ec.pem", "public.pem"] {
            let text = std::fs::read_to_string(dir.join(file)).unwrap();
            assert!(Credentials::from_pem("key-1", text.as_bytes()).is_err(), "{file}");
        }
    }

    #[test]
    fn what_is_no_key_is_said_without_showing_it() {
        let inside = "MIIBVgIBADANBgkqhkiG9w0BAQEFAASCAUAw";
        let broken = format!("-----BEGIN PRIVATE KEY-----\n{inside}\n-----END PRIVATE KEY-----\n");
        for text in ["", "hello", broken.as_str()] {
            let error = Credentials::from_pem("key-1", text.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains(inside) && !format!("{error:?}").contains(inside));
        }
        for id in ["", "a b", "a\nb"] {
            let error = Credentials::from_pem(id, rsa_pem().as_bytes()).unwrap_err();
            assert!(matches!(error, CredentialsError::KeyId));
        }
        let shown = format!("{:?}", Credentials::from_pem("key-1", rsa_pem().as_bytes()).unwrap());
        assert_eq!(shown, r#"Credentials { key_id: "key-1", key: [redacted rsa] }"#);
    }
}
