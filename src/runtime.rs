//! The directories for files of a running server: the notes of debts, and the socket of operators.
//!
//! Contract: reads variables of the environment, and a link in the file system.

use std::path::PathBuf;

/// The places for files that a restart of the machine is to empty, the best first. A service
/// manager can name the directory (systemd.exec, `RuntimeDirectory=`; of several, the first).
pub fn directories() -> impl Iterator<Item = PathBuf> {
    let place = |variable| {
        let value = std::env::var_os(variable)?.into_string().ok()?;
        value.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from)
    };
    let subdirectory = |place: PathBuf| place.join("usbferry");
    // The manager's own link: systemd keeps the directory of a dynamic user elsewhere.
    let real = |place: PathBuf| place.canonicalize().unwrap_or(place);
    let places = [
        place("RUNTIME_DIRECTORY").map(real),
        Some(PathBuf::from("/run/usbferry")),
        place("XDG_RUNTIME_DIR").map(subdirectory),
    ];
    places.into_iter().flatten()
}
