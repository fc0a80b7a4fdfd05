// Tries preview 1's socket calls, which need no socket to be asked for, on every descriptor that a task may have. Each is to be refused or
// trapped (then the calls after it are not made): a task has no network.
//
// Exit: 0 all refused, 1 one was accepted.

#include <wasi/api.h>

#include "say.h"

#define LAST_FD 15

static int accepted;

static void outcome(const char *call, __wasi_fd_t fd, int error) {
    say(error ? "refused   " : "SUCCEEDED ");
    say(call);
    say(" on descriptor ");
    say_number(fd);
    say(" (errno ");
    say_number((uint64_t)error);
    say(")\n");
    if (!error) accepted = 1;
}

int main(void) {
    for (__wasi_fd_t fd = 0; fd <= LAST_FD; fd++) {
        uint8_t byte = 'x';
        __wasi_fd_t connection;
        __wasi_size_t count;
        __wasi_roflags_t flags;
        __wasi_ciovec_t from = {&byte, 1};
        __wasi_iovec_t into = {&byte, 1};
        say("socket: accept, send, receive, shut down\n");
        outcome("accept", fd, __wasi_sock_accept(fd, 0, &connection));
        outcome("send", fd, __wasi_sock_send(fd, &from, 1, 0, &count));
        outcome("receive", fd, __wasi_sock_recv(fd, &into, 1, 0, &count, &flags));
        outcome("shut down", fd, __wasi_sock_shutdown(fd, __WASI_SDFLAGS_RD | __WASI_SDFLAGS_WR));
    }
    return ends(accepted);
}
