//! Writes the man pages and the completions of shells into a folder, for packages:
//! `cargo run --example pages -- FOLDER`. An example and no command of the program, which stays
//! smaller so.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use usbferry::cli::Cli;

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("name a folder: cargo run --example pages -- FOLDER"));
    };
    let folder = Path::new(&folder);
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Cli::command(), man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "usbferry", &completions)?;
    }
    Ok(())
}
