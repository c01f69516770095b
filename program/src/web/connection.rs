//! A client of the web server: hyper's state machine on a socket.
//!
//! Contract: nothing blocks, but for the site's wait for a report. A connection has
//! [`HTTP_HEADER_LEN_MAX`] bytes for a request, and [`HTTP_TIMEOUT`] from one request to the next.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{self, ReadBufCursor};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use mio::net::TcpStream;

use super::Access;
use super::site::{Site, refusal_of_client};
use crate::limits::{HTTP_HEADER_LEN_MAX, HTTP_HEADERS_MAX, HTTP_TIMEOUT};

/// Bytes read at once.
const PART_LEN: usize = 4096;

/// A client.
pub(super) struct Connection {
    conversation: Pin<Box<http1::Connection<Socket, Visit>>>,
    /// There is something to do.
    due: Arc<Due>,
    waker: Waker,
    /// Raised by each request.
    asked: Arc<AtomicBool>,
    deadline: Instant,
}

/// Set by an event of the socket, and by hyper where a turn has left something to do.
struct Due(AtomicBool);

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, visit: Visit, now: Instant) -> Self {
        let asked = Arc::clone(&visit.asked);
        let mut http = http1::Builder::new();
        // Programs such as netcat send no more behind a request, and still wait for the answer.
        http.max_headers(HTTP_HEADERS_MAX).max_buf_size(HTTP_HEADER_LEN_MAX).half_close(true);
        let conversation = Box::pin(http.serve_connection(Socket(stream), visit));
        let due = Arc::new(Due(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&due));
        Self { conversation, due, waker, asked, deadline: now + HTTP_TIMEOUT }
    }

    /// Notes an event of the socket.
    pub(super) fn mark(&self) {
        self.due.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.0.load(Ordering::Relaxed)
    }

    /// When the client's time is over.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Reads, answers and writes as far as the socket goes. False when the connection is over.
    pub(super) fn serve(&mut self, now: Instant) -> bool {
        self.due.0.store(false, Ordering::Relaxed);
        let mut context = Context::from_waker(&self.waker);
        if self.conversation.as_mut().poll(&mut context).is_ready() {
            return false;
        }
        if self.asked.swap(false, Ordering::Relaxed) {
            self.deadline = now + HTTP_TIMEOUT;
        }
        true
    }
}

/// The answers to a client.
pub(super) struct Visit {
    site: Arc<Site>,
    access: Access,
    peer: SocketAddr,
    asked: Arc<AtomicBool>,
}

impl Visit {
    pub(super) fn new(site: Arc<Site>, access: Access, peer: SocketAddr) -> Self {
        Self { site, access, peer, asked: Arc::default() }
    }
}

impl Service<Request<Incoming>> for Visit {
    type Response = Response<Content>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.asked.store(true, Ordering::Relaxed);
        // The settings may have changed since the client has connected.
        let response = if self.access.admits(self.peer) {
            self.site.answer(&request)
        } else {
            refusal_of_client()
        };
        ready(Ok(response))
    }
}

/// The bytes of an answer, all at once.
pub(super) struct Content(Option<Bytes>);

impl Content {
    pub(super) fn new(bytes: impl Into<Bytes>) -> Self {
        Self(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// A socket as hyper's transport. Whoever polls comes again after the socket's next event.
struct Socket(TcpStream);

/// The result of a call, pending where the socket is not ready.
fn polled<T>(mut call: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
}

impl rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut part = [0; PART_LEN];
        let most = PART_LEN.min(room.remaining());
        let read = polled(|| self.0.read(&mut part[..most]));
        read.map_ok(|len| room.put_slice(&part[..len]))
    }
}

impl rt::Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        polled(|| self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(Shutdown::Write))
    }
}
