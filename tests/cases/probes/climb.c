/* climb CANARY [userns]: the double chroot, from a new user namespace if asked; then looks around.
 * Writes nothing but one directory below /tmp. */
#include "say.h"
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc > 2)
        say("userns", unshare(CLONE_NEWUSER));
    mkdir("/tmp/deep", 0755);
    int above = open("/", O_RDONLY | O_DIRECTORY);
    int result = chroot("/tmp/deep");
    say("chroot", result);
    if (fchdir(above) < 0)
        return 9;
    for (int i = 0; i < 100; i++)
        if (chdir("..") < 0)
            break;
    say("again", chroot("."));
    say_place("here", ".");
    say_place("root", "/");
    say("canary", access(argv[1], F_OK));
    say("canary-here", access(argv[1] + 1, F_OK));
    return 0;
}
