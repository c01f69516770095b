//! The client of the model: the URBs and UNLINKs without an answer, and the stream of commands.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::device::{configurations, pattern};
use super::verdict::{Outcome, Verdict, asked_for, judge, sets};
use crate::limits::UNLINK_REPLIES_MAX;
use crate::usb::special::SpecialRequest;
use crate::usb::{Configuration, Performed};
use crate::wire::pdu::{CmdSubmit, CmdUnlink, Command, HEADER_LEN};
use crate::wire::types::{DevId, EndpointAddress, SeqNum};

pub(in crate::session) const DEVID: DevId = DevId(0x0001_0002);

/// The kind of a control transfer; all other transfers are ordinary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ControlKind {
    Ordinary,
    Special(SpecialRequest),
    /// No device may ever see the request.
    Forbidden,
}

/// How far a URB is, in the model's view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// On its way, or in the session.
    Waiting,
    /// A special request after its performance.
    Performed(Performed),
    /// With the device.
    Submitted,
    /// Collected from the device, as URB number `order`.
    Ended { outcome: Outcome, order: u64 },
}

/// A URB without an answer as yet.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Counts SUBMITs from 1; `start_frame` carries the count.
    pub(super) id: u32,
    pub(super) submit: CmdSubmit,
    pub(super) kind: ControlKind,
    /// Offset and length of each packet.
    pub(super) packets: Vec<(u32, u32)>,
    /// The end of the PDU in the client's stream.
    pub(super) pdu_end: u64,
    /// The first UNLINK.
    pub(super) unlink: Option<SeqNum>,
    pub(super) fate: Fate,
}

impl Sent {
    /// The OUT data.
    pub(super) fn payload(&self) -> &'static [u8] {
        pattern(self.id, self.submit.payload_len() as usize)
    }
}

/// The id of a URB, from `start_frame`.
pub(super) const fn id_of(submit: &CmdSubmit) -> u32 {
    submit.start_frame.unsigned_abs()
}

/// An UNLINK without an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unlink {
    /// The URB with the seqnum when the UNLINK was sent; if sent `ahead`, the next URB with the
    /// seqnum.
    pub(super) target: Option<u32>,
    /// The UNLINK was sent before its SUBMIT.
    pub(super) ahead: bool,
    /// The end of the UNLINK in the client's stream.
    pub(super) end: u64,
}

/// Possible reasons for a URB not being carried out.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Excuses {
    /// Memory or records were short, or the system had no memory for long.
    pub(super) memory: bool,
    /// The device is gone.
    pub(super) gone: bool,
}

/// A submission refused by the device's stack with a status of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) endpoint: EndpointAddress,
    /// The last URB of the endpoint taken before.
    pub(super) after: u32,
}

/// A client.
pub(super) struct Client {
    /// URBs without an answer, by id.
    pub(super) urbs: BTreeMap<u32, Sent>,
    pub(super) by_seqnum: HashMap<SeqNum, u32>,
    pub(super) unlinks: HashMap<SeqNum, Unlink>,
    /// The ends of UNLINKs on their way to the session, and how many have reached the session.
    unlink_ends: VecDeque<u64>,
    unlinks_got: u64,
    /// URBs answered with an error without the device.
    pub(super) refused: u64,
    /// Special requests neither performed nor answered.
    pub(super) specials: BTreeMap<u32, (SeqNum, SpecialRequest)>,
    /// Endpoints which special requests may make isochronous, including requests ended while there
    /// were others, a bit each; `None` when no request sets anything.
    pub(super) asked: Option<u32>,
    /// Configurations, and the special request from which on each is in force.
    pub(super) configurations: Vec<(u32, Option<Configuration>)>,
    /// Refusals not yet told to the client, by status.
    pub(super) refusals: HashMap<i32, Refusal>,
    /// The last special request begun for each endpoint.
    pub(super) barriers: [u32; EndpointAddress::COUNT],
    pub(super) excuses: Excuses,
    pub(super) urb_len: usize,
    /// Which of the collected URBs each endpoint was last told of.
    pub(super) orders: [u64; EndpointAddress::COUNT],
    next_id: u32,
    next_seqnum: u32,
    /// The seqnum of the next SUBMIT, if its UNLINK was sent before, and the UNLINK's own.
    overtaken: Option<[SeqNum; 2]>,
    /// Answered seqnums, some of which are used again.
    pub(super) used: Vec<SeqNum>,
    /// Bytes on their way to the session.
    outbox: Vec<u8>,
    outbox_start: usize,
    /// Bytes sent and bytes delivered to the session, ever.
    sent: u64,
    pub(super) delivered: u64,
    /// Bytes of a reply not whole yet.
    pub(super) inbox: Vec<u8>,
    pub(super) inbox_start: usize,
    /// RET_SUBMITs and RET_UNLINKs read.
    pub(super) replies: u64,
}

impl Client {
    pub(super) fn new(urb_len: usize, configuration: Option<Configuration>, seqnum: u32) -> Self {
        Self {
            urbs: BTreeMap::new(),
            by_seqnum: HashMap::new(),
            unlinks: HashMap::new(),
            unlink_ends: VecDeque::new(),
            unlinks_got: 0,
            refused: 0,
            specials: BTreeMap::new(),
            asked: None,
            configurations: vec![(0, configuration)],
            refusals: HashMap::new(),
            barriers: [0; EndpointAddress::COUNT],
            excuses: Excuses::default(),
            urb_len,
            orders: [0; EndpointAddress::COUNT],
            next_id: 1,
            next_seqnum: seqnum,
            overtaken: None,
            used: Vec::new(),
            outbox: Vec::new(),
            outbox_start: 0,
            sent: 0,
            delivered: 0,
            inbox: Vec::new(),
            inbox_start: 0,
            replies: 0,
        }
    }

    /// An unused seqnum.
    fn fresh_seqnum(&mut self) -> SeqNum {
        loop {
            self.next_seqnum = self.next_seqnum.wrapping_add(1);
            let seqnum = SeqNum(self.next_seqnum);
            if !self.by_seqnum.contains_key(&seqnum) && !self.unlinks.contains_key(&seqnum) {
                return seqnum;
            }
        }
    }

    /// Sends a SUBMIT with its data and the descriptors of its packets. The numbers in
    /// `submit` are the client's to choose.
    pub(super) fn submit(
        &mut self,
        mut submit: CmdSubmit,
        kind: ControlKind,
        packets: Vec<(u32, u32)>,
        reuse: bool,
    ) -> u32 {
        let overtaken = self.overtaken.take();
        let reused = if reuse && overtaken.is_none() { self.used.pop() } else { None };
        let reused = reused.filter(|seqnum| {
            !self.by_seqnum.contains_key(seqnum) && !self.unlinks.contains_key(seqnum)
        });
        let chosen = overtaken.map(|[seqnum, _]| seqnum).or(reused);
        submit.seqnum = chosen.unwrap_or_else(|| self.fresh_seqnum());
        let id = self.next_id;
        self.next_id += 1;
        // Both signs occur, and come back unchanged.
        let frame = i32::try_from(id).expect("runs are short");
        submit.start_frame = if id.is_multiple_of(2) { frame } else { -frame };
        let fate = Fate::Waiting;
        let mut sent = Sent { id, submit, kind, packets, pdu_end: 0, unlink: None, fate };
        self.emit(&Command::Submit(submit));
        self.push(sent.payload());
        for &(offset, length) in &sent.packets {
            let words = [offset, length, 0, 0xffff_ffee];
            self.push(&words.map(u32::to_be_bytes).concat());
        }
        sent.pdu_end = self.sent;
        if let ControlKind::Special(request) = kind
            && self.may_be_control(&sent)
        {
            if self.specials.is_empty() {
                self.asked = None;
            }
            if sets(request) {
                let asked = asked_for(request, configurations(0).iter().flatten());
                *self.asked.get_or_insert(0) |= asked;
            }
            self.specials.insert(id, (submit.seqnum, request));
        }
        self.by_seqnum.insert(submit.seqnum, id);
        self.urbs.insert(id, sent);
        if let Some(unlink) = overtaken.and_then(|[_, unlink]| self.unlinks.get_mut(&unlink)) {
            unlink.target = Some(id);
        }
        id
    }

    /// Whether the SUBMIT will be looked at as a request: a malformed SUBMIT is not.
    fn may_be_control(&self, sent: &Sent) -> bool {
        matches!(judge(sent, self.configuration_of(u32::MAX), self.urb_len), Verdict::Special(_))
    }

    /// Sends an UNLINK of `target`.
    pub(super) fn unlink(&mut self, target: SeqNum) {
        let seqnum = self.fresh_seqnum();
        self.emit(&Command::Unlink(CmdUnlink { seqnum, devid: DEVID, target }));
        let target = self.by_seqnum.get(&target).copied();
        if let Some(sent) = target.and_then(|id| self.urbs.get_mut(&id))
            && sent.unlink.is_none()
        {
            sent.unlink = Some(seqnum);
        }
        self.unlinks.insert(seqnum, Unlink { target, ahead: false, end: self.sent });
        self.unlink_ends.push_back(self.sent);
    }

    /// Sends an UNLINK of the next SUBMIT, as Linux does when a thread is late.
    pub(super) fn unlink_ahead(&mut self) {
        if self.overtaken.is_some() {
            return;
        }
        let [target, seqnum] = [self.fresh_seqnum(), self.fresh_seqnum()];
        self.emit(&Command::Unlink(CmdUnlink { seqnum, devid: DEVID, target }));
        self.unlinks.insert(seqnum, Unlink { target: None, ahead: true, end: self.sent });
        self.unlink_ends.push_back(self.sent);
        self.overtaken = Some([target, seqnum]);
    }

    /// Sends a header, right or wrong.
    pub(super) fn emit(&mut self, command: &Command) {
        let mut header = [0; HEADER_LEN];
        command.emit(&mut header);
        self.push(&header);
    }

    /// Sends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
        self.sent += bytes.len() as u64;
    }

    /// UNLINKs delivered to the session.
    pub(super) fn unlinks_got(&mut self) -> u64 {
        while self.unlink_ends.front().is_some_and(|end| *end <= self.delivered) {
            self.unlink_ends.pop_front();
            self.unlinks_got += 1;
        }
        self.unlinks_got
    }

    /// The bytes on their way to the session.
    pub(super) fn undelivered(&self) -> &[u8] {
        &self.outbox[self.outbox_start..]
    }

    /// Notes `len` bytes as delivered to the session.
    pub(super) fn advance(&mut self, len: usize) {
        self.outbox_start += len;
        self.delivered += len as u64;
        if self.outbox_start == self.outbox.len() {
            self.outbox.clear();
            self.outbox_start = 0;
        }
    }

    /// The configuration in which URB `id` has to be looked at.
    pub(super) fn configuration_of(&self, id: u32) -> Option<&Configuration> {
        let after = self.configurations.partition_point(|&(since, _)| since < id);
        self.configurations[after - 1].1.as_ref()
    }

    /// The right treatment of a URB.
    pub(super) fn verdict(&self, sent: &Sent) -> Verdict {
        judge(sent, self.configuration_of(sent.id), self.urb_len)
    }

    /// Checks that every UNLINK delivered to the session has an answer, unless its URB is with the
    /// device, or the UNLINK is `early` and waits for a SUBMIT; to be called when the client has
    /// read everything.
    pub(super) fn check_unlinks_are_answered(&self, early: &[SeqNum]) {
        let got = self.unlinks.iter().filter(|(_, unlink)| unlink.end <= self.delivered);
        for (_, unlink) in got.filter(|(seqnum, _)| !early.contains(seqnum)) {
            let sent = unlink.target.and_then(|id| self.urbs.get(&id));
            let with_device = sent.is_some_and(|sent| sent.fate == Fate::Submitted);
            let arriving = sent.is_some_and(|sent| sent.pdu_end > self.delivered);
            assert!(
                with_device || unlink.ahead && arriving,
                "an UNLINK has no answer: {unlink:?} of {sent:?}"
            );
        }
    }

    /// UNLINKs delivered to the session and without an answer; 0 where there are few.
    pub(super) fn unlinks_delivered(&self) -> usize {
        if self.unlinks.len() < UNLINK_REPLIES_MAX {
            return 0;
        }
        self.unlinks.values().filter(|unlink| unlink.end <= self.delivered).count()
    }

    /// Whether the session was told of a URB being given up.
    pub(super) fn is_given_up(&self, sent: &Sent) -> bool {
        let unlink = sent.unlink.and_then(|seqnum| self.unlinks.get(&seqnum));
        unlink.is_some_and(|unlink| unlink.end <= self.delivered)
    }

    /// Special requests delivered to the session together with an UNLINK of each.
    pub(super) fn specials_given_up(&self) -> Vec<u32> {
        let given_up = |id: &&u32| self.urbs.get(id).is_some_and(|sent| self.is_given_up(sent));
        self.specials.keys().filter(given_up).copied().collect()
    }

    /// Checks for answers to everything.
    pub(super) fn check_nothing_is_left(&self) {
        assert!(self.urbs.is_empty(), "never answered: {:?}", self.urbs);
        assert!(self.unlinks.is_empty(), "never answered: {:?}", self.unlinks);
        assert!(self.specials.is_empty(), "never performed: {:?}", self.specials);
        assert!(self.refusals.is_empty(), "never reported: {:?}", self.refusals);
        assert!(self.inbox.is_empty(), "half a reply");
    }

    /// Forgets special requests answered without a performance; `in_force` is under way.
    pub(super) fn prune_specials(&mut self, in_force: Option<u32>) {
        self.specials.retain(|id, _| in_force == Some(*id) || self.urbs.contains_key(id));
    }
}
