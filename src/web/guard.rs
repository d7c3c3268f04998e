//! What every request passes before a handler sees it, and what every answer carries.
//!
//! In: the `Host` list, no request compression, JSON bodies only, no cross-site writes, no secrets in the address.
//! Out: a request id, the headers that keep a page from running or loading anything that is not ours, a count for
//! `/metrics`, and a plain 500 where a handler panicked. It knows no route and no person.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use ipnet::IpNet;
use tower::ServiceExt as _;

use super::error::ApiError;
use super::hosts::{Client, HostList};
use super::metrics::HttpMetrics;
use crate::domain::Timestamp;

/// Nothing runs, loads, frames or submits anywhere but here (`data:` pictures are avatars).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
    object-src 'none'";

/// On every answer, whatever it is.
const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::X_DNS_PREFETCH_CONTROL, "off"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names under which people put secrets into addresses, where logs and histories keep them.
const SECRET_PARAMETERS: [&str; 6] = ["api_key", "apikey", "key", "token", "access_token", "session_token"];

/// The door of one running server.
pub(crate) struct Guard {
    router: Router,
    hosts: HostList,
    trusted_proxies: Vec<IpNet>,
    metrics: Arc<HttpMetrics>,
    run: String,
    n_requests: AtomicU64,
}

impl Guard {
    pub(crate) fn new(
        router: Router,
        hosts: HostList,
        trusted_proxies: Vec<IpNet>,
        metrics: Arc<HttpMetrics>,
    ) -> Self {
        let run = format!("{:x}", Timestamp::now().as_micros());
        Self { router, hosts, trusted_proxies, metrics, run, n_requests: AtomicU64::new(0) }
    }

    /// True where the operator said that a proxy speaks for many people.
    pub(crate) fn is_trusted_proxy(&self, ip: std::net::IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&ip.to_canonical()))
    }

    /// The metrics that the accept loop counts into.
    pub(crate) fn metrics(&self) -> &HttpMetrics {
        &self.metrics
    }

    /// One request from its first look to its finished head.
    pub(crate) async fn handle(&self, peer: std::net::IpAddr, tls: bool, mut request: Request) -> Response {
        let started = Instant::now();
        let id = format!("{}-{:x}", self.run, self.n_requests.fetch_add(1, Ordering::Relaxed));
        let method = request.method().clone();
        let mut response = if let Err(refusal) = self.admit(&request) {
            refusal.into_response()
        } else {
            let client = Client::new(peer, tls, request.headers(), &self.trusted_proxies);
            request.extensions_mut().insert(client);
            let answer = AssertUnwindSafe(self.router.clone().oneshot(request)).catch_unwind();
            match answer.await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_panic) => ApiError::internal("a handler panicked").into_response(),
            }
        };
        let route = response
            .extensions()
            .get::<Route>()
            .map_or_else(|| "other".to_owned(), |r| r.0.as_str().to_owned());
        let status = response.status();
        let elapsed = started.elapsed();
        tracing::debug!(%id, %method, route, status = status.as_u16(), ms = elapsed.as_millis() as u64, "request");
        self.metrics.answered(&method, &route, status, elapsed);
        seal(response.headers_mut(), &id);
        response
    }

    fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        self.hosts.check(request.uri(), headers)?;
        refuse_compression(headers)?;
        refuse_secret_in_address(request.uri().path(), request.uri().query().unwrap_or(""))?;
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if writes {
            refuse_cross_site(headers)?;
            refuse_other_than_json(headers)?;
        }
        Ok(())
    }
}

/// Which entry of the route table answered; for counting.
#[derive(Clone)]
struct Route(MatchedPath);

/// Carries the matched route from the request to the answer, so that metrics never see an id.
pub(crate) async fn note_route(path: MatchedPath, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Route(path));
    response
}

fn refuse_compression(headers: &HeaderMap) -> Result<(), ApiError> {
    let plain = headers.get_all(header::CONTENT_ENCODING).iter().all(|v| v.as_bytes() == b"identity");
    if plain {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "compressed",
        "Send the body as it is; compressed requests are not read.",
    ))
}

fn refuse_secret_in_address(path: &str, query: &str) -> Result<(), ApiError> {
    let ours = path.starts_with("/api/") || path.starts_with("/v1/") || path == "/metrics";
    let secret = query
        .split('&')
        .map(|pair| pair.split('=').next().unwrap_or(""))
        .any(|name| SECRET_PARAMETERS.iter().any(|s| name.eq_ignore_ascii_case(s)));
    if ours && secret {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "secret_in_address",
            "Keys and tokens belong into the Authorization header; addresses are kept in logs.",
        ));
    }
    Ok(())
}

/// A browser says where a write comes from; a page elsewhere must not write with our cookie.
///
/// `Sec-Fetch-Site` decides where it is sent; browsers leave it out on plain HTTP in a LAN, and there `Origin` does.
/// A request with `Authorization` uses no cookie, so no browser can be tricked into it.
fn refuse_cross_site(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let same = match (site, headers.get(header::ORIGIN)) {
        (Some(site), _) => matches!(site, b"same-origin" | b"none"),
        (None, Some(origin)) => {
            let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
            let origin = origin.to_str().unwrap_or("");
            let origin = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            origin.is_some_and(|o| o.eq_ignore_ascii_case(host))
        }
        (None, None) => true,
    };
    if same {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::FORBIDDEN, "cross_site", "This request comes from another site."))
}

/// A form on another site can post every content type but JSON without asking first.
fn refuse_other_than_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|n| n.as_bytes() != b"0");
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let json = match (types.next(), types.next()) {
        (None, _) => !has_body,
        (Some(one), None) => is_json(one.as_bytes()),
        (Some(_), Some(_)) => false,
    };
    if json {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not_json",
        "Send the body as application/json in UTF-8.",
    ))
}

fn is_json(content_type: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content_type).to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    parts.next() == Some("application/json")
        && parts.all(|p| matches!(p, "" | "charset=utf-8" | "charset=\"utf-8\""))
}

/// The headers of every answer. A handler may choose its own `Cache-Control`; silence means: keep nothing.
fn seal(headers: &mut HeaderMap, request_id: &str) {
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
}

/// Turns hyper's body into the one that handlers read.
pub(crate) fn boxed(request: hyper::Request<hyper::body::Incoming>) -> Request {
    request.map(Body::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn writes_from_other_sites_are_refused() {
        let host = ("host", "box.local:4467");
        for ok in [
            vec![host],
            vec![host, ("origin", "http://box.local:4467")],
            vec![host, ("sec-fetch-site", "same-origin"), ("origin", "https://seen-by-the-proxy.example")],
            vec![host, ("sec-fetch-site", "none")],
            vec![host, ("origin", "https://evil.example"), ("authorization", "Bearer x")],
        ] {
            assert!(refuse_cross_site(&headers(&ok)).is_ok(), "{ok:?}");
        }
        for bad in [
            vec![host, ("origin", "http://evil.example")],
            vec![host, ("origin", "null")],
            vec![host, ("origin", "http://box.local")],
            vec![host, ("origin", "http://sub.box.local:4467")],
            vec![host, ("sec-fetch-site", "same-site"), ("origin", "http://box.local:4467")],
            vec![host, ("sec-fetch-site", "cross-site")],
        ] {
            assert!(refuse_cross_site(&headers(&bad)).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_not_the_end() {
        async fn broken() -> Response {
            panic!("on purpose")
        }
        let router = Router::new().route("/broken", axum::routing::get(broken));
        let hosts = HostList::new(([127, 0, 0, 1], 0).into(), &[]);
        let guard = Guard::new(router, hosts, Vec::new(), Arc::new(HttpMetrics::new()));
        for _ in 0..2 {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = "/broken".parse().unwrap();
            request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
            let answer = guard.handle([127, 0, 0, 1].into(), false, request).await;
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(answer.headers()[header::CONTENT_SECURITY_POLICY], CONTENT_SECURITY_POLICY);
        }
    }

    #[test]
    fn bodies_are_json() {
        for ok in [
            vec![],
            vec![("content-length", "0")],
            vec![("content-type", "application/json")],
            vec![("content-type", "Application/JSON; charset=UTF-8"), ("content-length", "9")],
        ] {
            assert!(refuse_other_than_json(&headers(&ok)).is_ok(), "{ok:?}");
        }
        for bad in [
            vec![("content-length", "9")],
            vec![("transfer-encoding", "chunked")],
            vec![("content-type", "text/plain")],
            vec![("content-type", "application/jsonp")],
            vec![("content-type", "application/json; charset=latin1")],
            vec![("content-type", "application/json"), ("content-type", "text/plain")],
        ] {
            assert!(refuse_other_than_json(&headers(&bad)).is_err(), "{bad:?}");
        }
    }
}
