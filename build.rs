//! Has the linker put the functions of `usbferry-wraps` in the place of the C library's and
//! libusb's, where libusb is a part of the program.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    if is_linux && std::env::var_os("CARGO_FEATURE_VENDORED").is_some() {
        for name in ["calloc", "free", "ioctl", "poll", "usbi_log"] {
            println!("cargo::rustc-link-arg-bins=-Wl,--wrap={name}");
        }
    }
}
