//! The page over TLS, with a certificate signed by this machine's own authority.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mommygpt::web::{WebOptions, local_ca, tls};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::app::{Setting, TestApp};
use crate::client::{ask, raw};

/// Sends a request as a device does that trusts the authority, and gives the whole answer as text.
fn over_tls(addr: SocketAddr, authority: &Path, request: &[u8]) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    })
}

#[test]
fn under_tls_the_cookie_is_bound_to_this_host() {
    let dir = tempfile::tempdir().unwrap();
    let made = local_ca::make(dir.path(), &[]).unwrap();
    let config = tls::server_config(&made.certificate, &made.key).unwrap();
    let web = WebOptions { tls: Some(config), ..WebOptions::default() };
    let app = TestApp::with(Setting { web, ..Setting::default() });
    let form = json!({"email": "ada@example.org", "password": crate::app::PASSWORD});
    let send = |request: crate::client::Ask| {
        let bytes = request.header("connection", "close").header("host", "localhost").bytes(app.addr);
        over_tls(app.addr, &made.authority, &bytes)
    };
    let answer = send(ask("POST", "/api/auth/signup").json(&form));
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.starts_with("__Host-mommygpt_session=mgs_"), "{cookie}");
    assert!(
        cookie.contains("; Path=/; ") && cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"),
        "{cookie}"
    );
    let secure = cookie.split(';').next().unwrap();
    assert!(send(ask("GET", "/api/me").header("cookie", secure)).starts_with("HTTP/1.1 200 "));
    // The name that plain HTTP could set is not looked at here.
    let plain = secure.trim_start_matches("__Host-");
    assert!(send(ask("GET", "/api/me").header("cookie", plain)).starts_with("HTTP/1.1 401 "));
    // Plain HTTP on the TLS port gets nothing, and the server lives.
    assert!(raw(app.addr, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").is_err());
    assert!(send(ask("GET", "/health/live")).starts_with("HTTP/1.1 200 "));
}
