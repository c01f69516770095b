//! See `usbferry_program::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| usbferry_program::fuzzing::announcement(data));
