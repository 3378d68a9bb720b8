/*
 * filter PROGRAM ARGUMENT...: runs a program under a filter that kills the process for every system call that is neither the
 * dynamic linker's, nor the program's own, nor one of those that docs/compatibility.md names. FILTER_PRELOAD becomes the
 * program's LD_PRELOAD.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALLOW(name)                                                                                                            \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    /* execve and what a program of the C library does before main, and at its end */
    ALLOW(execve), ALLOW(brk), ALLOW(arch_prctl), ALLOW(set_tid_address), ALLOW(set_robust_list), ALLOW(rseq),
    ALLOW(mprotect), ALLOW(getrandom), ALLOW(access), ALLOW(newfstatat), ALLOW(exit_group), ALLOW(restart_syscall),
    /* the programs of c_examples */
    ALLOW(write), ALLOW(writev), ALLOW(bind), ALLOW(listen), ALLOW(accept), ALLOW(accept4), ALLOW(connect), ALLOW(rt_sigaction),
    ALLOW(lseek), ALLOW(clock_nanosleep), ALLOW(clock_gettime), ALLOW(sysinfo),
    /* sockshim: as docs/compatibility.md says */
    ALLOW(openat), ALLOW(read), ALLOW(pread64), ALLOW(close), ALLOW(fstat), ALLOW(mmap), ALLOW(munmap), ALLOW(ftruncate),
    ALLOW(mkdirat), ALLOW(unlinkat), ALLOW(linkat), ALLOW(faccessat), ALLOW(prlimit64), ALLOW(getpid), ALLOW(getppid),
    ALLOW(gettid), ALLOW(geteuid), ALLOW(futex), ALLOW(rt_sigprocmask), ALLOW(socket), ALLOW(getsockopt), ALLOW(setsockopt),
    ALLOW(getsockname), ALLOW(getpeername), ALLOW(sendto), ALLOW(sendmsg), ALLOW(recvfrom), ALLOW(recvmsg), ALLOW(shutdown),
    ALLOW(ioctl), ALLOW(poll), ALLOW(epoll_ctl), ALLOW(epoll_wait),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
};

int main(int argc, char **argv)
{
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (argc < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("filter");
        return 125;
    }
    const char *preload = getenv("FILTER_PRELOAD");
    if (preload)
        setenv("LD_PRELOAD", preload, 1);
    execv(argv[1], argv + 1);
    perror(argv[1]);
    return 126;
}
