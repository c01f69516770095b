//! The replaced functions: the next functions of the same names.

use std::ffi::{CStr, c_void};

/// Finds the next function of a name. Ends the process if there is none: then the program could not
/// have meant to call the function.
pub(crate) fn find(name: &CStr) -> *mut c_void {
    // SAFETY: a name with a NUL, and a handle defined by the dynamic linker.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if found.is_null() {
        crate::refuse("a function of the C library is missing");
    }
    found
}

/// `real!(NAME(TYPES) -> RESULT)`: the next function NAME, as a function pointer. Looked up once.
macro_rules! real {
    ($name:ident($($argument:ty),*) -> $result:ty) => {{
        use std::sync::atomic::{AtomicPtr, Ordering};
        static FOUND: AtomicPtr<std::ffi::c_void> = AtomicPtr::new(std::ptr::null_mut());
        let mut found = FOUND.load(Ordering::Relaxed);
        if found.is_null() {
            let name = concat!(stringify!($name), "\0");
            let name = std::ffi::CStr::from_bytes_with_nul(name.as_bytes());
            found = $crate::real::find(name.expect("a NUL at the end and none before"));
            FOUND.store(found, Ordering::Relaxed);
        }
        type Function = unsafe extern "C" fn($($argument),*) -> $result;
        // SAFETY: the symbol with the name has this signature in the C library.
        unsafe { std::mem::transmute::<*mut std::ffi::c_void, Function>(found) }
    }};
}

pub(crate) use real;
