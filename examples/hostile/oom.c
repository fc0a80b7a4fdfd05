// Allocates and touches memory until there is no more. Exit 7: the allocator said no and the program went on living, which is
// how it should end. A trap or a dead task process means that the memory bound is enforced less gently; exit 0 cannot happen.

#include <stdlib.h>

#include "say.h"

#define BLOCK_BYTES (1u << 20)
#define TOUCH_BYTES 4096u

int main(void) {
    say("oom: allocating\n");
    for (uint64_t blocks = 0;; blocks++) {
        volatile char *block = malloc(BLOCK_BYTES);
        if (!block) {
            say("oom: refused after ");
            say_number(blocks);
            say(" MiB\n");
            return ends(7);
        }
        for (uint32_t at = 0; at < BLOCK_BYTES; at += TOUCH_BYTES) block[at] = (char)(at ^ blocks);
    }
}
