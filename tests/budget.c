/*
 * budget CALL ROUNDS: makes calls of one kind, 16 of them in each round, inside measured(). Both ends of the
 * connection are in this process, so one thread is enough and every run takes the same way.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE = 64, CALLS = 16 };

static char buffer[SIZE * CALLS];
static int writer, reader, other, set;

static void check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(EXIT_FAILURE);
    }
}

/* Not inlined: the profiler counts from here to its end. */
__attribute__((noinline)) void measured(char call)
{
    struct epoll_event event;
    /* On one page, wherever the stack begins: what lies on two is looked at twice. */
    _Alignas(64) struct pollfd wanted = {.fd = other, .events = POLLOUT};
    for (int i = 0; i < CALLS; i++) {
        ssize_t n = 1;
        switch (call) {
        case 'w': n = write(writer, buffer, SIZE); break;
        case 'r': n = read(reader, buffer, SIZE); break;
        case 't': n = write(writer, buffer, SIZE) == SIZE ? read(reader, buffer, SIZE) : -1; break;
        case 'e': n = epoll_wait(set, &event, 1, -1); break;
        case 'W': n = write(other, buffer, 1); break;
        case 'R': n = read(other, buffer, 1); break;
        case 'E': n = epoll_wait(set, &event, 1, 0); break;
        case 'P': n = poll(&wanted, 1, 0); break;
        }
        if (n <= 0)
            abort();
    }
}

static void connect_both_ends(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(listener, (struct sockaddr *)&name, sizeof name), "bind");
    check(listen(listener, 1), "listen");
    check(getsockname(listener, (struct sockaddr *)&name, &length), "getsockname");
    writer = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(writer, (struct sockaddr *)&name, sizeof name), "connect");
    check(reader = accept(listener, NULL, NULL), "accept");
    for (int i = 0; i < 100; i++) { /* both ends find their pipe */
        check((int)write(writer, buffer, SIZE), "write");
        check((int)read(reader, buffer, SIZE), "read");
        check((int)write(reader, buffer, SIZE), "write");
        check((int)read(writer, buffer, SIZE), "read");
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    char call = argv[1][0];
    long rounds = atol(argv[2]);
    int (*path)(int) = (int (*)(int))dlsym(RTLD_DEFAULT, "sockshim_path");

    connect_both_ends();
    check(other = open(call == 'R' ? "/dev/zero" : "/dev/null", O_RDWR), "open");
    check(set = epoll_create1(0), "epoll_create1");
    if (call == 'E') {
        struct epoll_event event = {.events = EPOLLIN};
        check(epoll_ctl(set, EPOLL_CTL_ADD, eventfd(1, 0), &event), "epoll_ctl");
    }
    if (call == 'e') {
        struct epoll_event event = {.events = EPOLLIN};
        check(epoll_ctl(set, EPOLL_CTL_ADD, reader, &event), "epoll_ctl");
        check((int)write(writer, buffer, SIZE), "write");
    }
    for (long round = 0; round < rounds; round++) {
        if (call == 'r')
            for (int i = 0; i < CALLS; i++)
                check((int)write(writer, buffer, SIZE), "write");
        measured(call);
        if (call == 'w')
            check((int)read(reader, buffer, sizeof buffer), "read");
    }
    printf("path %d\n", path != NULL ? path(writer) : -1);
    return EXIT_SUCCESS;
}
