// Recurses without end. The linker puts the stack below all data (--stack-first), so that overflowing it leaves the memory and
// traps; the engine's own limit on call depth may stop it sooner. Must end in a trap, never in a dead host.

#include "say.h"

static volatile uint64_t bottom = UINT64_MAX;

// The volatile buffer keeps each call's frame, and the use after the call keeps the call from becoming a loop.
__attribute__((noinline)) static uint64_t deeper(uint64_t n) {
    volatile char frame[64];
    frame[n % sizeof frame] = (char)n;
    if (n == bottom) return n;
    return deeper(n + 1) + (uint64_t)frame[n % sizeof frame];
}

int main(void) {
    say("stack: recursing\n");
    return (int)deeper(0);
}
