//! The client as a reader of replies, as strict as a kernel (`drivers/usb/usbip/vhci_rx.c`), which
//! also checks each reply against the end of its URB.

use super::client::{Client, Fate, Sent};
use super::verdict::{Outcome, Verdict};
use crate::usb::Performed;
use crate::wire::iso::{DESCRIPTOR_LEN, Packet, Packets};
use crate::wire::pdu::{HEADER_LEN, Reply, RetSubmit, RetUnlink};
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType};

impl Client {
    /// Takes bytes from the session.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
        while let Some(len) = self.read_reply() {
            self.inbox_start += len;
            self.replies += 1;
        }
        if self.inbox_start == self.inbox.len() {
            self.inbox.clear();
            self.inbox_start = 0;
        }
    }

    /// Looks at the next reply, if all of the reply is there, and returns the length.
    fn read_reply(&mut self) -> Option<usize> {
        let bytes = &self.inbox[self.inbox_start..];
        let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        assert_eq!(header[8..20], [0; 12], "fields that are zero in replies");
        match Reply::parse(header).expect("a reply") {
            Reply::Submit(ret) => {
                assert_eq!(header[40..], [0; 8], "padding of {ret:?}");
                let id = self.by_seqnum.get(&ret.seqnum);
                let id = *id.unwrap_or_else(|| panic!("nobody waits for {ret:?}"));
                let sent = &self.urbs[&id];
                let is_in = sent.submit.endpoint.direction() == Direction::In;
                let data_len = if is_in { ret.actual_length as usize } else { 0 };
                let packets_len = sent.packets.len() * DESCRIPTOR_LEN;
                let behind = bytes[HEADER_LEN..].get(..data_len + packets_len)?;
                let (data, descriptors) = behind.split_at(data_len);
                self.check_submit(sent, &ret, data, descriptors);
                let len = HEADER_LEN + behind.len();
                self.refused += u64::from(is_refusal(sent, ret.status));
                self.retire(id, &ret);
                Some(len)
            }
            Reply::Unlink(ret) => {
                assert_eq!(header[24..], [0; 24], "padding of {ret:?}");
                self.take_unlink(&ret);
                Some(HEADER_LEN)
            }
        }
    }

    /// Checks a RET_SUBMIT with the data and descriptors behind.
    fn check_submit(&self, sent: &Sent, ret: &RetSubmit, data: &[u8], descriptors: &[u8]) {
        assert!(sent.pdu_end <= self.delivered, "an answer to half a PDU: {sent:?}");
        assert_eq!(ret.start_frame, sent.submit.start_frame, "{sent:?}");
        assert_eq!(ret.number_of_packets, sent.submit.number_of_packets, "{sent:?}");
        assert!(ret.actual_length <= sent.submit.transfer_buffer_length, "{ret:?} of {sent:?}");
        let results = read_packets(sent, descriptors);
        let (sum, errors) = results.iter().fold((0, 0), |(sum, errors), &(actual, status)| {
            (sum + actual, errors + u32::from(status != Status::OK))
        });
        assert_eq!(ret.error_count, errors, "{ret:?} of {sent:?}");
        if !results.is_empty() {
            assert_eq!(ret.actual_length, sum, "{ret:?} of {sent:?}");
        }
        let expected = match &sent.fate {
            Fate::Ended { outcome, order } => {
                let last = self.orders[sent.submit.endpoint.index()];
                assert!(*order > last, "an endpoint's URBs ended in another order: {sent:?}");
                outcome
            }
            Fate::Submitted => panic!("the device still has {sent:?}, and yet {ret:?}"),
            Fate::Waiting | Fate::Performed(_) => {
                assert_eq!(ret.actual_length, 0, "{ret:?} of {sent:?}");
                assert!(results.iter().all(|result| *result == (0, Status::EXDEV)), "{results:?}");
                return self.check_refused(sent, ret.status);
            }
        };
        let told = Outcome {
            status: ret.status,
            actual_length: ret.actual_length,
            error_count: ret.error_count,
            packets: results,
            data: Vec::new(),
        };
        assert_eq!(told, Outcome { data: Vec::new(), ..expected.clone() }, "{sent:?}");
        assert!(data == expected.data, "the data of {sent:?}");
    }

    /// Checks the status of a URB answered without the device.
    fn check_refused(&self, sent: &Sent, status: Status) {
        let verdict = self.verdict(sent);
        let right = match (&sent.fate, verdict) {
            (Fate::Performed(Performed::Done), _) => Status::OK,
            (Fate::Performed(Performed::Reconfigured { status, .. }), _) => *status,
            (Fate::Performed(Performed::Failed(status)), _) => *status,
            (Fate::Performed(Performed::Gone), _) => Status::ENODEV,
            (_, Verdict::Refused(status)) => status,
            // A URB fit for the device needs an excuse.
            _ => return assert!(self.excused(sent, status), "{status:?} for {sent:?}"),
        };
        let performed = matches!(sent.fate, Fate::Performed(_));
        let excused = !performed && self.excused(sent, status);
        assert!(status == right || excused, "{status:?}, not {right:?}, for {sent:?}");
    }

    /// Whether there is a reason for a URB to have failed with `status`.
    fn excused(&self, sent: &Sent, status: Status) -> bool {
        let endpoint = match self.verdict(sent) {
            Verdict::Device(TransferType::Control) | Verdict::Special(_) => {
                EndpointAddress::new(sent.submit.endpoint.number(), Direction::Out)
            }
            _ => sent.submit.endpoint,
        };
        let refusal = self.refusals.get(&status.0);
        match status {
            Status::ENOMEM => self.excuses.memory,
            Status::ENODEV => self.excuses.gone,
            // A barrier may have begun and gone with the device unseen.
            Status::ECONNRESET => self.barriers[endpoint.index()] > sent.id || self.excuses.gone,
            _ => refusal.is_some_and(|r| r.endpoint == endpoint && r.after < sent.id),
        }
    }

    /// Forgets an answered URB.
    fn retire(&mut self, id: u32, ret: &RetSubmit) {
        self.by_seqnum.remove(&ret.seqnum);
        self.refusals.remove(&ret.status.0);
        self.used.push(ret.seqnum);
        let sent = self.urbs.remove(&id).expect("it was just looked at");
        if let Fate::Ended { order, .. } = sent.fate {
            self.orders[sent.submit.endpoint.index()] = order;
        }
    }

    /// Checks and takes a RET_UNLINK.
    fn take_unlink(&mut self, ret: &RetUnlink) {
        let unlink = self.unlinks.remove(&ret.seqnum);
        let unlink = unlink.unwrap_or_else(|| panic!("nobody waits for {ret:?}"));
        assert!(unlink.end <= self.delivered, "an answer to half an UNLINK: {ret:?}");
        let sent = unlink.target.and_then(|id| self.urbs.get(&id));
        // An answered URB, and a URB with an earlier UNLINK, are not touched. An UNLINK sent before
        // its SUBMIT gives the SUBMIT up, or was answered without the SUBMIT.
        let given_up_ahead = unlink.ahead && ret.status != Status::OK;
        let Some(sent) = sent.filter(|s| s.unlink == Some(ret.seqnum) || given_up_ahead) else {
            return assert_eq!(ret.status, Status::OK, "{ret:?}");
        };
        let arrived = sent.pdu_end <= self.delivered;
        assert!(!given_up_ahead || arrived && sent.fate == Fate::Waiting, "{ret:?} of {sent:?}");
        assert_eq!(ret.status, Status::ECONNRESET, "{ret:?} while waiting for {sent:?}");
        match &sent.fate {
            Fate::Submitted => panic!("{ret:?} while the device has {sent:?}"),
            Fate::Ended { outcome, .. } => assert!(
                outcome.status == Status::ECONNRESET && outcome.actual_length == 0,
                "{ret:?} hides the end of {sent:?}"
            ),
            Fate::Waiting | Fate::Performed(_) => {}
        }
        self.by_seqnum.remove(&sent.submit.seqnum);
        self.used.push(sent.submit.seqnum);
        self.urbs.remove(&unlink.target.expect("it has a URB"));
    }
}

/// Whether the answer of a URB is an error of the session, not of the device or the host's stack.
fn is_refusal(sent: &Sent, status: Status) -> bool {
    let had = !matches!(sent.fate, Fate::Waiting | Fate::Performed(Performed::Forward));
    // A barrier gives up waiting URBs.
    !had && status != Status::OK && status != Status::ECONNRESET
}

/// The results in a reply's descriptors, whose other half must be as sent.
fn read_packets(sent: &Sent, descriptors: &[u8]) -> Vec<(u32, Status)> {
    let check = |(packet, &(offset, length)): (Packet, &(u32, u32))| {
        assert_eq!((packet.offset, packet.length), (offset, length), "{sent:?}");
        assert!(packet.actual_length <= length, "{packet:?}");
        (packet.actual_length, packet.status)
    };
    Packets::new(descriptors).iter().zip(&sent.packets).map(check).collect()
}
