// Writes lines to stdout and stderr in turn without end: the log of a task must have a bound. Exit 3 if a write is refused;
// otherwise only fuel or a deadline stops it.

#include "say.h"

int main(void) {
    static const char line[] = "logflood: the quick brown fox jumps over the lazy dog, again and again and again and again....\n";
    for (;;)
        for (int fd = 1; fd <= 2; fd++)
            if (write(fd, line, sizeof line - 1) <= 0) return 3;
}
