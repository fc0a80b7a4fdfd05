// Never ends: the job that runs out of fuel. Looks for a start below 2^64 whose Collatz sequence does not reach 1, and begins
// again from 1 when the starts run out. Makes no host call after its first line, so only fuel or a deadline can stop it.

#include <stdint.h>
#include <unistd.h>

int main(void) {
    static const char line[] = "runaway: looking for a Collatz sequence that does not reach 1\n";
    if (write(1, line, sizeof line - 1) < 0) return 1;
    // Volatile, or the compiler may drop loops that have no effect.
    volatile uint64_t steps = 0;
    for (uint64_t start = 1;; start = start == UINT64_MAX ? 1 : start + 1)
        for (uint64_t n = start; n != 1; n = n % 2 ? 3 * n + 1 : n / 2) steps = steps + 1;
}
