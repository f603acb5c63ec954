/* What a plugin with native code may try. Each function returns 0 where it succeeded, else the error's number. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long answer(long result) { return result == -1 ? errno : 0; }

static long end(pid_t child) {
    int status;
    if (child < 0) return errno;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) return 1000 + WTERMSIG(status);
    return WEXITSTATUS(status);
}

/* A child of a new kind, by every way to make one; it leaves at once. */
long clone_into(long flags) {
    pid_t child = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return end(child);
}

/* Flags in the upper half, which a filter that looks at 32 bits does not see: the kernel must not see them either. */
long clone3_into(long flags) {
    struct clone_args args = {.flags = (uint64_t)flags, .exit_signal = SIGCHLD};
    pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (child == 0) _exit(0);
    return end(child);
}

/* vfork: the child has the parent's memory, and tries what the parent may not. */
long vfork_and_call(long number, long a, long b, long c) {
    volatile long code = 0;
    pid_t child = vfork();
    if (child == 0) {
        code = answer(syscall(number, a, b, c, 0, 0, 0));
        _exit(0);
    }
    if (child < 0) return errno;
    waitpid(child, NULL, 0);
    return code;
}

/* A ring would do reads, writes, connects and opens without a system call that the filter could see. */
long io_uring(void) {
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    return answer(syscall(SYS_io_uring_setup, 8, &params));
}

/* Data with the first packet: no connect() for anybody to refuse. */
long fast_open(long port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    if (sock < 0) return errno;
    long code = answer(sendto(sock, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&to, sizeof to));
    close(sock);
    return code;
}

/* The same among several messages of one call. */
long fast_open_many(long port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct iovec data = {.iov_base = "x", .iov_len = 1};
    struct mmsghdr message = {.msg_hdr = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &data, .msg_iovlen = 1}};
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    if (sock < 0) return errno;
    long code = answer(sendmmsg(sock, &message, 1, MSG_FASTOPEN));
    close(sock);
    return code;
}

/* A filter of its own that allows everything: the stricter of the two must win. */
long allow_everything(long number, long argument) {
    struct sock_filter allow = {.code = BPF_RET | BPF_K, .k = 0x7fff0000};
    struct sock_fprog program = {.len = 1, .filter = &allow};
    long code = answer(prctl(PR_SET_SECCOMP, 2, &program, 0, 0));
    if (code) return code;
    return answer(syscall(number, argument, 0, 0, 0, 0, 0));
}

#if defined(__x86_64__)
/* getpid by the 32-bit gate, where the numbers mean other calls. */
long i386_gate(void) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    return result > 0 ? 0 : -result;
}

/* execve has another number for x32: a filter that knows only the usual table lets it through. */
long x32_gate(void) { return answer(syscall(0x40000000 + 39)); }
#endif
