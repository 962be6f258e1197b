//! TLS to the database: libpq's `sslmode`s as rustls configurations.
//!
//! The driver knows only disable, prefer and require, so verification happens here and the driver is
//! handed the mode that says whether plain text is acceptable. Only `prefer` accepts it.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres::config::SslMode;

use super::error::Class;

/// How much of the connection's privacy and of the server's identity is required, as libpq names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsMode {
    /// Plain text.
    Disable,
    /// TLS when the server offers it, unverified; plain text when it does not.
    #[default]
    Prefer,
    /// TLS or nothing; unverified unless a root certificate is given, then as `VerifyCa`.
    Require,
    /// The certificate must come from a given authority; any name will do.
    VerifyCa,
    /// The certificate must come from a trusted authority and be made for the host.
    VerifyFull,
}

impl TlsMode {
    /// The mode that a `sslmode` names, as libpq spells it.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// libpq's spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// What the driver has to know: whether to ask for TLS, and whether "no" is an answer.
    pub(super) fn ssl_mode(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a TLS configuration cannot be made.
#[derive(Debug)]
pub enum TlsError {
    /// The root certificate file cannot be read.
    Read { path: PathBuf, reason: String },
    /// The file holds no certificate that can be trusted as an authority.
    NoCertificate { path: PathBuf, reason: String },
    /// `verify-ca` without a root certificate: any certificate of any public authority would do.
    RootNeeded,
    /// The system has no trusted authorities.
    NoSystemRoots(String),
    /// rustls refused the configuration.
    Rustls(rustls::Error),
}

impl TlsError {
    /// Files can be put in place or repaired while we wait; settings cannot.
    pub fn class(&self) -> Class {
        match self {
            Self::Read { .. } | Self::NoCertificate { .. } | Self::NoSystemRoots(_) => Class::Retry,
            Self::RootNeeded | Self::Rustls(_) => Class::Fatal,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, reason } => {
                write!(f, "read root certificate {}: {reason}", path.display())
            }
            Self::NoCertificate { path, reason } => {
                write!(f, "no usable certificate in {}: {reason}", path.display())
            }
            Self::RootNeeded => f.write_str("sslmode verify-ca needs sslrootcert"),
            Self::NoSystemRoots(reason) => write!(
                f,
                "no trusted authorities on this system ({reason}): set sslrootcert or install ca-certificates"
            ),
            Self::Rustls(error) => write!(f, "configure TLS: {error}"),
        }
    }
}

impl StdError for TlsError {}

/// The rustls configuration of a mode other than `Disable`.
pub(super) async fn client_config(
    mode: TlsMode,
    root_cert: Option<&Path>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?;
    let verifier = match (mode, root_cert) {
        (TlsMode::VerifyFull, root) => {
            let roots = match root {
                Some(path) => roots_from_file(path).await?,
                None => system_roots().await?,
            };
            return Ok(builder.with_root_certificates(roots).with_no_client_auth());
        }
        (TlsMode::VerifyCa, None) => return Err(TlsError::RootNeeded),
        // libpq does the same: whoever gives an authority means it to be checked.
        (TlsMode::VerifyCa | TlsMode::Require, Some(path)) => {
            ChainVerifier { roots: Some(roots_from_file(path).await?), provider }
        }
        (TlsMode::Require | TlsMode::Prefer | TlsMode::Disable, _) => {
            ChainVerifier { roots: None, provider }
        }
    };
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// What a failed handshake means, in plain words, where rustls' own say less.
pub(super) fn advice(cause: &(dyn StdError + 'static)) -> Option<&'static str> {
    // An I/O error is not its content's parent: what it carries is asked for by another way.
    let carried = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let found = carried
        .and_then(|carried| carried.downcast_ref::<rustls::Error>())
        .or_else(|| cause.downcast_ref::<rustls::Error>());
    let Some(error) = found else {
        let plain = cause.to_string() == "server does not support TLS";
        return plain.then_some("plain text is refused by sslmode: set `ssl = on` in the server");
    };
    Some(match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no trusted authority issued the server's certificate: sslrootcert is another's, or the \
             server does not send the certificates between"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the certificate is another host's",
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "renew the server's certificate, or correct this machine's clock",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "correct this machine's clock, or the server's certificate",
        rustls::Error::InvalidMessage(_) => "what answers does not speak TLS",
        // Its name is webpki's, behind two layers without a type of their own.
        error if error.to_string().contains("CaUsedAsEndEntity") => {
            "the server shows an authority's own certificate: it needs one of its own, with CA:FALSE"
        }
        _ => return None,
    })
}

async fn roots_from_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let pem = tokio::fs::read(path)
        .await
        .map_err(|error| TlsError::Read { path: path.into(), reason: error.to_string() })?;
    let unusable = |reason: String| TlsError::NoCertificate { path: path.into(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("the file has no CERTIFICATE block".into()));
    }
    Ok(roots)
}

async fn system_roots() -> Result<RootCertStore, TlsError> {
    // A hundred and fifty files or one large one: not for a thread that runs other tasks.
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| TlsError::NoSystemRoots(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let reason = loaded.errors.first().map_or("none found".into(), ToString::to_string);
        return Err(TlsError::NoSystemRoots(reason));
    }
    Ok(roots)
}

/// Checks the handshake's signatures always, the chain when there are roots, the name never: what
/// `prefer`, `require` and `verify-ca` promise.
#[derive(Debug)]
struct ChainVerifier {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
