/* crash: a child dies by SIGABRT; whether the kernel dumped its memory. */
#include "say.h"
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        abort();
    if (waitpid(child, &status, 0) < 0)
        return 9;
    printf("signal %d\ndumped %d\n", WTERMSIG(status), !!WCOREDUMP(status));
    return 0;
}
