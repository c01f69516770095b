//! The answers of the web server, by method, Host and path.
//!
//! Contract: pure, but for the wait for a report (`reporter`). Texts of devices and clients go into
//! JSON and metrics alone, and never into HTML: the page's script puts them into text nodes.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::connection::Content;
use super::host::Hosts;
use super::reporter::Reporter;
use super::{exposition, metrics};
use crate::reactor::Unanswered;
use crate::report::Report;
use crate::status::Phase;

/// The page, with [`NONCE`] where a script and a style begin.
const PAGE: &str = include_str!("page.html");

/// Stands in for the number that the page's own script and style have, and no other.
const NONCE: &str = "NONCE";

const TEXT: &str = "text/plain; charset=utf-8";

/// The headers of every answer: nothing is kept, guessed or shown within another page.
const HEADERS: [(HeaderName, &str); 4] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The policy of every answer but the page.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// The answers.
pub(super) struct Site {
    hosts: Hosts,
    /// A client at a time, since all share a thread.
    reporter: Mutex<Reporter>,
}

impl Site {
    pub(super) const fn new(hosts: Hosts, reporter: Reporter) -> Self {
        Self { hosts, reporter: Mutex::new(reporter) }
    }

    /// The answer to a request, whose body is left alone.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Content> {
        if !self.is_for_this(request) {
            let text = "this server is asked for by an address, by localhost, or by the name in \
                        --http NAME:PORT\n";
            return plain(StatusCode::MISDIRECTED_REQUEST, text);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let text = "only GET and HEAD are known here\n";
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/" => page(),
            "/status.json" => self.with_report(|report, _| json(report)),
            "/metrics" => self.with_report(|report, reporter| {
                let text = metrics::text(report, reporter.started());
                response(StatusCode::OK, exposition::CONTENT_TYPE, text)
            }),
            "/healthz" => self.with_report(|_, _| plain(StatusCode::OK, "ok\n")),
            "/readyz" => self.with_report(|report, _| readiness(report)),
            _ => plain(
                StatusCode::NOT_FOUND,
                "there are /, /status.json, /metrics, /healthz and /readyz\n",
            ),
        }
    }

    /// Whether a request is for this server ([`Hosts`]). Programs without a Host speak HTTP/1.0,
    /// and browsers do not.
    fn is_for_this<B>(&self, request: &Request<B>) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter();
        let named = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().is_ok_and(|host| self.hosts.contain(host)),
            (None, _) => request.version() == Version::HTTP_10,
            (Some(_), Some(_)) => false,
        };
        let authority = request.uri().authority();
        named && authority.is_none_or(|authority| self.hosts.contain(authority.as_str()))
    }

    /// An answer made of a report, or else why there is none.
    fn with_report(
        &self,
        answer: impl FnOnce(&Report, &Reporter) -> Response<Content>,
    ) -> Response<Content> {
        let mut reporter = self.reporter.lock().unwrap_or_else(PoisonError::into_inner);
        match reporter.report() {
            Ok(report) => answer(&Arc::clone(&report), &reporter),
            Err(Unanswered::Late) => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "the reactor does not answer\n")
            }
            Err(Unanswered::Ended) => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "the server is about to end\n")
            }
        }
    }
}

/// The answer to a client that may not connect any more.
pub(super) fn refusal_of_client() -> Response<Content> {
    plain(StatusCode::FORBIDDEN, "this address is not among those given by --allow\n")
}

fn readiness(report: &Report) -> Response<Content> {
    let phase = &report.server.phase;
    if *phase == Phase::Serving.word() {
        return plain(StatusCode::OK, "ready\n");
    }
    response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{phase}\n"))
}

fn json(report: &Report) -> Response<Content> {
    let bytes = serde_json::to_vec(report).unwrap_or_default();
    response(StatusCode::OK, "application/json", bytes)
}

/// The page, whose script and style a number lets run: other scripts, which a text of a device
/// might smuggle in, do not have the number.
fn page() -> Response<Content> {
    let nonce = nonce();
    let mut response =
        response(StatusCode::OK, "text/html; charset=utf-8", PAGE.replace(NONCE, &nonce));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).expect("hexadecimal digits");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

/// A number that nobody can guess: the standard library's hashers have secret keys of the system's.
fn nonce() -> String {
    let halves = [(); 2].map(|()| RandomState::new().hash_one(std::process::id()));
    format!("{:016x}{:016x}", halves[0], halves[1])
}

fn plain(status: StatusCode, text: &'static str) -> Response<Content> {
    response(status, TEXT, text)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    bytes: impl Into<hyper::body::Bytes>,
) -> Response<Content> {
    let mut response = Response::new(Content::new(bytes));
    *response.status_mut() = status;
    let of_content = [(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, NOTHING)].into_iter();
    for (name, value) in HEADERS.into_iter().chain(of_content) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
