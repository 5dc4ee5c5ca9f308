/* A shared library that leaves /MARK wherever it is loaded, for anybody who looks. */
#include <fcntl.h>
#include <unistd.h>

__attribute__((constructor)) static void mark(void)
{
    close(open("/MARK", O_WRONLY | O_CREAT, 0600));
}
