/*
 * http_server [PORT [CONNECTIONS]]: answers GET requests, one connection after the other.
 *
 * Who disconnects is a matter of the protocol above the socket. With HTTP/1.0 the server closes
 * first, and that is how the client knows that the answer is complete. With HTTP/1.1 the connection
 * is kept for further requests, each answer states its length, and the client closes when it likes.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
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

/*
 * Answers the request in `head`. Returns 1 if the connection is to be kept.
 * Head and body go out in one write: the kernel holds a second small write back until the first is
 * acknowledged, and the client's kernel is in no hurry to acknowledge it.
 */
static int answer(int fd, const char *head)
{
    char method[8] = "", path[256] = "", body[512], text[1024];
    int minor = 0;

    int ok = sscanf(head, "%7s %255s HTTP/1.%d", method, path, &minor) == 3 && strcmp(method, "GET") == 0;
    int keep = ok && minor >= 1 && strstr(head, "\r\nConnection: close") == NULL;
    int length = snprintf(body, sizeof body, ok ? "You asked for %s\n" : "Only GET is spoken here\n", path);
    int used = snprintf(text, sizeof text,
                        "HTTP/1.%d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
                        "Connection: %s\r\n\r\n%s",
                        minor >= 1, ok ? "200 OK" : "400 Bad Request", length, keep ? "keep-alive" : "close", body);
    return write_all(fd, text, (size_t)used) == 0 && keep;
}

/* Transfer: a read may hold half a request or several, so requests are cut out of a buffer. */
static void serve(int fd)
{
    char buffer[8192];
    size_t filled = 0;
    int requests = 0, keep = 1;

    while (keep) {
        buffer[filled] = '\0';
        char *end = strstr(buffer, "\r\n\r\n");
        if (end != NULL) {
            char after = end[4]; /* end the string behind this request while it is looked at */
            end[4] = '\0';
            keep = answer(fd, buffer);
            end[4] = after;
            requests++;
            filled -= (size_t)(end + 4 - buffer);
            memmove(buffer, end + 4, filled);
            continue;
        }
        if (filled == sizeof buffer - 1)
            break; /* the request is too long */
        ssize_t n = read(fd, buffer + filled, sizeof buffer - 1 - filled);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* 0: the client disconnected */
        filled += (size_t)n;
    }
    printf("descriptor %d: %d request%s, the %s disconnects first\n", fd, requests, requests == 1 ? "" : "s",
           keep ? "client" : "server");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    unsigned short port = argc > 1 ? (unsigned short)atoi(argv[1]) : 0;
    long connections = argc > 2 ? atol(argv[2]) : -1;

    signal(SIGPIPE, SIG_IGN);
    int listener = create_listener(port);

    while (connections != 0) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            die("accept");
        serve(fd);
        close(fd);
        if (connections > 0)
            connections--;
    }
    close(listener);
    return EXIT_SUCCESS;
}
