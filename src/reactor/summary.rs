//! The last line about a session: how long the session was, and how much it moved.
//!
//! Contract: plain values; allocates, at the end of a session only.

use std::fmt;
use std::time::Duration;

use crate::stats::SessionStats;
use crate::units::Lasting;

/// The work of a session that has ended.
pub(super) struct Summary {
    lasted: Duration,
    stats: SessionStats,
}

impl Summary {
    pub(super) const fn new(lasted: Duration, stats: SessionStats) -> Self {
        Self { lasted, stats }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lasted, stats } = self;
        let total = stats.total();
        let (urbs, bytes_in, bytes_out) = (total.urbs, total.bytes_in, total.bytes_out);
        write!(
            f,
            "after {}: {urbs} URBs, {bytes_in} bytes from the device, {bytes_out} bytes to the \
             device",
            Lasting(*lasted)
        )?;
        let mut separator = "; errors: ";
        let mut list = |count: u64, name: &dyn fmt::Display| {
            let written = write!(f, "{separator}{count} {name}");
            separator = ", ";
            written
        };
        for (status, count) in total.errors.by_status() {
            match status {
                Some(status) => list(count, &status)?,
                None => list(count, &"other")?,
            }
        }
        if total.packet_errors > 0 {
            list(total.packet_errors, &"failed packets")?;
        }
        if stats.refused > 0 {
            list(stats.refused, &"refused SUBMITs")?;
        }
        if separator == ", " { Ok(()) } else { f.write_str("; no errors") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{EndpointStats, EndpointWork};
    use crate::wire::status::Status;
    use crate::wire::types::Direction;

    #[test]
    fn a_session_is_told_in_one_line() {
        let mut bulk_in = EndpointStats::default();
        for status in [Status::OK, Status::EPIPE, Status::EPIPE, Status(-7)] {
            bulk_in.note_ended(Direction::In, status, 100);
        }
        let mut bulk_out = EndpointStats::default();
        bulk_out.note_ended(Direction::Out, Status::ECONNRESET, 10);
        bulk_out.note_packets(3);
        let endpoints = [bulk_in, bulk_out].map(EndpointWork::of_counters).to_vec();
        let stats = SessionStats { refused: 2, endpoints, ..SessionStats::default() };
        let said = Summary::new(Duration::from_millis(3500), stats).to_string();
        let expected = "after 3 s: 5 URBs, 400 bytes from the device, 10 bytes to the device; \
                        errors: 2 EPIPE, 1 ECONNRESET, 1 other, 3 failed packets, \
                        2 refused SUBMITs";
        assert_eq!(said, expected);
        let said = Summary::new(Duration::ZERO, SessionStats::default()).to_string();
        assert!(
            said.starts_with("after 0 ms: 0 URBs, ") && said.ends_with("; no errors"),
            "{said}"
        );
    }
}
