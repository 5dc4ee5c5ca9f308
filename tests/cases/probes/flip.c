/* flip A B: exchanges two names, over and over, until its input ends or a minute has passed.
 * Runs outside, beside the starts it means to disturb. */
#include "say.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct pollfd input = { 0, POLLIN | POLLHUP, 0 };
    struct timespec nap = { 0, 20000 };
    unsigned long count = 0;
    if (argc < 3)
        return 9;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(60);
    while (poll(&input, 1, 0) == 0) {
        for (int i = 0; i < 16; i++, count++)
            if (renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE) < 0)
                return 8;
        nanosleep(&nap, NULL);
    }
    printf("%lu\n", count);
    return 0;
}
