//! Certificates for tests of TLS.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate authority, a server's certificate for `redis.test` and `localhost`, a client's,
/// and a second authority.
pub(crate) fn make_files(folder: &Path) {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        Issuer::new(params, key)
    };
    authority("other-ca");
    let ca = authority("ca");
    for (name, host) in [("server", "redis.test"), ("client", "client.test")] {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([host.to_owned(), "localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
