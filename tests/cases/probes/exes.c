/* exes DEVICE:INODE...: whether any process in view runs from one of these files of the machine,
 * or from a file that can be opened for writing. Opens and closes, writes nothing. */
#include "say.h"
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char path[64], place[64];
    int seen = 0, known = 0, foreign = 0, writable = 0;
    struct stat found;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        if (!isdigit(entry->d_name[0]))
            continue;
        seen++;
        snprintf(path, sizeof path, "/proc/%.20s/exe", entry->d_name);
        int fd = open(path, O_WRONLY);
        printf("write-%s %s\n", entry->d_name, fd < 0 ? strerrorname_np(errno) : "ok");
        writable += fd >= 0;
        close(fd);
        fd = open(path, O_RDONLY);
        printf("read-%s %s\n", entry->d_name, fd < 0 ? strerrorname_np(errno) : "ok");
        if (fd < 0 || fstat(fd, &found) < 0)
            continue;
        known++;
        snprintf(place, sizeof place, "%lu:%lu", (unsigned long)found.st_dev,
                 (unsigned long)found.st_ino);
        for (int i = 1; i < argc; i++)
            foreign += strcmp(argv[i], place) == 0;
        close(fd);
    }
    printf("seen %d\nknown %d\nforeign %d\nwritable %d\n", seen, known, foreign, writable);
    return 0;
}
