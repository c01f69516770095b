//! What operators and servers say to each other: a line of JSON for each request and each answer
//! (docs/status.md).
//!
//! Contract: plain data. A field is never removed and never changes its meaning under the same
//! version; new fields may come, and unknown fields are ignored.

use serde::Serialize;
use serde_json::Value;

use crate::limits::{CAPTURES_MAX, HOLDS_MAX};
use crate::reactor::{Disobeyed, Obeyed, SessionName};
use crate::report::reading::{FromJson, Unread, field};
use crate::report::{CaptureReport, EventReport, Report};

/// The version of the exchange.
pub const VERSION: u32 = 1;

/// A line of an operator.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Request {
    version: u32,
    /// The wish.
    #[serde(flatten)]
    pub asked: Asked,
}

/// What an operator asks for.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Asked {
    /// The state of the server.
    Status,
    /// The end of the session with a device, or of all sessions of a client.
    Disconnect {
        /// The device, by a name of any form, or the client, by its address.
        target: String,
        /// Whether the devices are held back afterwards.
        hold: bool,
    },
    /// The end of a hold.
    Release {
        /// The device.
        device: String,
    },
    /// Another capture, into the files beside the line: a file or a stream, or with a size two
    /// files.
    CaptureStart {
        /// The name of the capture.
        file: String,
        /// The device; without a value all devices.
        device: Option<String>,
        /// Bytes of the capture.
        size: Option<u64>,
        /// The most bytes of data of a URB.
        snaplen: Option<usize>,
        /// Whether the server empties the files, once it has accepted.
        empty: bool,
    },
    /// The end of a capture.
    CaptureStop {
        /// The name of the capture; without a value the only capture.
        file: Option<String>,
    },
    /// The events from now on.
    Events,
}

/// A line of a server.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Answer {
    version: u32,
    /// The answer.
    #[serde(flatten)]
    pub said: Said,
}

/// The answer of a server.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// The state of the server.
    Status(Box<Report>),
    /// Sessions end in order.
    Disconnected(DisconnectedReport),
    /// Devices are held back no more: these names.
    Released(Vec<String>),
    /// A capture has begun.
    CaptureStarted(CaptureStartedReport),
    /// A capture has ended.
    CaptureStopped(Box<CaptureReport>),
    /// An event.
    Event(Box<EventReport>),
    /// The request was not carried out.
    Error(Problem),
}

/// What a disconnect has begun.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct DisconnectedReport {
    /// The sessions that end.
    pub sessions: Vec<SessionNameReport>,
    /// The names of devices that are held back.
    pub held: Vec<String>,
}

/// A capture that has begun.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct CaptureStartedReport {
    /// The name of the capture.
    pub file: String,
    /// The sessions that are captured from the first moment.
    pub sessions: Vec<SessionNameReport>,
    /// The places of the devices that are meant and there; none where all devices are captured.
    pub devices: Vec<String>,
}

/// A session.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct SessionNameReport {
    /// The place of the device.
    pub busid: String,
    /// The name that the rules give.
    pub name: Option<String>,
    /// The client.
    pub client: String,
}

/// Why a request was not carried out.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The reason, for programs.
    pub reason: Reason,
    /// The reason in words, which may change at any time.
    pub message: String,
}

/// Why a request was not carried out, for programs.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The line is no request.
    Request,
    /// The request has another version.
    Version,
    /// As many operators ask as may.
    Busy,
    /// The server is about to end.
    Ended,
    /// Neither a device nor a client is meant.
    Unknown,
    /// Several devices are meant.
    Ambiguous,
    /// No client has the device.
    Free,
    /// As many devices are held back as may.
    TooMany,
    /// No device of the name is held back.
    NotHeld,
    /// A capture of that name runs already.
    Captured,
    /// No capture has that name, or none runs.
    NotCaptured,
    /// The files beside the request are no place for a capture.
    File,
    /// A reason of a newer server.
    Other,
}

impl Request {
    /// A request of this version.
    #[must_use]
    pub const fn new(asked: Asked) -> Self {
        Self { version: VERSION, asked }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// The line is no request of this version.
    pub fn read(line: &[u8]) -> Result<Self, Problem> {
        let wrong = |error: Unread| Problem {
            reason: Reason::Request,
            message: format!(
                "the line is no request: {error}. A request is a line such as \
                 {{\"version\":{VERSION},\"request\":\"status\"}}"
            ),
        };
        let value: Value = serde_json::from_slice(line).map_err(|error| wrong(error.into()))?;
        let version: u32 = field(&value, "version").map_err(wrong)?;
        if version != VERSION {
            let message = format!("this server knows version {VERSION} only, and not {version}");
            return Err(Problem { reason: Reason::Version, message });
        }
        Ok(Self { version, asked: Asked::from_json(&value, "request").map_err(wrong)? })
    }
}

impl Answer {
    /// An answer of this version.
    #[must_use]
    pub const fn new(said: Said) -> Self {
        Self { version: VERSION, said }
    }
}

impl From<Problem> for Said {
    fn from(problem: Problem) -> Self {
        Self::Error(problem)
    }
}

impl From<Obeyed> for DisconnectedReport {
    fn from(obeyed: Obeyed) -> Self {
        let sessions = obeyed.sessions.into_iter().map(SessionNameReport::from);
        Self { sessions: sessions.collect(), held: obeyed.names }
    }
}

impl CaptureStartedReport {
    pub(super) fn new(file: String, obeyed: Obeyed) -> Self {
        let sessions = obeyed.sessions.into_iter().map(SessionNameReport::from);
        Self { file, sessions: sessions.collect(), devices: obeyed.names }
    }
}

impl From<SessionName> for SessionNameReport {
    fn from(session: SessionName) -> Self {
        Self {
            busid: session.busid.to_string(),
            name: session.name.map(|name| name.to_string()),
            client: session.client.to_string(),
        }
    }
}

impl Problem {
    /// Why an order about `target` was not carried out.
    pub(super) fn of(disobeyed: &Disobeyed, target: &str) -> Self {
        let (reason, message) = match disobeyed {
            Disobeyed::Unknown => (
                Reason::Unknown,
                format!(
                    "no device and no client with a device is meant by \"{target}\": \"usbferry \
                     status\" shows both"
                ),
            ),
            Disobeyed::Ambiguous(devices) => (
                Reason::Ambiguous,
                format!("\"{target}\" means several devices: {devices}; name one by its place"),
            ),
            Disobeyed::Free => (Reason::Free, format!("no client has \"{target}\"")),
            Disobeyed::TooMany => (
                Reason::TooMany,
                format!("{HOLDS_MAX} devices are held back, the limit: release others first"),
            ),
            Disobeyed::NotHeld => (
                Reason::NotHeld,
                format!(
                    "no device is held back by \"{target}\": \"usbferry status\" shows the devices \
                     that are"
                ),
            ),
            Disobeyed::Captured(_) | Disobeyed::TooManyCaptures | Disobeyed::NoCapture => {
                Self::of_captures(disobeyed)
            }
            Disobeyed::SeveralCaptures(files) => {
                (Reason::Ambiguous, format!("several captures run, {files}: name the file of one"))
            }
            Disobeyed::Capture(reason) => (Reason::File, reason.clone()),
        };
        Self { reason, message }
    }

    /// The reason and the words for captures that run, or don't.
    fn of_captures(disobeyed: &Disobeyed) -> (Reason, String) {
        match disobeyed {
            Disobeyed::Captured(file) => (
                Reason::Captured,
                format!("{}: a capture writes there already; give another file", file.display()),
            ),
            Disobeyed::TooManyCaptures => (
                Reason::TooMany,
                format!(
                    "{CAPTURES_MAX} captures run, the limit: end another first with \"usbferry \
                         capture stop\""
                ),
            ),
            _ => (
                Reason::NotCaptured,
                "no such capture runs: \"usbferry status\" shows the captures".to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::said;
    use super::*;

    #[test]
    fn a_request_is_a_line_of_its_form() {
        let line = serde_json::to_string(&Request::new(Asked::Status)).unwrap();
        assert_eq!(line, r#"{"version":1,"request":"status"}"#);
        assert_eq!(Request::read(line.as_bytes()), Ok(Request::new(Asked::Status)));
        let more = br#"{"request":"status","later":[1],"version":1}"#;
        assert_eq!(Request::read(more), Ok(Request::new(Asked::Status)));
    }

    #[test]
    fn any_other_line_is_refused_with_the_reason() {
        let deep = "[".repeat(4000);
        for (line, reason, says) in [
            ("", Reason::Request, "\"request\":\"status\""),
            ("status", Reason::Request, "no request"),
            ("{}", Reason::Request, "missing field `version`"),
            (&deep, Reason::Request, "no request"),
            (r#"{"version":1}"#, Reason::Request, "missing field `request`"),
            (r#"{"version":1,"request":"fly"}"#, Reason::Request, "unknown variant `fly`"),
            (r#"{"version":-1,"request":"status"}"#, Reason::Request, "no request"),
            (r#"{"version":2,"request":"status"}"#, Reason::Version, "version 1 only"),
            ("\u{0}\u{1}", Reason::Request, "no request"),
        ] {
            let problem = Request::read(line.as_bytes()).unwrap_err();
            assert_eq!(problem.reason, reason, "{line}");
            assert!(problem.message.contains(says), "{line}: {}", problem.message);
        }
        assert_eq!(Request::read(&[0xff; 9]).unwrap_err().reason, Reason::Request);
    }

    #[test]
    fn an_answer_of_a_newer_server_is_understood_as_far_as_it_goes() {
        let line = r#"{"version":1,"error":{"reason":"tired","message":"no","more":1}}"#;
        assert_eq!(
            said(line.as_bytes()).unwrap(),
            Problem { reason: Reason::Other, message: "no".to_owned() }.into()
        );
    }
}
