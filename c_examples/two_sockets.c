/*
 * two_sockets HOST PORT-A PORT-B: holds two connections to echo servers at once.
 *
 * A program may have many sockets. Nothing but the descriptor tells them apart: bytes written to one
 * never appear on the other. poll() waits for both, since neither knows which server answers first.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct conversation {
    const char *text; /* what is sent, and expected back */
    char reply[64];
    size_t received;
};

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

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses;
    int fd = -1;

    int error = getaddrinfo(host, port, &hints, &addresses);
    if (error != 0) {
        fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
        exit(EXIT_FAILURE);
    }
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
    return fd;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s HOST PORT-A PORT-B\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);

    /* Create and connect, twice: the kernel hands out the lowest free number each time. */
    struct conversation talk[2] = {{.text = "to the first server"}, {.text = "to the second server"}};
    struct pollfd sockets[2];
    for (int i = 0; i < 2; i++) {
        sockets[i].fd = connect_to(argv[1], argv[2 + i]);
        sockets[i].events = POLLIN;
    }

    /* Transfer: both requests are under way before either answer is read. */
    for (int i = 0; i < 2; i++)
        write_all(sockets[i].fd, talk[i].text, strlen(talk[i].text));

    for (int open = 2; open > 0;) {
        if (poll(sockets, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            die("poll");
        }
        for (int i = 0; i < 2; i++) {
            struct conversation *t = &talk[i];
            if (sockets[i].fd < 0 || sockets[i].revents == 0)
                continue;
            ssize_t n = read(sockets[i].fd, t->reply + t->received, sizeof t->reply - 1 - t->received);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                die("read");
            t->received += (size_t)n;
            if (n > 0 && t->received < strlen(t->text))
                continue;
            printf("descriptor %d: %s\n", sockets[i].fd, t->reply);
            if (strcmp(t->reply, t->text) != 0)
                return EXIT_FAILURE;

            /* Disconnect this one; the other goes on. poll() passes over negative descriptors. */
            close(sockets[i].fd);
            sockets[i].fd = -1;
            open--;
        }
    }
    return EXIT_SUCCESS;
}
