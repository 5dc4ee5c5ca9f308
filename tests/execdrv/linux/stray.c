/* Processes that are hard to end; each mode is bounded by SECONDS, whatever happens.
 *
 *     stray comets COUNT SECONDS    COUNT processes that fork and exit without pause, setsid each
 *     stray headless SECONDS        its first thread ends, a second one goes on
 *     stray stopper SECONDS         stops every other process of its uid, without pause
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static time_t end;

static int is_over(void)
{
    return time(NULL) >= end;
}

static void *wait_for_end(void *unused)
{
    while (!is_over())
        usleep(10000);
    exit(0);
    return unused;
}

static void fly(void)
{
    while (!is_over()) {
        pid_t child = fork();
        if (child > 0)
            _exit(0);
        if (child == 0)
            setsid();
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    pthread_t thread;
    end = time(NULL) + atoi(argv[argc - 1]);
    if (strcmp(argv[1], "comets") == 0) {
        for (int i = atoi(argv[2]); i > 0; i--)
            if (fork() == 0)
                fly();
        while (!is_over())
            usleep(10000);
    } else if (strcmp(argv[1], "headless") == 0) {
        pthread_create(&thread, NULL, wait_for_end, NULL);
        syscall(SYS_exit, 0);
    } else {
        while (!is_over())
            kill(-1, SIGSTOP);
    }
    return 0;
}
