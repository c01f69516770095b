//! Command lines, options and rules in pages.

use std::collections::BTreeSet;
use std::iter;

use clap::{Command, CommandFactory, Parser};
use usbferry::config::file::FileSettings;
use usbferry_program::cli::Cli;

use super::text::{Line, pages};

/// Options of other programs that pages name without the program: cargo, the benches, the scripts
/// of `tests/`, those for labgrid.
const OTHERS: [&str; 30] = [
    "--auto-attach",
    "--beside",
    "--bind-all-devices",
    "--buffer-time",
    "--capturing",
    "--clients",
    "--counted",
    "--device-cgroup-rule",
    "--devices",
    "--exporter",
    "--exporters",
    "--features",
    "--hardware-id",
    "--lines",
    "--list",
    "--milliseconds",
    "--network",
    "--no-default-features",
    "--pairs",
    "--patience",
    "--require-bind",
    "--scale",
    "--seconds",
    "--seed",
    "--serve",
    "--test",
    "--trust-loopback",
    "--vid",
    "--wrap",
    "--writer",
];

/// Every command line of a page is understood.
#[test]
fn command_lines_are_understood() {
    let mut seen = 0;
    for page in pages() {
        for line in page.code().filter_map(arguments_of) {
            seen += 1;
            if let Err(error) = Cli::try_parse_from(&line) {
                assert!(!error.use_stderr(), "{}: {line:?}: {error}", page.name());
            }
        }
    }
    assert!(seen > 40, "only {seen} command lines");
}

/// The words of a line that runs usbferry, up to a comment or a pipe; a line with `…` or `[` is a
/// form rather than a command line.
fn arguments_of(line: &str) -> Option<Vec<String>> {
    let line = line.trim_start_matches("$ ").trim_start_matches("sudo ");
    let rest =
        ["usbferry ", "cargo run --release -- "].iter().find_map(|p| line.strip_prefix(p))?;
    let is_command = rest.starts_with(|c: char| c == '-' || c.is_ascii_lowercase());
    if !is_command || rest.contains(['…', '[']) {
        return None;
    }
    let ends = |word: &&str| !["#", "|", "&", ";", "&&", ">", "2>"].contains(word);
    let words = rest.split_whitespace().take_while(ends).map(|word| word.replace(['"', '\''], ""));
    Some(iter::once("usbferry".to_owned()).chain(words).collect())
}

/// Every example of rules in a page is understood.
#[test]
fn rules_are_understood() {
    let mut seen = 0;
    for page in pages() {
        let blocks = page.lines.chunk_by(|one, other| one.is_code() == other.is_code());
        for block in blocks.map(|lines| lines.iter().map(Line::text).collect::<Vec<_>>()) {
            if block.contains(&"[[rule]]") {
                seen += 1;
                let read = FileSettings::read(&page.name(), &block.join("\n"));
                assert!(read.is_ok(), "{block:#?}: {}", read.unwrap_err());
            }
        }
    }
    assert!(seen > 8, "only {seen} examples of rules");
}

/// Every option in a page, unless behind the name of another program, is an option of usbferry or a
/// known option of another program.
#[test]
fn options_exist() {
    let mut own = BTreeSet::new();
    collect(&Cli::command(), &mut own);
    let mut others: BTreeSet<&str> = OTHERS.into();
    assert_eq!(others.iter().find(|option| own.contains(**option)), None, "no other's option");
    let mut unknown = Vec::new();
    let pages = pages();
    for page in &pages {
        for option in page.all_code().filter(|code| is_own(code)).flat_map(options_of) {
            if !own.contains(option) && !OTHERS.contains(&option) {
                unknown.push(format!("{}: {option}", page.name()));
            }
            others.remove(option);
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(others.is_empty(), "no page names these any more: {others:?}");
}

fn collect(command: &Command, options: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(|argument| argument.get_long());
    options.extend(names.map(|name| format!("--{name}")));
    options.extend(["--help", "--version"].map(str::to_owned));
    command.get_subcommands().for_each(|command| collect(command, options));
}

/// Whether the options in a piece of code are usbferry's: in a command line of usbferry, or in a
/// piece that begins with an option.
fn is_own(code: &str) -> bool {
    let code = code.trim_start_matches("$ ").trim_start_matches("sudo ");
    code.starts_with("--") || code.starts_with("usbferry ")
}

/// The long options of a piece of code.
fn options_of(code: &str) -> impl Iterator<Item = &str> {
    let words = code.split(|c: char| c.is_whitespace() || "=[](),;:?\"'|".contains(c));
    words.filter(|word| word.len() > 2 && word.starts_with("--") && !word.starts_with("---"))
}
