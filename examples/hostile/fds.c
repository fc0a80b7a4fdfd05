// Opens /scratch/file again and again and closes nothing: open files must have a bound. Exit 24 (Linux's EMFILE) if opening is refused,
// after showing that what is open still works; exit 1 if it does not, 2 if there seems to be no bound.

#include <errno.h>
#include <fcntl.h>

#include "say.h"

#define ENOUGH 10000000u

int main(void) {
    int first = open("/scratch/file", O_RDWR | O_CREAT, 0600);
    if (first < 0) return ends(1);
    for (uint64_t opened = 1; opened < ENOUGH; opened++) {
        if (open("/scratch/file", O_RDWR) >= 0) continue;
        int error = errno;
        say("fds: refused after ");
        say_number(opened);
        say(" open files with errno ");
        say_number((uint64_t)error);
        say("\n");
        char back = 0;
        return ends(pwrite(first, "x", 1, 0) == 1 && pread(first, &back, 1, 0) == 1 && back == 'x' ? 24 : 1);
    }
    say("fds: no bound found\n");
    return ends(2);
}
