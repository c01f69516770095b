//! The events in a session's life, each as a 64-bit word.
//!
//! A word means the same whether made by a random generator or by a fuzzer, and stays meaningful
//! without its neighbours: arguments choose among the choices there are when their turn comes. A
//! failing run can be cut down to the few words of importance.

use usbferry_sys::arena::Arena;

use super::client::DEVID;
use super::device::{ModelPort, configurations};
use crate::limits::DeviceLimits;
use crate::session::{Session, Tables};
use crate::usb::isochronous::IsochronousSettings;
use crate::usb::{Configuration, Opened};

/// An event. Fields choose; the code which carries the event out says among which choices.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// The client sends a SUBMIT for an endpoint other than control.
    Submit { endpoint: u8, shape: u16, length: u16, packets: u16 },
    /// The client sends many small SUBMITs, or UNLINKs, and perhaps nobody does anything else.
    Flood { kind: u8, count: u16 },
    /// The client sends an ordinary control transfer, or a transfer which is never carried out.
    Control { kind: u8, length: u16, room: u16, shape: u16 },
    /// The client sends a request performed by the host.
    Special { kind: u8, value: u16, index: u16, shape: u16 },
    /// The client gives a URB up.
    Unlink { kind: u8, pick: u16 },
    /// The client sends a violation of the protocol.
    Violate { kind: u8 },
    /// The session gets bytes of the client.
    Deliver { bytes: u16 },
    /// The client takes bytes from the session.
    Read { bytes: u16 },
    /// A transfer ends.
    Complete { pick: u16, how: u16, length: u16 },
    /// Several transfers end.
    CompleteMany { count: u8, how: u16, length: u16 },
    /// The session collects ended transfers, at most `budget`.
    Reap { budget: u8 },
    /// The worker gets a job, if there is any.
    TakeJob,
    /// The worker does the job.
    RunJob { outcome: u8, value: u16 },
    /// The session gets the port back.
    TakeBack,
    /// The next submissions are refused.
    Refuse { reason: u8, times: u8 },
    /// Somebody does nothing for some time, or time passes.
    Pause { who: u8, steps: u8 },
    /// The session gives back memory, as if idle.
    GiveBack,
    /// The server stops: nothing more is taken from the client.
    CloseInput,
    /// The device goes.
    Unplug { how: u8 },
    /// Everybody finishes, after which nothing may be left.
    Settle,
    /// The client goes.
    Teardown,
}

impl Operation {
    /// Reads a word.
    pub(super) fn decode(word: u64) -> Self {
        let [kind, a, b0, b1, c0, c1, d0, d1] = word.to_le_bytes();
        let [b, c, d] = [[b0, b1], [c0, c1], [d0, d1]].map(u16::from_le_bytes);
        match kind {
            0..56 => Self::Submit { endpoint: a, shape: b, length: c, packets: d },
            56..68 => Self::Control { kind: a, length: b, room: c, shape: d },
            68..74 => Self::Special { kind: a, value: b, index: c, shape: d },
            74..96 => Self::Unlink { kind: a, pick: b },
            96..134 => Self::Deliver { bytes: b },
            134..166 => Self::Read { bytes: b },
            166..196 => Self::Complete { pick: b, how: c, length: d },
            196..202 => Self::CompleteMany { count: a, how: c, length: d },
            202..220 => Self::Reap { budget: a },
            220..230 => Self::TakeJob,
            230..239 => Self::RunJob { outcome: a, value: b },
            239..248 => Self::TakeBack,
            248..250 => Self::Refuse { reason: a, times: b0 },
            250..252 => Self::Pause { who: a, steps: b0 },
            252 => Self::Settle,
            // Rare events end much else.
            253 if a < 20 => Self::Flood { kind: b0, count: c },
            253 if a < 60 => Self::Violate { kind: b0 },
            253 if a < 70 => Self::CloseInput,
            254 if a < 60 => Self::Unplug { how: b0 },
            254 if a >= 128 => Self::GiveBack,
            255 if a < 60 => Self::Teardown,
            _ => Self::Deliver { bytes: b },
        }
    }
}

/// How large the session of a run is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) slots: usize,
    /// Bytes.
    pub(super) memory: usize,
    /// Bytes of the largest URB.
    pub(super) urb_len: usize,
    /// The alternate setting of the device's streaming interface at the start.
    pub(super) alternate: u8,
    /// Whether everything is finished before the client goes.
    pub(super) settles: bool,
}

/// Bytes from which on the session takes a payload for large: expectations come true, or do not,
/// within short runs too.
const LARGE: usize = 16;

/// Bytes of a batch for a prompt device.
const BATCH: usize = 64;

impl Scale {
    /// A session of the scale with a model's device.
    pub(super) fn session(&self, configuration: Option<Configuration>) -> Session<ModelPort> {
        let mut memory = Arena::new();
        memory.add_heap(self.memory).expect("there is memory");
        let opened = Opened {
            port: ModelPort::new(self.slots),
            slots: self.slots,
            transfers: Vec::new(),
            memory,
            configuration,
            device: [0; 18],
            configurations: Vec::new(),
            isochronous: IsochronousSettings::of(configurations(0).iter().flatten()),
        };
        let limits = DeviceLimits { urb_len: self.urb_len, ..DeviceLimits::default() };
        let tables = Tables::new(self.slots).expect("there is memory");
        let mut session = Session::new(DEVID, limits, opened, tables);
        session.rx.set_large(LARGE);
        session.rx.set_batch(BATCH);
        session
    }

    /// Reads the first word of a run.
    pub(super) fn decode(word: u64) -> Self {
        let [a, b, c, d, e, ..] = word.to_le_bytes();
        // Few slots and little memory make URBs wait and be refused; with plenty of both no URB
        // may.
        let slots = [1, 2, 32, 33, 34, 40, 64, 64][usize::from(a % 8)];
        let memory = [256, 4096, 1 << 16, 1 << 18, 1 << 20, 1 << 23, 1 << 23, 1 << 24];
        let urb_len = [1000, 9000, 20_000, 70_000][usize::from(c % 4)];
        Self {
            slots,
            memory: memory[usize::from(b % 8)],
            urb_len,
            alternate: d % 3,
            settles: e % 4 != 0,
        }
    }
}

/// A length, of `max` at most, from a choice: mostly small, or around the lengths at which the
/// session changes its ways (copied or read in place), and now and then the largest.
pub(super) fn length_of(choice: u16, max: usize) -> u32 {
    let (class, rest) = (choice % 8, u32::from(choice / 8));
    let length = match class {
        0 => 0,
        1 => rest % 65,
        2 => rest % 513,
        3 => 1020 + rest % 10,
        4 | 5 => rest % 4096,
        6 => 8186 + rest % 12,
        _ => match rest % 4 {
            0 => u32::try_from(max).expect("URBs are small here"),
            _ => rest,
        },
    };
    length.min(u32::try_from(max).expect("URBs are small here"))
}
