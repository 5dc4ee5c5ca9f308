/* unmask: from a new user and mount namespace, tries to get at the machine's settings: takes the
 * covers off, makes them writable, mounts a procfs anew. Opens and closes, never writes. */
#include "say.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATTERN "/proc/sys/kernel/core_pattern"

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        printf("map-%s %s\n", strrchr(path, '/') + 1, strerrorname_np(errno));
    close(fd);
}

int main(void)
{
    char map[64];
    uid_t user = geteuid();
    gid_t group = getegid();
    say("plain-mount", mount("proc", "/tmp", "proc", 0, ""));
    int alone = unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID);
    say("userns", alone);
    if (alone == 0) {
        /* What the kernel says of this process alone. */
        put("/proc/self/setgroups", "deny");
        snprintf(map, sizeof map, "%u %u 1", user, user);
        put("/proc/self/uid_map", map);
        snprintf(map, sizeof map, "%u %u 1", group, group);
        put("/proc/self/gid_map", map);
    }
    say("unmount", umount2("/proc/sys", MNT_DETACH));
    say("unmount-kcore", umount2("/proc/kcore", MNT_DETACH));
    say("remount", mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
    say("core-pattern", open(PATTERN, O_WRONLY));
    say("sysrq", open("/proc/sysrq-trigger", O_WRONLY));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        mkdir("/tmp/p", 0755);
        say("mount", mount("proc", "/tmp/p", "proc", 0, ""));
        say("fresh-core-pattern", open("/tmp/p/sys/kernel/core_pattern", O_WRONLY));
        say("fresh-kcore", open("/tmp/p/kcore", O_RDONLY));
        say("sysfs", mount("sysfs", "/tmp/p", "sysfs", 0, ""));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return 0;
}
