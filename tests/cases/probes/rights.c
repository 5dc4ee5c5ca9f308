/* rights FILE: what takes a capability, tried with arguments that change nothing if they succeed. */
#include "say.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct stat found;
    if (argc < 2 || stat(argv[1], &found) < 0)
        return 9;
    say("chown", chown(argv[1], found.st_uid + 1, found.st_gid));
    say("chown-back", chown(argv[1], found.st_uid, found.st_gid));
    say("setuid", setresuid(-1, 0, -1));
    struct sockaddr_in port = { .sin_family = AF_INET, .sin_port = htons(80),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    say("bind-80", bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&port, sizeof port));
    say("raw", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    say("mount", mount("none", "/tmp", "tmpfs", 0, ""));
    say("chroot", chroot("/"));
    return 0;
}
