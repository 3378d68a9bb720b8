/*
 * panic: writes that fail inside the library, which is asked to (SOCKSHIM_PANICS), fail with EIO and nothing else: a thread
 * with a lock held goes on, and no byte is lost.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FAILURES = 3 };

static int one, other;

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(EXIT_FAILURE);
    }
}

/* The registers that a call must keep hold what is added up here. */
static void *talk(void *argument)
{
    int failures = 0, sum = 0, a = 1, b = 2, c = 3, d = 4, e = 5;
    for (int i = 0; i < 100; i++) {
        char first[3] = {'a', (char)i, 'b'}, second[4] = "cdef", back[8] = {0};
        struct iovec parts[] = {{first, sizeof first}, {second, sizeof second}};
        while (writev(one, parts, 2) < 0) {
            check(errno == EIO, "writev");
            check(++failures <= FAILURES, "failures");
        }
        check(recv(other, back, sizeof first + sizeof second, MSG_WAITALL) == 7, "recv");
        check(back[1] == (char)i && memcmp(back + 2, "bcdef", 5) == 0, "bytes");
        sum += a + b + c + d + e;
    }
    check(sum == 1500, "registers");
    *(int *)argument = failures;
    return NULL;
}

int main(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    int failures = 0, listener = socket(AF_INET, SOCK_STREAM, 0);
    check(!bind(listener, (struct sockaddr *)&name, sizeof name) && !listen(listener, 1), "listen");
    check(!getsockname(listener, (struct sockaddr *)&name, &length), "getsockname");
    one = socket(AF_INET, SOCK_STREAM, 0);
    check(!connect(one, (struct sockaddr *)&name, sizeof name), "connect");
    other = accept(listener, NULL, NULL);
    check(other >= 0, "accept");
    pthread_t thread;
    check(!pthread_create(&thread, NULL, talk, &failures) && !pthread_join(thread, NULL), "thread");
    int more = 0;
    talk(&more);
    printf("%d failures\n", failures + more);
    return 0;
}
