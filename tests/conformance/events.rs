//! The events of a server, as an operator follows them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;
use usbferry::limits::{EVENTS_WAITING_MAX, FOLLOWERS_MAX};

use crate::operators::{Office, Talk, names_in};
use crate::support::endpoints::SOURCE;
use crate::support::submit::Submit;
use crate::support::wait_until;

const EVENTS: &str = r#"{"version":1,"request":"events"}"#;

/// A server behind its first scan, whose arrivals would be events, too.
fn settled() -> Office {
    let office = Office::open("loopback");
    drop(office.server.attach());
    wait_until("the device is free", || {
        let status = office.status();
        status["sessions"] == Value::Array(Vec::new()) && status["exports"][0]["present"] == true
    });
    office
}

/// A follower that has been told of the beginning.
fn follow(office: &Office) -> Talk {
    let mut talk = office.connect();
    assert_eq!(talk.ask(EVENTS)["event"]["event"], "begin");
    talk
}

/// The next event: the word, the place and the reason.
fn next(talk: &mut Talk) -> (String, String, String) {
    let event = talk.read()["event"].take();
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    (text("event"), text("busid"), text("reason"))
}

fn expect(talk: &mut Talk, event: &str, reason: &str) {
    let place = if event == "end" { "" } else { "1-1" };
    assert_eq!(next(talk), (event.to_owned(), place.to_owned(), reason.to_owned()));
}

#[test]
fn whatever_happens_to_a_device_is_told_in_order() {
    let mut office = settled();
    let mut talk = follow(&office);
    let mut client = office.server.attach();
    expect(&mut talk, "attach", "import");
    client.call_ok(&Submit::port_reset());
    expect(&mut talk, "reset", "client");
    drop(client);
    expect(&mut talk, "detach", "closed");
    expect(&mut talk, "free", "");
    let client = office.server.attach();
    expect(&mut talk, "attach", "import");
    office.run(&["disconnect", "1-1", "--hold"]);
    expect(&mut talk, "hold", "");
    client.expect_fin();
    expect(&mut talk, "detach", "operator");
    expect(&mut talk, "free", "");
    office.run(&["release", "1-1"]);
    expect(&mut talk, "release", "");
    office.server.bus.unplug(office.server.busid(0));
    expect(&mut talk, "leave", "unplugged");
    office.server.bus.replug(office.server.busid(0));
    expect(&mut talk, "arrive", "plugged");
    office.server.begin_stop();
    expect(&mut talk, "end", "");
    office.desk = None;
}

/// Whoever reads of a free device finds no client in the state.
#[test]
fn a_device_is_free_by_the_events_when_the_next_client_can_have_it() {
    let office = settled();
    let mut talk = follow(&office);
    for _ in 0..20 {
        let client = office.server.attach();
        expect(&mut talk, "attach", "import");
        drop(client);
        expect(&mut talk, "detach", "closed");
        expect(&mut talk, "free", "");
        let status = office.status();
        assert_eq!(status["exports"][0]["client"], Value::Null);
        assert_eq!(office.server.connect().import(office.server.busid(0)), 0);
        expect(&mut talk, "attach", "import");
        expect(&mut talk, "detach", "closed");
        expect(&mut talk, "free", "");
    }
    // An opening that fails has taken the device, too.
    office.server.bus.refuse_opens(office.server.busid(0), 1);
    assert_ne!(office.server.connect().import(office.server.busid(0)), 0);
    expect(&mut talk, "free", "");
}

#[test]
fn the_end_of_a_session_comes_with_its_work() {
    let office = settled();
    let mut talk = follow(&office);
    let mut client = office.server.attach();
    client.call_ok(&Submit::read(SOURCE, 512));
    let address = client.address().to_string();
    drop(client);
    let attach = talk.read();
    assert_eq!((&attach["event"]["vid"], &attach["event"]["urbs"]), (&"1209".into(), &Value::Null));
    assert_eq!(attach["event"]["serial"], "05EED0000001");
    let detach = talk.read();
    let event = &detach["event"];
    assert_eq!(
        (&event["client"], &event["urbs"], &event["bytes_in"]),
        (&address.into(), &1.into(), &512.into())
    );
    let page = include_str!("../../docs/status.md");
    let mut fields = Vec::new();
    names_in(event, &mut fields);
    for field in fields {
        assert!(page.contains(&format!("| `{field}` |")), "docs/status.md lacks {field}");
    }
    for word in [
        "begin", "arrive", "leave", "attach", "detach", "free", "reset", "hold", "release",
        "missed", "end",
    ] {
        assert!(page.contains(&format!("`{word}`")), "docs/status.md lacks {word}");
    }
}

/// The follower's own socket is full, and then its queue.
#[test]
fn a_slow_follower_is_told_how_much_is_missing_and_holds_up_nobody() {
    let office = settled();
    let mut slow = follow(&office);
    let mut client = office.server.attach();
    // More than the socket and the queue have room for.
    let resets = 3 * EVENTS_WAITING_MAX as u64;
    (0..resets).for_each(|_| drop(client.call_ok(&Submit::port_reset())));
    let (mut told, mut missed) = (0, 0);
    // The attach is an event, too.
    while told + missed < resets + 1 {
        let event = slow.read()["event"].take();
        match event["missed"].as_u64() {
            Some(count) => missed += count,
            None => told += 1,
        }
    }
    assert!(missed > 0 && told + missed == resets + 1, "{told} told, {missed} missed");
    drop(client);
    expect(&mut slow, "detach", "closed");
}

#[test]
fn followers_are_few_and_the_others_may_still_ask() {
    let office = settled();
    let followers: Vec<Talk> = (0..FOLLOWERS_MAX).map(|_| follow(&office)).collect();
    let mut refused = office.connect();
    assert_eq!(refused.ask(EVENTS)["error"]["reason"], "busy");
    assert!(office.status().is_object());
    drop(followers);
}

#[test]
fn the_command_prints_a_line_for_each_event_until_the_server_ends() {
    let mut office = settled();
    let start = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_usbferry"));
        command.arg("events").args(arguments).arg("--socket").arg(office.path());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first = String::new();
        out.read_line(&mut first).expect("a line");
        assert!(first.contains("begin"), "{first}");
        (child, out)
    };
    let (mut text, text_out) = start(&[]);
    let (mut json, json_out) = start(&["--json"]);
    let client = office.server.attach();
    let address = client.address();
    office.run(&["disconnect", "1-1"]);
    client.expect_fin();
    office.server.begin_stop();
    let lines: Vec<String> = text_out.lines().map(|line| line.expect("UTF-8")).collect();
    assert!(lines[0].ends_with(&format!("  attach    1-1  {address}  (import)")), "{lines:?}");
    assert!(lines[1].contains("(operator)  0 URBs, 0 in, 0 out"), "{lines:?}");
    assert!(lines[2].ends_with(&format!("  free      1-1  {address}")), "{lines:?}");
    let events: Vec<Value> = json_out
        .lines()
        .map(|line| serde_json::from_str(&line.expect("UTF-8")).expect("JSON"))
        .collect();
    let words: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(words, ["attach", "detach", "free", "end"]);
    assert_eq!(events[0]["schema"], 1);
    assert!(text.wait().expect("it ends").success() && json.wait().expect("it ends").success());
    office.desk = None;
}
