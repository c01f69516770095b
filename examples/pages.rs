//! Writes the man pages and the completions of shells into a folder, for packages:
//! `cargo run --example pages -- FOLDER [DATE]`. An example and no command of the program, which
//! stays smaller so.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use usbferry_program::cli::Cli;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        return Err(io::Error::other("name a folder: cargo run --example pages -- FOLDER"));
    };
    let date = arguments.next().unwrap_or_default();
    let (man, completions) =
        (Path::new(&folder).join("man"), Path::new(&folder).join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut program = Cli::command().version(VERSION).disable_help_subcommand(true);
    program.build();
    let commands = program.get_subcommands();
    for command in commands.flat_map(|command| command.get_subcommands().chain([command])) {
        write_page(command.clone().version(VERSION), &date, &man)?;
    }
    write_page(program, &date, &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "usbferry", &completions)?;
    }
    Ok(())
}

/// Writes the page of a command, of a date in the form 2026-01-31.
fn write_page(command: Command, date: &str, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let page = Man::new(command).title(name.to_uppercase()).section("1").date(date);
    let page = page.source(format!("usbferry {VERSION}")).manual("USB/IP");
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    fs::write(folder.join(page.get_filename()), without_idle_breaks(&text))
}

/// A page without breaks of lines beside empty lines, which change nothing and are faults for
/// `mandoc -T lint`.
fn without_idle_breaks(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let spaces = |line: Option<&&str>| line.is_some_and(|line| line.is_empty());
    let mut at = 0;
    while at < lines.len() {
        let is_idle = spaces(lines.get(at + 1)) || at > 0 && spaces(lines.get(at - 1));
        if lines[at] == ".br" && is_idle {
            lines.remove(at);
        } else {
            at += 1;
        }
    }
    lines.join("\n") + "\n"
}
