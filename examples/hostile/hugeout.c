// Writes /out/huge.bin until the quota is hit, 64 KiB at a time, in bytes that do not compress. Exit 28 (Linux's ENOSPC) if the refusal
// was "no space" or "over quota", 1 if it was another, 2 if 64 GiB went in without one.

#include <errno.h>
#include <fcntl.h>

#include "say.h"

#define BLOCK_BYTES 65536u
#define ENOUGH_BYTES (64ull << 30)

static uint64_t block[BLOCK_BYTES / 8];

static int refused(const char *call, int error, uint64_t bytes) {
    say("hugeout: ");
    say(call);
    say(" refused after ");
    say_number(bytes);
    say(" bytes with errno ");
    say_number((uint64_t)error);
    say("\n");
    return ends(error == ENOSPC || error == EDQUOT ? 28 : 1);
}

int main(void) {
    int fd = open("/out/huge.bin", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return refused("open", errno, 0);
    uint64_t state = 0x9e3779b97f4a7c15, bytes = 0;
    while (bytes < ENOUGH_BYTES) {
        for (uint32_t i = 0; i < BLOCK_BYTES / 8; i++) {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block[i] = state;
        }
        for (uint32_t done = 0; done < BLOCK_BYTES;) {
            ssize_t wrote = write(fd, (const char *)block + done, BLOCK_BYTES - done);
            if (wrote < 0) return refused("write", errno, bytes + done);
            // A write of nothing, again and again, would be a loop without end.
            if (wrote == 0) return refused("write", 0, bytes + done);
            done += (uint32_t)wrote;
        }
        bytes += BLOCK_BYTES;
    }
    if (close(fd)) return refused("close", errno, bytes);
    say("hugeout: no quota found\n");
    return ends(2);
}
