//! TLS of the public listener: the certificate, and its exchange while connections go on.
//!
//! Each handshake takes the certificate of its moment; connections that are open are not touched. Floor 5.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::config::Tls;

/// The certificate or its key cannot be used. What stands in the files is not told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("{} cannot be read as PEM", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// The file has no certificate.
    #[error("{} has no certificate", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// They do not go together, or are of a kind that is not supported.
    #[error("the certificate and the key cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// The certificate that the listener shows.
#[derive(Debug)]
pub struct Certificates(RwLock<Arc<CertifiedKey>>);

impl Certificates {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(settings: &Tls) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(certified_key(settings)?)))
    }

    /// Reads them again; handshakes from now on take them.
    ///
    /// # Errors
    /// [`TlsError`]; the old ones stay.
    pub fn exchange(&self, settings: &Tls) -> Result<(), TlsError> {
        let newer = certified_key(settings)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = newer;
        Ok(())
    }

    /// How the listener speaks TLS: versions 1.2 and 1.3, nobody is asked for a certificate.
    ///
    /// # Errors
    /// [`TlsError`] never, as long as the provider knows both versions.
    pub fn config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        Ok(builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_cert_resolver(resolver))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn certified_key(settings: &Tls) -> Result<Arc<CertifiedKey>, TlsError> {
    let at = |file: &Path| {
        let file = file.to_owned();
        move |source| TlsError::File { file, source }
    };
    let chain = CertificateDer::pem_file_iter(&settings.certificate).map_err(at(&settings.certificate))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(at(&settings.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: settings.certificate.clone() });
    }
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(at(&settings.key))?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &default_provider())?))
}
