/* How much stack the calls of a library need, for tests/stack.rs. One line for each call: its name and the bytes.
 *
 * A call is made on a stack of its own that was filled with a pattern before; what the pattern has lost is what was used.
 * `first`: the first socket of the process is made that way. `clone`: on a stack of a page, by a child that shares the
 * memory (clone(2)). `handler`: in a signal handler on 8 KB (sigaltstack(2)), of which the kernel's frame takes what all
 * registers of the processor need. `image FD`: as `first`, but the call reads from an inherited descriptor. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { STACK = 256 * 1024, PATTERN = 0xa5 };

static unsigned char *stack;
static ucontext_t here, there;
static void (*work)(void);
static int a, b, listener, set, made;
static struct sockaddr_in name = {.sin_family = AF_INET};
static char room[128 * 1024];

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void run(void)
{
    work();
}

/* Bytes of stack that `call` has touched. */
static size_t used_by(void (*call)(void))
{
    memset(stack, PATTERN, STACK);
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = STACK;
    there.uc_link = &here;
    work = call;
    makecontext(&there, run, 0);
    swapcontext(&here, &there);
    size_t untouched = 0;
    while (untouched < STACK && stack[untouched] == PATTERN)
        untouched++;
    return STACK - untouched;
}

static void nothing(void) {}

static size_t least;

static void measure(const char *title, void (*call)(void))
{
    printf("%s %zu\n", title, used_by(call) - least);
}

static void do_socket(void) { check((made = socket(AF_INET, SOCK_STREAM, 0)) >= 0, "socket"); }
static void do_connect(void) { check(connect(made, (struct sockaddr *)&name, sizeof name) == 0, "connect"); }
static void do_accept(void) { check((b = accept(listener, NULL, NULL)) >= 0, "accept"); }
static void do_close(void) { check(close(made) == 0, "close"); }
static void do_write(void) { check(write(a, "0123456789", 10) == 10, "write"); }
static void do_write_much(void) { check(write(a, room, sizeof room) > 0, "write"); }
static void do_read(void) { check(read(b, room, 10) == 10, "read"); }
static void do_read_end(void) { check(read(b, room, 10) == 0, "read"); }
static void do_read_nothing(void) { check(recv(b, room, 10, MSG_DONTWAIT) < 0 && errno == EAGAIN, "recv"); }
static void do_peek(void) { check(recv(b, room, 10, MSG_PEEK) == 10, "recv"); }

static void do_readv(void)
{
    struct iovec parts[] = {{room, 4}, {room + 4, 6}};
    check(readv(b, parts, 2) == 10, "readv");
}

static void do_writev(void)
{
    struct iovec parts[] = {{room, 4}, {room + 4, 6}};
    check(writev(a, parts, 2) == 10, "writev");
}

static void do_recvmsg(void)
{
    struct iovec part = {room, 10};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    check(recvmsg(b, &message, 0) == 10, "recvmsg");
}

static void do_sendmsg(void)
{
    struct iovec part = {room, 10};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    check(sendmsg(a, &message, 0) == 10, "sendmsg");
}

static void do_poll(void)
{
    struct pollfd one = {b, POLLIN, 0};
    check(poll(&one, 1, 2000) == 1, "poll");
}

static void do_select(void)
{
    fd_set one;
    FD_ZERO(&one);
    FD_SET(b, &one);
    struct timeval time = {2, 0};
    check(select(b + 1, &one, NULL, NULL, &time) == 1, "select");
}

static void do_epoll_ctl(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    check(epoll_ctl(set, EPOLL_CTL_ADD, b, &event) == 0, "epoll_ctl");
}

static void do_epoll_wait(void)
{
    struct epoll_event event;
    check(epoll_wait(set, &event, 1, 2000) == 1, "epoll_wait");
}

static void do_getsockopt(void)
{
    int error;
    socklen_t length = sizeof error;
    check(getsockopt(b, SOL_SOCKET, SO_ERROR, &error, &length) == 0, "getsockopt");
}

static void do_setsockopt(void)
{
    int on = 1;
    check(setsockopt(b, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on) == 0, "setsockopt");
}

static void do_shutdown(void) { check(shutdown(a, SHUT_WR) == 0, "shutdown"); }
static void do_dup(void) { check((made = dup(b)) >= 0, "dup"); }

static void *write_later(void *nothing_of_use)
{
    usleep(20000);
    do_write();
    return nothing_of_use;
}

/* The same, while another thread writes only after a while: the call sleeps. */
static void measure_asleep(const char *title, void (*call)(void))
{
    pthread_t writer;
    check(pthread_create(&writer, NULL, write_later, NULL) == 0, "pthread_create");
    measure(title, call);
    pthread_join(writer, NULL);
}

static void listen_somewhere(void)
{
    socklen_t length = sizeof name;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(listener, (struct sockaddr *)&name, length) == 0, "bind");
    check(listen(listener, 16) == 0, "listen");
    check(getsockname(listener, (struct sockaddr *)&name, &length) == 0, "getsockname");
}

static void measure_all(void)
{
    listen_somewhere();
    measure("socket", do_socket);
    measure("connect", do_connect);
    a = made;
    measure("accept", do_accept);
    for (int round = 0; round < 100; round++) {
        do_write();
        do_read();
        int other = a;
        a = b;
        b = other;
    }
    measure("write", do_write);
    measure("peek", do_peek);
    measure("read", do_read);
    measure("read of nothing", do_read_nothing);
    measure("writev", do_writev);
    measure("readv", do_readv);
    measure("sendmsg", do_sendmsg);
    measure("recvmsg", do_recvmsg);
    do_write();
    measure("poll", do_poll);
    measure("select", do_select);
    check((set = epoll_create1(0)) >= 0, "epoll_create1");
    measure("epoll_ctl", do_epoll_ctl);
    measure("epoll_wait", do_epoll_wait);
    do_read();
    measure_asleep("read asleep", do_read);
    measure_asleep("readv asleep", do_readv);
    measure_asleep("recvmsg asleep", do_recvmsg);
    measure_asleep("poll asleep", do_poll);
    do_read();
    measure_asleep("select asleep", do_select);
    do_read();
    measure_asleep("epoll_wait asleep", do_epoll_wait);
    do_read();
    measure("getsockopt", do_getsockopt);
    measure("setsockopt", do_setsockopt);
    measure("dup", do_dup);
    measure("close", do_close);
    /* More than a ring holds: it grows, is full, and the rest goes through the kernel. */
    measure("write much", do_write_much);
    for (size_t left = sizeof room; left > 0;) {
        ssize_t count = read(b, room, left);
        check(count > 0, "read");
        left -= (size_t)count;
    }
    measure("shutdown", do_shutdown);
    measure("read at the end", do_read_end);
    made = b;
    measure("last close", do_close);
}

static void connect_both_ends(void)
{
    listen_somewhere();
    do_socket();
    do_connect();
    a = made;
    do_accept();
}

static int on_a_page(void *nothing_of_use)
{
    (void)nothing_of_use;
    connect_both_ends();
    for (int round = 0; round < 100; round++) {
        do_write();
        do_poll();
        do_read();
    }
    do_close();
    made = b;
    do_close();
    return 0;
}

static void clone_onto_a_page(void)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    unsigned char *pages = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
    check(pages != MAP_FAILED && mprotect(pages, 4096, PROT_NONE) == 0, "mmap");
    int child = clone(on_a_page, pages + 2 * 4096, CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD, NULL);
    int status;
    check(child > 0 && waitpid(child, &status, 0) == child, "clone");
    if (status != 0) {
        fprintf(stderr, "on a stack of a page: status %#x\n", status);
        exit(1);
    }
    puts("clone 0");
}

static void use_all(int signal)
{
    (void)signal;
    do_write();
    do_peek();
    do_poll();
    do_select();
    do_read();
    do_writev();
    do_readv();
    do_sendmsg();
    do_recvmsg();
    do_read_nothing();
    do_getsockopt();
    do_setsockopt();
}

static void use_all_in_a_handler(void)
{
    enum { SIZE = 8192 };
    connect_both_ends();
    for (int round = 0; round < 100; round++) {
        do_write();
        do_read();
    }
    unsigned char *pages = mmap(NULL, 4096 + SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(pages != MAP_FAILED && mprotect(pages, 4096, PROT_NONE) == 0, "mmap");
    stack_t alternate = {.ss_sp = pages + 4096, .ss_size = SIZE};
    struct sigaction action = {.sa_handler = use_all, .sa_flags = SA_ONSTACK};
    check(sigaltstack(&alternate, NULL) == 0 && sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    for (int round = 0; round < 10; round++) {
        /* In use, so that the kernel has to save it: the largest part of what a processor has. */
        if (__builtin_cpu_supports("avx512f"))
            __asm__ volatile("vpternlogd $0xff, %zmm31, %zmm31, %zmm31");
        raise(SIGUSR1);
    }
    puts("handler 0");
}

int main(int count, char **words)
{
    stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(stack != MAP_FAILED, "mmap");
    used_by(nothing);
    least = used_by(nothing);
    const char *what = count > 1 ? words[1] : "";
    if (strcmp(what, "all") == 0) {
        measure_all();
    } else if (strcmp(what, "first") == 0) {
        measure("first socket", do_socket);
    } else if (strcmp(what, "clone") == 0) {
        clone_onto_a_page();
    } else if (strcmp(what, "handler") == 0) {
        use_all_in_a_handler();
    } else if (strcmp(what, "image") == 0 && count > 2) {
        b = atoi(words[2]);
        measure("read in a new image", do_read);
    } else if (strcmp(what, "exec") == 0) {
        connect_both_ends();
        for (int round = 0; round < 100; round++) {
            do_write();
            do_read();
        }
        do_write();
        char number[16];
        snprintf(number, sizeof number, "%d", b);
        execl(words[0], words[0], "image", number, (char *)NULL);
        perror("exec");
        return 1;
    } else {
        fputs("usage: stack all|first|clone|handler|exec\n", stderr);
        return 2;
    }
    return 0;
}
