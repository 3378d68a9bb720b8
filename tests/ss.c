/* One end of a connection that does what its arguments say, one after the other:
 *
 *   listen        listen on a free port of 127.0.0.1, say it, and accept one connection
 *   connect PORT  connect to 127.0.0.1
 *   listen6, connect6 PORT   the same with a dual-stack listener, and through ::ffff:127.0.0.1
 *   send N        write N bytes
 *   recv N        read N bytes
 *   ping N        N times: write a byte, read a byte
 *   pong N        N times: read a byte, write a byte
 *   await FILE    wait until a file exists
 *   fork          go on in a child; the parent exits at once
 *   anew          go on in a child; the parent executes itself anew, with the words after "then"
 *   exit          end without closing
 *   dup           go on with another number, and close the first
 *   say WORD      print a line
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fd = -1;

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void say(const char *format, int number, const char *word)
{
    printf(format, number, word);
    fflush(stdout);
}

static struct sockaddr *address(int v6, int port, socklen_t *length)
{
    static struct sockaddr_in in;
    static struct sockaddr_in6 in6;
    in.sin_family = AF_INET;
    in.sin_port = htons((unsigned short)port);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons((unsigned short)port);
    check(!v6 || inet_pton(AF_INET6, "::ffff:127.0.0.1", &in6.sin6_addr) == 1, "inet_pton");
    *length = v6 ? sizeof in6 : sizeof in;
    return v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
}

static void listens(int v6)
{
    socklen_t length;
    struct sockaddr *name = address(v6, 0, &length);
    int listener = socket(name->sa_family, SOCK_STREAM, 0);
    check(bind(listener, name, length) == 0 && listen(listener, 1) == 0, "listen");
    check(getsockname(listener, name, &length) == 0, "getsockname");
    say("listening on port %d%s\n", ntohs(((struct sockaddr_in *)name)->sin_port), "");
    fd = accept(listener, NULL, NULL);
    check(fd >= 0, "accept");
    close(listener);
}

static void connects(int v6, int port)
{
    socklen_t length;
    struct sockaddr *name = address(v6, port, &length);
    fd = socket(name->sa_family, SOCK_STREAM, 0);
    check(connect(fd, name, length) == 0, "connect");
}

static void sends(long count)
{
    static char bytes[65536];
    while (count > 0) {
        ssize_t sent = write(fd, bytes, count < 65536 ? (size_t)count : 65536);
        check(sent > 0, "write");
        count -= sent;
    }
}

static void receives(long count)
{
    static char bytes[65536];
    while (count > 0) {
        ssize_t got = read(fd, bytes, count < 65536 ? (size_t)count : 65536);
        check(got > 0, "read");
        count -= got;
    }
}

int main(int count, char **words)
{
    for (int at = 1; at < count; at++) {
        const char *word = words[at];
        const char *next = at + 1 < count ? words[at + 1] : "";
        long number = atol(next);
        if (strncmp(word, "listen", 6) == 0) {
            listens(word[6] == '6');
            continue;
        }
        if (strcmp(word, "fork") == 0) {
            pid_t child = fork();
            check(child >= 0, "fork");
            if (child > 0)
                return 0;
            continue;
        }
        if (strcmp(word, "anew") == 0) {
            pid_t child = fork();
            check(child >= 0, "fork");
            if (child > 0) {
                close(fd);
                while (strcmp(words[at], "then") != 0)
                    at++;
                execv(words[0], words + at);
                check(0, "execv");
            }
            continue;
        }
        if (strcmp(word, "exit") == 0 || strcmp(word, "then") == 0)
            return 0;
        if (strcmp(word, "dup") == 0) {
            int other = dup(fd);
            close(fd);
            fd = other;
            continue;
        }
        at++;
        if (strncmp(word, "connect", 7) == 0) {
            connects(word[7] == '6', (int)number);
        } else if (strcmp(word, "send") == 0) {
            sends(number);
        } else if (strcmp(word, "recv") == 0) {
            receives(number);
        } else if (strcmp(word, "ping") == 0) {
            for (; number > 0; number--) {
                sends(1);
                receives(1);
            }
        } else if (strcmp(word, "pong") == 0) {
            for (; number > 0; number--) {
                receives(1);
                sends(1);
            }
        } else if (strcmp(word, "await") == 0) {
            while (access(next, F_OK) != 0)
                usleep(1000);
        } else if (strcmp(word, "say") == 0) {
            say("%.0d%s\n", 0, next);
        } else {
            fprintf(stderr, "what is %s?\n", word);
            return 2;
        }
    }
    close(fd);
    return 0;
}
