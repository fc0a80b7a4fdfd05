// Streams /in/data.bin through a buffer of 64 KiB and writes "<checksum, 16 hex digits> <length in bytes>\n" to /out/sum.txt and
// stdout. For inputs far larger than memory.
//
// The checksum, over the file as little-endian 64-bit words, the last one padded with zeros:
//   h = 0xcbf29ce484222325
//   for each word w: h = rotate_left(h ^ w, 29) * 0x9e3779b97f4a7c15   (mod 2^64)
//   h = h ^ length
// It finds accidents such as a lost, doubled, swapped or shortened block; it is no match for malice.
//
// Exit: 0 done, 1 with a line on stderr.

#include <errno.h>
#include <fcntl.h>

#include "say.h"

#define BUFFER_BYTES 65536u

static uint64_t buffer[BUFFER_BYTES / 8];

static int fail(const char *what) {
    int error = errno;
    say_to(2, "bigread: ");
    say_to(2, what);
    say_to(2, ": ");
    say_to(2, strerror(error));
    say_to(2, "\n");
    return ends(1);
}

static void report(int fd, uint64_t sum, uint64_t length) {
    say_hex_to(fd, sum, 16);
    say_to(fd, " ");
    say_number_to(fd, length);
    say_to(fd, "\n");
}

int main(void) {
    int in = open("/in/data.bin", O_RDONLY);
    if (in < 0) return fail("open /in/data.bin");
    uint64_t sum = 0xcbf29ce484222325, length = 0;
    for (int more = 1; more;) {
        // Filled before it is summed: a short read in the middle must not change where words begin.
        uint32_t have = 0;
        while (have < BUFFER_BYTES) {
            ssize_t got = read(in, (char *)buffer + have, BUFFER_BYTES - have);
            if (got < 0) return fail("read /in/data.bin");
            if (got == 0) {
                more = 0;
                break;
            }
            have += (uint32_t)got;
        }
        memset((char *)buffer + have, 0, (8 - have % 8) % 8);
        for (uint32_t i = 0; i < (have + 7) / 8; i++) {
            uint64_t mixed = sum ^ buffer[i];
            sum = (mixed << 29 | mixed >> 35) * 0x9e3779b97f4a7c15;
        }
        length += have;
    }
    sum ^= length;
    int out = open("/out/sum.txt", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0) return fail("create /out/sum.txt");
    report(out, sum, length);
    if (close(out)) return fail("close /out/sum.txt");
    report(1, sum, length);
    return ends(0);
}
