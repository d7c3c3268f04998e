//! A local certificate authority and a certificate for this machine, for `serve --tls`.
//!
//! Browsers keep secure cookies and other features for HTTPS, and no public authority signs for `192.168.1.20`. The
//! authority is made once per data directory, so that a device trusts it once; the certificate is made anew each time.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::ToSpan as _;
use jiff::civil::Date;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// How long devices may trust the authority.
const AUTHORITY_YEARS: i32 = 10;
/// Longer certificates are refused by Apple's systems (825 days).
const CERTIFICATE_DAYS: i64 = 820;
/// Names in one certificate; more is a mistake.
const MAX_NAMES: usize = 64;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum LocalCaError {
    /// A name that cannot stand in a certificate.
    #[error("{0}: must be a name such as mommy.local, or an address")]
    Name(String),
    /// More names than a certificate takes.
    #[error("{0} names given; at most {MAX_NAMES} fit")]
    TooManyNames(usize),
    /// A file could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Making or reading a certificate failed.
    #[error("{what}: {source}")]
    Certificate {
        /// What was being made or read.
        what: String,
        /// What rcgen said.
        source: rcgen::Error,
    },
}

/// What was made, and how to recognise it.
#[derive(Debug)]
pub struct LocalCa {
    /// The authority's certificate, to be copied to devices.
    pub authority: PathBuf,
    /// Whether the authority is new; devices that trust the old one need nothing.
    pub is_new_authority: bool,
    /// The server's certificate chain.
    pub certificate: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// Names and addresses in the certificate.
    pub names: Vec<String>,
    /// SHA-256 of the authority's certificate, as devices show it.
    pub fingerprint: String,
    /// The fingerprint, for a phone's camera.
    pub qr_code: String,
}

/// Where the server's chain and key lie in a data directory.
pub fn files(dir: &Path) -> (PathBuf, PathBuf) {
    let tls = dir.join("tls");
    (tls.join("server.pem"), tls.join("server.key"))
}

/// Makes the authority if there is none yet, and a certificate for this machine's names and `more`.
///
/// # Errors
/// See [`LocalCaError`]; an authority that is there and cannot be read is kept as it is.
pub fn make(dir: &Path, more: &[String]) -> Result<LocalCa, LocalCaError> {
    let names = names(more)?;
    let tls = dir.join("tls");
    fs::create_dir_all(&tls).map_err(|source| LocalCaError::Io { path: tls.clone(), source })?;
    let (authority, authority_key) = (tls.join("ca.pem"), tls.join("ca.key"));
    let is_new_authority = !authority.exists();
    if is_new_authority {
        make_authority(&authority, &authority_key)?;
    }
    let authority_pem = read(&authority)?;
    let signing_key = KeyPair::from_pem(&read(&authority_key)?).map_err(|e| failed(&authority_key, e))?;
    let issuer = Issuer::from_ca_cert_pem(&authority_pem, signing_key).map_err(|e| failed(&authority, e))?;

    let (certificate, key) = files(dir);
    let pair = KeyPair::generate().map_err(|e| failed(&key, e))?;
    let mut params = CertificateParams::new(names.clone()).map_err(|e| failed(&certificate, e))?;
    params.distinguished_name = named("MommyGPT");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, |today| today.saturating_add(CERTIFICATE_DAYS.days()));
    let signed = params.signed_by(&pair, &issuer).map_err(|e| failed(&certificate, e))?;
    write(&key, &pair.serialize_pem())?;
    write(&certificate, &format!("{}{authority_pem}", signed.pem()))?;

    let fingerprint = fingerprint(&authority, &authority_pem)?;
    // A fingerprint is 95 characters; the smallest code that holds them fits every terminal.
    let qr_code = QrCode::new(fingerprint.as_bytes())
        .map(|code| {
            // Most terminals are dark: a lit block is the code's light.
            code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
        })
        .unwrap_or_default();
    Ok(LocalCa { authority, is_new_authority, certificate, key, names, fingerprint, qr_code })
}

fn make_authority(certificate: &Path, key: &Path) -> Result<(), LocalCaError> {
    let pair = KeyPair::generate().map_err(|e| failed(key, e))?;
    let mut params = CertificateParams::default();
    // The name says on which machine it was made, for whoever finds it on a phone years later.
    let host = host_name().unwrap_or_else(|| "this machine".to_owned());
    params.distinguished_name = named(&format!("MommyGPT on {host}"));
    // No further authorities below it.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, |today| today.saturating_add(AUTHORITY_YEARS.years()));
    let signed = params.self_signed(&pair).map_err(|e| failed(certificate, e))?;
    // The certificate last: it is what says that the authority is whole.
    write(key, &pair.serialize_pem())?;
    write(certificate, &signed.pem())
}

/// Valid from yesterday, because clocks of phones differ.
fn valid_for(params: &mut CertificateParams, end: impl FnOnce(Date) -> Date) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let at = |date: Date| {
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = at(today.saturating_sub(1.day()));
    params.not_after = at(end(today));
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// This machine's own names and addresses, and those given, without repetition.
fn names(more: &[String]) -> Result<Vec<String>, LocalCaError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if let Some(host) = host_name() {
        names.extend([format!("{host}.local"), host]);
    }
    names.extend(network_addresses().iter().map(ToString::to_string));
    for name in more {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_name = !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        if !is_name && name.parse::<IpAddr>().is_err() {
            return Err(LocalCaError::Name(name));
        }
        names.push(name);
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if names.len() > MAX_NAMES { Err(LocalCaError::TooManyNames(names.len())) } else { Ok(names) }
}

fn host_name() -> Option<String> {
    let raw =
        fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    let name = raw.ok()?.trim().trim_end_matches(".local").to_ascii_lowercase();
    let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_plain.then_some(name)
}

/// The addresses this machine has towards its network. Connecting a UDP socket sends nothing; it only asks the
/// routing table. The far ends are documentation addresses.
fn network_addresses() -> Vec<IpAddr> {
    let ways: [(SocketAddr, SocketAddr); 2] = [
        ((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into()),
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into()),
    ];
    ways.into_iter()
        .filter_map(|(here, there)| {
            let socket = UdpSocket::bind(here).ok()?;
            socket.connect(there).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
        .collect()
}

fn fingerprint(path: &Path, pem: &str) -> Result<String, LocalCaError> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| LocalCaError::Io {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, e.to_string()),
    })?;
    let bytes: Vec<String> = Sha256::digest(&certificate).iter().map(|b| format!("{b:02X}")).collect();
    Ok(bytes.join(":"))
}

fn failed(path: &Path, source: rcgen::Error) -> LocalCaError {
    LocalCaError::Certificate { what: path.display().to_string(), source }
}

fn read(path: &Path) -> Result<String, LocalCaError> {
    fs::read_to_string(path).map_err(|source| LocalCaError::Io { path: path.to_owned(), source })
}

/// Readable by the owner only, and whole or not there at all.
fn write(path: &Path, text: &str) -> Result<(), LocalCaError> {
    let new = path.with_extension("new");
    let written = (|| {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    written.map_err(|source| LocalCaError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_authority_stays_and_the_certificate_is_signed_by_it_for_the_names_asked() {
        let dir = tempfile::tempdir().unwrap();
        let first = make(dir.path(), &["mommy.example.org".into(), "192.0.2.7".into()]).unwrap();
        let second = make(dir.path(), &[]).unwrap();
        assert!(first.is_new_authority && !second.is_new_authority);
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_eq!(first.fingerprint.len(), 95);
        assert!(first.names.contains(&"mommy.example.org".to_owned()));
        assert!(first.names.contains(&"192.0.2.7".to_owned()));
        assert!(!second.names.contains(&"192.0.2.7".to_owned()));
        for file in ["ca.key", "server.key", "server.pem"] {
            let mode = fs::metadata(dir.path().join("tls").join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        crate::web::tls::server_config(&second.certificate, &second.key).unwrap();
    }

    #[test]
    fn names_that_cannot_stand_in_a_certificate_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "a b", "*", "exa_mple", "http://x"] {
            assert!(matches!(make(dir.path(), &[name.to_owned()]), Err(LocalCaError::Name(_))), "{name}");
        }
        assert!(!dir.path().join("tls").exists());
    }
}
