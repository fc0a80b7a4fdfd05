// Creates empty files in /scratch, and directories in between, without end: names cost the host memory too. Exit 28 (Linux's ENOSPC) if
// creating is refused for want of space or files, 1 if for another reason, 2 if there seems to be no bound.

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "say.h"

#define ENOUGH 10000000u

int main(void) {
    for (uint64_t made = 0; made < ENOUGH; made++) {
        // A long name: 200 digits, the number at its end.
        char name[9 + 200 + 1] = "/scratch/";
        uint64_t rest = made;
        for (int i = 9 + 200; i-- > 9; rest /= 10) name[i] = (char)('0' + rest % 10);
        int made_it;
        if (made % 16 == 15) {
            made_it = mkdir(name, 0700) == 0;
        } else {
            int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
            made_it = fd >= 0 && close(fd) == 0;
        }
        if (!made_it) {
            int error = errno;
            say("manyfiles: refused after ");
            say_number(made);
            say(" names with errno ");
            say_number((uint64_t)error);
            say("\n");
            return ends(error == ENOSPC || error == EDQUOT || error == EMFILE || error == ENFILE || error == ENOMEM ? 28 : 1);
        }
    }
    say("manyfiles: no bound found\n");
    return ends(2);
}
