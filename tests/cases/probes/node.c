/* node MAJOR MINOR DIRECTORY [mount]: makes a block device node there, on a tmpfs of its own if
 * asked, and opens it for reading. */
#include "say.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char path[256], byte;
    if (argc < 4)
        return 9;
    if (argc > 4)
        say("mount", mount("none", argv[3], "tmpfs", 0, ""));
    snprintf(path, sizeof path, "%s/disk", argv[3]);
    say("mknod", mknod(path, S_IFBLK | 0666, makedev(atoi(argv[1]), atoi(argv[2]))));
    int fd = open(path, O_RDONLY);
    say("open", fd);
    if (fd >= 0)
        say("read", read(fd, &byte, 1));
    unlink(path);
    return 0;
}
