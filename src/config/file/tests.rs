//! The example of docs/rules.md, and every kind of fault with its place.
//!
//! Contract: tests only.

use std::time::Duration;

use super::*;
use crate::config::TakeOver;
use crate::config::hooks::Hook;
use crate::config::rules::Rules;
use crate::config::rules::testing::info;

const PAGE: &str = include_str!("../../../docs/rules.md");

fn read(text: &str) -> FileSettings {
    FileSettings::read("test.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn fault(text: &str) -> String {
    FileSettings::read("test.toml", text).expect_err(text).to_string()
}

/// The example of the page.
fn example() -> &'static str {
    let (_, example) = PAGE.split_once("```toml\n").expect("the page has an example");
    example.split_once("```").expect("the example ends").0
}

#[test]
fn the_example_of_the_page_is_a_file_of_settings() {
    let settings = read(example());
    let listen = settings.listen.expect("it listens");
    assert_eq!((listen.len(), settings.allow.map(|nets| nets.len())), (2, Some(2)));
    assert_eq!(settings.peer_timeout, Some(Duration::from_secs(15)));
    assert_eq!(settings.terms.takeover, Some(TakeOver::Stale));
    let names: Vec<String> =
        settings.rules.iter().filter_map(|rule| rule.name).map(|name| name.to_string()).collect();
    assert_eq!(names, ["analyser", "pico", "console", "sensor"]);
    let [analyser, pico, console, sensor, camera, input, sticks] = &settings.rules[..] else {
        panic!("{} rules", settings.rules.len())
    };
    assert_eq!(analyser.terms.reset_on_import, Some(true));
    assert_eq!(analyser.clients.as_ref().map(|clients| clients.0.len()), Some(1));
    assert_eq!(pico.matches.to_string(), "1-1.2, 2e8a:0003,2e8a:000a");
    assert_eq!(pico.terms.settle, Some(Duration::from_millis(200)));
    assert_eq!(console.matches.to_string(), "0403:6001:A10K5ZXF");
    assert_eq!(sensor.terms.takeover, Some(TakeOver::Any));
    assert_eq!((camera.terms.configuration, camera.hooks.authorize), (Some(1), true));
    assert_eq!(camera.hooks.get(Hook::Attach).unwrap().path, "/usr/local/bin/may-see");
    assert_eq!(input.matches.to_string(), "class:input");
    assert!(!input.export && sticks.export);
    let logger = sticks.hooks.get(Hook::Attach).expect("as for all devices");
    assert_eq!(logger.arguments, ["-t", "usbferry", "attached"]);
    assert_eq!((sticks.terms.urb_len, sticks.terms.urbs), (Some(1 << 20), None));
    let line = example().lines().position(|line| line == "[[rule]]").unwrap() + 1;
    assert_eq!(analyser.origin.to_string(), format!("test.toml:{line}"));
}

#[test]
fn every_example_of_the_documentation_is_read() {
    let mut examples = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).expect("docs") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let page = std::fs::read_to_string(&path).expect("a page");
        for rest in page.split("```toml\n").skip(1) {
            let (example, _) = rest.split_once("```").expect("the example ends");
            let read = FileSettings::read("example", example);
            assert!(read.is_ok(), "{}: {}\n{example}", path.display(), read.unwrap_err());
            examples += 1;
        }
    }
    assert!(examples >= 3, "{examples} examples");
}

#[test]
fn the_page_names_every_key() {
    for key in SERVER_KEYS.iter().chain(&RULE_KEYS).filter(|&&key| key != "rule") {
        assert!(PAGE.contains(&format!("`{key}`")) || *key == "authorize", "{key}");
    }
}

#[test]
fn an_empty_file_leaves_everything_to_the_command_line() {
    let settings = read("# nothing\n");
    assert!(settings.listen.is_none() && settings.rules.is_empty());
    assert_eq!(settings.terms, Terms::default());
}

#[test]
fn a_rule_without_a_device_is_about_every_device() {
    let rules = Rules::new(read("[[rule]]\n").rules);
    assert!(rules.judge(&info("1-1", 0, false), Policy::default()).is_offered());
}

#[test]
fn numbers_need_no_quotes() {
    let settings = read("urbs = 64\nmemory = 4194304\nurb-size = \"1M\"\n");
    let Terms { urbs, memory, urb_len, .. } = settings.terms;
    assert_eq!((urbs, memory, urb_len), (Some(64), Some(4 << 20), Some(1 << 20)));
}

#[test]
fn every_fault_has_its_place() {
    for (text, place, says) in [
        ("listen = \n", "1:10", "not TOML: "),
        ("[[rule]]\nid = 0781:5567 # stick\n", "2:", "a text needs quotes: id = \"0781:5567\""),
        ("[[rule]]\nid = 0781\n", "2:", "a text needs quotes: id = \"0781\""),
        ("name = stick\n", "1:", "a text needs quotes: name = \"stick\""),
        ("all = true", "1:1", "a [[rule]] without keys matches every device"),
        ("[[rule]]\nall = true", "2:1", "a [[rule]] without keys matches every device"),
        ("urbs = 1\nurbs = 2\n", "2:1", "not TOML: duplicate key"),
        ("[[rule]]\nname = \"a\n", "2:10", "not TOML: "),
        ("\nlisten_on = \"[::1]:1\"", "2:1", "no setting is called \"listen_on\""),
        ("\ntakeover = \"any\"", "2:1", "write take-over"),
        ("name = \"a\"", "1:1", "belongs into a [[rule]]"),
        ("[[rules]]\n", "1:3", "write [[rule]]"),
        ("[[rule]]\nlisten = \"[::1]:1\"", "2:1", "belongs to the top, before the first [[rule]]"),
        ("[[rule]]\nvid = \"0781\"", "2:1", "write id"),
        ("[[rule]]\nreset_on_import = true", "2:1", "write reset-on-import"),
        ("[[rule]]\ncolour = 1", "2:1", "there are busid, id, "),
        (
            "[rule]\nname = \"a\"",
            "1:1",
            "rules of their own, each below a line [[rule]], with two brackets",
        ),
        ("rule = [1]", "1:9", "rules of their own"),
        ("listen = 3240", "1:10", "listen: give a text in quotes, or a list of texts"),
        ("allow = [\"::1\", 5]", "1:17", "allow: give a text in quotes, or a list"),
        ("allow = [\"everybody\"]", "1:10", "allow: give a network"),
        ("allow = []", "1:9", "allow: an empty list"),
        ("urbs = true", "1:8", "urbs: give a number"),
        ("urbs = 1", "1:8", "urbs: give a number from"),
        ("urbs = 0x40", "1:8", "urbs: give a number from"),
        ("memory = \"3M\"", "1:10", "memory: give a power of two"),
        ("memory = \"2M\"\n", "1:10", "urb-size 16M is more than half of memory 2M"),
        ("[[rule]]\nmemory = \"2M\"\n", "2:10", "urb-size 16M is more than half of memory 2M"),
        ("urb-size = \"64M\"\n[[rule]]", "1:12", "give urb-size 32M or less"),
        ("peer-timeout = \"1s\"", "1:16", "peer-timeout: give a time from 3s"),
        ("busy-poll = 5", "1:13", "busy-poll: give a time"),
        ("settle = \"1h\"", "1:10", "settle: give a time up to 30s"),
        ("take-over = \"perhaps\"", "1:13", "take-over: give one of never, stale, same-host, any"),
        ("reset-on-import = \"yes\"", "1:19", "reset-on-import: give true or false"),
        ("[[rule]]\nbusid = \"1:2.3\"", "2:9", "busid: \"1:2.3\" can never match: write 1-2.3"),
        (
            "[[rule]]\nid = \"0781-5567\"",
            "2:6",
            "id: \"0781-5567\" can never match: write 0781:5567",
        ),
        ("[[rule]]\nid = [\"0781:5567\", \"x\"]", "2:20", "id: \"x\" names no device"),
        ("[[rule]]\nid = \"0781:5567:A7\"", "2:6", "write id = \"0781:5567\" and serial = \"A7\""),
        ("[[rule]]\nid = []", "2:6", "id: an empty list"),
        ("[[rule]]\nserial = 5", "2:10", "serial: give a text in quotes"),
        ("[[rule]]\nserial = \"\"", "2:10", "serial: an empty text matches no device"),
        ("[[rule]]\nserial = \"A\\u0000\"", "2:10", "serial: \"A\\0\" has a character"),
        ("[[rule]]\nserial = \"A \"", "2:10", "serial: \"A \" can never match: write A"),
        ("[[rule]]\ndriver = \"a/b\"", "2:10", "driver: \"a/b\" can never match"),
        ("[[rule]]\nbusid = \"1-1.1.1.1.1.1.1\"", "2:9", "busid: \"1-1.1.1.1.1.1.1\" can never"),
        ("allow = \"10.0.0.1/8\"", "1:9", "allow: write 10.0.0.0/8 or 10.0.0.1"),
        ("[[rule]]\nclients = [\"fd00::1/8\"]", "2:12", "clients: write fd00::/8 or fd00::1"),
        ("[[rule]]\nname = \"-x\"", "2:8", "name: a name begins with another sign than \"-\""),
        ("[[rule]]\nclass = \"disk\"", "2:9", "class: \"disk\" is no class"),
        ("[[rule]]\nclass = \"hub\"", "2:9", "class: hubs are never exported"),
        ("[[rule]]\nname = \"1-2\"", "2:8", "name: a name has another form than a busid"),
        ("[[rule]]\n  name = \"a b\"", "2:10", "name: ' ' can't be in a name"),
        ("[[rule]]\nclients = \"all\"", "2:11", "clients: give a network"),
        ("[[rule]]\nconfiguration = 0", "2:17", "configuration: give the number"),
        ("configuration = 1", "1:1", "belongs into a [[rule]]"),
        ("on-attach = \"logger\"", "1:13", "on-attach: give a list with the path"),
        ("on-attach = [\"logger\"]", "1:13", "from the root"),
        ("on-leave = []", "1:12", "on-leave: give a list"),
        ("[[rule]]\nauthorize = true", "2:13", "authorize: there is no on-attach"),
        ("# \u{e4}\u{f6}\n[[rule]]\nname = \"\u{e4}\" # \u{f6}", "3:8", "can't be in a name"),
    ] {
        let said = fault(text);
        let end = if place.ends_with(':') { "" } else { ": " };
        let begins = format!("test.toml:{place}{end}");
        assert!(said.starts_with(&begins) && said.contains(says), "{text}\n{said}");
    }
}

#[test]
fn each_byte_of_a_text_has_its_line_and_column() {
    let text = "a\n\n\u{e4}b\n";
    let lines = Lines::of(text);
    let places: Vec<_> = [0, 1, 2, 3, 5, 6, 7].map(|byte| lines.place(byte)).into();
    let expected = [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2), (3, 3), (4, 1)];
    assert_eq!(places, expected.map(|(line, column)| Place { line, column }));
    let end = Place { line: 4, column: 1 };
    assert_eq!([4, 8].map(|byte| lines.place(byte)), [end; 2], "in a character, beyond the text");
    assert_eq!(Lines::of("").place(0), Place { line: 1, column: 1 });
}

/// A rule of many lines is found by its first.
#[test]
fn each_of_many_rules_knows_its_line() {
    let rules = read(&"[[rule]]\n# a comment\n".repeat(RULES_MAX)).rules;
    for (index, rule) in rules.iter().enumerate() {
        assert_eq!(rule.origin.to_string(), format!("test.toml:{}", 2 * index + 1));
    }
}

#[test]
fn rules_and_kinds_have_limits() {
    let rules = "[[rule]]\n".repeat(RULES_MAX);
    assert_eq!(read(&rules).rules.len(), RULES_MAX);
    assert!(fault(&format!("{rules}[[rule]]\n")).contains("give 1024 at most"));
    let kinds = ["\"0781:5567\""; 17].join(",");
    assert!(fault(&format!("[[rule]]\nid = [{kinds}]")).contains("give 16 at most"));
}

/// A key of a hundred thousand characters was compared with every known key, and repeated.
#[test]
fn a_long_text_makes_no_long_message() {
    let long = "x".repeat(100_000);
    let cases = [
        (format!("{long} = 1"), "no setting is called \"xxx"),
        (format!("[[rule]]\n{long} = 1"), "no setting is called \"xxx"),
        (format!("listen = {long}"), "not TOML: "),
        (format!("listen = \"{long}\""), "listen: give an address"),
        (format!("http = \"{long}:80\""), "http: give "),
        (format!("{}a = 1", "a.".repeat(50_000)), "not TOML: "),
    ];
    for (text, says) in cases {
        let said = fault(&text);
        assert!(said.contains(says) && said.len() < 1000, "{} bytes: {said:.300}", said.len());
    }
}

#[test]
fn any_text_is_read_or_refused() {
    // Every prefix of a file is a file, and a change of each byte makes another.
    let text = example();
    for end in (0..text.len()).step_by(7) {
        let _ = FileSettings::read("test.toml", &text[..end]);
        let mut bytes = text.as_bytes().to_vec();
        bytes[end] ^= 0x15;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = FileSettings::read("test.toml", text);
        }
    }
    let deep = format!("urbs = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(fault(&deep).starts_with("test.toml:1:"));
}
