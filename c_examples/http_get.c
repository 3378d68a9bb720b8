/*
 * http_get HOST PORT [PATH]: fetches a page over HTTP/1.0 and writes the answer to standard output.
 *
 * The life of a client's socket in four phases: create, connect, transfer, disconnect. The name of
 * the other end is an IP address (which machine) and a port (which socket on that machine).
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static void write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, data, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die("write");
        data += n;
        length -= (size_t)n;
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s HOST PORT [PATH]\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);

    /* Before anything else the name becomes addresses. A name may have several: IPv6 and IPv4, say. */
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses;
    int error = getaddrinfo(argv[1], argv[2], &hints, &addresses);
    if (error != 0) {
        fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(error));
        return EXIT_FAILURE;
    }

    int fd = -1;
    for (struct addrinfo *a = addresses; a != NULL; a = a->ai_next) {
        /* 1. Create: the descriptor is what this program calls the socket from now on. */
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd < 0)
            continue;
        /* 2. Connect: a pipe now joins this socket and one of the server's. */
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        die("connect");
    freeaddrinfo(addresses);

    /* 3. Transfer: write the request ... */
    char request[1024];
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n",
                          argc > 3 ? argv[3] : "/", argv[1]);
    if (length < 0 || (size_t)length >= sizeof request) {
        fprintf(stderr, "the request is too long\n");
        return EXIT_FAILURE;
    }
    write_all(fd, request, (size_t)length);

    /* ... and read the answer, in whatever pieces it comes, until the server has disconnected. */
    char buffer[65536];
    for (;;) {
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die("read");
        if (n == 0)
            break;
        write_all(STDOUT_FILENO, buffer, (size_t)n);
    }

    /* 4. Disconnect: give the socket back. The server closed its end first. */
    close(fd);
    return EXIT_SUCCESS;
}
