//! Has the linker put the functions of `usbferry-wraps` in the place of the C library's and
//! libusb's, where that package is used: with libusb as a part of the program, on Linux.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let wrapped = std::env::var("DEP_USBFERRY_WRAPS_WRAPPED").unwrap_or_default();
    for name in wrapped.split_whitespace() {
        println!("cargo::rustc-link-arg-bins=-Wl,--wrap={name}");
    }
}
