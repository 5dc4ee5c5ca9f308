/* writable DIRECTORY...: every file below that has a write bit and can be opened for writing.
 * Opens and closes, never writes; leaves out the directories of processes. */
#include "say.h"
#include <ctype.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <unistd.h>

static int files, opened;

static int look(const char *path, const struct stat *found, int kind, struct FTW *place)
{
    if (strncmp(path, "/proc/", 6) == 0 && (isdigit(path[6]) || strncmp(path + 6, "self", 4) == 0))
        return FTW_SKIP_SUBTREE;
    if (kind != FTW_F || !S_ISREG(found->st_mode))
        return FTW_CONTINUE;
    files++;
    if (!(found->st_mode & 0222))
        return FTW_CONTINUE;
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) {
        printf("writable-%d %s\n", opened++, path);
        close(fd);
    }
    (void)place;
    return FTW_CONTINUE;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        nftw(argv[i], look, 32, FTW_PHYS | FTW_ACTIONRETVAL);
    printf("files %d\nopened %d\n", files, opened);
    return 0;
}
