//! An authority of the tests' own, and servers' certificates from it: good, expired, and for another name.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Nothing: it is for 127.0.0.1 and localhost.
    Good,
    /// It ended long ago.
    Expired,
    /// It is another host's.
    OtherName,
}

/// Signs certificates; programs that are shown its file trust them.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A fresh one.
    ///
    /// # Panics
    /// When the system gives no random numbers.
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "imgq tests");
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Writes its certificate to a file, for `SSL_CERT_FILE`.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write_to(&self, path: &Path) {
        std::fs::write(path, &self.pem).expect("a writable file");
    }

    fn sign(&self, certificate: Certificate) -> (rcgen::Certificate, KeyPair) {
        let names: &[&str] = match certificate {
            Certificate::Good | Certificate::Expired => &["127.0.0.1", "localhost"],
            Certificate::OtherName => &["other.example"],
        };
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names");
        if certificate == Certificate::Expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// Writes a certificate and its key below `folder`, for a server that reads files; returns their paths.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn write_server_files(&self, certificate: Certificate, folder: &Path) -> [PathBuf; 2] {
        let (signed, key) = self.sign(certificate);
        let files = [folder.join("server.crt"), folder.join("server.key")];
        std::fs::write(&files[0], signed.pem()).expect("a writable file");
        std::fs::write(&files[1], key.serialize_pem()).expect("a writable file");
        files
    }

    /// A server's side of TLS that offers the protocols of `alpn`.
    ///
    /// # Panics
    /// When the system gives no random numbers.
    pub fn server(&self, certificate: Certificate, alpn: &[&str]) -> Arc<ServerConfig> {
        let (signed, key) = self.sign(certificate);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![signed.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a certificate that fits its key");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}
