//! Replaces the unwinder of a program that aborts on panic, so that it never walks a stack.
//!
//! The release binary has its own panic hook and no unwind tables, so a backtrace would be empty.
//! std cannot know that, and brings what reads and prints one: 170 KB for DWARF, compression and
//! demangling. This definition takes part in link-time optimization, which sees that no frame is
//! ever visited and drops all of it. It is a crate of its own as the program forbids `unsafe`, and
//! that includes the export of a symbol; there is no unsafe operation here.
#![no_std]

// Tests and the lab unwind: they keep libunwind's own.
#[cfg(panic = "abort")]
mod unwinder {
    /// `_URC_END_OF_STACK`: there are no more frames.
    const END_OF_STACK: i32 = 5;

    type Context = *mut ();
    type Visit = extern "C-unwind" fn(Context, *mut ()) -> i32;

    #[unsafe(no_mangle)]
    extern "C-unwind" fn _Unwind_Backtrace(_: Visit, _: *mut ()) -> i32 {
        END_OF_STACK
    }

    // std's personality routine, which nothing calls, asks for these three. They lie in the same
    // object of libunwind.a as the one above, and would bring a second definition of it.
    #[unsafe(no_mangle)]
    extern "C-unwind" fn _Unwind_GetIPInfo(_: Context, _: *mut i32) -> usize {
        0
    }

    #[unsafe(no_mangle)]
    extern "C-unwind" fn _Unwind_GetTextRelBase(_: Context) -> usize {
        0
    }

    #[unsafe(no_mangle)]
    extern "C-unwind" fn _Unwind_GetDataRelBase(_: Context) -> usize {
        0
    }
}
