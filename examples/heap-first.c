// Linked into every example: makes the C library claim its heap before the program's first call to the host.
//
// Debian 12's wasi-libc takes, at its first malloc, everything from the end of the data to the *current* end of the memory as its
// heap. A component made with the preview-1 adapter has by then often grown that memory, for the adapter's own state: the first host
// call does it, and libc makes host calls (for the granted folders, for the arguments) before main. malloc would hand the adapter's state
// out as free memory. Newer releases of wasi-libc (with __heap_end, from 2023 on) need none of this.

#include <stddef.h>

// Weak: a program that never allocates does not get an allocator for this.
void *malloc(size_t) __attribute__((weak));

// Lower numbers run first; wasi-libc asks for the granted folders at 51. The empty assembly keeps the call from being optimised away.
__attribute__((constructor(50))) static void claim_heap(void) {
    if (!malloc) return;
    void *claimed = malloc(1);
    __asm__ volatile("" : : "r"(claimed));
}
