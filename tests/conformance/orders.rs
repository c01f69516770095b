//! Orders of operators: sessions that end, and devices that are held back.

use serde_json::Value;

use crate::operators::Office;
use crate::support::client::MiniClient;
use crate::support::endpoints::SOURCE;
use crate::support::hex::hex;
use crate::support::submit::Submit;
use crate::support::wait_until;

const FREE: [u8; 4] = [0, 0, 0, 0];
const NOT_AVAILABLE: u32 = 1;
const BUSY: [u8; 4] = [0, 0, 0, 2];

fn disconnect(office: &Office, target: &str, hold: bool) -> Value {
    office.ask(&format!(
        r#"{{"version":1,"request":"disconnect","target":"{target}","hold":{hold}}}"#
    ))
}

fn release(office: &Office, device: &str) -> Value {
    office.ask(&format!(r#"{{"version":1,"request":"release","device":"{device}"}}"#))
}

fn watch(office: &Office) -> MiniClient {
    let mut client = office.server.connect();
    client.send(&hex("0111 8055 00000000"));
    client.read(12);
    client.send(office.server.busid(0).as_wire());
    client
}

#[test]
fn a_session_ends_in_order_and_the_device_is_free() {
    let office = Office::open("loopback:count=2");
    let (mut ended, mut other) = (office.server.attach(), office.server.attach_to(1));
    let urb = ended.submit(&Submit::read(SOURCE, 512));
    wait_until("the reply is there, unread", || ended.has_input());
    let answer = disconnect(&office, "1-1", false);
    let sessions = &answer["disconnected"]["sessions"];
    assert_eq!(sessions[0]["client"], ended.address().to_string(), "{answer}");
    // The reply stays readable, and the end comes behind: no reset.
    assert_eq!(ended.ret_of(urb).status, 0);
    ended.expect_fin();
    other.assert_in_sync();
    office.server.attach().assert_in_sync();
}

#[test]
fn all_sessions_of_a_client_end() {
    let office = Office::open("loopback:count=2");
    let clients = [office.server.attach(), office.server.attach_to(1)];
    let one = clients[0].address().to_string();
    let answer = disconnect(&office, &one, false);
    assert_eq!(answer["disconnected"]["sessions"].as_array().map(Vec::len), Some(1), "{answer}");
    let answer = disconnect(&office, "127.0.0.1", false);
    assert_eq!(answer["disconnected"]["sessions"][0]["busid"], "1-2", "{answer}");
    clients.into_iter().for_each(MiniClient::expect_fin);
    wait_until("both are free", || office.status()["sessions"] == Value::Array(Vec::new()));
    assert_eq!(disconnect(&office, "127.0.0.1", false)["error"]["reason"], "unknown");
}

#[test]
fn a_device_held_back_is_given_to_nobody_until_released() {
    let office = Office::open("loopback");
    let client = office.server.attach();
    let answer = disconnect(&office, "1-1", true);
    assert_eq!(answer["disconnected"]["held"], Value::from(vec!["1-1"]), "{answer}");
    client.expect_fin();
    wait_until("it is back", || office.status()["sessions"] == Value::Array(Vec::new()));
    let status = office.status();
    assert_eq!(
        (&status["exports"][0]["held"], &status["holds"][0]["name"]),
        (&true.into(), &"1-1".into())
    );
    assert_eq!(office.server.connect().import(office.server.busid(0)), NOT_AVAILABLE);
    let (_, out, _) = office.run(&["status"]);
    assert!(out.contains("held back: 1-1, since"), "{out}");
    // Another device in the place, or the same again.
    office.server.bus.unplug(office.server.busid(0));
    office.server.bus.replug(office.server.busid(0));
    wait_until("it is there", || office.status()["exports"][0]["present"] == true);
    assert_eq!(office.server.connect().import(office.server.busid(0)), NOT_AVAILABLE);
    assert_eq!(release(&office, "1-1")["released"], Value::from(vec!["1-1"]));
    office.server.attach().assert_in_sync();
    assert_eq!(release(&office, "1-1")["error"]["reason"], "not-held");
}

#[test]
fn a_watching_client_is_told_of_a_hold_and_of_its_end() {
    let office = Office::open("loopback");
    let mut watching = watch(&office);
    assert_eq!(watching.read(4), FREE);
    let holder = office.server.attach();
    assert_eq!(watching.read(4), BUSY);
    disconnect(&office, "1-1", true);
    assert_eq!(watching.read(4), NOT_AVAILABLE.to_be_bytes());
    holder.expect_fin();
    wait_until("it is back", || office.status()["sessions"] == Value::Array(Vec::new()));
    assert!(!watching.has_input(), "nothing has changed for the client");
    release(&office, "1-1");
    assert_eq!(watching.read(4), FREE);
}

#[test]
fn an_order_that_means_nobody_is_refused_with_the_reason() {
    let office = Office::open("loopback:count=2");
    for (target, reason) in [
        ("1-9", "unknown"),
        ("nobody", "unknown"),
        ("192.0.2.1", "unknown"),
        ("", "unknown"),
        ("a name of more bytes than any device can have", "unknown"),
        ("1209:0001", "ambiguous"),
        ("1-1", "free"),
    ] {
        let answer = disconnect(&office, target, false);
        assert_eq!(answer["error"]["reason"], reason, "{target}: {answer}");
    }
    assert_eq!(release(&office, "1-1")["error"]["reason"], "not-held");
    assert_eq!(disconnect(&office, "1209:0001", true)["error"]["reason"], "ambiguous");
    office.server.attach().assert_in_sync();
}

#[test]
fn the_commands_say_what_they_have_done() {
    let office = Office::open("loopback");
    let client = office.server.attach();
    let (code, out, error) = office.run(&["disconnect", "1-1", "--hold"]);
    assert_eq!(code, Some(0), "{error}");
    let address = client.address();
    let expected = format!(
        "1-1: the session of {address} ends\n1-1: held back, until \"usbferry release 1-1\"\n"
    );
    assert_eq!(out, expected);
    client.expect_fin();
    let (code, out, _) = office.run(&["release", "1-1", "--json"]);
    assert_eq!((code, &*out), (Some(0), "{\"schema\":1,\"released\":[\"1-1\"]}\n"));
    let (code, _, error) = office.run(&["release", "1-1"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("no device is held back by \"1-1\""), "{error}");
}
