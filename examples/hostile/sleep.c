// Sleeps for a day: burns no fuel, so only a deadline on the clock of the host stops it. Exit 0 if the sleep returns and 1 if it
// is refused.

#include <errno.h>
#include <time.h>

#include "say.h"

int main(void) {
    say("sleep: for one day\n");
    struct timespec day = {.tv_sec = 24 * 60 * 60};
    if (nanosleep(&day, NULL)) {
        say("sleep: refused with errno ");
        say_number((uint64_t)errno);
        say("\n");
        return ends(1);
    }
    say("sleep: over\n");
    return ends(0);
}
