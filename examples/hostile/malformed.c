// Makes host calls with arguments that no compiler would: unknown descriptors and flags, text that is not UTF-8, pointers outside the
// memory, lengths that a host may not allocate. Each is to be refused, or trapped, and no host may crash or swell.
//
// Begins with the case whose number is in /in/case (decimal; 0 without that file) and goes on until one traps: a test runs every case
// by running the program once a case. Prints a line before each.
//
// Exit: 0 all refused, 1 one was accepted.

#include <fcntl.h>

#include "say.h"

#define CALL(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) extern int32_t raw_##name
CALL(fd_read)(int32_t fd, int32_t vectors, int32_t vector_count, int32_t got);
CALL(fd_write)(int32_t fd, int32_t vectors, int32_t vector_count, int32_t wrote);
CALL(fd_seek)(int32_t fd, int64_t offset, int32_t whence, int32_t position);
CALL(fd_close)(int32_t fd);
CALL(fd_renumber)(int32_t from, int32_t to);
CALL(fd_allocate)(int32_t fd, int64_t offset, int64_t length);
CALL(fd_filestat_set_size)(int32_t fd, int64_t size);
CALL(fd_pwrite)(int32_t fd, int32_t vectors, int32_t vector_count, int64_t offset, int32_t wrote);
CALL(path_open)(int32_t directory, int32_t lookup, int32_t path, int32_t length, int32_t open, int64_t rights, int64_t inheriting, int32_t flags, int32_t opened);
CALL(poll_oneoff)(int32_t subscriptions, int32_t events, int32_t count, int32_t happened);
CALL(random_get)(int32_t buffer, int32_t length);

#define GRANT 3 // the first granted folder
#define READ_RIGHT 2

static uint32_t accepted;

static int32_t at(const void *pointer) { return (int32_t)(intptr_t)pointer; }

static void outcome(int32_t error) {
    if (error) {
        say("  refused with errno ");
        say_number((uint64_t)error);
        say("\n");
    } else {
        say("  ACCEPTED\n");
        accepted++;
    }
}

// For calls that a good host may grant, as long as it does not swell.
static void either(int32_t error) { say(error ? "  refused\n" : "  granted\n"); }

static uint32_t first_case(void) {
    int fd = open("/in/case", O_RDONLY);
    if (fd < 0) return 0;
    char text[8];
    ssize_t length = read(fd, text, sizeof text);
    close(fd);
    uint32_t number = 0;
    for (ssize_t i = 0; i < length && text[i] >= '0' && text[i] <= '9'; i++) number = number * 10 + (uint32_t)(text[i] - '0');
    return number;
}

#define LAST_CASE 12

static void make(uint32_t number) {
    static char byte;
    static int32_t result[16];
    const int32_t end = (int32_t)(__builtin_wasm_memory_size(0) * 65536);
    // A vector that is fine; one that begins in the memory and leaves it; one of nearly 4 GiB, whose end wraps around.
    int32_t good[2] = {at(&byte), 1}, leaving[2] = {end - 4, 65536}, wrapping[2] = {at(&byte), -1};
    static const int32_t unknown[] = {-1, 1 << 30, INT32_MIN, INT32_MAX, 4096};
    int scratch;

    switch (number) {
    case 0:
        say("unknown descriptors\n");
        for (uint32_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
            outcome(raw_fd_read(unknown[i], at(good), 1, at(result)));
            outcome(raw_fd_write(unknown[i], at(good), 1, at(result)));
            outcome(raw_fd_close(unknown[i]));
            outcome(raw_fd_renumber(unknown[i], 1));
            outcome(raw_fd_renumber(1, unknown[i]));
        }
        break;
    case 1:
        say("a seek from an unknown origin\n");
        outcome(raw_fd_seek(GRANT, 0, 77, at(result)));
        break;
    case 2:
        say("a path that is not UTF-8\n");
        outcome(raw_path_open(GRANT, 0, at("\xff\xfe"), 2, 0, READ_RIGHT, 0, 0, at(result)));
        break;
    case 3:
        say("a path with a lone surrogate\n");
        outcome(raw_path_open(GRANT, 0, at("\xed\xa0\x80"), 3, 0, READ_RIGHT, 0, 0, at(result)));
        break;
    case 4:
        say("unknown flags and rights\n");
        outcome(raw_path_open(GRANT, -1, at("x"), 1, -1, -1, -1, -1, at(result)));
        break;
    case 5:
        say("a path that leaves the memory\n");
        outcome(raw_path_open(GRANT, 0, end - 1, 4096, 0, READ_RIGHT, 0, 0, at(result)));
        break;
    case 6:
        say("a path as long as the memory\n");
        outcome(raw_path_open(GRANT, 0, 0, end, 0, READ_RIGHT, 0, 0, at(result)));
        break;
    case 7:
        say("writing from outside the memory\n");
        outcome(raw_fd_write(1, at(leaving), 1, at(result)));
        break;
    case 8:
        say("writing nearly 4 GiB from a small memory\n");
        either(raw_fd_write(1, at(wrapping), 1, at(result)));
        break;
    case 9:
        say("a result outside the memory\n");
        outcome(raw_fd_write(1, at(good), 1, end));
        break;
    case 10:
        say("nearly 4 GiB of randomness\n");
        outcome(raw_random_get(0, -1));
        break;
    case 11:
        say("waiting for nearly 4 billion events\n");
        outcome(raw_poll_oneoff(0, 0, -1, at(result)));
        break;
    case LAST_CASE:
        say("files of impossible size\n");
        scratch = open("/scratch/impossible", O_RDWR | O_CREAT, 0600);
        if (scratch < 0) break;
        outcome(raw_fd_filestat_set_size(scratch, -1));
        outcome(raw_fd_filestat_set_size(scratch, INT64_MAX));
        outcome(raw_fd_allocate(scratch, 0, INT64_MAX));
        outcome(raw_fd_pwrite(scratch, at(good), 1, -1, at(result)));
        outcome(raw_fd_pwrite(scratch, at(good), 1, INT64_MAX, at(result)));
        // Far past the end, but possible: a host that stores the hole pays for 1 TiB.
        either(raw_fd_pwrite(scratch, at(good), 1, 1ll << 40, at(result)));
        // All that the file has, said to fit: what comes back must be little, or the host allocated for it.
        either(raw_fd_read(scratch, at(wrapping), 1, at(result)));
        break;
    }
}

int main(void) {
    for (uint32_t number = first_case(); number <= LAST_CASE; number++) {
        say("case ");
        say_number(number);
        say(": ");
        make(number);
    }
    say_number(accepted);
    say(" accepted\n");
    return ends(accepted ? 1 : 0);
}
