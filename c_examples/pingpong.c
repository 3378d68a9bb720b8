/*
 * pingpong server [PORT]                       waits for one client, then ends
 * pingpong client PORT MODE SIZE COUNT         MODE: latency, messages or throughput
 *
 * latency: COUNT messages of SIZE bytes go there and back, one at a time.
 * messages, throughput: COUNT writes of SIZE bytes go one way; the server answers with one byte when
 * it has read them all. The two differ in the unit that is printed. Plain blocking calls throughout.
 */
#define _DEFAULT_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct plan {
    uint32_t echo; /* 1: every message is sent back */
    uint32_t size;
    uint64_t count;
};

static char buffer[1 << 20];

static void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static void write_all(int fd, const void *data, size_t length)
{
    for (const char *p = data; length > 0;) {
        ssize_t n = write(fd, p, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die("write");
        p += n;
        length -= (size_t)n;
    }
}

/* Reads `length` bytes, in as many pieces as they come. */
static void read_all(int fd, void *data, size_t length)
{
    for (char *p = data; length > 0;) {
        ssize_t n = read(fd, p, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            die(n == 0 ? "the other end disconnected" : "read");
        p += n;
        length -= (size_t)n;
    }
}

static double us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int server(struct sockaddr_in name)
{
    socklen_t length = sizeof name;
    struct plan plan;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    if (listener < 0 || bind(listener, (struct sockaddr *)&name, sizeof name) < 0 || listen(listener, 1) < 0)
        die("listen");
    getsockname(listener, (struct sockaddr *)&name, &length);
    printf("listening on port %u\n", (unsigned)ntohs(name.sin_port));
    fflush(stdout);
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        die("accept");
    read_all(fd, &plan, sizeof plan);
    write_all(fd, "", 1);
    for (uint64_t left = plan.count; plan.echo && left > 0; left--) {
        read_all(fd, buffer, plan.size);
        write_all(fd, buffer, plan.size);
    }
    for (uint64_t left = plan.echo ? 0 : plan.count * plan.size; left > 0;) {
        ssize_t n = read(fd, buffer, left < 65536 ? (size_t)left : 65536);
        if (n <= 0 && !(n < 0 && errno == EINTR))
            die("read");
        left -= n > 0 ? (uint64_t)n : 0;
    }
    write_all(fd, "", 1);
    close(fd);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    name.sin_port = htons((uint16_t)(argc > 2 ? atoi(argv[2]) : 0));
    if (argc > 1 && strcmp(argv[1], "server") == 0)
        return server(name);
    struct plan plan = {.echo = argc > 5 && strcmp(argv[3], "latency") == 0,
                        .size = argc > 5 ? (uint32_t)atoi(argv[4]) : 0,
                        .count = argc > 5 ? strtoull(argv[5], NULL, 10) : 0};
    if (plan.size == 0 || plan.size > sizeof buffer || plan.count == 0) {
        fprintf(stderr, "usage: %s server [PORT] | client PORT latency|messages|throughput SIZE COUNT\n", argv[0]);
        return 2;
    }
    float *times = calloc(plan.count, sizeof *times);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (times == NULL || fd < 0 || connect(fd, (struct sockaddr *)&name, sizeof name) < 0)
        die("connect");
    write_all(fd, &plan, sizeof plan);
    read_all(fd, buffer, 1); /* the server is ready: the clock starts */

    double start = us(CLOCK_MONOTONIC), cpu = us(CLOCK_PROCESS_CPUTIME_ID), last = start;
    for (uint64_t i = 0; i < plan.count; i++) {
        write_all(fd, buffer, plan.size);
        if (plan.echo) {
            read_all(fd, buffer, plan.size);
            double now = us(CLOCK_MONOTONIC);
            times[i] = (float)(now - last);
            last = now;
        }
    }
    read_all(fd, buffer, 1);
    double rate = (double)plan.count / (us(CLOCK_MONOTONIC) - start);
    cpu = us(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (plan.echo) {
        qsort(times, plan.count, sizeof *times, by_value);
        printf("latency %u bytes: median %.2f us, %.0f round trips/s", plan.size, times[plan.count / 2], rate * 1e6);
    } else if (strcmp(argv[3], "messages") == 0) {
        printf("messages %u bytes: %.0f messages/s", plan.size, rate * 1e6);
    } else {
        printf("throughput %u bytes: %.1f MB/s", plan.size, rate * plan.size);
    }
    printf(", client cpu %.3f us each\n", cpu / (double)plan.count);
    close(fd);
    return EXIT_SUCCESS;
}
