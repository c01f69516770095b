//! Which devices of this machine a running usbferry has lent, and to whom: by the server's socket
//! of operators, or else by the note that a server keeps of an open device.
//!
//! Contract: *blocks* for the server's answer.

use std::path::Path;

use log::debug;

use super::CommandError;
use crate::operator::client::{Operator, OperatorError};
use crate::report::{Report, parse_time};
use crate::units::clock;
use crate::usb::DeviceInfo;
use crate::usb::libusb;
use crate::words::printable;

/// The loans of this machine, as far as a server tells.
#[derive(Default)]
pub(super) struct Loans(Option<Report>);

/// A device that a running usbferry has lent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Lent {
    /// To this client, since then in the form of a report.
    To(String, Option<String>),
    /// To a client of a server that does not tell.
    Unknown,
}

impl Loans {
    /// Asks the server of a socket, or the server in the usual place, which may be none.
    ///
    /// # Errors
    /// The named server does not answer.
    pub(super) fn ask(socket: Option<&Path>) -> Result<Self, CommandError> {
        let asked = Operator::connect(socket).and_then(|mut operator| operator.status());
        match asked {
            Ok(report) => Ok(Self(Some(report))),
            Err(error) if socket.is_some() => Err(CommandError::Operator(error)),
            Err(error) => Ok(Self::unknown(&error)),
        }
    }

    fn unknown(error: &OperatorError) -> Self {
        debug!("nobody says who has which device: {error}");
        Self(None)
    }

    /// The loan of a device, if there is one.
    pub(super) fn of(&self, info: &DeviceInfo) -> Option<Lent> {
        let busid = info.device.busid.to_string();
        let mut sessions = self.0.iter().flat_map(|report| &report.sessions);
        let session = sessions.rfind(|session| session.busid == busid);
        match session {
            Some(session) => Some(Lent::To(session.client.clone(), session.since.clone())),
            None => libusb::is_lent(&info.device).then_some(Lent::Unknown),
        }
    }
}

impl Lent {
    /// The loan in words.
    pub(super) fn note(&self) -> String {
        match self {
            Self::To(client, since) => {
                let since = since.as_deref().and_then(parse_time).map(clock);
                let since = since.map(|time| format!(" since {time}")).unwrap_or_default();
                format!("lent to {}{since}", printable(client))
            }
            Self::Unknown => "lent by a running usbferry, whose socket can't be asked for the \
                              client: use sudo, or --socket PATH"
                .to_owned(),
        }
    }

    /// The client, and since when, for programs.
    pub(super) fn into_json(self) -> (Option<String>, Option<String>) {
        match self {
            Self::To(client, since) => (Some(client), since),
            Self::Unknown => (None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loan_is_told_with_the_client_and_the_time() {
        let lent = Lent::To("192.0.2.7:40112".to_owned(), Some("2020-01-02T03:04:05Z".to_owned()));
        let note = lent.note();
        assert!(note.starts_with("lent to 192.0.2.7:40112 since 2020-01-0"), "{note}");
        assert_eq!(Lent::To("::1\u{1b}".to_owned(), None).note(), "lent to ::1\\u{1b}");
    }
}
