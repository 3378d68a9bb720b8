/*
 * Calls whose wrapping is delicate, and what they did, on stdout. tests/contract.rs runs it with and without the
 * shared object and compares. Argument: an empty folder to work in.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#endif

/* Shows the call, its result and, if it failed, why. */
#define SHOW(call)                                                  \
    do {                                                            \
        errno = 0;                                                  \
        long shown = (long)(call);                                  \
        int why = errno;                                            \
        printf("%s = %ld, errno %d\n", #call, shown, why);          \
    } while (0)

static int child_status(pid_t child) {
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

static void print_list(int fd, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vdprintf(fd, format, arguments);
    va_end(arguments);
}

static void variadic(void) {
    char *environment[] = {"NAME=value", NULL};
    pid_t child;

    dprintf(1, "%s %d %.3f %g %ld %c %d %f %f %s\n", "mixed", 1, 2.5, 3e10, -4L, 'x', 77, 8.25, 9.125, "end");
    dprintf(1, "%.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f\n", 1., 2., 3., 4., 5., 6., 7., 8., 9.);
    dprintf(1, "%d %d %d %d %d %d %d\n", 1, 2, 3, 4, 5, 6, 7);
    print_list(1, "%s %d %f\n", "list", 5, 6.75);
    SHOW(dprintf(-1, "nowhere"));
    if ((child = fork()) == 0) {
        execl("/bin/echo", "echo", "1", "2", "3", "4", "5", "6", "7", "8", (char *)NULL);
        _exit(1);
    }
    SHOW(child_status(child));
    if ((child = fork()) == 0) {
        execlp("echo", "echo", "found", "in", "path", (char *)NULL);
        _exit(1);
    }
    SHOW(child_status(child));
    if ((child = fork()) == 0) {
        execle("/usr/bin/env", "env", (char *)NULL, environment);
        _exit(1);
    }
    SHOW(child_status(child));
    SHOW(execl("/nonexistent", "x", (char *)NULL));
    SHOW(execlp("nonexistent-program", "x", (char *)NULL));
    SHOW(execle("/nonexistent", "x", (char *)NULL, environment));
}

static int cloned(void *unused) {
    (void)unused;
    _exit(9);
}

static void processes(void) {
    static char stack[65536] __attribute__((aligned(16)));
    char *echo[] = {"echo", "vector", NULL};
    char *quiet[] = {"sh", "-c", "exit 6", NULL};
    char *none[] = {NULL};
    pid_t child;

    if ((child = vfork()) == 0) {
        execlp("echo", "echo", "after", "vfork", (char *)NULL);
        _exit(1);
    }
    SHOW(child_status(child));
    if ((child = vfork()) == 0)
        _exit(3);
    SHOW(child_status(child));
    if ((child = syscall(SYS_fork)) == 0)
        _exit(4);
    SHOW(child_status(child));
    if ((child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) == 0)
        _exit(5);
    SHOW(child_status(child));
    SHOW(child_status(clone(cloned, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL)));
    if ((child = fork()) == 0) {
        syscall(SYS_execve, "/bin/echo", echo, environ);
        _exit(1);
    }
    SHOW(child_status(child));
    SHOW(posix_spawn(&child, "/bin/sh", NULL, NULL, quiet, environ));
    SHOW(child_status(child));
    SHOW(posix_spawnp(&child, "nonexistent-program", NULL, NULL, echo, environ));
    SHOW(execve("/nonexistent", echo, none));
    SHOW(execv("/nonexistent", echo));
    SHOW(execvp("nonexistent-program", echo));
    SHOW(execvpe("nonexistent-program", echo, none));
    SHOW(fexecve(-1, echo, none));
    if ((child = fork()) == 0)
        _exit(daemon(1, 0) ? 1 : 2);
    SHOW(child_status(child));
    SHOW(prctl(PR_GET_DUMPABLE));
    SHOW(prctl(-1));
    SHOW(system("exit 2"));
}

static void descriptors(void) {
    struct rlimit limit;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int high;

    SHOW(fd);
    SHOW(dup(fd));
    SHOW(dup(999));
    SHOW(dup2(fd, fd) == fd);
    SHOW(dup2(999, 999));
    SHOW(dup2(999, fd));
    SHOW(fcntl(fd, F_GETFD));
    SHOW(dup2(fd, -1));
    SHOW(dup2(fd, 1 << 29));
    SHOW(dup3(fd, fd, 0));
    SHOW(dup3(fd, fd + 1, 1));
    SHOW(dup3(fd, fd + 1, O_CLOEXEC) == fd + 1);
    SHOW(fcntl(fd + 1, F_GETFD));

    /* A number above a lowered limit stays what it is. */
    getrlimit(RLIMIT_NOFILE, &limit);
    high = fcntl(fd, F_DUPFD, 200);
    limit.rlim_cur = 100;
    setrlimit(RLIMIT_NOFILE, &limit);
    SHOW(dup2(fd, high));
    SHOW(fcntl(high, F_GETFD));
    SHOW(close(high));

    SHOW(close_range(9, 3, 0));
    SHOW(close_range(fd, fd, 1 << 20));
    SHOW(close_range(fd, fd, CLOSE_RANGE_CLOEXEC));
    SHOW(fcntl(fd, F_GETFD));
    SHOW(close_range(fd, fd, CLOSE_RANGE_UNSHARE));
    SHOW(fcntl(fd, F_GETFD));
    closefrom(3);
    SHOW(fcntl(3, F_GETFD));
    SHOW(close(3));
    SHOW(close(-1));
}

static void streams(void) {
    char text[64];
    char *memory = NULL;
    size_t size = 0;
    FILE *stream = fopen("file", "w+");
    int fd = fileno(stream);

    fputs("abc", stream);
    SHOW(fclose(stream));
    SHOW(fcntl(fd, F_GETFD));
    fd = open("file", O_RDWR);
    SHOW(fdopen(fd, "nonsense"));
    SHOW(fcntl(fd, F_GETFD) >= 0);
    stream = fdopen(fd, "r");
    SHOW(strcmp(fgets(text, sizeof text, stream), "abc"));
    stream = freopen("/dev/null", "r", stream);
    SHOW(fileno(stream) == fd);
    SHOW(fgets(text, sizeof text, stream));
    SHOW(fclose(stream));
    SHOW(freopen("/nonexistent", "r", fopen("file", "r")));
    SHOW(fdopen(999, "r"));
    stream = open_memstream(&memory, &size);
    SHOW(fclose(stream));
    stream = popen("echo popen", "r");
    printf("%s", fgets(text, sizeof text, stream));
    SHOW(pclose(stream));
    SHOW(fcloseall());
    SHOW(fcntl(1, F_GETFD));
}

static void *blocked_reader(void *ends) {
    char byte;
    return (void *)read(((int *)ends)[0], &byte, 1);
}

static void threads(void) {
    int ends[2];
    pthread_t thread;
    void *result = NULL;

    SHOW(pipe2(ends, O_CLOEXEC));
    pthread_create(&thread, NULL, blocked_reader, ends);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    SHOW(result == PTHREAD_CANCELED);
    close(ends[0]);
    close(ends[1]);
}

static void raw_calls(void) {
    struct timespec timeout = {0, 1000000};
    struct {
        const void *set;
        size_t size;
    } mask = {NULL, 8};
    unsigned long long signals = 0;
    struct pollfd waiting = {-1, POLLIN, 0};
    char text[8];
    int ends[2], pair[2];
    int fd = syscall(SYS_open, "file", O_RDONLY);

    SHOW(fd);
    SHOW(syscall(SYS_read, fd, text, sizeof text));
    SHOW(syscall(SYS_close, fd));
    SHOW(syscall(SYS_close, fd));
    SHOW(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0) == fd);
    SHOW(syscall(SYS_dup2, fd, fd + 1) == fd + 1);
    SHOW(syscall(SYS_fcntl, fd + 1, F_GETFD));
    SHOW(syscall(SYS_close_range, fd, fd + 1, 0));
    SHOW(syscall(SYS_pipe2, ends, O_NONBLOCK));
    SHOW(syscall(SYS_write, ends[1], "12345678", 8L));
    SHOW(syscall(SYS_read, ends[0], text, sizeof text));
    SHOW(syscall(SYS_read, ends[0], text, sizeof text));
    SHOW(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair));
    SHOW(syscall(SYS_sendto, pair[0], "123", 3L, MSG_NOSIGNAL, NULL, 0));
    SHOW(syscall(SYS_recvfrom, pair[1], text, sizeof text, MSG_DONTWAIT, NULL, NULL));
    SHOW(syscall(SYS_recvfrom, pair[1], text, sizeof text, MSG_DONTWAIT, NULL, NULL));
    SHOW(syscall(SYS_poll, &waiting, 1, 0));
    SHOW(syscall(SYS_ppoll, &waiting, 1, &timeout, &signals, 8L));
    SHOW(timeout.tv_sec + timeout.tv_nsec);
    SHOW(syscall(SYS_ppoll, &waiting, 1, &timeout, &signals, 128L));
    timeout.tv_nsec = -1;
    SHOW(syscall(SYS_ppoll, &waiting, 1, &timeout, NULL, 8L));
    timeout.tv_nsec = 1000000;
    SHOW(syscall(SYS_pselect6, 0, NULL, NULL, NULL, &timeout, &mask));
    SHOW(timeout.tv_sec + timeout.tv_nsec);
    SHOW(syscall(SYS_eventfd2, 1, O_CLOEXEC) >= 0);
    SHOW(syscall(SYS_epoll_pwait, ends[0], NULL, 1, 0, NULL, 8L));
    SHOW(syscall(SYS_execve, "/nonexistent", NULL, NULL));
    SHOW(syscall(100000));
    SHOW(syscall(-1));
    SHOW(syscall(SYS_getpid) == getpid());
}

int main(int count, char **arguments) {
    if (count != 2 || chdir(arguments[1]) != 0)
        return 1;
    setvbuf(stdout, NULL, _IONBF, 0);
    variadic();
    processes();
    descriptors();
    streams();
    threads();
    raw_calls();
    return 0;
}
