// Counts the primes below a number, and goes on where it was when the machine lost its power.
//
//   primes LIMIT [STEP]     STEP: numbers between two commits, 20000 unless given
//
//   /state        progress: one line, "NEXT COUNT SUM ENTRIES"
//   /out          written at the end: primes.txt, and entries.txt: how often _start was entered
//
// The contract (specs/checkpoint.md): fsync of any file of /state commits everything below /state at once. Whatever the machine dies in, the next attempt
// enters _start again and finds /state as the last commit left it; without one it is empty. So this program asks at its start how far it is, and all that
// it must not lose is in /state before it commits. What is in memory, in /scratch and in /out is gone with the attempt.
//
// The progress is overwritten in place, as a commit is of all of it or of nothing.
//
// Exit: 0 done, 1 with a sentence on stderr.

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS "/state/progress"

struct progress {
    uint64_t next;
    uint64_t count;
    uint64_t sum;
    uint64_t entries;
};

static void fail(const char *what) {
    fprintf(stderr, "primes: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct progress read_progress(void) {
    struct progress p = {2, 0, 0, 0};
    FILE *file = fopen(PROGRESS, "r");
    if (file == NULL) {
        if (errno != ENOENT)
            fail("open " PROGRESS);
        return p; // Nothing was committed: this is the beginning.
    }
    if (fscanf(file, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &p.next, &p.count, &p.sum, &p.entries) != 4) {
        fprintf(stderr, "primes: the progress cannot be read\n");
        exit(1);
    }
    fclose(file);
    return p;
}

static void commit(const struct progress *p) {
    FILE *file = fopen(PROGRESS, "w");
    if (file == NULL)
        fail("open " PROGRESS);
    fprintf(file, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", p->next, p->count, p->sum, p->entries);
    // When fsync returns, the disk has it.
    if (fflush(file) != 0 || fsync(fileno(file)) != 0)
        fail("commit " PROGRESS);
    fclose(file);
}

static void write_out(const char *path, const char *format, uint64_t a, uint64_t b, uint64_t c) {
    FILE *file = fopen(path, "w");
    if (file == NULL)
        fail(path);
    fprintf(file, format, a, b, c);
    if (fclose(file) != 0)
        fail(path);
}

static bool is_prime(uint64_t n) {
    if (n < 4)
        return n > 1;
    if (n % 2 == 0)
        return false;
    for (uint64_t d = 3; d * d <= n; d += 2)
        if (n % d == 0)
            return false;
    return true;
}

int main(int argc, char **argv) {
    uint64_t limit = argc > 1 ? strtoull(argv[1], NULL, 10) : 200000;
    uint64_t step = argc > 2 ? strtoull(argv[2], NULL, 10) : 20000;
    if (step == 0)
        step = 1;
    struct progress p = read_progress();
    p.entries++;
    commit(&p);
    while (p.next < limit) {
        uint64_t end = limit - p.next < step ? limit : p.next + step;
        for (uint64_t n = p.next; n < end; n++)
            if (is_prime(n)) {
                p.count++;
                p.sum += n;
            }
        p.next = end;
        commit(&p);
    }
    write_out("/out/primes.txt", "%" PRIu64 " primes below %" PRIu64 ", sum %" PRIu64 "\n", p.count, limit, p.sum);
    write_out("/out/entries.txt", "%" PRIu64 "\n", p.entries, 0, 0);
    return 0;
}
