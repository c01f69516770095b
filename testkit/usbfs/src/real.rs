//! The functions that this library's own stand in front of: the next ones of the same name.

use std::ffi::{CStr, c_void};

/// Finds the next function of a name. Ends the process where there is none: then nobody could
/// have meant to call it.
pub(crate) fn find(name: &CStr) -> *mut c_void {
    // SAFETY: a name that ends in NUL, and a handle that the dynamic linker defines.
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
        // SAFETY: the symbol of that name has this signature in the C library.
        unsafe { std::mem::transmute::<*mut std::ffi::c_void, Function>(found) }
    }};
}

pub(crate) use real;
