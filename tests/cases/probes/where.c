/* where: the working directory by raw call and by link, and what lies above it. */
#include "say.h"
#include <dirent.h>
#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

static void list(const char *key, const char *path)
{
    DIR *open = opendir(path);
    if (!open) {
        say(key, -1);
        return;
    }
    printf("%s", key);
    for (struct dirent *entry; (entry = readdir(open));)
        printf(" %s", entry->d_name);
    printf("\n");
}

int main(void)
{
    char path[PATH_MAX + 1] = "";
    long got = syscall(SYS_getcwd, path, sizeof path - 1);
    printf("cwd %s\n", got < 0 ? strerrorname_np(errno) : path);
    got = readlink("/proc/self/cwd", path, sizeof path - 1);
    if (got >= 0)
        path[got] = 0;
    printf("link %s\n", got < 0 ? strerrorname_np(errno) : path);
    say_place("root", "/");
    say_place("up", "..");
    say_place("up-up", "../..");
    list("names", ".");
    list("up-names", "..");
    list("up-up-names", "../..");
    return 0;
}
