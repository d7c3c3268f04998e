//! Sockets: accepting, limits on connections, timeouts, TLS, and an orderly end.
//!
//! Built on hyper's HTTP/1 builder with a timer, because without one a client that sends half a header line keeps
//! its connection for ever. HTTP/2 is left to a reverse proxy. Knows nothing of routes; every request goes to `guard`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use super::guard::{Guard, boxed};
use super::hosts::HostList;

/// Connections at once: enough for a household many times over, and with a 32 KiB buffer each at most 64 MiB.
const MAX_CONNECTIONS: usize = 2_000;
/// Connections at once from one address (one /64 of IPv6): ten browsers with six each.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 64;
/// A head must be complete this soon; also how long a connection may stay silent before and between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// hyper's own ceiling is about 400 KiB per connection; heads here are small and bodies are read in pieces.
const CONNECTION_BUFFER_BYTES: usize = 32 << 10;
/// A peer that stops acknowledging (a phone out of the house) frees its connection; the kernel alone waits 15 minutes.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept (no file descriptor left): short, so that the first freed one is used at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// How long requests in progress may take to end once the server stops; `serve` promises five seconds in all.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// Said to a connection above the limits, before it is closed.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n";

/// Serves until `shutdown` is cancelled, then ends streams, lets other requests finish for three seconds, and returns.
///
/// # Errors
/// Only if the listener has no local address; a failing accept is logged and tried again.
pub async fn serve(listener: TcpListener, app: App, shutdown: CancellationToken) -> io::Result<()> {
    let options = app.options();
    let hosts = HostList::new(listener.local_addr()?, &options.allowed_hosts);
    let tls = options.tls.clone().map(TlsAcceptor::from);
    let guard =
        Guard::new(super::router(app.clone()), hosts, options.trusted_proxies.clone(), app.http_metrics());
    let server = Arc::new(Server { guard, tls, shutdown: shutdown.clone(), kill: CancellationToken::new() });
    let crowd = Arc::new(Crowd::default());
    let connections = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(cause) => {
                    accept_failed(&cause).await;
                    continue;
                }
            },
        };
        if let Some(place) = crowd.enter(peer.ip(), &server.guard) {
            let server = server.clone();
            connections.spawn(async move { server.connection(stream, peer, place).await });
        } else {
            server.guard.metrics().refused_connection();
            // Best effort: a full send buffer cannot be, on a fresh socket.
            let _ = stream.try_write(FULL);
        }
    }
    drop(listener);
    // Streams would outlast any grace; they end now, whole events sent.
    app.stopping().cancel();
    connections.close();
    if timeout(SHUTDOWN_GRACE, connections.wait()).await.is_err() {
        tracing::warn!(n = connections.len(), "closing connections that did not end by themselves");
        server.kill.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// The other side gave up before we took the call: nothing to say. Anything else is short of descriptors or memory.
async fn accept_failed(cause: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(cause.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        tracing::warn!(%cause, "cannot accept a connection");
        sleep(ACCEPT_PAUSE).await;
    }
}

struct Server {
    guard: Guard,
    tls: Option<TlsAcceptor>,
    shutdown: CancellationToken,
    /// Ends what did not end by itself.
    kill: CancellationToken,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, _place: Place) {
        if let Err(cause) = prepare(&stream) {
            tracing::debug!(%cause, "socket options");
        }
        let Some(tls) = self.tls.clone() else {
            return self.requests(stream, peer.ip(), false).await;
        };
        match timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => Box::pin(self.requests(stream, peer.ip(), true)).await,
            Ok(Err(cause)) => tracing::debug!(%cause, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake timed out"),
        }
    }

    async fn requests(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: IpAddr, tls: bool) {
        let service = service_fn(|request| async move {
            Ok::<_, Infallible>(Box::pin(self.guard.handle(peer, tls, boxed(request))).await)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(CONNECTION_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut ending = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(cause) = result {
                        tracing::debug!(%cause, "connection ended");
                    }
                    return;
                }
                () = self.shutdown.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.kill.cancelled() => return,
            }
        }
    }
}

/// Small writes go out at once (each delta is one); a vanished peer is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))?;
    Ok(())
}

/// Who is connected, and how often.
#[derive(Default)]
struct Crowd {
    places: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place; leaves when dropped.
struct Place {
    crowd: Arc<Crowd>,
    key: IpAddr,
}

impl Crowd {
    /// A place, unless the house or this address is full. Programs on this machine and trusted proxies, who speak for
    /// many, have no limit of their own.
    fn enter(self: &Arc<Self>, peer: IpAddr, guard: &Guard) -> Option<Place> {
        let key = household(peer);
        let limited = !key.is_loopback() && !guard.is_trusted_proxy(peer);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = places.values().sum();
        let own = places.get(&key).copied().unwrap_or(0);
        if total >= MAX_CONNECTIONS || (limited && own >= MAX_CONNECTIONS_PER_ADDRESS) {
            return None;
        }
        places.insert(key, own + 1);
        Some(Place { crowd: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.crowd.places.lock().unwrap_or_else(PoisonError::into_inner);
        match places.get_mut(&self.key) {
            Some(n) if *n > 1 => *n -= 1,
            _ => drop(places.remove(&self.key)),
        }
    }
}

/// One IPv6 customer owns a whole /64, so that is what is counted.
fn household(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = v6.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        other => other,
    }
}
