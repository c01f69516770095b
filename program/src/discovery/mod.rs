//! Exporters on the network, announced and found by DNS-SD over multicast DNS (RFC 6763, RFC 6762),
//! as `_usbip._tcp`.
//!
//! - `name`, `message`: the bytes of DNS, as far as announcements need them;
//! - `zone`: the records of a server on a network; `responder`: when to send them;
//! - `links`: the networks of this machine, and a socket for each;
//! - `announce`: the thread that announces a server;
//! - `search`: the look for servers.
//!
//! The code is small rather than complete: a server has five records, and a look has one question.
//! A crate for all of multicast DNS (`mdns-sd`) is a tenth of the program. The system's responder
//! (Avahi, mDNSResponder, systemd-resolved) stays undisturbed: the sockets of an announcement take
//! messages to the group, and no message to this machine alone; and the name of the host in the
//! records belongs to the server alone.
//!
//! Contract: a server's part runs on its own thread; a look *blocks* for [`SEARCH_TIME`]. All
//! messages are hostile: limits hold for each message, and for all that messages can make this
//! program keep or send.
//!
//! [`SEARCH_TIME`]: crate::limits::SEARCH_TIME
//!

mod announce;
mod links;
mod message;
mod name;
mod responder;
mod search;
mod zone;

pub use announce::{Announcement, Announcer};
#[cfg(any(test, fuzzing))]
pub(crate) use message::check_message;
pub use search::{Exporter, search};
