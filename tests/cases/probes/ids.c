/* ids [sleep]: who this process is and what it may. */
#include "say.h"
#include <grp.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
    static gid_t groups[65536];
    uid_t user[3];
    gid_t group[3];
    getresuid(user, user + 1, user + 2);
    getresgid(group, group + 1, group + 2);
    printf("uid %u %u %u\ngid %u %u %u\n", user[0], user[1], user[2], group[0], group[1], group[2]);
    int count = getgroups(65536, groups);
    printf("groups");
    for (int i = 0; i < count; i++)
        printf(" %u", groups[i]);
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct sets[2];
    if (syscall(SYS_capget, &head, sets) < 0)
        return 9;
#define SET(name) (unsigned long long)(sets[0].name | (unsigned long long)sets[1].name << 32)
    printf("\npermitted %llx\neffective %llx\ninheritable %llx\n", SET(permitted), SET(effective),
           SET(inheritable));
    unsigned long long bounding = 0, ambient = 0;
    for (unsigned cap = 0; cap < 64; cap++) {
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
            bounding |= 1ull << cap;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
            ambient |= 1ull << cap;
    }
    struct rlimit core;
    getrlimit(RLIMIT_CORE, &core);
    printf("bounding %llx\nambient %llx\nsecurebits %d\nkeepcaps %d\nno-new-privs %d\n", bounding,
           ambient, prctl(PR_GET_SECUREBITS, 0, 0, 0, 0), prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0),
           prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    printf("core %llu %llu\n", (unsigned long long)core.rlim_cur, (unsigned long long)core.rlim_max);
    return 0;
}
