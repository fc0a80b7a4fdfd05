// Counts the lines, words and bytes of every file under /in and ranks the words over all of them.
//
//   /in           read: every regular file, in subdirectories too
//   /scratch      read and write: words.tmp, then words.idx, one fixed-size record a distinct word; removed at the end
//   /out          written: report.csv (one row a file, then the total) and top-words.txt (the 20 most frequent words)
//
// The word table lives in memory and is mirrored in /scratch: new words are appended, counts that change are rewritten in place,
// the finished file is renamed, read back from its last record to its first, and compared. The ranking is made from what was
// read back, so a file system that loses, reorders or mixes up a write either stops this program or changes its output.
//
// Lines and words are those of `wc`: newline bytes, and runs of bytes between ASCII white space. For the ranking a word loses the
// ASCII punctuation at both its ends and its ASCII upper case. Nothing here depends on time, randomness or directory order.
//
// Exit: 0 done, 1 with a sentence on stderr.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IN "/in"
#define WORDS_TMP "/scratch/words.tmp"
#define WORDS_IDX "/scratch/words.idx"
#define REPORT "/out/report.csv"
#define TOP_WORDS "/out/top-words.txt"

#define TOP 20
#define BUFFER_BYTES (64 * 1024)
#define MAX_DEPTH 16
#define MAX_PATH 4096
// A longer word is counted, but not ranked.
#define WORD_BYTES 64
#define FIRST_SLOTS 4096

// A distinct word, in memory as in /scratch (little-endian on every wasm host). 80 bytes do not divide a 64 KiB page, so records
// lie across page boundaries too.
struct record {
    char word[WORD_BYTES]; // zero-padded
    uint64_t count;
    uint64_t files; // in how many files it occurs
};
_Static_assert(sizeof(struct record) == 80, "the record is the format of the scratch file");

struct word {
    struct record record;
    uint32_t last_file; // number of the last file that it was seen in, from 1
};

struct counts {
    uint64_t lines, words, bytes;
};

static struct word *words; // in order of first sight, which is the order of the records in /scratch
static uint32_t word_count, word_capacity;
static uint32_t *slots; // open addressing; 0 is free, else index into `words` plus 1
static uint32_t slot_count;
static uint32_t words_in_scratch;

static char **paths; // relative to /in
static size_t path_count, path_capacity;

static _Noreturn void fail(const char *what, const char *path) {
    fprintf(stderr, "wordcount: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static _Noreturn void refuse(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("wordcount: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void *grow(void *old, size_t bytes) {
    void *grown = realloc(old, bytes);
    if (!grown) refuse("out of memory");
    return grown;
}

// FNV-1a over the padded word.
static uint32_t hash(const char word[WORD_BYTES]) {
    uint32_t value = 2166136261u;
    for (int i = 0; i < WORD_BYTES && word[i]; i++) value = (value ^ (uint8_t)word[i]) * 16777619u;
    return value;
}

static void place(uint32_t index) {
    uint32_t slot = hash(words[index].record.word) & (slot_count - 1);
    while (slots[slot]) slot = (slot + 1) & (slot_count - 1);
    slots[slot] = index + 1;
}

static void rehash(uint32_t count) {
    free(slots);
    slots = calloc(count, sizeof *slots);
    if (!slots) refuse("out of memory");
    slot_count = count;
    for (uint32_t i = 0; i < word_count; i++) place(i);
}

static void see(const char word[WORD_BYTES], uint32_t file) {
    uint32_t slot = hash(word) & (slot_count - 1);
    while (slots[slot] && memcmp(words[slots[slot] - 1].record.word, word, WORD_BYTES) != 0) slot = (slot + 1) & (slot_count - 1);
    if (!slots[slot]) {
        if (word_count == word_capacity) {
            word_capacity = word_capacity ? word_capacity * 2 : FIRST_SLOTS / 2;
            words = grow(words, word_capacity * sizeof *words);
        }
        struct word *new = &words[word_count++];
        memset(new, 0, sizeof *new);
        memcpy(new->record.word, word, WORD_BYTES);
        slots[slot] = word_count;
        new->record.count = new->record.files = 1;
        new->last_file = file;
        if (word_count * 2 > slot_count) rehash(slot_count * 2);
        return;
    }
    struct word *known = &words[slots[slot] - 1];
    known->record.count++;
    if (known->last_file != file) known->record.files++;
    known->last_file = file;
}

// ASCII only and without a locale, so that the result is the same everywhere.
static bool is_space(unsigned char byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }
static bool is_alnum(unsigned char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte >= 0x80;
}

// Ranks one run of non-space bytes; `length` may be more than was kept.
static void token(const unsigned char *bytes, size_t length, uint32_t file) {
    if (length > WORD_BYTES) return;
    size_t from = 0;
    while (from < length && !is_alnum(bytes[from])) from++;
    while (length > from && !is_alnum(bytes[length - 1])) length--;
    if (from == length) return;
    char word[WORD_BYTES] = {0};
    for (size_t i = from; i < length; i++) word[i - from] = (char)(bytes[i] >= 'A' && bytes[i] <= 'Z' ? bytes[i] + 32 : bytes[i]);
    see(word, file);
}

static struct counts count_file(const char *relative, uint32_t file) {
    static unsigned char buffer[BUFFER_BYTES];
    char path[MAX_PATH + 8];
    snprintf(path, sizeof path, "%s/%s", IN, relative);
    int fd = open(path, O_RDONLY);
    if (fd < 0) fail("open", path);

    struct counts counts = {0};
    unsigned char kept[WORD_BYTES];
    size_t length = 0;
    for (;;) {
        ssize_t got = read(fd, buffer, sizeof buffer);
        if (got < 0) fail("read", path);
        if (got == 0) break;
        counts.bytes += (uint64_t)got;
        for (ssize_t i = 0; i < got; i++) {
            if (buffer[i] == '\n') counts.lines++;
            if (!is_space(buffer[i])) {
                if (length < WORD_BYTES) kept[length] = buffer[i];
                length++;
            } else if (length) {
                counts.words++;
                token(kept, length, file);
                length = 0;
            }
        }
    }
    if (length) {
        counts.words++;
        token(kept, length, file);
    }
    if (close(fd)) fail("close", path);
    return counts;
}

static void write_all(int fd, const void *from, size_t bytes, const char *path) {
    for (const char *next = from; bytes;) {
        ssize_t wrote = write(fd, next, bytes);
        if (wrote <= 0) fail("write", path);
        next += wrote;
        bytes -= (size_t)wrote;
    }
}

static void pwrite_all(int fd, const void *from, size_t bytes, off_t at, const char *path) {
    for (const char *next = from; bytes;) {
        ssize_t wrote = pwrite(fd, next, bytes, at);
        if (wrote <= 0) fail("write", path);
        next += wrote;
        at += wrote;
        bytes -= (size_t)wrote;
    }
}

// Brings the scratch file up to date after file number `file`: rewrites the old words that it holds, in hash order (offsets far
// apart and in no order), then appends the new ones.
static void mirror(int fd, uint32_t file) {
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        if (!slots[slot]) continue;
        uint32_t index = slots[slot] - 1;
        if (index >= words_in_scratch || words[index].last_file != file) continue;
        pwrite_all(fd, &words[index].record, sizeof(struct record), (off_t)index * (off_t)sizeof(struct record), WORDS_TMP);
    }
    if (lseek(fd, 0, SEEK_END) != (off_t)words_in_scratch * (off_t)sizeof(struct record)) refuse("%s has the wrong length", WORDS_TMP);
    for (; words_in_scratch < word_count; words_in_scratch++)
        write_all(fd, &words[words_in_scratch].record, sizeof(struct record), WORDS_TMP);
}

static bool ranks_before(const struct record *left, const struct record *right) {
    if (left->count != right->count) return left->count > right->count;
    return memcmp(left->word, right->word, WORD_BYTES) < 0;
}

// Renames the finished file, reads it back from the last record to the first, and keeps the best of what it says.
static int rank(struct record best[TOP]) {
    if (rename(WORDS_TMP, WORDS_IDX)) fail("rename", WORDS_TMP);
    struct stat status;
    if (stat(WORDS_TMP, &status) == 0 || errno != ENOENT) refuse("%s is still there after it was renamed", WORDS_TMP);
    int fd = open(WORDS_IDX, O_RDONLY);
    if (fd < 0) fail("open", WORDS_IDX);
    if (lseek(fd, 0, SEEK_END) != (off_t)word_count * (off_t)sizeof(struct record)) refuse("%s has the wrong length", WORDS_IDX);

    int kept = 0;
    for (uint32_t index = word_count; index-- > 0;) {
        struct record read_back;
        if (lseek(fd, (off_t)index * (off_t)sizeof read_back, SEEK_SET) < 0) fail("seek", WORDS_IDX);
        for (size_t have = 0; have < sizeof read_back;) {
            ssize_t got = read(fd, (char *)&read_back + have, sizeof read_back - have);
            if (got < 0) fail("read", WORDS_IDX);
            if (got == 0) refuse("%s ends inside record %" PRIu32, WORDS_IDX, index);
            have += (size_t)got;
        }
        if (memcmp(&read_back, &words[index].record, sizeof read_back) != 0) refuse("record %" PRIu32 " did not come back as written", index);
        int at = kept < TOP ? kept++ : TOP;
        for (; at > 0 && ranks_before(&read_back, &best[at - 1]); at--)
            if (at < TOP) best[at] = best[at - 1];
        if (at < TOP) best[at] = read_back;
    }
    if (close(fd)) fail("close", WORDS_IDX);
    if (unlink(WORDS_IDX)) fail("remove", WORDS_IDX);
    return kept;
}

static void list(const char *relative, int depth) {
    if (depth > MAX_DEPTH) refuse("%s/%s: more than %d directories deep", IN, relative, MAX_DEPTH);
    char path[MAX_PATH + 8];
    snprintf(path, sizeof path, *relative ? "%s/%s" : "%s%s", IN, relative);
    DIR *directory = opendir(path);
    if (!directory) fail("open", path);
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(directory);
        if (!entry) {
            if (errno) fail("list", path);
            break;
        }
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char child[MAX_PATH];
        int length = snprintf(child, sizeof child, *relative ? "%s/%s" : "%s%s", relative, entry->d_name);
        if (length < 0 || (size_t)length >= sizeof child) refuse("%s: path too long", path);
        char full[MAX_PATH + 8];
        snprintf(full, sizeof full, "%s/%s", IN, child);
        struct stat status;
        if (stat(full, &status)) fail("stat", full);
        if (S_ISDIR(status.st_mode)) {
            list(child, depth + 1);
        } else if (S_ISREG(status.st_mode)) {
            if (path_count == path_capacity) {
                path_capacity = path_capacity ? path_capacity * 2 : 64;
                paths = grow(paths, path_capacity * sizeof *paths);
            }
            paths[path_count] = grow(NULL, (size_t)length + 1);
            memcpy(paths[path_count++], child, (size_t)length + 1);
        }
    }
    if (closedir(directory)) fail("close", path);
}

static int by_bytes(const void *left, const void *right) { return strcmp(*(char *const *)left, *(char *const *)right); }

// RFC 4180: quoted where it must be.
static void csv_field(FILE *file, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, file);
        return;
    }
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"') fputc('"', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

static FILE *create(const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) fail("create", path);
    return file;
}

static void finish(FILE *file, const char *path) {
    if (ferror(file) || fclose(file)) fail("write", path);
}

int main(void) {
    list("", 0);
    if (path_count) qsort(paths, path_count, sizeof *paths, by_bytes);
    rehash(FIRST_SLOTS);

    int scratch = open(WORDS_TMP, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (scratch < 0) fail("create", WORDS_TMP);
    FILE *report = create(REPORT);
    fputs("file,lines,words,bytes\n", report);
    struct counts total = {0};
    for (size_t i = 0; i < path_count; i++) {
        struct counts counts = count_file(paths[i], (uint32_t)i + 1);
        mirror(scratch, (uint32_t)i + 1);
        csv_field(report, paths[i]);
        fprintf(report, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n", counts.lines, counts.words, counts.bytes);
        total.lines += counts.lines;
        total.words += counts.words;
        total.bytes += counts.bytes;
    }
    fprintf(report, "(total),%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n", total.lines, total.words, total.bytes);
    finish(report, REPORT);
    if (close(scratch)) fail("close", WORDS_TMP);

    struct record best[TOP];
    int kept = rank(best);
    FILE *top = create(TOP_WORDS);
    fputs("rank\tcount\tfiles\tword\n", top);
    for (int i = 0; i < kept; i++)
        fprintf(top, "%d\t%" PRIu64 "\t%" PRIu64 "\t%.*s\n", i + 1, best[i].count, best[i].files, WORD_BYTES, best[i].word);
    finish(top, TOP_WORDS);

    printf("%zu %s, %" PRIu64 " lines, %" PRIu64 " words, %" PRIu64 " bytes, %" PRIu32 " distinct words\n", path_count,
           path_count == 1 ? "file" : "files", total.lines, total.words, total.bytes, word_count);
    if (kept) printf("most frequent: %.*s (%" PRIu64 " times)\n", WORD_BYTES, best[0].word, best[0].count);
    return fflush(stdout) ? 1 : 0;
}
