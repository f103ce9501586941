use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::ConfigError;

/// What TLS trusts, and how it proves who it is. Cargo feature `tls`.
///
/// The default trusts what the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are respected) and shows no certificate.
/// Files are in PEM form and read with every new connection, so that renewed certificates are used.
///
/// ```
/// use resp::{Config, TlsConfig};
///
/// let tls = TlsConfig::default().ca("/etc/redis/ca.pem").certificate("/etc/me.pem").key("/etc/me.key");
/// let config = Config::from_url("rediss://redis.example:6380")?.tls(tls);
/// # Ok::<(), resp::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    server_name: Option<String>,
}

impl TlsConfig {
    /// Trusts the certificates in this file, and no others.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Shows this certificate (and the chain behind it in the file) to the server. Needs a [`key`](Self::key).
    #[must_use]
    pub fn certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.certificate = Some(file.into());
        self
    }

    /// The private key of the [`certificate`](Self::certificate).
    #[must_use]
    pub fn key(mut self, file: impl Into<PathBuf>) -> Self {
        self.key = Some(file.into());
        self
    }

    /// The name that the server's certificate must have, when it is not the host that is connected to.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Looks whether the files are there and can be used, as connecting does.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and why.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.build().map(drop)
    }

    /// The name to check the server's certificate against.
    pub(crate) fn name(&self, host: &str) -> Result<ServerName<'static>, ConfigError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned()).map_err(|_| ConfigError::Tls(format!("{name:?} is no server name")))
    }

    /// Reads the files.
    pub(crate) fn build(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        let wrong = |what: String| ConfigError::Tls(what);
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(self.roots()?);
        let config = match (&self.certificate, &self.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(file), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
                config
                    .with_client_auth_cert(certificates(file)?, private)
                    .map_err(|error| wrong(format!("{} with {}: {error}", file.display(), key.display())))?
            }
            _ => return Err(wrong("a client certificate and its key are given together".to_owned())),
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(file) => {
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|error| ConfigError::Tls(format!("{}: {error}", file.display())))?;
                }
            }
            None => {
                let system = rustls_native_certs::load_native_certs();
                // Some of the system's certificates may be of a kind that rustls does not know.
                roots.add_parsable_certificates(system.certs);
                if roots.is_empty() {
                    let why = system.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
                    return Err(ConfigError::Tls(format!("the system has no trusted certificates{why}")));
                }
            }
        }
        Ok(roots)
    }
}

/// All certificates of a file, of which there must be at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(file, &error))?;
    if certificates.is_empty() {
        return Err(ConfigError::Tls(format!("{} holds no certificate", file.display())));
    }
    Ok(certificates)
}

fn unreadable(file: &Path, error: &pem::Error) -> ConfigError {
    ConfigError::Tls(format!("{}: {error}", file.display()))
}
