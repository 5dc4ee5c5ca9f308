/* What a job in a chroot tries, beside the native driver's probe.c; harmless everywhere.
 *
 *     probe fds              prints its open descriptors
 *     probe handle           opens a file of its own by handle (open_by_handle_at(2))
 *     probe userns           makes a user namespace, by unshare(2) and by clone3(2)
 *     probe inject           types a letter into the terminal at descriptor 0 (TIOCSTI)
 *     probe signal PID       sends signal 0
 *     probe keepcaps         sets keep-caps and securebits
 *     probe groups           adds a group to its own
 *
 * Prints "done", or the name of the call that failed and its errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int say(const char *call)
{
    printf("%s: %s\n", call, strerror(errno));
    return 1;
}

static int print_fds(void)
{
    for (int fd = 0; fd < 65536; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d ", fd);
    return 0;
}

static int open_handle(void)
{
    struct { struct file_handle handle; char space[128]; } buffer = { { 128, 0 }, { 0 } };
    int mount, root = open("/", O_RDONLY | O_DIRECTORY);
    if (name_to_handle_at(AT_FDCWD, "/bin/busybox", &buffer.handle, &mount, 0))
        return say("name_to_handle_at");
    return open_by_handle_at(root, &buffer.handle, O_RDONLY) < 0 ? say("open_by_handle_at")
                                                                 : (puts("done"), 0);
}

static int make_userns(void)
{
    struct clone_args args = { .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD };
    long child = syscall(SYS_clone3, &args, sizeof args);
    if (child == 0)
        _exit(0);
    if (child > 0)
        return puts("clone3 made one"), 0;
    return unshare(CLONE_NEWUSER) ? say("unshare") : (puts("unshare made one"), 0);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    gid_t group = 27;
    if (!strcmp(what, "fds"))
        return print_fds();
    if (!strcmp(what, "handle"))
        return open_handle();
    if (!strcmp(what, "userns"))
        return make_userns();
    if (!strcmp(what, "inject"))
        return ioctl(0, TIOCSTI, "x") ? say("TIOCSTI") : (puts("done"), 0);
    if (!strcmp(what, "signal") && argc == 3)
        return kill(atoi(argv[2]), 0) ? say("kill") : (puts("done"), 0);
    if (!strcmp(what, "keepcaps")) {
        if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
            return say("keepcaps");
        return prctl(PR_SET_SECUREBITS, 1, 0, 0, 0) ? say("securebits") : (puts("done"), 0);
    }
    if (!strcmp(what, "groups"))
        return setgroups(1, &group) ? say("setgroups") : (puts("done"), 0);
    return 2;
}
