//! The rules as rules of udev, which give a group the nodes of the exported devices, so that a
//! server without root can open these devices and no others.
//!
//! Contract: pure.

use super::rules::matching::Match;
use super::rules::{Rule, Rules};

/// A class of hubs, which nobody exports.
const NO_HUB: &str = "ATTR{bDeviceClass}!=\"09\"";

/// The end of all rules, to which a decided device goes.
const END: &str = "usbferry_end";

/// What a class is for udev (`dev_if_packed_info` of udev-builtin-usb_id.c, systemd 252; the first
/// part is shown by `findings/udev-loses-the-last-interface-without-endpoints.sh`).
const CLASS_LIMITS: &str = "# a class: udev leaves out a last interface without endpoints, and \
                            counts configurations that are not active; name such devices by id";

/// The lines of a file of udev rules that give `group` the devices of `rules`. As with usbferry's
/// rules, the first that fits a device decides.
pub fn lines(rules: &Rules, group: &str) -> Vec<String> {
    let mut lines = vec![
        "# Made by \"usbferry check-config --udev\".".to_owned(),
        format!("SUBSYSTEM!=\"usb\", GOTO=\"{END}\""),
        format!("ENV{{DEVTYPE}}!=\"usb_device\", GOTO=\"{END}\""),
        format!("ACTION==\"remove\", GOTO=\"{END}\""),
    ];
    lines.extend(rules.iter().flat_map(|rule| rule_lines(rule, group)));
    lines.push(format!("LABEL=\"{END}\""));
    lines
}

fn rule_lines(rule: &Rule, group: &str) -> Vec<String> {
    let mut lines = vec![format!("# {}", rule.origin)];
    if rule.matches.driver.is_some() {
        // The driver comes after the node; more devices than meant would be the group's.
        lines.push(
            "# skipped: udev does not know drivers; add a rule by id, serial or busid".into(),
        );
        return lines;
    }
    if rule.matches.class.is_some() {
        lines.push(CLASS_LIMITS.to_owned());
    }
    let outcome =
        if rule.export { format!("GROUP=\"{group}\", MODE=\"0664\", ") } else { String::new() };
    let conditions = alternatives(&rule.matches);
    lines.extend(conditions.into_iter().map(|what| format!("{what}, {outcome}GOTO=\"{END}\"")));
    lines
}

/// The devices of a rule as conditions, any of which may hold.
fn alternatives(matches: &Match) -> Vec<String> {
    let Match { busid, ids, serial, class, driver: _ } = matches;
    let mut common = Vec::new();
    common.extend(busid.map(|busid| format!("KERNEL==\"{busid}\"")));
    common.extend(serial.as_ref().map(|serial| format!("ATTR{{serial}}==\"{}\"", pattern(serial))));
    if common.is_empty() && ids.is_empty() {
        common.push(NO_HUB.to_owned());
    }
    let of_ids = ids.iter().map(|id| {
        let (vendor, product) = (id.vendor, id.product);
        format!("ATTR{{idVendor}}==\"{vendor:04x}\", ATTR{{idProduct}}==\"{product:04x}\"")
    });
    let of_class = class.iter().flat_map(|class| {
        [
            format!("ATTR{{bDeviceClass}}==\"{class:02x}\""),
            // Of each interface: a colon, class, subclass and protocol (systemd's `usb_id`).
            format!("ENV{{ID_USB_INTERFACES}}==\"*:{class:02x}????:*\""),
        ]
    });
    let start = vec![common.join(", ")];
    crossed(crossed(start, of_ids.collect()), of_class.collect())
}

/// Each of the conditions together with each of some further ones, if there are any.
fn crossed(conditions: Vec<String>, further: Vec<String>) -> Vec<String> {
    if further.is_empty() {
        return conditions;
    }
    let with = |condition: &String| {
        let joined = |more: &String| {
            if condition.is_empty() { more.clone() } else { format!("{condition}, {more}") }
        };
        further.iter().map(joined).collect::<Vec<_>>()
    };
    conditions.iter().flat_map(with).collect()
}

/// A serial number as a pattern: a device chooses the text, and characters with a meaning in rules
/// of udev stand for any character.
fn pattern(serial: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    serial.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::FileSettings;

    /// The lines of a file's rules that decide about a device.
    fn deciding(file: &str) -> Vec<String> {
        let rules = Rules::new(FileSettings::read("f", file).unwrap().rules);
        let is_rule = |line: &String| line.starts_with(|c: char| c.is_ascii_uppercase());
        let lines = lines(&rules, "devices").into_iter().filter(is_rule);
        let all: Vec<String> = lines.collect();
        all[3..all.len() - 1].to_vec()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let file = "[[rule]]\nbusid = \"1-2.3\"\nexport = false\n[[rule]]\nid = \"0781:5567\"\n";
        let expected = [
            "KERNEL==\"1-2.3\", GOTO=\"usbferry_end\"",
            "ATTR{idVendor}==\"0781\", ATTR{idProduct}==\"5567\", GROUP=\"devices\", \
             MODE=\"0664\", GOTO=\"usbferry_end\"",
        ];
        assert_eq!(deciding(file), expected);
    }

    #[test]
    fn every_condition_of_a_rule_must_hold() {
        let file = "[[rule]]\nid = [\"0781:5567\", \"0781:5568\"]\nclass = \"storage\"\n\
                    serial = \"a\\\"*b\"\n";
        let lines = deciding(file);
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(
            lines.iter().all(|line| line.starts_with("ATTR{serial}==\"a??b\", ATTR{idVendor}"))
        );
        let with = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(with("5568"), 2);
        assert_eq!(with("ATTR{bDeviceClass}==\"08\""), 2);
        assert_eq!(with("ENV{ID_USB_INTERFACES}==\"*:08????:*\""), 2);
    }

    #[test]
    fn a_rule_by_class_says_where_udev_differs() {
        let told = |rule: &str| {
            let rules = Rules::new(FileSettings::read("f", rule).unwrap().rules);
            lines(&rules, "devices").contains(&CLASS_LIMITS.to_owned())
        };
        assert!(told("[[rule]]\nclass = \"vendor\"\n") && !told("[[rule]]\nid = \"0781:5567\"\n"));
    }

    #[test]
    fn no_rule_gives_hubs_away_or_guesses_a_driver() {
        let every = deciding("[[rule]]\n");
        assert!(every[0].starts_with("ATTR{bDeviceClass}!=\"09\", GROUP="), "{every:?}");
        assert_eq!(deciding("[[rule]]\ndriver = \"usb-storage\"\n"), [""; 0]);
    }
}
