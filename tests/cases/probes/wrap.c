/* wrap HOW COMMAND...: gives COMMAND a surprising start.
 *   no-close-range   close_range(2) does not exist for it
 *   capabilities     every capability it has is inheritable and ambient too
 *   securebits       SECBIT_NO_SETUID_FIXUP: changing the uid takes no capability away */
#include "say.h"
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int deny_close_range(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

static int inherit_capabilities(void)
{
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct sets[2];
    if (syscall(SYS_capget, &head, sets) < 0)
        return -1;
    for (int i = 0; i < 2; i++)
        sets[i].inheritable = sets[i].permitted;
    if (syscall(SYS_capset, &head, sets) < 0)
        return -1;
    for (unsigned cap = 0; cap < 64; cap++)
        if (sets[cap / 32].permitted >> cap % 32 & 1
            && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return -1;
    return 0;
}

int main(int argc, char **argv)
{
    int result = -1;
    if (argc < 3)
        return 9;
    if (strcmp(argv[1], "no-close-range") == 0)
        result = deny_close_range();
    else if (strcmp(argv[1], "capabilities") == 0)
        result = inherit_capabilities();
    else if (strcmp(argv[1], "securebits") == 0)
        result = prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0);
    if (result < 0) {
        perror(argv[1]);
        return 9;
    }
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 9;
}
