//! Tells the program its commit, for `--version`: from git, or in a packaged source from the file
//! that `cargo package` leaves. Without either the program has no commit.
//!
//! And packs the names of vendors and products for `src/names.rs`, in 230 KB. The crate `usb-ids`
//! itself would take 1.5 MB: each name there is a pointer to be relocated at every start.

use std::fs;
use std::path::Path;
use std::process::Command;

use miniz_oxide::deflate::compress_to_vec;
use usb_ids::{Device, Vendor, Vendors};

/// Bytes of a block before compression, at least: the time of a look-up, against the size of all.
/// With 8 KiB all names take 8,000 bytes more, with 32 KiB 7,000 less.
const BLOCK_LEN: usize = 16 << 10;

/// The level of compression: the most that the crate has.
const SMALLEST: u8 = 10;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    pack_names();
    if let Some(commit) = packaged().or_else(checked_out) {
        println!("cargo::rustc-env=USBFERRY_COMMIT={}", &commit[..commit.len().min(12)]);
    }
}

/// Writes the names of vendors and products much as in the repository's own file, in compressed
/// blocks that end with a vendor's last product, and a table of the blocks: the first vendor, and
/// the end in the bytes of all blocks.
fn pack_names() {
    let mut vendors: Vec<&Vendor> = Vendors::iter().collect();
    vendors.sort_unstable_by_key(|vendor| vendor.id());
    let (mut blocks, mut table) = (Vec::new(), String::new());
    let mut rest = vendors.into_iter().peekable();
    while let Some(first) = rest.peek().map(|vendor| vendor.id()) {
        let mut text = String::new();
        while text.len() < BLOCK_LEN
            && let Some(vendor) = rest.next()
        {
            write_vendor(&mut text, vendor);
        }
        blocks.extend(compress_to_vec(text.as_bytes(), SMALLEST));
        table += &format!("({first:#06x}, {}),", blocks.len());
    }
    let folder = std::env::var("OUT_DIR").expect("cargo names a folder");
    let write = |file: &str, bytes: &[u8]| {
        fs::write(Path::new(&folder).join(file), bytes).expect("cargo's folder");
    };
    write("names.blocks", &blocks);
    write("names.table", format!("&[{table}]").as_bytes());
}

/// Writes a line for a vendor, and a line for each product behind a tab. A product's number is the
/// step from the product before, or nothing for a step of 1, which is more alike from line to line
/// than the numbers are: 20,000 bytes less.
fn write_vendor(text: &mut String, vendor: &Vendor) {
    let mut products: Vec<&Device> = vendor.devices().collect();
    products.sort_unstable_by_key(|product| product.id());
    *text += &format!("{:04x} {}\n", vendor.id(), vendor.name());
    let mut before = 0;
    for product in products {
        let step = match product.id() - before {
            1 => String::new(),
            step => format!("{step:x}"),
        };
        *text += &format!("\t{step} {}\n", product.name());
        before = product.id();
    }
}

/// The commit in `.cargo_vcs_info.json`.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    rest.split('"').nth(1).and_then(checked)
}

/// The commit that git has checked out, of the whole repository. A `.git` further up belongs to
/// another project, such as a distribution's packages.
fn checked_out() -> Option<String> {
    if !Path::new("../.git").exists() {
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
