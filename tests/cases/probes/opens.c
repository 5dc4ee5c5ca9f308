/* opens PATH...: each is opened for reading, and one byte read; and opened for writing, and closed.
 * Never writes. A value is an errno, or "empty", "read", "open". */
#include "say.h"
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char byte;
        int fd = open(argv[i], O_RDONLY | O_NONBLOCK | O_NOCTTY);
        ssize_t got = fd < 0 ? -1 : read(fd, &byte, 1);
        /* A directory that can be opened is as good as what is in it. */
        printf("r:%s %s\n", argv[i],
               got > 0 ? "read" : got == 0 ? "empty" : strerrorname_np(errno));
        close(fd);
        fd = open(argv[i], O_WRONLY | O_NONBLOCK | O_NOCTTY);
        printf("w:%s %s\n", argv[i], fd < 0 ? strerrorname_np(errno) : "open");
        close(fd);
    }
    return 0;
}
