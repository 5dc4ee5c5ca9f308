/* What a job finds itself to be, read by calls alone (a chroot has no /proc): "name=value" lines.
 *     probe show | probe kill N | probe stack-bytes   (sums up argv and env) */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void show_credentials(void)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    unsigned long long bounding = 0, ambient = 0;
    uid_t u[3], g[3];
    gid_t groups[64];
    int count = getgroups(64, groups);
    getresuid(u, u + 1, u + 2);
    getresgid(g, g + 1, g + 2);
    printf("uid=%u %u %u\ngid=%u %u %u\ngroups=", u[0], u[1], u[2], g[0], g[1], g[2]);
    for (int i = 0; i < count; i++)
        printf("%s%u", i ? " " : "", groups[i]);
    syscall(SYS_capget, &header, data);
    for (int cap = 0; cap < 64; cap++) {
        bounding |= (unsigned long long)(prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1) << cap;
        ambient |= (unsigned long long)(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0)
                                        == 1) << cap;
    }
    printf("\nbounding=%llx\nambient=%llx\n", bounding, ambient);
    printf("permitted=%llx\n", (unsigned long long)data[1].permitted << 32 | data[0].permitted);
    printf("effective=%llx\n", (unsigned long long)data[1].effective << 32 | data[0].effective);
    printf("inheritable=%llx\n",
           (unsigned long long)data[1].inheritable << 32 | data[0].inheritable);
    printf("securebits=%x\n", prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
    printf("no_new_privs=%d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    printf("dumpable=%d\n", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
}

static void show(int argc, char **argv, char **envp)
{
    unsigned long blocked = 0, ignored = 0, action[4];
    char cwd[4096] = "";
    struct rlimit limit;
    show_credentials();
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &blocked, 8);
    for (int number = 1; number <= 64; number++)
        if (syscall(SYS_rt_sigaction, number, NULL, action, 8) == 0 && action[0] == 1)
            ignored |= 1ul << (number - 1);
    printf("blocked=%lx\nignored=%lx\n", blocked, ignored);
    syscall(SYS_getcwd, cwd, sizeof cwd);
    printf("cwd=%s\n", cwd);
    printf("session=%s\n", getsid(0) == getpid() && getpgrp() == getpid() ? "own" : "other");
    printf("tty=%d\n", open("/dev/tty", O_RDWR | O_CLOEXEC));
    printf("fds=");
    for (int fd = 0; fd < 65536; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d ", fd);
    printf("\nrlimits=");
    for (int resource = 0; resource < 16; resource++)
        if (getrlimit(resource, &limit) == 0)
            printf("%llx:%llx ", (unsigned long long)limit.rlim_cur,
                   (unsigned long long)limit.rlim_max);
    printf("\nargv=");
    for (int i = 0; i < argc; i++)
        printf("[%s]", argv[i]);
    printf("\nenv=");
    for (; *envp; envp++)
        printf("[%s]", *envp);
    printf("\n");
}

int main(int argc, char **argv, char **envp)
{
    mode_t mask = umask(0);
    unsigned long bytes = 0, sum = 0;
    umask(mask);
    if (argc > 2 && strcmp(argv[1], "kill") == 0) {
        syscall(SYS_kill, getpid(), atoi(argv[2]));
        return 77;
    }
    if (argc > 1 && strcmp(argv[1], "stack-bytes") == 0) {
        for (char **string = argv + 2; *string; string++)
            for (char *at = *string; *at; at++, bytes++)
                sum = sum * 31 + (unsigned char)*at;
        for (; *envp; envp++)
            for (char *at = *envp; *at; at++, bytes++)
                sum = sum * 31 + (unsigned char)*at;
        printf("%lu %lu\n", bytes, sum);
        return 0;
    }
    printf("umask=%04o\n", mask);
    show(argc, argv, envp);
    return 0;
}
