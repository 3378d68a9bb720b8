/*
 * echo_client HOST PORT [BYTES]: sends BYTES bytes, reads them back and compares them.
 *
 * It writes and reads at once: whoever writes everything before reading anything relies on buffers
 * somewhere between the two programs being large enough. poll() tells which of the two is possible.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

/* Create and connect: try each address of the name until one answers. */
static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    int fd = -1;

    int error = getaddrinfo(host, port, &hints, &list);
    if (error != 0) {
        fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
        exit(EXIT_FAILURE);
    }
    for (struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd < 0)
            continue;
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        die("connect");
    freeaddrinfo(list);
    return fd;
}

/* The byte at a position of the stream: the reader can check it without keeping what was sent. */
static char pattern(unsigned long long position)
{
    return (char)(position * 31 + position / 251);
}

static int would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

int main(int argc, char **argv)
{
    static char out[65536], in[65536];
    unsigned long long total, sent = 0, received = 0;

    if (argc < 3) {
        fprintf(stderr, "usage: %s HOST PORT [BYTES]\n", argv[0]);
        return 2;
    }
    total = argc > 3 ? strtoull(argv[3], NULL, 10) : 1000000;

    signal(SIGPIPE, SIG_IGN);
    int fd = connect_to(argv[1], argv[2]);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        die("fcntl");

    /* Transfer, both ways. */
    while (received < total) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (sent < total)
            ready.events |= POLLOUT;
        if (poll(&ready, 1, -1) < 0) {
            if (errno == EINTR)
                continue;
            die("poll");
        }
        if (ready.revents & POLLOUT) {
            size_t length = sizeof out;
            if (length > total - sent)
                length = (size_t)(total - sent);
            for (size_t i = 0; i < length; i++)
                out[i] = pattern(sent + i);
            ssize_t n = write(fd, out, length);
            if (n < 0 && !would_block())
                die("write");
            if (n > 0)
                sent += (unsigned long long)n;
        }
        if (ready.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t n = read(fd, in, sizeof in);
            if (n < 0 && !would_block())
                die("read");
            if (n == 0) {
                fprintf(stderr, "the server disconnected after %llu bytes\n", received);
                return EXIT_FAILURE;
            }
            for (ssize_t i = 0; i < n; i++) {
                if (in[i] != pattern(received + (unsigned long long)i)) {
                    fprintf(stderr, "byte %llu differs\n", received + (unsigned long long)i);
                    return EXIT_FAILURE;
                }
            }
            if (n > 0)
                received += (unsigned long long)n;
        }
    }

    close(fd); /* Disconnect: the server reads 0. */
    printf("%llu bytes came back unchanged\n", received);
    return EXIT_SUCCESS;
}
