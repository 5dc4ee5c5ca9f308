/* What a job tries, for the tests of the native driver; harmless everywhere.
 *
 *     probe climb CANARY     leaves a chroot by a directory above it (chroot(2)), looks for CANARY
 *     probe euid             prints the effective uid
 *     probe packet           opens a packet socket
 *     probe loopback         connects to itself
 *     probe device MAJOR MINOR   makes a block device node and opens it for reading
 *     probe remount PATH     makes a read-only mount writable
 *     probe setns PATH       joins a namespace
 *
 * Prints "done", or the name of the call that failed and its errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int say(const char *call)
{
    printf("%s: %s\n", call, strerror(errno));
    return 1;
}

static int climb(const char *canary)
{
    mkdir("/tmp/climb", 0755);
    int above = open("/", O_RDONLY | O_DIRECTORY);
    if (chroot("/tmp/climb"))
        return say("chroot");
    if (fchdir(above))
        return say("fchdir");
    for (int n = 0; n < 64; n++)
        if (chdir(".."))
            return say("chdir");
    if (chroot("."))
        return say("chroot .");
    if (access(canary, F_OK) == 0)
        return puts("escaped"), 0;
    return puts("done"), 0;
}

static int loopback(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(5000),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr *general = (struct sockaddr *)&address;
    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server, general, sizeof address) || listen(server, 1))
        return say("bind");
    return connect(client, general, sizeof address) ? say("connect") : (puts("done"), 0);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "climb") && argc == 3)
        return climb(argv[2]);
    if (!strcmp(what, "euid"))
        return printf("%d\n", (int)geteuid()), 0;
    if (!strcmp(what, "packet"))
        return socket(17 /* AF_PACKET */, SOCK_RAW, 0) < 0 ? say("socket") : (puts("done"), 0);
    if (!strcmp(what, "loopback"))
        return loopback();
    if (!strcmp(what, "device") && argc == 4) {
        dev_t device = makedev(atoi(argv[2]), atoi(argv[3]));
        if (mknod("/dev/shm/node", S_IFBLK | 0600, device))
            return say("mknod");
        return open("/dev/shm/node", O_RDONLY) < 0 ? say("open") : (puts("done"), 0);
    }
    if (!strcmp(what, "remount") && argc == 3) {
        if (mount(NULL, argv[2], NULL, MS_REMOUNT | MS_BIND, NULL))
            return say("mount");
        return puts("done"), 0;
    }
    if (!strcmp(what, "setns") && argc == 3) {
        int fd = open(argv[2], O_RDONLY);
        if (fd < 0)
            return say("open");
        return setns(fd, 0) ? say("setns") : (puts("done"), 0);
    }
    return 2;
}
