/* handle FILE DIRECTORY: opens FILE by its own handle; never one of another file.
 * DIRECTORY is of the same mount. */
#include "say.h"
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } found;
    int id, made = open(argv[1], O_WRONLY | O_CREAT, 0644);
    if (argc < 3 || made < 0)
        return 9;
    found.handle.handle_bytes = MAX_HANDLE_SZ;
    say("name", name_to_handle_at(AT_FDCWD, argv[1], &found.handle, &id, 0));
    int mount = open(argv[2], O_RDONLY | O_DIRECTORY);
    if (mount < 0)
        return 9;
    say("open", open_by_handle_at(mount, &found.handle, O_RDONLY));
    return 0;
}
