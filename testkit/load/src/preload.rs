//! The simulated usbfs of this repository, for whoever wants to preload it: built, and found.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The package, and the file it becomes.
const PACKAGE: &str = "usbferry-usbfs";
const FILE: &str = "libusbferry_usbfs.so";

/// Builds the library, optimised, and returns where it is. `workspace` is the directory of the
/// workspace's manifest, `scratch` one below `target`.
///
/// # Errors
/// It can't be built; what cargo said is on stderr.
pub fn build(workspace: &Path, scratch: &Path) -> Result<PathBuf, String> {
    // A directory of its own: whoever runs this may have locked the other one.
    let target = scratch.join("usbfs");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", PACKAGE, "--target-dir"])
        .arg(&target)
        .current_dir(workspace)
        .status()
        .map_err(|error| format!("cargo can't be started: {error}"))?;
    // Built for another machine, as whoever runs this was: then cargo has a directory for that one.
    let machine = std::env::var_os("CARGO_BUILD_TARGET").unwrap_or_default();
    let library = target.join(machine).join("release").join(FILE);
    if !status.success() || !library.exists() {
        return Err(format!("{PACKAGE} can't be built"));
    }
    Ok(library)
}
