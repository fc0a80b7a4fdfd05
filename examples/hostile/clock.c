// Writes everything that a program could learn of the time, of chance and of the machine to /out/env.txt, one fact a line. Two runs of the
// same task, on whichever machines, must write the same bytes unless the spec granted a clock or randomness.
//
// Exit: 0 done, 1 if /out/env.txt cannot be written.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "say.h"

extern char **environ;

static int out;

static void fact(const char *name) {
    say_to(out, name);
    say_to(out, "=");
}

static void number(const char *name, uint64_t value) {
    fact(name);
    say_number_to(out, value);
    say_to(out, "\n");
}

static void error(const char *name) {
    fact(name);
    say_to(out, "errno ");
    say_number_to(out, (uint64_t)errno);
    say_to(out, "\n");
}

static void moment(const char *name, struct timespec at) {
    fact(name);
    say_number_to(out, (uint64_t)at.tv_sec);
    say_to(out, "s ");
    say_number_to(out, (uint64_t)at.tv_nsec);
    say_to(out, "ns\n");
}

static void clocks(const char *when) {
    struct timespec at;
    say_to(out, when);
    if (clock_gettime(CLOCK_REALTIME, &at)) error(" realtime");
    else moment(" realtime", at);
    say_to(out, when);
    if (clock_gettime(CLOCK_MONOTONIC, &at)) error(" monotonic");
    else moment(" monotonic", at);
}

static void status(const char *path) {
    struct stat found;
    fact("stat");
    say_to(out, path);
    say_to(out, "\n");
    if (stat(path, &found)) {
        error(" stat");
        return;
    }
    number(" device", found.st_dev);
    number(" inode", found.st_ino);
    number(" links", found.st_nlink);
    number(" size", (uint64_t)found.st_size);
    moment(" atime", found.st_atim);
    moment(" mtime", found.st_mtim);
    moment(" ctime", found.st_ctim);
}

// The order in which the host lists a directory, and the inode numbers it gives.
static void listing(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) {
        error(path);
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        fact("entry");
        say_to(out, path);
        say_to(out, " ");
        say_to(out, entry->d_name);
        say_to(out, " ");
        say_number_to(out, entry->d_ino);
        say_to(out, " ");
        say_number_to(out, entry->d_type);
        say_to(out, "\n");
    }
    closedir(directory);
}

static void nan_bits(const char *name, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    fact(name);
    say_hex_to(out, bits, 16);
    say_to(out, "\n");
}

int main(int argc, char **argv) {
    out = open("/out/env.txt", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0) {
        say_to(2, "clock: cannot create /out/env.txt\n");
        return ends(1);
    }
    number("arguments", (uint64_t)argc);
    for (int i = 0; i < argc; i++) {
        fact(" argument");
        say_to(out, argv[i]);
        say_to(out, "\n");
    }
    for (char **variable = environ; variable && *variable; variable++) {
        fact("variable");
        say_to(out, *variable);
        say_to(out, "\n");
    }

    number("time", (uint64_t)time(NULL));
    struct timespec resolution;
    if (clock_getres(CLOCK_REALTIME, &resolution)) error("realtime resolution");
    else moment("realtime resolution", resolution);
    if (clock_getres(CLOCK_MONOTONIC, &resolution)) error("monotonic resolution");
    else moment("monotonic resolution", resolution);
    clocks("before work");
    // Work, so that a clock that runs shows it.
    volatile uint64_t sum = 0;
    for (uint64_t i = 0; i < 20000000; i++) sum = sum + i;
    clocks("after work");
    struct timespec nap = {.tv_nsec = 1000000};
    if (nanosleep(&nap, NULL)) error("nap");
    clocks("after a nap of 1 ms");

    for (int i = 0; i < 2; i++) {
        unsigned char random[32];
        if (getentropy(random, sizeof random)) {
            error("random");
            continue;
        }
        fact("random");
        for (size_t at = 0; at < sizeof random; at++) say_hex_to(out, random[at], 2);
        say_to(out, "\n");
    }

    status("/in");
    status("/out");
    status("/scratch");
    int made = open("/scratch/made", O_WRONLY | O_CREAT, 0600);
    if (made < 0 || write(made, "made", 4) != 4 || close(made)) error("make /scratch/made");
    status("/scratch/made");
    listing("/in");
    listing("/scratch");

    // Addresses of a fresh allocation and of the stack, the size of the memory, and what the machine makes of "not a number".
    void *allocation = malloc(100000);
    number("allocation", (uintptr_t)allocation);
    free(allocation);
    number("stack", (uintptr_t)&made);
    number("memory pages", __builtin_wasm_memory_size(0));
    volatile double zero = 0, infinity = __builtin_inf(), minus = -1;
    nan_bits("0/0", zero / zero);
    nan_bits("inf-inf", infinity - infinity);
    nan_bits("sqrt(-1)", __builtin_sqrt(minus));
    nan_bits("-(0/0)", -(zero / zero));
    if (close(out)) return ends(1);
    say("clock: wrote /out/env.txt\n");
    return ends(0);
}
