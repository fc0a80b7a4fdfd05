// Tries to leave its grants: files of the host, `..` in every form, absolute and NUL-ridden paths, links, inherited descriptors,
// and writing to /in. Through the C library, and past it with WASI's own calls, which a hostile program would use.
//
// Prints one line an attempt. Exit: 0 every attempt refused, 1 at least one succeeded.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <wasi/api.h>

#include "say.h"

#define FIRST_FD 3
#define LAST_FD 1023
// Every right that preview 1 defines; others are for malformed.c, as the host may trap on them.
#define ALL_RIGHTS ((__wasi_rights_t)0x3fffffff)

static uint32_t attempts, successes;

// `error` 0 means that the attempt succeeded.
static void outcome(const char *what, const char *path, int error) {
    attempts++;
    say(error ? "refused   " : "SUCCEEDED ");
    say(what);
    say(" ");
    say(path);
    if (error) {
        say(" (errno ");
        say_number((uint64_t)error);
        say(")");
    } else {
        successes++;
    }
    say("\n");
}

static int failed(int result) { return result < 0 ? errno : 0; }

// Opening is enough to count as a success, whatever reading would give; what was opened is closed again.
static int opens(const char *path, int flags) {
    int fd = open(path, flags, 0600);
    if (fd < 0) return errno;
    close(fd);
    return 0;
}

static void host_files(void) {
    static const char *const files[] = {
        "/etc/passwd",
        "/etc/shadow",
        "/etc/hostname",
        "/proc/self/environ",
        "/proc/self/maps",
        "/proc/self/mem",
        "/proc/self/root/etc/passwd",
        "/proc/self/fd/0",
        "/proc/cpuinfo",
        "/sys/kernel/notes",
        "/dev/urandom",
        "/dev/tpmrm0",
        "/dev/shm",
        "/root",
        "/home",
        "/tmp",
        "..",
        "../etc/passwd",
        "../../../../../../../../etc/passwd",
        "./../../../../../../../../etc/passwd",
        "//etc/passwd",
        "/./etc/passwd",
        "/../etc/passwd",
        "/in/../../../../../../../../etc/passwd",
        "/in/./../../../../../../../../etc/passwd",
        "/in//..//..//..//..//..//etc/passwd",
        "/in/x/../../../../../../../etc/passwd",
        "/in/..",
        "/out/../../../../../../../../etc/passwd",
        "/out/..",
        "/scratch/../../../../../../../../etc/passwd",
        "/scratch/..",
        "/inn",
        "/in\\..\\..\\etc\\passwd",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) outcome("read", files[i], opens(files[i], O_RDONLY));

    static const char *const places[] = {
        "/escaped", "/tmp/escaped", "/etc/escaped", "/dev/shm/escaped", "../escaped", "/in/../../escaped", "/out/../../escaped", "/scratch/../../escaped",
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        outcome("create", places[i], opens(places[i], O_WRONLY | O_CREAT));
        outcome("make directory", places[i], failed(mkdir(places[i], 0700)));
    }
}

// A file that the host granted in /in, if it granted one.
static int find_input(char path[512]) {
    DIR *directory = opendir("/in");
    if (!directory) return 0;
    int found = 0;
    for (struct dirent *entry; !found && (entry = readdir(directory));) {
        if (strlen(entry->d_name) > 256) continue;
        strcpy(path, "/in/");
        strcat(path, entry->d_name);
        struct stat status;
        found = stat(path, &status) == 0 && S_ISREG(status.st_mode);
    }
    closedir(directory);
    return found;
}

static void inputs_are_read_only(void) {
    outcome("create", "/in/new", opens("/in/new", O_WRONLY | O_CREAT));
    outcome("create", "/in/new (exclusive)", opens("/in/new", O_RDWR | O_CREAT | O_EXCL));
    outcome("make directory", "/in/new", failed(mkdir("/in/new", 0700)));
    outcome("symbolic link", "/in/new", failed(symlink("anything", "/in/new")));
    outcome("remove", "/in", failed(rmdir("/in")));
    // Out of a folder of its own, into the inputs.
    int made = open("/scratch/mine", O_WRONLY | O_CREAT, 0600);
    if (made >= 0) {
        close(made);
        outcome("rename into", "/in/new", failed(rename("/scratch/mine", "/in/new")));
        outcome("link into", "/in/new", failed(link("/scratch/mine", "/in/new")));
    }

    char input[512];
    if (!find_input(input)) {
        say("skipped   what needs a file in /in: there is none\n");
        return;
    }
    outcome("open to write", input, opens(input, O_WRONLY));
    outcome("open to read and write", input, opens(input, O_RDWR));
    outcome("open to append", input, opens(input, O_WRONLY | O_APPEND));
    outcome("truncate", input, opens(input, O_RDONLY | O_TRUNC));
    outcome("truncate and write", input, opens(input, O_WRONLY | O_TRUNC));
    outcome("create over", input, opens(input, O_WRONLY | O_CREAT | O_TRUNC));
    outcome("rename", input, failed(rename(input, "/in/renamed")));
    outcome("rename away", input, failed(rename(input, "/scratch/renamed")));
    outcome("rename over", input, failed(rename("/scratch/mine", input)));
    // A hard link in a writable folder would be a way to write to an input.
    outcome("link away", input, failed(link(input, "/scratch/linked")));
    outcome("set times of", input, failed(utimensat(AT_FDCWD, input, NULL, 0)));
    int fd = open(input, O_RDONLY);
    if (fd >= 0) {
        outcome("write through a read-only descriptor", input, failed((int)write(fd, "x", 1)));
        outcome("write at an offset through a read-only descriptor", input, failed((int)pwrite(fd, "x", 1, 0)));
        outcome("shorten through a read-only descriptor", input, failed(ftruncate(fd, 0)));
        outcome("lengthen through a read-only descriptor", input, failed(ftruncate(fd, 1 << 20)));
        close(fd);
    }
    // Last, as success would spoil the rest.
    outcome("remove", input, failed(unlink(input)));
}

static void links(void) {
    // Making a link may be allowed; following it out of the folder may not.
    static const char *const targets[] = {"/etc/passwd", "../../../../../../etc/passwd", "..", "/"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        unlink("/scratch/link");
        int error = failed(symlink(targets[i], "/scratch/link"));
        if (error) {
            outcome("symbolic link to", targets[i], error);
            continue;
        }
        outcome("follow a symbolic link to", targets[i], opens("/scratch/link", O_RDONLY));
        outcome("follow a symbolic link to the parent of", targets[i], opens("/scratch/link/etc/passwd", O_RDONLY));
    }
    unlink("/scratch/link");
}

static int raw_open(__wasi_fd_t directory, const char *path, size_t length, __wasi_rights_t rights) {
    // The binding takes C strings; the imported function underneath takes a length, so a NUL can be inside.
    extern int32_t raw_path_open(int32_t, int32_t, int32_t, int32_t, int32_t, int64_t, int64_t, int32_t, int32_t)
        __attribute__((import_module("wasi_snapshot_preview1"), import_name("path_open")));
    __wasi_fd_t opened;
    int error = raw_path_open((int32_t)directory, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, (int32_t)(intptr_t)path, (int32_t)length, 0, (int64_t)rights, 0, 0,
                              (int32_t)(intptr_t)&opened);
    if (!error) (void)__wasi_fd_close(opened);
    return error;
}

static void past_the_c_library(void) {
    static const struct {
        const char *name, *path;
        size_t length;
    } paths[] = {
#define PATH(name, path) {name, path, sizeof path - 1}
        PATH("..", ".."),
        PATH("../..", "../.."),
        PATH("./..", "./.."),
        PATH("x/../..", "x/../.."),
        PATH("../in", "../in"),
        PATH("/", "/"),
        PATH("//", "//"),
        PATH("/etc/passwd", "/etc/passwd"),
        PATH("../../../../../../../../etc/passwd", "../../../../../../../../etc/passwd"),
        PATH("..\\0", "..\0"),
        PATH("..\\0/etc", "..\0/etc"),
        PATH(".\\0/../../../../etc/passwd", ".\0/../../../../etc/passwd"),
        PATH("(empty)", ""),
#undef PATH
    };
    for (__wasi_fd_t fd = 0; fd <= LAST_FD; fd++) {
        __wasi_fdstat_t status;
        __wasi_prestat_t granted;
        if (__wasi_fd_fdstat_get(fd, &status)) continue;
        if (__wasi_fd_prestat_get(fd, &granted)) {
            // Standard streams are meant to be there; any other descriptor without a grant was inherited.
            if (fd >= FIRST_FD) {
                say("descriptor ");
                say_number(fd);
                outcome(" is open without a grant:", "inherited from the host", 0);
            }
            continue;
        }
        char name[256] = {0};
        if (granted.u.dir.pr_name_len < sizeof name) (void)__wasi_fd_prestat_dir_name(fd, (uint8_t *)name, granted.u.dir.pr_name_len);
        say("grant     ");
        say(name);
        say("\n");
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
            // With the rights that the grant has, and with every right there is.
            outcome("open past the C library", paths[i].name, raw_open(fd, paths[i].path, paths[i].length, status.fs_rights_base));
            outcome("open with all rights past the C library", paths[i].name, raw_open(fd, paths[i].path, paths[i].length, ALL_RIGHTS));
        }
    }
}

int main(void) {
    host_files();
    links();
    past_the_c_library();
    inputs_are_read_only();
    say_number(attempts - successes);
    say(" attempts refused, ");
    say_number(successes);
    say(" succeeded\n");
    return ends(successes ? 1 : 0);
}
