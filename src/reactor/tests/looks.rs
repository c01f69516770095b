//! Devices that must be looked at without an event, and the cost of those that need not.

use super::scripted::Call;
use super::*;

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
