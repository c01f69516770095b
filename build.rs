//! Tells the program its commit, for `--version`: from git, or in a packaged source from the file
//! that `cargo package` leaves. Without either the program has no commit.
//!
//! And packs the names of vendors and products for `src/names.rs`. The crate `usb-ids` itself would
//! make the program 1.5 MB larger: each name there is a pointer to be relocated at every start.

use std::fs;
use std::path::Path;
use std::process::Command;

use usb_ids::Vendors;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    pack_names();
    if let Some(commit) = packaged().or_else(checked_out) {
        println!("cargo::rustc-env=USBFERRY_COMMIT={}", &commit[..commit.len().min(12)]);
    }
}

/// Writes the names of vendors, by number, and of products, by the numbers of vendor and product.
fn pack_names() {
    let vendors = Vendors::iter().map(|vendor| (vendor.id().into(), vendor.name()));
    pack("vendors", vendors.collect());
    let products = Vendors::iter().flat_map(|vendor| {
        let of_vendor = u32::from(vendor.id()) << 16;
        vendor.devices().map(move |device| (of_vendor | u32::from(device.id()), device.name()))
    });
    pack("products", products.collect());
}

/// Writes a table: an index with a number and the end of its name for each name, both with 32 bits
/// in little-endian order, and all names together.
fn pack(table: &str, mut names: Vec<(u32, &str)>) {
    names.sort_unstable();
    let (mut index, mut texts) = (Vec::new(), String::new());
    for (number, name) in names {
        texts.push_str(name);
        let end = u32::try_from(texts.len()).expect("some hundred kilobytes");
        index.extend(number.to_le_bytes());
        index.extend(end.to_le_bytes());
    }
    let folder = std::env::var("OUT_DIR").expect("cargo names a folder");
    let write = |kind: &str, bytes: &[u8]| {
        fs::write(Path::new(&folder).join(format!("{table}.{kind}")), bytes)
            .expect("cargo's folder");
    };
    write("index", &index);
    write("texts", texts.as_bytes());
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
