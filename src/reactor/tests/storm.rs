//! Clients, devices, hints, workers, rules and time at random: at every step the exports agree with
//! the loans, nothing is left undone, and no deadline is missed. Afterwards everything is as in the
//! beginning.
//!
//! `USBFERRY_SEED` runs a single seed. Threads take part, so a seed may go differently each time.

use std::sync::atomic::Ordering;

use super::arrivals::{name, named};
use super::scripted::{Act, Call, Script};
use super::*;
use crate::config::TakeOver;
use crate::config::rules::{Clients, Rule};
use crate::session::model::Rng;

/// Seeds of a run, of which every second has hints.
const SEEDS: u64 = 24;

/// Things that happen in a storm.
const EVENTS: usize = 150;

const DEVICES: usize = 3;

/// SUBMITs of a flood.
const FLOOD: u32 = 40;

/// OP_REQ_WATCH.
const WATCH: [u8; 8] = [1, 0x11, 0x80, 0x55, 0, 0, 0, 0];

/// A storm, with the clients that have not closed yet.
struct Storm<B: Backend> {
    held: Held<B>,
    script: Script,
    rng: Rng,
    clients: Vec<TcpStream>,
}

impl<B: Backend> Storm<B> {
    fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.rng.next() >> 33).expect("31 bits") % sides
    }

    /// One thing happens.
    fn event(&mut self, busid: BusId) {
        match self.roll(22) {
            0..=2 => self.connect(&import_bytes(busid)),
            3 => self.connect(&import_bytes(name("board"))),
            4 => self.connect(&DEVLIST),
            5 | 6 => self.leave(),
            7 => self.send(),
            8 => self.held.bus.unplug(busid),
            9 => self.held.bus.replug(busid),
            10 => self.held.bus.replug_as(busid, loopback()),
            11 => self.disturb(busid),
            12 | 13 => self.script.clear_all(),
            14 => self.let_time_pass(),
            15 if self.roll(4) == 0 => self.kill_a_worker(),
            16 => self.reload(busid),
            17 => self.connect(&[&WATCH[..], name("board").as_wire()].concat()),
            18..=20 => self.read(),
            21 => self.send(),
            _ => self.held.bus.hint(),
        }
        for _ in 0..self.roll(4) {
            self.held.turn(Duration::from_millis(1));
        }
    }

    fn connect(&mut self, request: &[u8]) {
        let mut client = self.held.connect();
        client.write_all(request).unwrap();
        client.set_nonblocking(true).unwrap();
        self.clients.push(client);
    }

    fn leave(&mut self) {
        if !self.clients.is_empty() {
            let index = self.roll(self.clients.len());
            drop(self.clients.swap_remove(index));
        }
    }

    /// A client sends something, whether or not it has a device.
    fn send(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let bytes = match self.roll(8) {
            0 => vec![0xff; 48],
            3 => [submit(5, SILENT, 512), unlink(9, 8)].concat(),
            1 => submit(1, SILENT, 512),
            2 => [submit(2, SILENT, 512), unlink(3, 2)].concat(),
            5 | 6 => {
                let behind = [unlink(100, 40), set_interface(101), unlink(102, 101)].concat();
                [self.flood(), behind].concat()
            }
            7 => self.flood(),
            _ => set_interface(4),
        };
        let index = self.roll(self.clients.len());
        // The client may have been refused, or its device may be gone.
        let _ = self.clients[index].write(&bytes);
    }

    /// More than a batch for a device that answers at once.
    fn flood(&mut self) -> Vec<u8> {
        let len = [1 << 9, 1 << 14, 1 << 17, 1 << 20][self.roll(4)];
        (10..10 + FLOOD).flat_map(|seqnum| submit(seqnum, SOURCE, len)).collect()
    }

    /// A client reads some of its replies, if there are any.
    fn read(&mut self) {
        if !self.clients.is_empty() {
            let (index, reads) = (self.roll(self.clients.len()), self.roll(20));
            let mut room = vec![0; 1 << 18];
            for _ in 0..reads {
                let _ = self.clients[index].read(&mut room);
            }
        }
    }

    /// The next call of a kind panics, fails or takes long.
    fn disturb(&mut self, busid: BusId) {
        let call = match self.roll(7) {
            0 => Call::Scan,
            1 => return self.script.set(Call::Answers, Act::Fail),
            2 => Call::Open(busid),
            3 => Call::Close(busid),
            4 => Call::Cancel(busid),
            _ => Call::Perform(busid),
        };
        let act = match self.roll(3) {
            0 => Act::Panic,
            1 if call == Call::Scan => Act::Fail,
            _ => Act::Wait,
        };
        self.script.set(call, act);
    }

    fn let_time_pass(&mut self) {
        let millis = self.rng.below(3000);
        self.held.reactor.now += Duration::from_millis(millis.into());
    }

    /// Other rules: one device has a name and several states, and perhaps another is hidden.
    fn reload(&mut self, busid: BusId) {
        let mut rules = vec![named("1209:0001,1209:0002", "board")];
        let place = busid.to_string();
        match self.roll(3) {
            0 => rules.insert(0, named(&place, "first")),
            1 => {
                let others = Some(Clients(vec!["192.0.2.0/24".parse().unwrap()]));
                rules.insert(0, Rule { clients: others, ..named(&place, "hidden") });
            }
            _ => {}
        }
        let settings = Settings { rules: Rules::new(rules), ..self.held.reactor.settings.clone() };
        self.held.reactor.reload(settings);
    }

    fn kill_a_worker(&self) {
        let mut connections = self.held.reactor.connections.iter();
        if let Some(loan) = connections.find_map(|(_, connection)| connection.loan.as_ref()) {
            loan.worker.dies.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nothing is to be done at once for a connection that is not to be served, and the
    /// reactor wakes up for every deadline.
    fn check_wakes(&mut self, seed: u64) {
        let reactor = &mut self.held.reactor;
        let due = reactor.schedule.due();
        let is_kept = |at: Option<Instant>| at.is_none_or(|at| due.is_some_and(|due| due <= at));
        assert!(is_kept(reactor.schedule.earliest()), "seed {seed}: nobody wakes up in time");
        for (_, connection) in &mut reactor.connections {
            let key = connection.key;
            assert_eq!(connection.queued, reactor.schedule.is_listed(key), "seed {seed}");
            assert!(is_kept(connection.client_deadline()), "seed {seed}: a client's deadline");
            let is_left_alone = !connection.queued && connection.has_work();
            assert!(!is_left_alone, "seed {seed}: a connection with something to do is not served");
        }
    }

    /// Whether the exports name a holder for each loan, and for nothing else, and every device is
    /// looked at in time.
    fn check(&self, seed: u64) {
        let reactor = &self.held.reactor;
        for (_, connection) in &reactor.connections {
            let Some(loan) = &connection.loan else { continue };
            let [Some(deadline), noted] = loan.looks() else { continue };
            // At once, behind an event that has not come yet.
            let is_due = deadline <= reactor.now || connection.queued;
            let is_noted = noted.is_some_and(|noted| noted <= deadline);
            assert!(is_due || is_noted, "seed {seed}: nobody looks at the device in time");
        }
        let loans = reactor.connections.iter().filter(|(_, connection)| connection.has_device());
        assert_eq!(loans.count(), reactor.registry.taken(), "seed {seed}");
    }

    /// Ends the storm: nothing is left, and every device can be had again.
    fn end(mut self, seed: u64, busids: &[BusId]) {
        self.script.clear_all();
        self.clients.clear();
        let held = &mut self.held;
        held.reactor.reload(Settings { rules: Rules::all(), ..held.reactor.settings.clone() });
        held.turn_until(&format!("seed {seed}: all is over"), |reactor| {
            reactor.now += Duration::from_millis(1);
            reactor.connections.is_empty() && reactor.scans.running.is_none()
        });
        let reactor = &held.reactor;
        let left = (reactor.registry.taken(), reactor.registry.contenders());
        assert_eq!((left, reactor.door.clients()), ((0, 0), 0), "seed {seed}");
        assert!(reactor.schedule.attached().is_empty(), "seed {seed}");
        assert!(
            reactor.scans.arrivals.is_empty() && reactor.audience.watches.is_empty(),
            "seed {seed}"
        );
        for &busid in busids {
            held.bus.replug(busid);
            assert!(!held.bus.is_open(busid), "seed {seed}");
            let client = held.import_named(busid);
            let reply = held.answer(&client);
            assert_eq!(waiting::status(&reply), 0, "seed {seed}: {busid}");
        }
        held.turn_until("the devices are home", |reactor| reactor.connections.is_empty());
        for _ in 0..20 {
            held.turn(Duration::from_millis(5));
        }
        let waits = held.reactor.timeout();
        assert!(waits.is_none_or(|waits| waits > Duration::ZERO), "seed {seed}: {waits:?}");
    }
}

fn loopback() -> Spec {
    Spec::parse_list("loopback").unwrap().remove(0)
}

#[test]
fn after_a_storm_everything_is_as_before() {
    let seed = std::env::var("USBFERRY_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = seed.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let (held, script, _finally) = if seed % 2 == 0 {
            Held::hinted("loopback:count=3")
        } else {
            Held::scripted("loopback:count=3")
        };
        let busids: Vec<BusId> = (0..DEVICES).map(|index| held.busid(index)).collect();
        let mut storm = Storm { held, script, rng: Rng(seed), clients: Vec::new() };
        storm.held.reactor.settings.policy.takeover = TakeOver::SameHost;
        for _ in 0..EVENTS {
            let busid = busids[storm.roll(DEVICES)];
            storm.event(busid);
            storm.check(seed);
            storm.check_wakes(seed);
        }
        storm.end(seed, &busids);
    }
}
