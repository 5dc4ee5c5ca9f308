/* tty: tries to type one letter into each terminal it holds, or can get hold of. */
#include "say.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static void attack(const char *name, int fd)
{
    char key[64];
    snprintf(key, sizeof key, "%s-type", name);
    say(key, ioctl(fd, TIOCSTI, "x"));
    snprintf(key, sizeof key, "%s-type-high", name);
    say(key, ioctl(fd, TIOCSTI | 1ull << 32, "x"));
    /* The address is none: EFAULT where the request is reachable. */
    snprintf(key, sizeof key, "%s-paste", name);
    say(key, ioctl(fd, TIOCLINUX, 1));
}

int main(void)
{
    printf("leader %d\n", getsid(0) == getpid());
    say("session", tcgetsid(0));
    attack("0", 0);
    attack("1", 1);
    attack("2", 2);
    int tty = open("/dev/tty", O_RDWR);
    say("dev-tty", tty);
    if (tty >= 0)
        attack("dev-tty", tty);
    /* What a session leader opens may become its terminal. */
    char path[64] = "/proc/self/fd/0";
    tty = open(path, O_RDWR);
    say("reopen", tty);
    if (tty >= 0)
        attack("reopened", tty);
    say("take", ioctl(0, TIOCSCTTY, 0));
    say("steal", ioctl(0, TIOCSCTTY, 1));
    attack("taken", 0);
    return 0;
}
