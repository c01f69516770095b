//! Tells the program its commit, for `--version`: from git, or in a packaged source from the file
//! that `cargo package` leaves. Without either the program has no commit.

use std::fs;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(commit) = packaged().or_else(checked_out) {
        println!("cargo::rustc-env=USBFERRY_COMMIT={}", &commit[..commit.len().min(12)]);
    }
}

/// The commit in `.cargo_vcs_info.json`.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    rest.split('"').nth(1).and_then(checked)
}

/// The commit that git has checked out here. A `.git` further up belongs to another project, such as
/// a distribution's packages.
fn checked_out() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    // The list of commits that HEAD has had; a file that is missing would cause a build each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"]).as_deref().and_then(checked)
}

/// The output of git, in one line.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// A text, if it is a commit's number.
fn checked(text: &str) -> Option<String> {
    let is_number = text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| text.to_owned())
}
