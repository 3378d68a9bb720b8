/*
 * echo_server [PORT [CONNECTIONS]]: sends back what it receives.
 *
 * The server makes its socket first and waits. Each accepted connection has a socket, and so a
 * descriptor, of its own; the listening socket only waits for the next one. Port 0, the default,
 * lets the kernel choose a free port. The server ends after CONNECTIONS connections, or never.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
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

/* write() may take less than it was given, and a signal may interrupt it: go on until all is written. */
static int write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, data, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        length -= (size_t)n;
    }
    return 0;
}

/* Create: a socket with a known name (address and port) that accepts connections. */
static int create_listener(unsigned short port)
{
    struct sockaddr_in name = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t length = sizeof name;
    int on = 1;

    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        die("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        die("setsockopt");
    if (bind(fd, (struct sockaddr *)&name, sizeof name) < 0)
        die("bind");
    if (listen(fd, SOMAXCONN) < 0)
        die("listen");
    if (getsockname(fd, (struct sockaddr *)&name, &length) < 0)
        die("getsockname");
    printf("listening on port %u\n", (unsigned)ntohs(name.sin_port));
    fflush(stdout);
    return fd;
}

/* Transfer: read() returns what has arrived, and 0 once the client has disconnected. */
static void echo(int fd)
{
    static char buffer[65536];
    unsigned long long total = 0;

    for (;;) {
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            perror("read");
        if (n <= 0)
            break;
        if (write_all(fd, buffer, (size_t)n) < 0) {
            perror("write");
            break;
        }
        total += (unsigned long long)n;
    }
    printf("descriptor %d: echoed %llu bytes\n", fd, total);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    unsigned short port = argc > 1 ? (unsigned short)atoi(argv[1]) : 0;
    long connections = argc > 2 ? atol(argv[2]) : -1;

    signal(SIGPIPE, SIG_IGN); /* a client that is gone is an error of write(), not the end of the server */
    int listener = create_listener(port);

    while (connections != 0) {
        /* Connect: the server's part is to accept. */
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            die("accept");
        echo(fd);
        close(fd); /* Disconnect. */
        if (connections > 0)
            connections--;
    }
    close(listener);
    return EXIT_SUCCESS;
}
