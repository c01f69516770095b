//! The simulated usbfs of this repository, built and found for preloading.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The package and its library file.
const PACKAGE: &str = "usbferry-usbfs";
const FILE: &str = "libusbferry_usbfs.so";

/// Builds the library, optimised, and returns its path. `workspace` is the directory of the
/// workspace's manifest, `scratch` a directory below `target`.
///
/// # Errors
/// The library can't be built; cargo's messages are on stderr.
pub fn build(workspace: &Path, scratch: &Path) -> Result<PathBuf, String> {
    // A separate directory, since the calling cargo may have locked the usual directory.
    let target = scratch.join("usbfs");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", PACKAGE, "--target-dir"])
        .arg(&target)
        .current_dir(workspace)
        .status()
        .map_err(|error| format!("cargo can't be started: {error}"))?;
    // If the caller was built for another machine, cargo uses a directory named after that machine.
    let machine = std::env::var_os("CARGO_BUILD_TARGET").unwrap_or_default();
    let library = target.join(machine).join("release").join(FILE);
    if !status.success() || !library.exists() {
        return Err(format!("{PACKAGE} can't be built"));
    }
    Ok(library)
}
