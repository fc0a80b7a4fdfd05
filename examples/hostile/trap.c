// Traps: the `unreachable` instruction, after one line of output.

#include "say.h"

int main(void) {
    say("trap: executing unreachable\n");
    __builtin_trap();
}
