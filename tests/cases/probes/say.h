/* What every probe prints with: lines of a key and a value, "ok" or the name of an errno. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static inline void say(const char *key, long result)
{
    printf("%s %s\n", key, result >= 0 ? "ok" : strerrorname_np(errno));
}

static inline void say_place(const char *key, const char *path)
{
    struct stat found;
    if (stat(path, &found) < 0)
        say(key, -1);
    else
        printf("%s %lu:%lu\n", key, (unsigned long)found.st_dev, (unsigned long)found.st_ino);
}
