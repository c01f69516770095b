//! The web server of `--http`: a page for people, metrics for Prometheus, and answers for health
//! checks (docs/metrics.md).
//!
//! - `server`: the thread, which accepts clients and moves bytes; `connection`: a client;
//! - `site`: the answers; `host`: whom a request is for;
//! - `reporter`: the state of the USB/IP server, asked for seldom;
//! - `metrics`: the state for Prometheus, in its text format (`exposition`).
//!
//! hyper speaks HTTP, on mio's sockets and without a runtime: a connection is a future that only
//! its socket wakes.
//!
//! Contract: a thread of its own, which asks the reactor through `StatusHandle` and waits for a
//! bounded time. Clients are admitted by the rule for USB/IP clients, and can change nothing. A
//! panic ends the web server alone.

mod connection;
mod exposition;
mod host;
mod metrics;
mod reporter;
mod server;
mod site;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use mio::Waker;

use crate::caught::caught;
use crate::config::Http;
use crate::config::rules::Allowed;
use crate::reactor::{ListenError, StatusHandle, open_listeners};
use crate::status::ServerStatus;
use crate::threads;
use crate::words::reason;
use host::Hosts;
use reporter::Reporter;
use server::Server;
use site::Site;

/// A web server. Dropped, the server listens no more, and its connections are closed.
#[derive(Debug)]
pub struct Web {
    addresses: Vec<SocketAddr>,
    access: Access,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// The clients that may connect, which other settings can change. Clones share the clients.
#[derive(Clone, Debug)]
pub struct Access(Arc<RwLock<Allowed>>);

impl Access {
    /// Has other clients admitted from now on, also of the clients that are connected.
    pub fn change(&self, allowed: Allowed) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    fn admits(&self, client: SocketAddr) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(client.ip())
    }
}

/// Why a server has no web server.
#[derive(Debug)]
pub enum WebError {
    /// An address can't be listened on.
    Listen(ListenError),
    /// The system has no thread or descriptor.
    System(io::Error),
}

impl std::error::Error for WebError {}

impl fmt::Display for WebError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) if error.is_in_use() => write!(
                f,
                "--http: {} is in use by another program; choose another port with --http",
                error.address
            ),
            Self::Listen(error) => write!(f, "--http: {error}"),
            Self::System(error) => {
                write!(f, "--http: the system has no room for a web server: {}", reason(error))
            }
        }
    }
}

impl Web {
    /// Opens a web server on the passed listeners, or else where the settings say; `None` where
    /// there is neither.
    ///
    /// # Errors
    /// An address can't be listened on, or the system has no thread or descriptor left.
    pub fn open(
        http: &Http,
        passed: Vec<std::net::TcpListener>,
        allowed: Allowed,
        (status, server): (StatusHandle, ServerStatus),
    ) -> Result<Option<Self>, WebError> {
        let mut listeners: Vec<_> =
            passed.into_iter().map(mio::net::TcpListener::from_std).collect();
        if listeners.is_empty() {
            listeners = open_listeners(&http.listen).map_err(WebError::Listen)?;
        }
        if listeners.is_empty() {
            return Ok(None);
        }
        let addresses =
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let access = Access(Arc::new(RwLock::new(allowed)));
        let site = Site::new(Hosts::new(http.name.as_deref()), Reporter::new(status, server));
        let serving = Server::new(listeners, access.clone(), site).and_then(|(server, waker)| {
            let serve = move || {
                caught("the web server", || server.serve());
            };
            let thread = threads::start("web", serve)?;
            Ok((thread, waker))
        });
        let (thread, waker) = serving.map_err(WebError::System)?;
        Ok(Some(Self { addresses, access, waker, thread: Some(thread) }))
    }

    /// Where the server listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The clients that may connect.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}
