//! A panic of a worker costs its device the session: the client sees the end, the device is given
//! up in order, and the next client can have the device.

use std::sync::atomic::Ordering;

use super::scripted::{Act, Call};
use super::*;

/// Waits for the end of a client's connection, and returns the bytes before.
fn ended(held: &mut Held<ScriptedBackend>, client: TcpStream) -> Vec<u8> {
    let client = thread::spawn(|| read_to_end(client));
    held.turn_until("the client sees the end", |reactor| {
        reactor.now += Duration::from_millis(1);
        client.is_finished()
    });
    client.join().unwrap()
}

#[test]
fn every_call_may_panic() {
    let busid = Held::scripted("loopback").0.busid(0);
    for call in [Call::Open, Call::Perform, Call::Cancel, Call::ChangeMemory, Call::Close] {
        let call = call(busid);
        let (mut held, script, _finally) = Held::scripted("loopback:count=2");
        let mut other = held.import(1);
        held.turn_until("another is attached", |reactor| reactor.schedule.attached().len() == 1);
        script.set(call, Act::Panic);
        let mut client = held.import(0);
        held.turn_until("it has begun", |_| script.begun(Call::Open(busid)) == 1);
        match call {
            Call::Open(_) => {
                assert_eq!(ended(&mut held, client), [1, 0x11, 0, 3, 0, 0, 0, 1], "ST_NA");
            }
            Call::Close(_) => {
                held.turn_until("it is attached", |reactor| reactor.schedule.attached().len() == 2);
                drop(client);
            }
            Call::ChangeMemory(_) => {
                assert_eq!(ended(&mut held, client).len(), 320, "the import's reply");
            }
            _ => {
                client.write_all(&submit(1, SILENT, 512)).unwrap();
                client.write_all(&submit(2, SILENT, 512)).unwrap();
                client.write_all(&set_interface(3)).unwrap();
                client.write_all(&unlink(4, 1)).unwrap();
                let replies = ended(&mut held, client);
                // The import's reply, and the reply to SET_INTERFACE.
                assert!(replies.len() >= 320 + 48, "{call:?}: {} bytes", replies.len());
            }
        }
        held.turn_until("it panicked and is given up", |reactor| {
            reactor.now += Duration::from_millis(1);
            script.begun(call) > 0 && !reactor.connections.iter().any(|(_, c)| has(c, busid))
        });
        assert!(!held.bus.is_open(busid), "{call:?}");
        let recovered = matches!(call, Call::Open(_) | Call::Close(_));
        assert!(!recovered || script.begun(Call::Recover(busid)) == 1, "{call:?}");
        script.clear(call);
        let _next = held.import(0);
        held.turn_until("the next has it", |reactor| reactor.schedule.attached().len() == 2);
        // The other session has noticed nothing.
        let mut read = submit(1, SOURCE, 64);
        read[8..12].copy_from_slice(&(DEVID + 1).to_be_bytes());
        other.write_all(&read).unwrap();
        other.set_nonblocking(true).unwrap();
        let mut reply = [0; 320 + 48 + 64];
        held.turn_until("it is answered", |_| other.peek(&mut reply).is_ok_and(|len| len == 432));
    }
}

/// Panics of a device's calls are caught. Here the thread itself dies.
#[test]
fn a_worker_that_dies_takes_no_device_along() {
    let busid = Held::scripted("loopback").0.busid(0);
    for call in [Call::Open, Call::Perform, Call::Cancel, Call::ChangeMemory, Call::Close] {
        let call = call(busid);
        let (mut held, script, _finally) = Held::scripted("loopback");
        script.set(call, Act::Wait);
        let mut client = held.import(0);
        if call != Call::Open(busid) {
            held.turn_until("it is attached", |reactor| reactor.schedule.attached().len() == 1);
        }
        match call {
            Call::Perform(_) => client.write_all(&set_interface(1)).unwrap(),
            Call::Cancel(_) => {
                let unlinked = [submit(1, SILENT, 512), unlink(2, 1)].concat();
                client.write_all(&unlinked).unwrap();
            }
            Call::Close(_) => client.shutdown(Shutdown::Both).unwrap(),
            _ => {}
        }
        held.turn_until("the call is begun", |_| script.begun(call) == 1);
        only(&held.reactor).loan.as_ref().unwrap().worker.dies.store(true, Ordering::Relaxed);
        script.clear(call);
        match call {
            Call::Open(_) => {
                assert_eq!(ended(&mut held, client), [1, 0x11, 0, 3, 0, 0, 0, 1], "ST_NA");
            }
            Call::Close(_) => drop(client),
            _ => assert_eq!(ended(&mut held, client).len(), 320, "{call:?}"),
        }
        held.turn_until("the device is free", |reactor| reactor.connections.is_empty());
        assert!(!held.bus.is_open(busid) && held.reactor.schedule.attached().is_empty());
        assert_eq!(script.begun(Call::Recover(busid)), 1, "{call:?}");
        drop(held.attach());
    }
}
