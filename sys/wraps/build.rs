//! Tells the build script of the program the names of the functions in whose place the linker puts
//! ours, and links the tests of this package as the program is linked.

/// The names; for each there is a `__wrap_` function.
const WRAPPED: [&str; 5] = ["calloc", "free", "ioctl", "poll", "usbi_log"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::metadata=WRAPPED={}", WRAPPED.join(" "));
        for name in WRAPPED {
            println!("cargo::rustc-link-arg-tests=-Wl,--wrap={name}");
        }
    }
}
