/* fds: every open descriptor, found by asking for each number, and as /proc lists them. */
#include "say.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    char link[64], target[256];
    printf("open");
    for (int fd = 0; fd < 65536; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf(" %d", fd);
    printf("\n");
    DIR *listing = opendir("/proc/self/fd");
    if (!listing) {
        say("listed", -1);
        return 0;
    }
    printf("listed");
    for (struct dirent *entry; (entry = readdir(listing));)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(listing))
            printf(" %s", entry->d_name);
    printf("\n");
    for (int fd = 3; fd < 64; fd++) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t got = fd == dirfd(listing) ? -1 : readlink(link, target, sizeof target - 1);
        if (got >= 0)
            printf("link-%d %.*s\n", fd, (int)got, target);
    }
    return 0;
}
