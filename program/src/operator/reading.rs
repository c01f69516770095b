//! Requests and answers out of JSON.
//!
//! Contract: plain functions; the value is hostile. Fields without a meaning here are ignored.

use serde_json::Value;

use super::protocol::{
    Asked, CaptureStartedReport, DisconnectedReport, Problem, Reason, Said, SessionNameReport,
};
use crate::report::reading::{FromJson, Unread, field, later_field, object, unread};

object!(DisconnectedReport: sessions, held);
object!(CaptureStartedReport: file, sessions; later devices);
object!(SessionNameReport: busid, name, client);
object!(Problem: reason, message);

impl FromJson for Asked {
    fn from_json(value: &Value, _: &'static str) -> Result<Self, Unread> {
        let request: String = field(value, "request")?;
        Ok(match &*request {
            "status" => Self::Status,
            "disconnect" => Self::Disconnect {
                target: field(value, "target")?,
                hold: later_field(value, "hold")?,
            },
            "release" => Self::Release { device: field(value, "device")? },
            "capture-start" => Self::CaptureStart {
                file: field(value, "file")?,
                device: field(value, "device")?,
                size: field(value, "size")?,
                snaplen: field(value, "snaplen")?,
                empty: later_field(value, "empty")?,
            },
            "capture-stop" => Self::CaptureStop { file: field(value, "file")? },
            "events" => Self::Events,
            _ => return Err(Unread::Word(request)),
        })
    }
}

/// An answer has one of the fields.
impl FromJson for Said {
    fn from_json(value: &Value, _: &'static str) -> Result<Self, Unread> {
        let has = |name: &str| !value[name].is_null();
        Ok(match value {
            _ if has("status") => Self::Status(Box::new(field(value, "status")?)),
            _ if has("disconnected") => Self::Disconnected(field(value, "disconnected")?),
            _ if has("released") => Self::Released(field(value, "released")?),
            _ if has("capture-started") => Self::CaptureStarted(field(value, "capture-started")?),
            _ if has("capture-stopped") => {
                Self::CaptureStopped(Box::new(field(value, "capture-stopped")?))
            }
            _ if has("event") => Self::Event(Box::new(field(value, "event")?)),
            _ => Self::Error(field(value, "error")?),
        })
    }
}

impl FromJson for Reason {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        Ok(match &*String::from_json(value, name)? {
            "request" => Self::Request,
            "version" => Self::Version,
            "busy" => Self::Busy,
            "ended" => Self::Ended,
            "unknown" => Self::Unknown,
            "ambiguous" => Self::Ambiguous,
            "free" => Self::Free,
            "too-many" => Self::TooMany,
            "not-held" => Self::NotHeld,
            "captured" => Self::Captured,
            "not-captured" => Self::NotCaptured,
            "file" => Self::File,
            _ => Self::Other,
        })
    }
}

/// The answer in a line of a server.
///
/// # Errors
/// The line is no answer.
pub(super) fn said(line: &[u8]) -> Result<Said, Unread> {
    let value: Value = serde_json::from_slice(line)?;
    // Before the answer: a line without a version is no server's.
    let _version: u32 = field(&value, "version")?;
    Said::from_json(&value, "answer")
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{Answer, Request};
    use super::*;

    #[test]
    fn every_request_is_read_as_it_was_written() {
        let (device, file) = (|| "1-1".to_owned(), || "log".to_owned());
        for asked in [
            Asked::Status,
            Asked::Disconnect { target: device(), hold: true },
            Asked::Release { device: device() },
            Asked::CaptureStart {
                file: file(),
                device: Some(device()),
                size: Some(1),
                snaplen: Some(2),
                empty: true,
            },
            Asked::CaptureStart {
                file: file(),
                device: None,
                size: None,
                snaplen: None,
                empty: false,
            },
            Asked::CaptureStop { file: Some(file()) },
            Asked::CaptureStop { file: None },
            Asked::Events,
        ] {
            let line = serde_json::to_vec(&Request::new(asked.clone())).unwrap();
            assert_eq!(Request::read(&line), Ok(Request::new(asked)));
        }
        let least = br#"{"version":1,"request":"disconnect","target":"1-1"}"#;
        let asked = Asked::Disconnect { target: device(), hold: false };
        assert_eq!(Request::read(least), Ok(Request::new(asked)));
    }

    #[test]
    fn every_answer_is_read_as_it_was_written() {
        let reasons = [
            Reason::Request,
            Reason::Version,
            Reason::Busy,
            Reason::Ended,
            Reason::Unknown,
            Reason::Ambiguous,
            Reason::Free,
            Reason::TooMany,
            Reason::NotHeld,
            Reason::Captured,
            Reason::NotCaptured,
            Reason::File,
            Reason::Other,
        ];
        let session = SessionNameReport {
            busid: "1-1".to_owned(),
            name: Some("stick".to_owned()),
            client: "192.0.2.1:4000".to_owned(),
        };
        let (sessions, file) = (vec![session], "log".to_owned());
        let problem = |reason| Said::Error(Problem { reason, message: "no".to_owned() });
        let others = [
            Said::Disconnected(DisconnectedReport {
                sessions: sessions.clone(),
                held: vec!["1-1".to_owned()],
            }),
            Said::Released(vec!["1-1".to_owned()]),
            Said::CaptureStarted(CaptureStartedReport {
                file,
                sessions,
                devices: vec!["1-1".to_owned()],
            }),
        ];
        for answer in reasons.map(problem).into_iter().chain(others) {
            let line = serde_json::to_vec(&Answer::new(answer.clone())).unwrap();
            assert_eq!(said(&line).unwrap(), answer);
        }
    }

    #[test]
    fn a_line_that_is_no_answer_is_refused() {
        for (line, why) in [
            ("", "EOF while parsing"),
            ("{}", "missing field `version`"),
            (r#"{"version":1}"#, "missing field `error`"),
            (r#"{"version":1,"later":{}}"#, "missing field `error`"),
            (r#"{"version":1,"released":7}"#, "field `released` has an unexpected form"),
            (r#"{"version":1,"status":{}}"#, "missing field `server`"),
            (r#"{"version":1,"status":7}"#, "field `status` has an unexpected form"),
        ] {
            let error = said(line.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(why), "{line}: {error}");
        }
    }
}
