//! Refuses a system libusb that lacks `libusb_init_context`, with a sentence instead of a linker's
//! list of symbols. Tells the crate whose libusb is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(libusb_built_in)");
    // Set by libusb1-sys, whose `links` key is "usb-1.0", and which builds its own source also
    // where the system's libusb was asked for and is missing.
    if std::env::var_os("DEP_USB_1.0_VENDORED").is_some() {
        println!("cargo::rustc-cfg=libusb_built_in");
    }
    let Ok(version) = std::env::var("DEP_USB_1.0_VERSION_NUMBER") else {
        return;
    };
    let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0u32));
    let found = (parts.next(), parts.next(), parts.next());
    assert!(
        found >= (Some(1), Some(0), Some(27)),
        "usbferry needs libusb 1.0.27 or newer and the system has {version}: build with the \
         default feature `vendored`, which brings its own"
    );
}
