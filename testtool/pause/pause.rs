//! The process that keeps a Pod's namespaces alive: it waits, reaps the children that it inherits as process 1, and
//! ends at SIGTERM or SIGINT. It relies on Linux's system calls alone (no libc, no standard library), which keeps the
//! image at a few hundred bytes. It deliberately has no handlers: every signal is blocked and fetched with
//! `rt_sigtimedwait`, because the kernel queues a blocked signal for process 1 where it drops one without a handler.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the system calls below are those of x86_64");

const SYS_RT_SIGPROCMASK: usize = 14;
const SYS_EXIT: usize = 60;
const SYS_WAIT4: usize = 61;
const SYS_RT_SIGTIMEDWAIT: usize = 128;
const SIG_BLOCK: usize = 0;
const SIGINT: isize = 2;
const SIGTERM: isize = 15;
const SIGCHLD: isize = 17;
const WNOHANG: usize = 1;
const ANY_CHILD: usize = usize::MAX;
static EVERY_SIGNAL: u64 = u64::MAX;

// The kernel enters without a return address: the stack is aligned as a call of the C convention expects it.
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {wait}", wait = sym wait_for_signals);

extern "C" fn wait_for_signals() -> ! {
    let set = &raw const EVERY_SIGNAL as usize;
    system_call(SYS_RT_SIGPROCMASK, [SIG_BLOCK, set, 0, size_of::<u64>()]);
    loop {
        match system_call(SYS_RT_SIGTIMEDWAIT, [set, 0, 0, size_of::<u64>()]) {
            SIGINT | SIGTERM => {
                system_call(SYS_EXIT, [0; 4]);
            }
            // One SIGCHLD may stand for several dead children.
            SIGCHLD => while system_call(SYS_WAIT4, [ANY_CHILD, 0, WNOHANG, 0]) > 0 {},
            _ => {}
        }
    }
}

fn system_call(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the calls above pass the address of one immutable static or null, so the kernel writes no memory of ours;
    // rcx and r11 are the registers that the instruction itself overwrites.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") arguments[0], in("rsi") arguments[1],
             in("rdx") arguments[2], in("r10") arguments[3], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
