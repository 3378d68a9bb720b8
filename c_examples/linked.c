/*
 * linked [BYTES]: asks sockshim where a connection runs.
 *
 * The socket calls are the usual ones. Linked with -lsockshim they are sockshim's, and a few further
 * calls, all with the prefix sockshim_, tell about a descriptor what the socket library cannot say.
 */
#define _GNU_SOURCE /* some types in sockshim.h are Linux's own */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sockshim.h"

static void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

/* Both ends of a connection in this process: a listener, a client, and what the listener accepts. */
static void connect_pair(int *client, int *server)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;

    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0)
        die("socket");
    if (bind(listener, (struct sockaddr *)&name, sizeof name) < 0)
        die("bind");
    if (listen(listener, 1) < 0)
        die("listen");
    if (getsockname(listener, (struct sockaddr *)&name, &length) < 0)
        die("getsockname");

    *client = socket(AF_INET, SOCK_STREAM, 0);
    if (*client < 0)
        die("socket");
    if (connect(*client, (struct sockaddr *)&name, sizeof name) < 0)
        die("connect");
    *server = accept(listener, NULL, NULL);
    if (*server < 0)
        die("accept");
    close(listener);
}

/* One byte there and one byte back, so that nothing ever waits for room in a buffer. */
static void transfer(int from, int to, unsigned long long bytes)
{
    for (unsigned long long i = 0; i < bytes; i++) {
        char sent = (char)i, received;
        ssize_t n;
        while ((n = write(from, &sent, 1)) < 0 && errno == EINTR)
            ;
        if (n != 1)
            die("write");
        while ((n = read(to, &received, 1)) < 0 && errno == EINTR)
            ;
        if (n != 1)
            die("read");
        if (sent != received) {
            fprintf(stderr, "byte %llu differs\n", i);
            exit(EXIT_FAILURE);
        }
    }
}

static void report(const char *name, int fd)
{
    static const char *const paths[] = {"host", "pipe", "stack"};
    struct sockshim_counters counters;
    int path = sockshim_path(fd);

    if (path < 0)
        die("sockshim_path");
    if (sockshim_counters(fd, &counters) < 0)
        die("sockshim_counters");
    printf("%s: descriptor %d, path %s (%s)\n", name, fd, path < 3 ? paths[path] : "unknown",
           sockshim_reason_text(sockshim_reason(fd)));
    printf("%s: sent %" PRIu64 " bytes over the pipe and %" PRIu64 " through the kernel, received %" PRIu64
           " and %" PRIu64 "; %" PRIu64 " doorbells, %" PRIu64 " sleeps\n",
           name, counters.bytes_sent, counters.kernel_bytes_sent, counters.bytes_received,
           counters.kernel_bytes_received, counters.doorbells, counters.sleeps);
}

int main(int argc, char **argv)
{
    unsigned long long bytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
    int client, server;

    printf("sockshim %s\n", sockshim_version());
    connect_pair(&client, &server);
    transfer(client, server, bytes);
    transfer(server, client, bytes);
    report("client", client);
    report("server", server);
    close(client);
    close(server);
    return EXIT_SUCCESS;
}
