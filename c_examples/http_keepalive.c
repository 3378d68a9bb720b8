/*
 * http_keepalive HOST PORT [REQUESTS]: sends several HTTP/1.1 requests over one connection.
 *
 * Connecting is paid for once. The end of an answer is no longer the end of the connection, so the
 * client reads the length that the answer states, and it is the client who disconnects.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <netdb.h>
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

/* Reads one answer, whose head says how long its body is, and returns the body's length. */
static size_t read_answer(int fd)
{
    char buffer[8192];
    size_t filled = 0;

    for (;;) {
        buffer[filled] = '\0';
        char *end = strstr(buffer, "\r\n\r\n");
        char *field = strstr(buffer, "\r\nContent-Length: ");
        if (end != NULL && field == NULL) {
            fprintf(stderr, "the answer does not state its length\n");
            exit(EXIT_FAILURE);
        }
        if (end != NULL) {
            size_t body = strtoul(field + strlen("\r\nContent-Length: "), NULL, 10);
            if (filled >= (size_t)(end + 4 - buffer) + body)
                return body;
        }
        if (filled == sizeof buffer - 1) {
            fprintf(stderr, "the answer is too long\n");
            exit(EXIT_FAILURE);
        }
        ssize_t n = read(fd, buffer + filled, sizeof buffer - 1 - filled);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die("read");
        if (n == 0) {
            fprintf(stderr, "the server disconnected in the middle of an answer\n");
            exit(EXIT_FAILURE);
        }
        filled += (size_t)n;
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s HOST PORT [REQUESTS]\n", argv[0]);
        return 2;
    }
    long requests = argc > 3 ? atol(argv[3]) : 3;
    signal(SIGPIPE, SIG_IGN);

    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses;
    int error = getaddrinfo(argv[1], argv[2], &hints, &addresses);
    if (error != 0) {
        fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(error));
        return EXIT_FAILURE;
    }

    /* Create and connect, once. */
    int fd = -1;
    for (struct addrinfo *a = addresses; a != NULL; a = a->ai_next) {
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
    freeaddrinfo(addresses);

    /* Transfer, many times: request and answer take turns on the same pipe. */
    size_t total = 0;
    for (long i = 1; i <= requests; i++) {
        char request[256];
        int length = snprintf(request, sizeof request, "GET /%ld HTTP/1.1\r\nHost: localhost\r\n\r\n", i);
        write_all(fd, request, (size_t)length);
        total += read_answer(fd);
    }

    /* Disconnect: the server reads 0 and closes its end. */
    close(fd);
    printf("%ld answers, %zu bytes, one connection\n", requests, total);
    return EXIT_SUCCESS;
}
