//! Links the tests of this package as the program is linked (`build.rs` of the program).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        for name in ["calloc", "free", "ioctl", "poll", "usbi_log"] {
            println!("cargo::rustc-link-arg-tests=-Wl,--wrap={name}");
        }
    }
}
