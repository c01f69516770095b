//! Devices that must be looked at without an event, and the cost of those that need not.

use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::scripted::{Call, ScriptedPort};
use super::*;
use crate::reactor::loan::Lent;

/// Attached devices, of which one has URBs.
const DEVICES: usize = 20;

/// URBs of the busy device.
const URBS: u32 = 50;

#[test]
fn turns_of_a_busy_device_ask_idle_devices_nothing() {
    let (mut held, script, _finally) = Held::scripted(&format!("loopback:count={DEVICES}"));
    let busids: Vec<BusId> = held.bus.busids();
    let attach = |index| {
        let client = held.import(index);
        held.turn_until("it is attached", |reactor| reactor.schedule.attached().len() == index + 1);
        client
    };
    let mut clients: Vec<TcpStream> = (0..DEVICES).map(attach).collect();
    held.reactor.now = held.reactor.time();
    held.turn(Duration::from_millis(1));
    let asked = |busid| script.begun(Call::Deadline(busid));
    let before: Vec<usize> = busids.iter().map(|&busid| asked(busid)).collect();
    let client = &mut clients[0];
    client.set_nonblocking(true).unwrap();
    for seqnum in 1..=URBS {
        client.write_all(&submit(seqnum, SOURCE, 512)).unwrap();
        held.turn_until("it is answered", |_| {
            client.peek(&mut [0; 560]).is_ok_and(|len| len == 560)
        });
        client.read_exact(&mut [0; 560]).unwrap();
        assert_eq!(held.reactor.timeout().map(|timeout| timeout.is_zero()), Some(false));
    }
    assert!(asked(busids[0]) >= before[0] + URBS as usize, "the busy device is asked");
    for (index, &busid) in busids.iter().enumerate().skip(1) {
        assert_eq!(asked(busid), before[index], "device {index} is idle");
    }
}

/// The input of a session whose device is gone ends at an instant, and no event comes.
#[test]
fn a_device_is_looked_at_when_its_instant_has_come() {
    let (mut held, script, _finally) = Held::scripted("loopback:count=2");
    let _first = held.attach();
    let _second = held.import(1);
    held.turn_until("both are attached", |reactor| reactor.schedule.attached().len() == 2);
    held.bus.unplug(held.busid(0));
    held.turn_until("the end is noted", |reactor| reactor.schedule.looks.next().is_some());
    let reactor = &mut held.reactor;
    let at = reactor.schedule.looks.next().unwrap();
    assert!(reactor.timeout() <= Some(at.saturating_duration_since(reactor.now)));
    let other = held.bus.busids()[1];
    let asked = script.begun(Call::Deadline(other));
    reactor.now = at;
    reactor.turn_now();
    let mut connections = reactor.connections.iter_mut();
    let is_closed =
        connections.any(|(_, c)| c.session().is_none_or(|session| session.is_input_closed()));
    assert!(is_closed, "the session was served");
    assert_eq!(script.begun(Call::Deadline(other)), asked, "the other device was left alone");
}

/// libusb is asked for ends alone, with fewer calls, as long as nothing else can have happened.
#[test]
fn a_port_is_told_to_look_everywhere_but_for_ends_of_transfers() {
    let (mut held, script, _finally) = Held::scripted("loopback:count=1");
    let mut client = held.attach();
    client.write_all(&submit(1, SILENT, 512)).unwrap();
    held.turn_until("the device has it", |reactor| {
        let mut connections = reactor.connections.iter_mut();
        connections.any(|(_, c)| c.session().is_some_and(|session| session.awaits_device()))
    });
    // A descriptor that is writable, as usbfs says that transfers have ended, and one that is
    // readable.
    let (mut readable, writable) = io::pipe().unwrap();
    let mut poll = Poll::new().unwrap();
    let registry = poll.registry();
    registry.register(&mut SourceFd(&writable.as_raw_fd()), Token(0), Interest::WRITABLE).unwrap();
    (&writable).write_all(&[0]).unwrap();
    registry.register(&mut SourceFd(&readable.as_raw_fd()), Token(1), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(4);
    poll.poll(&mut events, None).unwrap();
    let event = |token| events.iter().find(|event| event.token() == Token(token)).unwrap();

    let busid = held.busid(0);
    let now = held.reactor.now;
    let (_, connection) = held.reactor.connections.iter_mut().next().unwrap();
    let lent = connection.loan.as_mut().and_then(Loan::in_use).unwrap();
    let mut told = |mark: &dyn Fn(&mut Lent<ScriptedPort>)| {
        mark(lent);
        let before = script.begun(Call::LookEverywhere(busid));
        lent.reap(now);
        script.begun(Call::LookEverywhere(busid)) - before
    };
    told(&|lent| lent.mark_ready());
    assert_eq!(told(&|lent| assert!(lent.mark(event(0)))), 0, "a transfer may have ended");
    assert_eq!(told(&|lent| assert!(lent.mark(event(1)))), 1, "libusb has an event of its own");
    assert_eq!(told(&|lent| lent.mark_returned()), 0, "ends were not collected meanwhile");
    assert_eq!(told(&|lent| lent.mark_ready()), 1, "a deadline has come");
    readable.read_exact(&mut [0]).unwrap();
}
