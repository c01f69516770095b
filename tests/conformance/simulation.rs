//! Random traffic of a client that keeps the rules, from fixed seeds: every request is answered
//! exactly once in any combination. The client of these tests judges each answer like a Linux
//! kernel (`support/client.rs`).
//!
//! To run a seed again, put the seed alone into [`SEEDS`].

use std::ops::Range;

use crate::support::client::{MiniClient, Reply, Ret};
use crate::support::endpoints::{ISO_SINK, ISO_SOURCE};
use crate::support::random::Random;
use crate::support::submit::{Submit, in_a_row, setup};
use crate::support::{Server, pattern};
use usbferry::usb::sim::loopback::request;

/// Each is a life of a client.
const SEEDS: Range<u64> = 0..60;

/// Steps in a client's life, some with several actions.
const STEPS: u32 = 300;

const IN: [u8; 6] = [0x81, 0x82, 0x83, 0x84, 0x86, 0x87];
const OUT: [u8; 3] = [0x01, 0x02, 0x07];

/// A client with its plans.
struct Life {
    client: MiniClient,
    random: Random,
    /// Unsent bytes.
    pending: Vec<u8>,
    /// SUBMITs that may be unlinked, answered or not, each with whether it is for a setting.
    recent: Vec<(u32, bool)>,
    /// The requested settings.
    wanted: Wanted,
}

/// The device's future settings, as far as the client can tell. A client sends isochronous URBs
/// only after requesting a setting with isochronous endpoints. Otherwise the server would not
/// expect packets, and the stream would be out of step by the client's own fault.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    /// A request for a setting was unlinked, and may have been performed or not.
    Unknown,
    Unconfigured,
    /// The setting of interface 1, the isochronous endpoints' own.
    Setting(u16),
}

#[test]
fn with_an_immediate_device() {
    everything_is_answered_once("loopback");
}

#[test]
fn with_a_slow_device() {
    everything_is_answered_once("loopback:delay=100us");
}

#[test]
fn with_a_paced_device() {
    everything_is_answered_once("loopback:pace=on");
}

fn everything_is_answered_once(device: &str) {
    let server = Server::start_with(device, |settings| {
        settings.policy.limits.urbs = 64;
        settings.policy.limits.memory = 2 << 20;
        settings.policy.limits.urb_len = 1 << 20;
    });
    for seed in SEEDS {
        println!("{device}, seed {seed}");
        let mut life = Life {
            client: server.attach(),
            random: Random::new(seed),
            pending: Vec::new(),
            recent: Vec::new(),
            wanted: Wanted::Setting(0),
        };
        for _ in 0..STEPS {
            life.step();
        }
        life.finish();
    }
}

impl Life {
    fn step(&mut self) {
        match self.random.below(20) {
            0..8 => {
                let submit = self.data_submit();
                self.add(&submit);
            }
            8..10 => self.add_packets(),
            10..12 => self.add_control(),
            12..16 => self.add_unlink(),
            16..18 => self.send(),
            _ => {
                self.send();
                self.read_some();
            }
        }
    }

    fn add(&mut self, submit: &Submit) {
        let (seqnum, bytes) = self.client.prepare(submit);
        self.pending.extend(bytes);
        self.recent.push((seqnum, false));
    }

    /// Adds a request for a setting; `wanted` is the client's view afterwards.
    fn add_setting(&mut self, submit: &Submit, wanted: Wanted) {
        self.add(submit);
        self.wanted = wanted;
        self.recent.last_mut().expect("it was just added").1 = true;
    }

    /// Adds an isochronous URB, or the request needed before.
    fn add_packets(&mut self) {
        match self.wanted {
            Wanted::Setting(1) => {
                let submit = self.packet_submit();
                self.add(&submit);
            }
            Wanted::Setting(_) => self.set_interface(1),
            Wanted::Unknown | Wanted::Unconfigured => self.set_configuration(1),
        }
    }

    fn set_configuration(&mut self, value: u16) {
        let wanted = match value {
            0 => Wanted::Unconfigured,
            1 => Wanted::Setting(0),
            // The device has no other configuration, so nothing changes.
            _ => self.wanted,
        };
        self.add_setting(&Submit::set_configuration(value), wanted);
    }

    /// Sets interface 1.
    fn set_interface(&mut self, setting: u16) {
        let wanted = match self.wanted {
            Wanted::Setting(_) => Wanted::Setting(setting),
            other => other,
        };
        self.add_setting(&Submit::set_interface(1, setting), wanted);
    }

    fn data_submit(&mut self) -> Submit {
        let random = &mut self.random;
        let length = random.one_of(&[0, 1, 8, 64, 512, 513, 5000, 70_000]);
        let flags = random.one_of(&[0, 1, 0x40, 0x200]);
        let submit = if random.below(3) > 0 {
            Submit::read(random.one_of(&IN), length)
        } else {
            Submit::write(random.one_of(&OUT), &pattern(0, length as usize))
        };
        Submit { flags, start_frame: random.word(), ..submit }
    }

    fn packet_submit(&mut self) -> Submit {
        let random = &mut self.random;
        let count = 1 + random.below(40);
        let lengths: Vec<u32> = (0..count).map(|_| random.below(1200)).collect();
        let total: u32 = lengths.iter().sum();
        let submit = match random.below(2) {
            0 => Submit::read(ISO_SOURCE, total),
            _ => Submit::write(ISO_SINK, &pattern(0, total as usize)),
        };
        submit.with_packets(&in_a_row(&lengths))
    }

    /// Adds a request to the default endpoint: ordinary, special, or a plan for the device.
    fn add_control(&mut self) {
        let random = &mut self.random;
        let address = random.one_of(&[0x81, 0x01, 0x86, 0x84, 0x85, 0x82]);
        let command =
            |request, value| Submit::control(setup(request::OUT, request, value, address, 0), &[]);
        let bytes = u16::try_from(random.below(600)).expect("it is small");
        let submit = match random.below(16) {
            0 => {
                let value = random.one_of(&[0, 1, 1, 2]);
                return self.set_configuration(value);
            }
            1..4 => {
                let setting = random.one_of(&[0, 1, 1]);
                return self.set_interface(setting);
            }
            4 => Submit::set_interface(0, 0),
            5 => Submit::clear_halt(u8::try_from(address).expect("an address")),
            6 => Submit::port_reset(),
            7 => command(request::HALT, 0),
            8 => command(random.one_of(&[request::SHORT, request::STALL_AFTER]), bytes),
            9 => command(random.one_of(&[request::BUS_ERROR_AFTER, request::BABBLE]), bytes),
            10 => {
                command(random.one_of(&[request::PACKETS_SHORT, request::PACKET_LOST]), bytes % 9)
            }
            11 => command(random.one_of(&[request::CANCEL_DONE, request::CANCEL_PARTIAL]), bytes),
            12..15 => command(request::RELEASE, bytes),
            _ => Submit::get_device_descriptor(),
        };
        self.add(&submit);
    }

    /// Unlinks a SUBMIT, answered or not, or an unused number. Never twice, like any kernel.
    fn add_unlink(&mut self) {
        let target = if self.recent.is_empty() || self.random.below(20) == 0 {
            // Below all used numbers: the server would wait for a greater number.
            0xc000_0000
        } else {
            let index = self.random.below(u32::try_from(self.recent.len()).expect("not so many"));
            let (target, is_setting) = self.recent.swap_remove(index as usize);
            if is_setting {
                self.wanted = Wanted::Unknown;
            }
            target
        };
        let (_, bytes) = self.client.prepare_unlink(target);
        self.pending.extend(bytes);
    }

    /// Sends the prepared bytes, whole or in pieces.
    fn send(&mut self) {
        let bytes = std::mem::take(&mut self.pending);
        let step = self.random.one_of(&[7, 48, 100, 1000, 100_000, 100_000]);
        bytes.chunks(step).for_each(|part| self.client.send(part));
    }

    /// Reads some answers.
    fn read_some(&mut self) {
        for _ in 0..self.random.below(30) {
            if !self.client.has_input() {
                break;
            }
            self.read_one();
        }
    }

    fn read_one(&mut self) {
        if let Reply::Submit(ret) = self.client.reply() {
            check_data(&ret);
        }
    }

    /// Unlinks all URBs in flight: then all must be answered, and the device as good as new.
    fn finish(mut self) {
        for (target, _) in std::mem::take(&mut self.recent) {
            let (_, bytes) = self.client.prepare_unlink(target);
            self.pending.extend(bytes);
        }
        self.send();
        while self.client.outstanding() > 0 {
            self.read_one();
        }
        self.client.call_ok(&Submit::set_configuration(1));
        self.client.call_ok(&Submit::port_reset());
        assert_eq!(self.client.call_ok(&Submit::read(0x81, 300)), pattern(0, 300));
        self.client.assert_in_sync();
    }
}

/// The pattern goes on from byte to byte, or begins anew: each write to the loop does. Short data
/// may be of another kind, interrupt reports and descriptors.
fn check_data(ret: &Ret) {
    if ret.data.len() < 100 {
        return;
    }
    let goes_on = |pair: &[u8]| pair[1] == 0 || pair[1] == pair[0].wrapping_add(1);
    let wrong = ret.data.windows(2).position(|pair| !goes_on(pair));
    assert_eq!(wrong, None, "the data of {} is not the pattern there", ret.seqnum);
}
