//! See `usbferry::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| usbferry::fuzzing::announcement(data));
