//! Which names this server answers to, and who is really asking.
//!
//! A page on another site can make a browser send requests here under that site's own name (DNS rebinding); it cannot
//! make the browser send one of our names. So the `Host` of every request is checked before anything else is looked
//! at. This file parses only; it opens no socket and knows no routes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, Uri, header};
use ipnet::IpNet;

use super::error::ApiError;

/// Names and addresses that may stand in `Host`, whatever the port.
#[derive(Debug)]
pub(crate) struct HostList {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    /// Listening on every interface: any literal address is ours, and a literal cannot be rebound.
    any_address: bool,
}

impl HostList {
    /// The bound address, this machine's own names, and what the operator added.
    pub(crate) fn new(bound: SocketAddr, configured: &[String]) -> Self {
        let mut list = Self {
            names: BTreeSet::from(["localhost".to_owned()]),
            addresses: BTreeSet::from([
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
                bound.ip().to_canonical(),
            ]),
            any_address: bound.ip().to_canonical().is_unspecified(),
        };
        if !bound.ip().is_loopback()
            && let Some(name) = machine_name()
        {
            list.names.insert(format!("{name}.local"));
            list.names.insert(name);
        }
        for entry in configured {
            match parse_host(entry) {
                Some(Host::Address(ip)) => drop(list.addresses.insert(ip)),
                Some(Host::Name(name)) => drop(list.names.insert(name)),
                None => tracing::warn!(host = %entry, "not a host name; ignored"),
            }
        }
        list
    }

    /// Refuses a request whose `Host` (or absolute-form target) is missing, doubled, malformed or not ours.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let bad = |why: &str| ApiError::new(StatusCode::BAD_REQUEST, "bad_host", why);
        let mut lines = headers.get_all(header::HOST).iter();
        let host = lines.next().ok_or_else(|| bad("The request names no host."))?;
        if lines.next().is_some() {
            return Err(bad("The request names more than one host."));
        }
        let host = host.to_str().map_err(|_| bad("The host is not plain ASCII."))?;
        self.check_one(host)?;
        match uri.authority() {
            // Of two names that differ, a proxy in front may have checked the other one.
            Some(target) if !target.as_str().eq_ignore_ascii_case(host) => {
                self.check_one(target.as_str())?;
                Err(bad("The request names two different hosts."))
            }
            _ => Ok(()),
        }
    }

    fn check_one(&self, raw: &str) -> Result<(), ApiError> {
        let known = match parse_host(raw) {
            Some(Host::Address(ip)) => self.any_address || self.addresses.contains(&ip),
            Some(Host::Name(name)) => self.names.contains(&name),
            None => {
                return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_host", "The host is malformed."));
            }
        };
        if known {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong_host",
            "This server does not answer to that name; start it with --allowed-host NAME to add one.",
        ))
    }
}

enum Host {
    Address(IpAddr),
    Name(String),
}

/// `name`, `name:port`, `1.2.3.4:port`, `[::1]:port`; lower-cased. `None` for anything else.
fn parse_host(raw: &str) -> Option<Host> {
    let (host, port) = if let Some(rest) = raw.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        let ip: Ipv6Addr = inside.parse().ok()?;
        (Host::Address(IpAddr::V6(ip).to_canonical()), after)
    } else {
        let (name, port) = raw.find(':').map_or((raw, ""), |at| raw.split_at(at));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
            return None;
        }
        match name.parse::<Ipv4Addr>() {
            Ok(ip) => (Host::Address(IpAddr::V4(ip)), port),
            Err(_) => (Host::Name(name.to_ascii_lowercase()), port),
        }
    };
    let port_ok = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
    };
    port_ok.then_some(host)
}

/// This machine's own name, where the system says it in a file.
fn machine_name() -> Option<String> {
    let raw = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())?;
    match parse_host(raw.trim())? {
        Host::Name(name) => Some(name),
        Host::Address(_) => None,
    }
}

/// Who asks, as far as the way here can be trusted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// The address that limits count by.
    pub(crate) ip: IpAddr,
    /// The browser speaks TLS, to us or to a trusted proxy.
    pub(crate) secure: bool,
    /// A program on this machine, with no proxy in between.
    pub(crate) local: bool,
}

impl Client {
    /// Believes `X-Forwarded-For` and `X-Forwarded-Proto` only from a trusted proxy: the rightmost address that is
    /// not itself one of the proxies is the client.
    pub(crate) fn new(peer: IpAddr, tls: bool, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
        let forwarded = ["x-forwarded-for", "forwarded", "x-real-ip", "via"]
            .iter()
            .any(|name| headers.contains_key(*name));
        let local = peer.is_loopback() && !forwarded;
        if !is_trusted(peer) {
            return Self { ip: peer, secure: tls, local };
        }
        let mut ip = peer;
        let lines: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Some(address) = parse_hop(hop.trim()) else { break };
            ip = address;
            if !is_trusted(ip) {
                break;
            }
        }
        let proto = headers.get_all("x-forwarded-proto").iter().next_back();
        let secure = tls || proto.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"https"));
        Self { ip, secure, local }
    }
}

/// An address as proxies write it, with or without a port.
fn parse_hop(raw: &str) -> Option<IpAddr> {
    raw.parse::<IpAddr>()
        .or_else(|_| raw.parse::<SocketAddr>().map(|a| a.ip()))
        .or_else(|_| raw.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>())
        .ok()
        .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn list(bound: &str) -> HostList {
        HostList::new(bound.parse().unwrap(), &["mommy.example".to_owned()])
    }

    fn status(list: &HostList, host: &str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        list.check(&Uri::from_static("/"), &headers).map_or_else(|e| e.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_our_names_pass() {
        let here = list("127.0.0.1:4467");
        for host in
            ["localhost", "LOCALHOST:4467", "127.0.0.1", "127.0.0.1:8080", "[::1]:1", "mommy.example:80"]
        {
            assert_eq!(status(&here, host), 200, "{host}");
        }
        for host in
            ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.", "8.8.8.8", "127.1"]
        {
            assert_eq!(status(&here, host), 421, "{host}");
        }
        for host in
            ["", ":4467", "a@localhost", "localhost:x", "localhost:99999", "[::1", "[::1]x", "::1", "a b"]
        {
            assert_eq!(status(&here, host), 400, "{host}");
        }
    }

    #[test]
    fn every_literal_address_passes_when_all_interfaces_are_bound() {
        let everywhere = list("0.0.0.0:4467");
        assert_eq!(status(&everywhere, "192.168.1.7:4467"), 200);
        assert_eq!(status(&everywhere, "evil.example"), 421);
        assert_eq!(status(&list("192.168.1.7:1"), "192.168.1.7"), 200);
        assert_eq!(status(&list("192.168.1.7:1"), "192.168.1.8"), 421);
    }

    fn client(peer: &str, forwarded_for: &[&'static str], trusted: &[&str]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for line in forwarded_for {
            headers.append("x-forwarded-for", HeaderValue::from_static(line));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|n| n.parse().unwrap()).collect();
        Client::new(peer.parse().unwrap(), false, &headers, &trusted).ip
    }

    #[test]
    fn forwarded_addresses_are_believed_only_from_a_proxy() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        assert_eq!(client("10.0.0.9", &["1.2.3.4"], &[]), ip("10.0.0.9"));
        let proxies = ["10.0.0.0/8"];
        assert_eq!(client("10.0.0.9", &["6.6.6.6, 1.2.3.4"], &proxies), ip("1.2.3.4"));
        assert_eq!(client("10.0.0.9", &["6.6.6.6, 1.2.3.4, 10.0.0.8"], &proxies), ip("1.2.3.4"));
        assert_eq!(client("10.0.0.9", &["6.6.6.6", "1.2.3.4:99"], &proxies), ip("1.2.3.4"));
        assert_eq!(client("10.0.0.9", &["rubbish"], &proxies), ip("10.0.0.9"));
        assert_eq!(client("10.0.0.9", &[], &proxies), ip("10.0.0.9"));
    }
}
