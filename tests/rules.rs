//! Rules as a user writes them: on the command line and in a file.
//!
//! A binary beside `cli`, for the sake of short files.

#[allow(dead_code, reason = "cli uses the rest")]
#[path = "support/program.rs"]
mod program;
#[allow(dead_code, reason = "conformance uses the rest")]
mod support;

use std::path::PathBuf;

use program::{Running, run};
use support::random::Random;
use usbferry::config::Settings;
use usbferry::config::file::FileSettings;
use usbferry::usb::{Bound, DeviceInfo};
use usbferry::wire::op::{UsbDevice, UsbInterface};
use usbferry::wire::types::{BusId, Speed};
use usbferry_program::cli::{self, Cli};

/// A file of settings, removed with the value.
struct File(PathBuf);

impl File {
    fn with(name: &str, text: &str) -> Self {
        let name = format!("usbferry-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("it can be written");
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_server_tells_what_it_exports_and_what_it_waits_for() {
    let file = File::with(
        "tells",
        "listen = \"127.0.0.1:0\"\n[[rule]]\nbusid = \"1-1\"\nname = \"stick\"\n\
         [[rule]]\nid = \"1209:9999\"\nname = \"board\"\n",
    );
    let arguments = ["--simulate=disk,loopback", "--config", file.name(), "--device", "1-7"];
    let server = Running::start(&arguments);
    for line in [
        &*format!("settings and rules from {}", file.name()),
        "1-1 (1209:0002 usbferry Simulated disk) is exported as stick",
        "1-2 (1209:0001 usbferry Simulated loopback) is exported",
        "--device 1-7 matches no device now: usbferry waits for the device",
        &format!("{}:5 (1209:9999) matches no device now", file.name()),
    ] {
        server.wait_for(line);
    }
}

#[test]
fn a_wrong_file_is_refused_with_its_place() {
    let file = File::with("wrong", "[[rule]]\n\nid = \"0781-5567\"\n");
    let missing = format!("{}x", file.name());
    for (path, says) in [
        (file.name(), format!("{}:3:6: id: \"0781-5567\" can never match: write", file.name())),
        (&missing, format!("{missing}: there is no such file")),
    ] {
        for arguments in [&["serve", "--simulate", "--config", path][..], &["check-config", path]] {
            let output = run(arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
            assert!(said.starts_with(&format!("error: {says}")), "{said}");
        }
    }
}

#[test]
fn values_that_do_not_fit_together_name_their_place() {
    let file = File::with(
        "together",
        "listen = \"0.0.0.0:0\"\nmemory = \"32M\"\n[[rule]]\nurb-size = \"16M\"\n",
    );
    for (option, says) in [
        (&["--memory", "16M", "--urb-size", "1M"][..], "toml:3: urb-size 16M is more than half"),
        (&["--memory", "16M"], "with the options typed: urb-size 16M is more than half of memory"),
        (&[], "listen 0.0.0.0:0 can be reached by other machines"),
    ] {
        let output = run(&[&["serve", "--config", file.name()], option].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says) && said.contains(file.name()), "{said}");
        assert!(!said.contains("--urb-size") && !said.contains("--allow"), "{said}");
    }
}

/// The machine may have no devices, and no USB bus at all.
#[test]
fn check_config_counts_the_rules_of_a_right_file() {
    let file = File::with("right", "[[rule]]\nserial = \"nobody has this\"\n");
    let output = run(&["check-config", file.name()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with(&format!("{}: 1 rule, without a fault\n", file.name())), "{said}");
    assert!(said.contains(" matches no device now"), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn a_program_that_does_not_exist_is_told_before_its_event() {
    let file = File::with("hooks", "on-leave = [\"/nonexistent/a\"]\n[[rule]]\nbusid = \"1-1\"\n");
    let says = "the program of on-leave, /nonexistent/a, does not exist";
    let output = run(&["check-config", file.name()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("1 rule, without a fault, but a warning\n"), "{said}");
    assert!(said.contains(&format!("\nwarning: {says}\n")), "{said}");
    Running::start(&["--simulate=loopback", "--config", file.name()]).wait_for(says);
}

/// A rule cannot give a device to whoever may not connect.
#[test]
fn clients_of_a_rule_that_may_not_connect_are_told() {
    let file = File::with("clients", "[[rule]]\nbusid = \"1-1\"\nclients = \"192.0.2.7\"\n");
    let says = "clients of 192.0.2.7 may not connect: allow (--allow) has to name them, too";
    let output = run(&["check-config", file.name()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("\nwarning: {}:1: {says}\n", file.name())), "{said}");
    let arguments = ["--simulate=loopback", "--config", file.name()];
    Running::start(&arguments).wait_for(says);
    let allowed = Running::start(&[&arguments[..], &["--allow", "192.0.2.0/24"]].concat());
    allowed.wait_for("1-1 (1209:0001 usbferry Simulated loopback) is exported to 192.0.2.7");
    assert_eq!(allowed.lines_with("may not connect"), Vec::<String>::new());
}

/// The settings of a command line and a file.
fn settings(arguments: &[String], file: &str) -> Settings {
    let line = ["usbferry", "serve"].into_iter().map(Into::into);
    let line = line.chain(arguments.iter().map(Into::into));
    let cli = Cli::read(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    let cli::Command::Serve(serve) = cli.command else { panic!("it says serve") };
    let file = FileSettings::read("f", file).unwrap_or_else(|error| panic!("{file}\n{error}"));
    serve.settings(&file).unwrap_or_else(|error| panic!("{error}")).0
}

/// A rule in both forms: the text of an option, and the lines of a file.
struct Written {
    option: String,
    keys: String,
}

/// Few values, so that rules and devices meet.
mod few {
    pub(super) const BUSIDS: [&str; 4] = ["1-1", "1-2", "1-2.1", "2-1"];
    pub(super) const IDS: [&str; 4] = ["0781:5567", "0781:5568", "2e8a:0003", "2e8a:000a"];
    pub(super) const SERIALS: [&str; 4] = ["A7", "a7", "A,7", "A:7=8"];
    pub(super) const CLASSES: [(&str, u8); 4] =
        [("storage", 8), ("input", 3), ("vendor", 0xff), ("5a", 0x5a)];
    pub(super) const DRIVERS: [&str; 3] = ["usbhid", "usb-storage", "uas"];
}

fn random_match(random: &mut Random) -> Written {
    let (busid, id) = (random.one_of(&few::BUSIDS), random.one_of(&few::IDS));
    let (other, serial) = (random.one_of(&few::IDS), random.one_of(&few::SERIALS));
    let (class, _) = random.one_of(&few::CLASSES);
    let driver = random.one_of(&few::DRIVERS);
    let (option, keys) = match random.below(7) {
        0 => (busid.to_owned(), format!("busid = \"{busid}\"\n")),
        1 => (id.to_owned(), format!("id = \"{id}\"\n")),
        2 => (format!("{id},{other}"), format!("id = [\"{id}\", \"{other}\"]\n")),
        3 => (format!("{id}:{serial}"), format!("id = \"{id}\"\nserial = \"{serial}\"\n")),
        4 => (format!("serial:{serial}"), format!("serial = \"{serial}\"\n")),
        5 => (format!("class:{class}"), format!("class = \"{class}\"\n")),
        _ => (format!("driver:{driver}"), format!("driver = \"{driver}\"\n")),
    };
    Written { option, keys }
}

fn random_device(random: &mut Random) -> DeviceInfo {
    let id = random.one_of(&few::IDS);
    let hex = |text: &str| u16::from_str_radix(text, 16).expect("hexadecimal digits");
    let (_, class) = random.one_of(&few::CLASSES);
    let interface = UsbInterface { class, sub_class: 0, protocol: 0 };
    let has = |random: &mut Random| random.below(2) == 0;
    let serial = has(random).then(|| random.one_of(&few::SERIALS).to_owned());
    let driver = has(random).then(|| random.one_of(&few::DRIVERS).to_owned());
    DeviceInfo {
        device: UsbDevice {
            path: String::new(),
            busid: BusId::new(random.one_of(&few::BUSIDS)).expect("a busid"),
            busnum: 1,
            devnum: 2,
            speed: Speed::High,
            id_vendor: hex(&id[..4]),
            id_product: hex(&id[5..]),
            bcd_device: 0,
            device_class: random.one_of(&[0, 0, 0, class, 9]),
            device_sub_class: 0,
            device_protocol: 0,
            configuration_value: 1,
            num_configurations: 1,
            interfaces: vec![interface],
        },
        manufacturer: None,
        product: None,
        serial,
        drivers: driver.into_iter().map(|driver| Bound { interface: 0, driver }).collect(),
        imported: random.below(8) == 0,
    }
}

/// The order of options does not matter but within exceptions and within devices; a file has its
/// own order. Rules on both sides together decide as all of them in the file.
#[test]
fn rules_decide_alike_on_the_command_line_and_in_a_file() {
    let mut decided = [0; 3];
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let (mut options, mut rules) = (Vec::new(), Vec::new());
        for _ in 0..random.below(3) {
            let Written { option, keys } = random_match(&mut random);
            options.push(["--exclude".to_owned(), option]);
            rules.push(format!("[[rule]]\n{keys}export = false\n"));
        }
        for _ in 0..random.below(4) {
            let Written { option, keys } = random_match(&mut random);
            let name = random.one_of(&["", "stick", "board"]);
            let (prefix, key) = match name {
                "" => (String::new(), String::new()),
                name => (format!("{name}="), format!("name = \"{name}\"\n")),
            };
            options.push(["--device".to_owned(), format!("{prefix}{option}")]);
            rules.push(format!("[[rule]]\n{keys}{key}"));
        }
        let split = random.below(u32::try_from(options.len()).expect("few") + 1) as usize;
        let (mut typed, all) = (options.concat(), random.below(2) == 0);
        let mut half_typed = options[..split].concat();
        let half_file = rules[split..].concat();
        if all {
            rules.push("[[rule]]\n".to_owned());
            typed.push("--all".to_owned());
            half_typed.push("--all".to_owned());
        }
        let each = [
            settings(&typed, ""),
            settings(&[], &rules.concat()),
            settings(&half_typed, &half_file),
        ];
        for _ in 0..20 {
            let device = random_device(&mut random);
            let verdicts = each.each_ref().map(|settings| settings.verdict(&device));
            let facts = verdicts.each_ref().map(|v| (v.index(), v.is_offered(), v.name()));
            assert_eq!(facts[0], facts[1], "seed {seed}: {typed:?}\n{}", rules.concat());
            assert_eq!(facts[0], facts[2], "seed {seed}: {half_typed:?}\n{half_file}");
            let (index, is_offered, _) = facts[0];
            decided[usize::from(index.is_some()) + usize::from(is_offered)] += 1;
        }
    }
    // Devices without a rule, excluded and exported: no kind of decision is rare.
    assert!(decided.iter().all(|&count| count > 500), "{decided:?}");
}
