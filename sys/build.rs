//! Refuses a system libusb that lacks `libusb_init_context`, with a sentence instead of a linker's
//! list of symbols.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Set by libusb1-sys, whose `links` key is "usb-1.0".
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
