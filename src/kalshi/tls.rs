//! TLS towards the exchange: rustls with the machine's own root certificates.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ClientConfig, RootCertStore};

/// Why no TLS configuration could be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError(String);

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// The configuration that all connections of the process share: reading some hundred certificates
/// once a connection would cost more than the handshake.
///
/// # Errors
/// When the machine has no root certificates. It is not remembered, so that installing them helps.
pub fn client_config() -> Result<Arc<ClientConfig>, TlsError> {
    static SHARED: Mutex<Option<Arc<ClientConfig>>> = Mutex::new(None);
    // A poisoned lock only means that another thread failed to build; building again is right.
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = shared.as_ref() {
        return Ok(Arc::clone(config));
    }
    let config = Arc::new(build()?);
    *shared = Some(Arc::clone(&config));
    Ok(config)
}

fn build() -> Result<ClientConfig, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let detail = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(TlsError(format!(
            "no root certificates on this machine (Debian: install ca-certificates){detail}"
        )));
    }
    with_roots(roots)
}

/// Trusts nobody: for clients that speak plain text to this machine, on one without certificates.
///
/// # Errors
/// When the provider supports no version of TLS.
pub fn without_roots() -> Result<ClientConfig, TlsError> {
    with_roots(RootCertStore::empty())
}

/// Trusts these authorities and no others.
///
/// # Errors
/// When the provider supports no version of TLS.
pub fn with_roots(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(format!("no usable TLS version: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
