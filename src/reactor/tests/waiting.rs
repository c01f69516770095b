//! Clients that wait: for how long, the answers then, and the fate of devices whose clients have
//! left.

use super::scripted::{Act, Call, Script};
use super::*;
use crate::reactor::client::Awaited;
use crate::reactor::scans::Told;
use crate::wire::types::BusId;

const NOT_AVAILABLE: u32 = 1;
const BUSY: u32 = 2;

/// The status of an answer.
pub(super) fn status(reply: &[u8]) -> u32 {
    u32::from_be_bytes(reply[4..8].try_into().unwrap())
}

impl<B: Backend> Held<B> {
    /// Reads an answer's first eight bytes, while turns are made and time stands still.
    #[track_caller]
    pub(super) fn answer(&mut self, client: &TcpStream) -> [u8; 8] {
        client.set_nonblocking(true).unwrap();
        let mut reply = [0; 8];
        self.turn_until("it is answered", |_| client.peek(&mut reply).is_ok_and(|len| len == 8));
        client.set_nonblocking(false).unwrap();
        reply
    }

    /// Notes events, and makes no turn, until a condition holds.
    #[track_caller]
    fn mark_until(&mut self, condition: impl Fn(&Reactor<B>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.reactor) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
            self.reactor.poll.poll(&mut self.events, Some(Duration::from_millis(1))).unwrap();
            for event in &self.events {
                self.reactor.mark(event);
            }
        }
    }

    pub(super) fn list(&self) -> TcpStream {
        let mut client = self.connect();
        client.write_all(&DEVLIST).unwrap();
        client
    }

    pub(super) fn import_named(&self, busid: BusId) -> TcpStream {
        let mut client = self.connect();
        client.write_all(&import_bytes(busid)).unwrap();
        client
    }

    /// Every connection waits for a scan.
    pub(super) fn wait_asked(&mut self, count: usize) {
        self.turn_until("all have asked", |reactor| {
            let clients = reactor.connections.iter().filter_map(|(_, c)| c.client.as_ref());
            let asked = clients.filter_map(|client| client.asked());
            asked.filter(|asked| asked.awaits != Awaited::Opening).count() == count
        });
    }

    /// A client that waits for the first device, whose client has left and which does not come
    /// home.
    fn contender_of_a_device_that_stays_away(&mut self, script: &Script) -> TcpStream {
        let close = Call::Close(self.busid(0));
        script.set(close, Act::Wait);
        drop(self.attach());
        self.turn_until("it is given back", |_| script.begun(close) == 1);
        let contender = self.import(0);
        self.turn_until("it waits for it", |reactor| reactor.registry.contenders() > 0);
        contender
    }
}

/// Before the end of the first scan nothing is known, and no client waits for the next scan.
#[test]
fn a_scan_that_does_not_end_is_answered_without() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    script.set(Call::Scan, Act::Wait);
    let (list, import) = (held.list(), held.import(0));
    held.wait_asked(2);
    held.reactor.turn_now();
    // No answer is possible before.
    held.reactor.now += OPEN_TIMEOUT;
    for (client, operation) in [(&list, 5), (&import, 3)] {
        let reply = held.answer(client);
        assert_eq!((reply[3], status(&reply)), (operation, NOT_AVAILABLE));
    }
    let late = held.list();
    let reply = held.answer(&late);
    assert_eq!(status(&reply), NOT_AVAILABLE, "time has stood still");
    script.clear(Call::Scan);
    held.turn_until("the scan has ended", |reactor| reactor.scans.running.is_none());
    let list = held.list();
    let reply = held.answer(&list);
    assert_eq!(status(&reply), 0);
    assert_eq!(script.begun(Call::Scan), 2, "one scan at a time");
}

#[test]
fn what_the_scan_before_has_found_is_there_while_one_does_not_end() {
    let (mut held, script, _finally) = Held::scripted("loopback:count=2");
    let first = held.list();
    let reply = held.answer(&first);
    assert_eq!(status(&reply), 0);
    script.set(Call::Scan, Act::Wait);
    let (list, import) = (held.list(), held.import(1));
    let unknown = held.import_named(BusId::new("7-7").unwrap());
    held.wait_asked(3);
    held.reactor.now += SCAN_TIMEOUT;
    let replies = [&list, &import, &unknown].map(|client| status(&held.answer(client)));
    assert_eq!(replies, [0, 0, NOT_AVAILABLE], "nobody knows whether there is another device");
}

#[test]
fn requests_that_come_during_a_scan_share_the_next() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    script.set(Call::Scan, Act::Wait);
    let first = held.list();
    held.wait_asked(1);
    let late = [held.list(), held.list(), held.list()];
    held.wait_asked(4);
    script.clear(Call::Scan);
    assert_eq!(status(&held.answer(&first)), 0);
    assert_eq!(late.each_ref().map(|client| status(&held.answer(client))), [0; 3]);
    assert_eq!(script.begun(Call::Scan), 2);
}

#[test]
fn a_scan_that_fails_is_no_empty_list() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let first = held.list();
    assert_eq!(status(&held.answer(&first)), 0);
    script.set(Call::Scan, Act::Fail);
    for _ in 0..3 {
        let (list, import) = (held.list(), held.import(0));
        let replies = [&list, &import].map(|client| status(&held.answer(client)));
        assert_eq!(replies, [NOT_AVAILABLE; 2]);
        let told = Told { failed: true, overdue: false };
        assert_eq!(held.reactor.scans.told, told, "and it is told once");
    }
    script.set(Call::Scan, Act::Panic);
    let list = held.list();
    assert_eq!(status(&held.answer(&list)), NOT_AVAILABLE);
    script.clear(Call::Scan);
    let list = held.list();
    assert_eq!(status(&held.answer(&list)), 0);
    assert_eq!(held.reactor.scans.told, Told::default(), "it works again");
}

/// Scans that always come back too late are reported once, and not for each request; failures of
/// scans are reported apart.
#[test]
fn scans_that_are_always_late_are_reported_once() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let first = held.list();
    assert_eq!(status(&held.answer(&first)), 0);
    for (failed, in_time) in
        [(false, false), (true, false), (false, false), (true, false), (true, true), (false, true)]
    {
        script.set(Call::Scan, Act::Wait);
        let list = held.list();
        held.wait_asked(1);
        if !in_time {
            held.reactor.now += SCAN_TIMEOUT;
            assert_eq!(status(&held.answer(&list)), 0);
        }
        if failed {
            script.set(Call::Scan, Act::Fail);
        } else {
            script.clear(Call::Scan);
        }
        held.turn_until("the scan has ended", |reactor| reactor.scans.running.is_none());
        let told = Told { overdue: !in_time, failed };
        assert_eq!(held.reactor.scans.told, told);
    }
}

#[test]
fn a_device_that_does_not_open_keeps_its_client_waiting_for_so_long() {
    let (mut held, script, _finally) = Held::scripted("loopback:count=2");
    let open = Call::Open(held.busid(0));
    script.set(open, Act::Wait);
    let stuck = held.import(0);
    held.turn_until("it is being opened", |_| script.begun(open) == 1);
    // Another client is served.
    let other = held.import(1);
    assert_eq!(status(&held.answer(&other)), 0);
    held.reactor.now += OPEN_TIMEOUT;
    assert_eq!(status(&held.answer(&stuck)), NOT_AVAILABLE);
    let again = held.import(0);
    assert_eq!(status(&held.answer(&again)), BUSY);
    // The device is busy also when the first client has left.
    drop(stuck);
    held.turn_until("its client has left", |reactor| {
        reactor.now += Duration::from_millis(1);
        reactor.connections.iter().any(|(_, c)| c.client.is_none())
    });
    let again = held.import(0);
    assert_eq!(status(&held.answer(&again)), BUSY);
    script.clear(open);
    let busid = held.busid(0);
    held.turn_until("it is free", |reactor| {
        !reactor.connections.iter().any(|(_, c)| has(c, busid))
    });
    let again = held.import(0);
    assert_eq!(status(&held.answer(&again)), 0);
}

/// A client that leaves while a device is opened keeps neither a descriptor nor, once the device is
/// open, the device.
#[test]
fn a_client_that_leaves_while_its_device_is_opened_is_noticed() {
    for is_reset in [false, true] {
        let (mut held, script, _finally) = Held::scripted("loopback");
        let (open, close) = (Call::Open(held.busid(0)), Call::Close(held.busid(0)));
        script.set(open, Act::Wait);
        let client = held.import(0);
        held.turn_until("it is being opened", |_| script.begun(open) == 1);
        if is_reset {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        held.turn_until("it is noticed", |reactor| reactor.door.clients() == 0);
        assert!(only(&held.reactor).client.is_none());
        // The next client waits for the device, which is about to be given back.
        let next = held.import(0);
        held.wait_asked(1);
        script.clear(open);
        assert_eq!(status(&held.answer(&next)), 0);
        assert_eq!((script.begun(open), script.begun(close)), (2, 1));
    }
}

/// The reactor may hear of the open device before it hears that the client has left.
#[test]
fn a_client_that_has_left_does_not_get_the_device_that_was_opened_for_it() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let [open, attached, close] =
        [Call::Open, Call::Attached, Call::Close].map(|call| call(held.busid(0)));
    script.set(open, Act::Wait);
    let client = held.import(0);
    held.turn_until("it is being opened", |_| script.begun(open) == 1);
    drop(client);
    held.mark_until(|reactor| is_read_closed(only(reactor)));
    script.clear(open);
    held.mark_until(|reactor| reactor.inbox.is_ready());
    held.turn_until("it is over", |reactor| reactor.connections.is_empty());
    assert_eq!([open, attached, close].map(|call| script.begun(call)), [1, 0, 1]);
    drop(held.attach());
    held.turn_until("it is over", |reactor| reactor.connections.is_empty());
    assert_eq!([open, attached, close].map(|call| script.begun(call)), [2, 1, 2]);
}

#[test]
fn a_client_that_leaves_while_it_waits_for_a_scan_or_a_holder_is_noticed() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    script.set(Call::Scan, Act::Wait);
    let clients = [held.import(0), held.import(0)];
    held.wait_asked(2);
    drop(clients);
    held.turn_until("it is noticed", |reactor| reactor.connections.is_empty());
    let Scans { waiting, late, .. } = &held.reactor.scans;
    assert!(waiting.is_empty() && late.is_empty() && held.reactor.registry.contenders() == 0);
    script.clear(Call::Scan);
    drop(held.contender_of_a_device_that_stays_away(&script));
    held.turn_until("it is noticed", |reactor| reactor.door.clients() == 0);
    assert!(held.reactor.registry.contenders() == 0);
}

#[test]
fn a_contender_of_a_device_that_does_not_come_home_is_told_busy() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let contender = held.contender_of_a_device_that_stays_away(&script);
    held.reactor.now += HANDSHAKE_TIMEOUT;
    assert_eq!(status(&held.answer(&contender)), BUSY);
    assert_eq!(held.reactor.registry.contenders(), 0, "and does not wait any more");
}

/// After a violation nobody has the device for a short while, in which no thread sleeps.
#[test]
fn a_device_rests_after_a_violation() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let [open, close] = [Call::Open(held.busid(0)), Call::Close(held.busid(0))];
    held.attach().write_all(&[0xff; 48]).unwrap();
    held.turn_until("it is given back", |reactor| {
        script.begun(close) == 1 && reactor.schedule.due().is_some()
    });
    let next = held.import(0);
    held.turn_until("the next one waits for it", |reactor| reactor.registry.contenders() > 0);
    assert_eq!(held.reactor.timeout(), Some(VIOLATION_REST), "time stands still");
    held.reactor.now += VIOLATION_REST - Duration::from_nanos(1);
    held.reactor.turn_now();
    assert!(held.reactor.registry.contenders() > 0 && script.begun(open) == 1);
    held.reactor.now += Duration::from_nanos(1);
    assert_eq!(status(&held.answer(&next)), 0);
    assert_eq!(script.begun(open), 2);
}

/// The ends of its transfers would go unnoticed.
#[test]
fn a_device_that_can_not_be_watched_is_given_back() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let (watch, close) = (Call::Watch(held.busid(0)), Call::Close(held.busid(0)));
    script.set(watch, Act::Fail);
    let client = held.import(0);
    assert_eq!(status(&held.answer(&client)), NOT_AVAILABLE);
    held.turn_until("it is given back", |reactor| {
        reactor.connections.iter().all(|(_, c)| !c.has_device())
    });
    assert_eq!(script.begun(close), 1);
    assert!(held.reactor.schedule.attached().is_empty() && !held.bus.is_open(held.busid(0)));
    drop(client);
    held.turn_until("nothing is left of its client", |reactor| reactor.connections.is_empty());
    script.clear(watch);
    let next = held.import(0);
    assert_eq!(status(&held.answer(&next)), 0);
}

/// A server full of waiting clients has a place for another client.
#[test]
fn clients_that_wait_do_not_keep_others_out() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    held.reactor.settings.connections = 3;
    script.set(Call::Scan, Act::Wait);
    let waiting = [held.list(), held.import(0), held.list()];
    held.wait_asked(3);
    let late = held.list();
    let reply = held.answer(&waiting[0]);
    assert_eq!((reply[3], status(&reply)), (5, NOT_AVAILABLE), "the oldest is told");
    held.wait_asked(3);
    script.clear(Call::Scan);
    let replies = [&waiting[1], &waiting[2], &late].map(|client| status(&held.answer(client)));
    assert_eq!(replies, [0; 3]);
}

/// Devices whose clients have left take no places of clients.
#[test]
fn devices_that_do_not_come_home_take_no_places() {
    let (mut held, script, _finally) = Held::scripted("loopback:count=3");
    held.reactor.settings.connections = 2;
    for index in 0..2 {
        let open = Call::Open(held.busid(index));
        script.set(open, Act::Wait);
        let client = held.import(index);
        held.turn_until("it is being opened", |_| script.begun(open) == 1);
        drop(client);
        held.turn_until("its client has left", |reactor| reactor.door.clients() == 0);
    }
    let clients = [held.import(2), held.list()];
    let replies = clients.each_ref().map(|client| status(&held.answer(client)));
    assert_eq!(replies, [0; 2]);
}
