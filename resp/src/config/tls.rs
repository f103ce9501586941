//! TLS settings: trusted certificates and the client certificate. The transport layer reads the
//! files when it connects.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::ConfigError;

/// What TLS trusts, and the client certificate. Cargo feature `tls`.
///
/// By default, TLS trusts the system's certificates (including `SSL_CERT_FILE` and `SSL_CERT_DIR`),
/// and sends no client certificate. Files are in PEM format. Every new connection reads them again,
/// so renewed certificates take effect.
///
/// ```
/// use resp::{Config, TlsConfig};
///
/// let tls = TlsConfig::default().ca("/etc/redis/ca.pem").certificate("/etc/me.pem").key("/etc/me.key");
/// let config = Config::from_url("rediss://redis.example:6380")?.tls(tls);
/// # Ok::<(), resp::ConfigError>(())
/// ```
///
/// Each can also be PEM text in memory, or you can pass a complete [`ClientConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    ca: Option<Pem>,
    certificate: Option<Pem>,
    key: Option<Pem>,
    server_name: Option<String>,
    /// Replaces everything but the server name.
    whole: Option<Whole>,
}

/// Equal only to its clones.
#[derive(Clone, Debug)]
struct Whole(Arc<ClientConfig>);

impl PartialEq for Whole {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Whole {}

/// The source of PEM text.
#[derive(Clone, PartialEq, Eq)]
enum Pem {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

impl Pem {
    fn read<T>(
        &self,
        of_file: impl FnOnce(&Path) -> Result<T, pem::Error>,
        of_memory: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
    ) -> Result<T, ConfigError> {
        let read = match self {
            Self::File(file) => of_file(file),
            Self::Memory(text) => of_memory(text),
        };
        read.map_err(|error| match error {
            pem::Error::Io(error) => ConfigError::Tls(format!("{self}: {error}")),
            pem::Error::NoItemsFound => ConfigError::Tls(format!("{self} contains no key")),
            error => ConfigError::Tls(format!("{self}: {error}")),
        })
    }

    /// Returns all certificates; there must be at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let certificates = self.read(
            |file| CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>),
            |text| CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>(),
        )?;
        match certificates.is_empty() {
            true => Err(ConfigError::Tls(format!("{self} contains no certificate"))),
            false => Ok(certificates),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, ConfigError> {
        self.read(|file| PrivateKeyDer::from_pem_file(file), PrivateKeyDer::from_pem_slice)
    }
}

/// The name of the file. Text in memory may be a secret.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Memory(_) => f.write_str("PEM text in memory"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TlsConfig {
    /// Uses a complete rustls configuration: roots, certificates, versions, cryptography.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use resp::{TlsConfig, rustls};
    ///
    /// let provider = Arc::new(rustls::crypto::ring::default_provider());
    /// let config = rustls::ClientConfig::builder_with_provider(provider)
    ///     .with_protocol_versions(&[&rustls::version::TLS13])?
    ///     .with_root_certificates(rustls::RootCertStore::empty())
    ///     .with_no_client_auth();
    /// let tls = TlsConfig::of(Arc::new(config));
    /// # Ok::<(), rustls::Error>(())
    /// ```
    #[must_use]
    pub fn of(config: Arc<ClientConfig>) -> Self {
        Self { whole: Some(Whole(config)), ..Self::default() }
    }

    /// Trusts only the certificates in this file.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(file.into()));
        self
    }

    /// Trusts only the certificates in this PEM text.
    #[must_use]
    pub fn ca_pem(mut self, text: impl AsRef<[u8]>) -> Self {
        self.ca = Some(Pem::Memory(text.as_ref().into()));
        self
    }

    /// Sends the certificate in this file, and its chain, to the server. Needs a
    /// [`key`](Self::key).
    #[must_use]
    pub fn certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.certificate = Some(Pem::File(file.into()));
        self
    }

    /// Sends the certificate in this PEM text, and its chain, to the server. Needs a
    /// [`key`](Self::key_pem).
    #[must_use]
    pub fn certificate_pem(mut self, text: impl AsRef<[u8]>) -> Self {
        self.certificate = Some(Pem::Memory(text.as_ref().into()));
        self
    }

    /// Sets the private key of the [`certificate`](Self::certificate).
    #[must_use]
    pub fn key(mut self, file: impl Into<PathBuf>) -> Self {
        self.key = Some(Pem::File(file.into()));
        self
    }

    /// Sets the private key of the [`certificate`](Self::certificate_pem), as PEM text.
    #[must_use]
    pub fn key_pem(mut self, text: impl AsRef<[u8]>) -> Self {
        self.key = Some(Pem::Memory(text.as_ref().into()));
        self
    }

    /// Sets the name that the server's certificate must have, if it differs from the host.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Checks that the files exist and are valid, as connecting does.
    ///
    /// # Errors
    ///
    /// Names the invalid file, and why.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.build().map(drop)
    }

    /// Returns the name to verify the server's certificate against.
    pub(crate) fn name(&self, host: &str) -> Result<ServerName<'static>, ConfigError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned())
            .map_err(|_| ConfigError::Tls(format!("{name:?} is not a valid server name")))
    }

    /// Reads the files.
    pub(crate) fn build(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        if let Some(Whole(whole)) = &self.whole {
            return Ok(Arc::clone(whole));
        }
        let wrong = |what: String| ConfigError::Tls(what);
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(self.roots()?);
        let config = match (&self.certificate, &self.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(file), Some(key)) => config
                .with_client_auth_cert(file.certificates()?, key.key()?)
                .map_err(|error| wrong(format!("{file} with {key}: {error}")))?,
            _ => return Err(wrong("a client certificate needs its key, and the reverse".to_owned())),
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(file) => {
                for certificate in file.certificates()? {
                    roots.add(certificate).map_err(|error| ConfigError::Tls(format!("{file}: {error}")))?;
                }
            }
            None => {
                let system = rustls_native_certs::load_native_certs();
                // rustls may not support all of the system's certificates.
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
