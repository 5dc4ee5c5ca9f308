/* execdrv-init: pid 1 of every container, or in a chroot a plain child; runs from a sealed memfd.
 *
 *     execdrv-init GATE        GATE: its end of a stream socketpair, the supervisor has the other
 *
 *  1. init   not dumpable, death signal, subreaper, signals ignored, no environment; READY
 *  2. init   waits at the gate for the ORDER; end of file before its last byte: exit, nothing ran.
 *            This wait is what separates isolate and limit from start.
 *  3. init   checks the order, closes every descriptor the job does not keep
 *  4. init   forks the job. job: JOB (the kernel adds its pid as the supervisor sees it), session,
 *            signals, umask, rlimits, groups, ids, capabilities, no_new_privs, cwd, seccomp, exec
 *  5. init   sees the job's close-on-exec pipe end: STARTED, or FAILED and exit 125
 *  6. init   has no capability (outside a pid namespace: CAP_KILL, so that the job's death signal
 *            may reach another user), no stdio and no kept descriptor any more; it reaps, and sends
 *            EXITED when the job ends. The job stays a zombie, so its pid can't be given to
 *            another process, until the supervisor sends a byte or goes. Never forks again.
 *     End of file on the gate at any time: exit; in a pid namespace the kernel ends the rest.
 *
 * protocol.py beside this file speaks the other side; both name the same constants.
 * capabilities(7), pid_namespaces(7), unix(7), execve(2). x86_64 and aarch64, Linux 5.10. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READY = 1, JOB, STARTED, FAILED, EXITED };
enum { NO_NEW_PRIVS = 1, DROP_INIT_CAPS = 2, ALL_FLAGS = 3 };
enum { ORDER_VERSION = 1, ORDER_BYTES_MAX = 8 << 20, INIT_FAILED = 125 };
enum { GROUPS_MAX = 65536, RLIMITS_MAX = 64, KEEP_MAX = 4096, REAP_AT_ONCE = 64 };
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define NO_ID UINT32_MAX /* setresuid(2): "leave unchanged", so never an id */

struct head {
    uint32_t version, flags, uid, gid, umask;
    uint32_t rlimits, filters, groups, keep, argc, envc, reserved;
    uint64_t bounding, permitted, effective, inheritable, ambient;
};
struct limit { uint32_t resource, reserved; uint64_t soft, hard; };
/* The order as it lies in its buffer: wide members first, so that all are aligned. */
struct order {
    const struct head *head;
    const struct limit *limits;
    struct sock_filter *filter;
    const uint32_t *groups, *keep;
    char *cwd, **argv, **envp;
};
/* What the job found, in memory shared with the init: a seccomp filter may forbid every call by
 * which a job could still tell of a failed exec, a store it can't. */
struct report { const char *stage; int failed, error; char path[PATH_MAX], detail[PATH_MAX + 32]; };

static int gate;
static struct report *report;

/* ---- messages ------------------------------------------------------------------------------ */

static void tell(uint32_t kind, const void *payload, uint32_t length)
{
    uint32_t header[2] = { kind, length };
    struct iovec parts[2] = { { header, sizeof header }, { (void *)payload, length } };
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
    /* One call, under 32 KiB: one packet, which no other sender's can interrupt. */
    if (sendmsg(gate, &message, MSG_NOSIGNAL) < 0)
        _exit(0); /* the supervisor is gone */
}

static _Noreturn void fail(const char *stage, int error, const char *path, const char *detail)
{
    static char text[sizeof(struct report) + 64];
    const char *strings[3] = { stage, path, detail };
    uint32_t used = sizeof error;
    memcpy(text, &error, sizeof error);
    for (int i = 0; i < 3; i++) {
        size_t length = strnlen(strings[i], PATH_MAX + 31);
        memcpy(text + used, strings[i], length);
        text[used + length] = 0;
        used += length + 1;
    }
    tell(FAILED, text, used);
    _exit(INIT_FAILED);
}

static _Noreturn void fail_number(const char *stage, int error, uint32_t number)
{
    char text[16];
    snprintf(text, sizeof text, "%u", number);
    fail(stage, error, text, "");
}

/* In the job, from the fork to the exec. */
static _Noreturn void job_fail(int error, const char *path, const char *detail)
{
    snprintf(report->path, sizeof report->path, "%s", path);
    snprintf(report->detail, sizeof report->detail, "%s", detail);
    report->error = error;
    report->failed = 1;
    _exit(INIT_FAILED);
}

static void read_gate(void *into, size_t length)
{
    for (char *at = into; length > 0;) {
        ssize_t got = read(gate, at, length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            _exit(0);
        at += got;
        length -= got;
    }
}

/* ---- the order ----------------------------------------------------------------------------- */

/* The strings from *at on, each ended by a NUL before `end`; false if one is not. */
static bool take_strings(char **vector, uint32_t count, char **at, char *end)
{
    for (uint32_t i = 0; i < count; i++) {
        char *nul = memchr(*at, 0, end - *at);
        if (!nul)
            return false;
        vector[i] = *at;
        *at = nul + 1;
    }
    return true;
}

static bool are_sorted_ids(const uint32_t *ids, uint32_t count, uint32_t lowest)
{
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] < lowest || ids[i] == NO_ID || (i && ids[i] <= ids[i - 1]))
            return false;
    return true;
}

/* Fills `order` from exactly `length` bytes; returns 0 or an errno. */
static int parse_order(struct order *order, char *bytes, size_t length)
{
    const struct head *head = (void *)bytes;
    char *at = bytes + sizeof *head, *end = bytes + length, **vector;
    if (length < sizeof *head || head->version != ORDER_VERSION)
        return EPROTO;
    if (head->flags & ~ALL_FLAGS || head->umask & ~0777u || head->uid == NO_ID
        || head->gid == NO_ID || head->rlimits > RLIMITS_MAX || head->filters > BPF_MAXINSNS
        || head->groups > GROUPS_MAX || head->keep > KEEP_MAX || head->argc < 1)
        return EINVAL;
    size_t limits = head->rlimits * sizeof(struct limit);
    size_t filter = head->filters * sizeof(struct sock_filter);
    size_t ids = (head->groups + head->keep) * sizeof(uint32_t);
    if (limits + filter + ids > (size_t)(end - at))
        return EPROTO;
    order->head = head;
    order->limits = (void *)at;
    order->filter = (void *)(at + limits);
    order->groups = (void *)(at + limits + filter);
    order->keep = order->groups + head->groups;
    at += limits + filter + ids;
    /* Each string takes a byte at least: so the counts can't ask for more than 64 MiB. */
    uint64_t strings = (uint64_t)head->argc + head->envc + 1;
    if (strings > (size_t)(end - at))
        return EPROTO;
    vector = calloc(strings + 2, sizeof *vector);
    if (!vector)
        return ENOMEM;
    order->argv = vector;
    order->envp = vector + head->argc + 1;
    if (!take_strings(&order->cwd, 1, &at, end)
        || !take_strings(order->argv, head->argc, &at, end)
        || !take_strings(order->envp, head->envc, &at, end) || at != end)
        return EPROTO;
    for (uint32_t i = 0; i < head->keep; i++)
        if (order->keep[i] == (uint32_t)gate || order->keep[i] > INT_MAX)
            return EINVAL;
    if (order->cwd[0] != '/' || !are_sorted_ids(order->groups, head->groups, 0)
        || !are_sorted_ids(order->keep, head->keep, 3))
        return EINVAL;
    return 0;
}

/* ---- descriptors --------------------------------------------------------------------------- */

/* The kept descriptors and the gate, in order. */
static uint32_t wanted[KEEP_MAX + 1], wanted_count;

static void list_wanted(const struct order *order)
{
    uint32_t i = 0, count = order->head->keep;
    for (; i < count && order->keep[i] < (uint32_t)gate; i++)
        wanted[i] = order->keep[i];
    wanted[i] = gate;
    for (; i < count; i++)
        wanted[i + 1] = order->keep[i];
    wanted_count = count + 1;
}

static bool close_ranges(void)
{
    uint32_t low = 3;
    for (uint32_t i = 0; i < wanted_count; low = wanted[i++] + 1)
        if (low < wanted[i] && syscall(SYS_close_range, low, wanted[i] - 1, 0) < 0)
            return false;
    return syscall(SYS_close_range, low, ~0u, 0) == 0;
}

static bool is_wanted(uint32_t fd)
{
    for (uint32_t i = 0; i < wanted_count; i++)
        if (wanted[i] == fd)
            return true;
    return fd < 3;
}

/* For kernels (and filters) without close_range. The job's tree may hold a directory of its own
 * at this name, so the file system's type is asked. Returns 0 or an errno. */
static int close_listed(void)
{
    static char entries[4096] __attribute__((aligned(8)));
    struct statfs fs;
    long got, closed = 1;
    int list = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (list < 0)
        return errno;
    if (fstatfs(list, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
        return ENOSYS;
    while (closed) { /* closing while listing may skip entries: until a pass closes none */
        closed = 0;
        lseek(list, 0, SEEK_SET);
        while ((got = syscall(SYS_getdents64, list, entries, sizeof entries)) > 0)
            for (char *at = entries; at < entries + got; at += *(unsigned short *)(at + 16)) {
                const char *name = at + 19; /* struct linux_dirent64 */
                uint32_t fd = strtoul(name, NULL, 10);
                if (name[0] != '.' && fd != (uint32_t)list && !is_wanted(fd))
                    closed += close(fd) == 0;
            }
        if (got < 0)
            return errno;
    }
    close(list);
    return 0;
}

static void close_others(const struct order *order)
{
    for (uint32_t fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0) /* our own next descriptor would become the job's */
            fail_number("keep-fds", errno, fd);
    for (uint32_t i = 0; i < order->head->keep; i++)
        if (fcntl(order->keep[i], F_GETFD) < 0)
            fail_number("keep-fds", errno, order->keep[i]);
    list_wanted(order);
    int error = close_ranges() ? 0 : close_listed();
    if (error)
        fail("close-fds", error, "/proc/self/fd", "");
}

/* ---- who the job is ------------------------------------------------------------------------ */

/* Dispositions and mask by raw calls: the C library keeps two real-time signals for itself. */
static void set_signals(unsigned long handler, unsigned long mask)
{
    unsigned long action[4] = { handler, 0, 0, 0 }, child[4] = { 0, SA_NOCLDSTOP, 0, 0 };
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, number == SIGCHLD && handler ? child : action, NULL, 8);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
}

static int set_capabilities(uint64_t permitted, uint64_t effective, uint64_t inheritable)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct got[2], data[2] = {
        { effective, permitted, inheritable },
        { effective >> 32, permitted >> 32, inheritable >> 32 } };
    if (syscall(SYS_capset, &header, data) < 0 || syscall(SYS_capget, &header, got) < 0)
        return errno;
    return memcmp(got, data, sizeof got) ? EPERM : 0;
}

/* The kernel sorts what setgroups is given by its own ids, which a user namespace may map in
 * another order: sort again before comparing. */
static bool has_groups(const uint32_t *groups, int count)
{
    static gid_t now[GROUPS_MAX];
    if (getgroups(GROUPS_MAX, now) != count)
        return false;
    for (int i = 1; i < count; i++)
        for (int k = i; k > 0 && now[k - 1] > now[k]; k--) {
            gid_t swapped = now[k];
            now[k] = now[k - 1];
            now[k - 1] = swapped;
        }
    return memcmp(now, groups, count * sizeof *now) == 0;
}

static void bound_capabilities(uint64_t wanted)
{
    char number[16];
    int has;
    report->stage = "bounding";
    for (unsigned cap = 0; cap < 64; cap++) {
        has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0); /* -1 past the kernel's last one */
        snprintf(number, sizeof number, "%u", cap);
        if (wanted >> cap & 1 ? has != 1 : has == 1 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            job_fail(EPERM, number, wanted >> cap & 1 ? "absent" : "");
    }
}

static void become_user(const struct head *head, const uint32_t *groups)
{
    uid_t uid[3];
    gid_t gid[3];
    report->stage = "groups";
    if (!has_groups(groups, head->groups) && syscall(SYS_setgroups, head->groups, groups) < 0)
        job_fail(errno, "", "");
    if (!has_groups(groups, head->groups))
        job_fail(EPERM, "", "");
    report->stage = "gid";
    if (syscall(SYS_setresgid, head->gid, head->gid, head->gid) < 0
        || getresgid(gid, gid + 1, gid + 2) < 0)
        job_fail(errno, "", "");
    if (gid[0] != head->gid || gid[1] != head->gid || gid[2] != head->gid)
        job_fail(EPERM, "", "");
    report->stage = "uid";
    /* Leaving uid 0 clears permitted unless told otherwise; only ambient survives the exec. */
    if (head->uid && head->permitted && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        job_fail(errno, "", "");
    if (syscall(SYS_setresuid, head->uid, head->uid, head->uid) < 0
        || getresuid(uid, uid + 1, uid + 2) < 0)
        job_fail(errno, "", "");
    if (uid[0] != head->uid || uid[1] != head->uid || uid[2] != head->uid)
        job_fail(EPERM, "", "");
}

static void take_capabilities(const struct head *head)
{
    report->stage = "capabilities";
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    int error = set_capabilities(head->permitted, head->effective, head->inheritable);
    if (error)
        job_fail(error, "", "");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        job_fail(errno, "", "ambient");
    for (unsigned cap = 0; cap < 64; cap++)
        if (head->ambient >> cap & 1
            && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            job_fail(errno, "", "ambient");
    if (prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) != 0)
        job_fail(EPERM, "", "securebits");
    report->stage = "no-new-privs";
    if (head->flags & NO_NEW_PRIVS && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        job_fail(errno, "", "");
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != !!(head->flags & NO_NEW_PRIVS))
        job_fail(EPERM, "", "set"); /* inherited, and it can't be cleared */
}

/* ---- the command --------------------------------------------------------------------------- */

/* The interpreter that an executable names, or "" (then nothing is set). `tag` says which kind. */
static void read_interpreter(const char *path, char *name, const char **tag)
{
    char text[256] = ""; /* BINPRM_BUF_SIZE */
    struct stat found;
    bool plain = stat(path, &found) == 0 && S_ISREG(found.st_mode); /* opening others may act */
    int fd = plain ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    ssize_t got = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    name[0] = 0;
    *tag = "interpreter";
    if (got > 2 && memcmp(text, "#!", 2) == 0) {
        char *start = text + 2 + strspn(text + 2, " \t");
        snprintf(name, PATH_MAX, "%.*s", (int)strcspn(start, " \t\n"), start);
    }
#define TAKE_LOADER(EHDR, PHDR)                                                                  \
    do {                                                                                         \
        EHDR elf;                                                                                \
        PHDR part;                                                                               \
        memcpy(&elf, text, sizeof elf);                                                          \
        for (int i = 0; i < elf.e_phnum && i < 64; i++)                                          \
            if (pread(fd, &part, sizeof part, elf.e_phoff + i * sizeof part) == sizeof part      \
                && part.p_type == PT_INTERP && part.p_filesz < PATH_MAX                          \
                && pread(fd, name, part.p_filesz, part.p_offset) == (ssize_t)part.p_filesz)      \
                name[part.p_filesz] = 0, *tag = "loader";                                        \
    } while (0)
    if (got >= (ssize_t)sizeof(Elf64_Ehdr) && memcmp(text, ELFMAG, SELFMAG) == 0) {
        if (text[EI_CLASS] == ELFCLASS64)
            TAKE_LOADER(Elf64_Ehdr, Elf64_Phdr);
        else
            TAKE_LOADER(Elf32_Ehdr, Elf32_Phdr);
    }
    close(fd);
}

/* Says in `detail` which interpreter of an existing command can't be run: a script's, that one's
 * loader, and so on as deep as the kernel goes. */
static void blame_interpreter(int error, const char *path, char *detail, size_t size)
{
    static char names[2][PATH_MAX];
    const char *tag = "interpreter";
    struct stat found;
    for (int depth = 0; depth < 6; depth++, path = names[(depth - 1) % 2]) {
        char *name = names[depth % 2];
        read_interpreter(path, name, &tag);
        if (!name[0])
            break; /* unreadable for this user: say only that there is one */
        if (error == ENOENT ? stat(name, &found) : faccessat(AT_FDCWD, name, X_OK, AT_EACCESS)) {
            snprintf(detail, size, "%s:%s", tag, name);
            return;
        }
    }
    if (error == ENOENT)
        snprintf(detail, size, "interpreter:");
}

static _Noreturn void exec_fail(int error, const char *path)
{
    char detail[PATH_MAX + 32] = "";
    struct stat found;
    struct statfs fs;
    /* First the plain fact: what follows may be what a seccomp filter kills for. */
    snprintf(report->path, sizeof report->path, "%s", path);
    report->error = error;
    report->failed = 1;
    if (stat(path, &found) == 0 && error == ENOENT)
        blame_interpreter(error, path, detail, sizeof detail);
    else if (error == EACCES && stat(path, &found) == 0) {
        if (S_ISDIR(found.st_mode))
            strcpy(detail, "directory");
        else if (!S_ISREG(found.st_mode))
            strcpy(detail, "not-regular");
        else if (statfs(path, &fs) == 0 && fs.f_flags & ST_NOEXEC)
            strcpy(detail, "noexec");
        else if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0)
            blame_interpreter(error, path, detail, sizeof detail);
        else
            strcpy(detail, "mode");
    }
    job_fail(error, path, detail);
}

/* As execvp(3), but a file the kernel can't execute is never given to a shell. */
static _Noreturn void execute(char **argv, char **envp)
{
    static char path[PATH_MAX], kept[PATH_MAX];
    const char *name = argv[0], *dirs = DEFAULT_PATH;
    int error = ENOENT;
    struct stat found;
    report->stage = "exec";
    if (!name[0])
        job_fail(ENOENT, "", "empty");
    if (strchr(name, '/')) {
        execve(name, argv, envp);
        exec_fail(errno, name);
    }
    for (char **entry = envp; *entry; entry++)
        if (strncmp(*entry, "PATH=", 5) == 0) {
            dirs = *entry + 5;
            break;
        }
    for (const char *dir = dirs, *end;; dir = end + 1) {
        end = strchrnul(dir, ':');
        int length = snprintf(path, sizeof path, "%.*s%s%s", (int)(end - dir), dir,
                              end > dir ? "/" : "", name);
        errno = ENAMETOOLONG;
        if (length < PATH_MAX)
            execve(path, argv, envp);
        int why = errno;
        if (why != EACCES && why != ENOENT && why != ENOTDIR && why != ESTALE && why != ENODEV
            && why != ETIMEDOUT && why != ENAMETOOLONG)
            exec_fail(why, path);
        /* Kept: the first that may not be run, else the first whose interpreter is missing. */
        if (error != EACCES
            && (why == EACCES || (why == ENOENT && !kept[0] && lstat(path, &found) == 0))) {
            strcpy(kept, path);
            error = why;
        }
        if (!*end)
            break;
    }
    if (kept[0])
        exec_fail(error, kept);
    job_fail(ENOENT, name, "path");
}

/* ---- the job, from the fork to the exec ------------------------------------------------------ */

static void enter_cwd(const struct order *order)
{
    static char now[PATH_MAX + 1];
    char user[32];
    report->stage = "chdir";
    snprintf(user, sizeof user, "%u:%u", order->head->uid, order->head->gid);
    if (chdir(order->cwd) < 0)
        job_fail(errno, order->cwd, user);
    /* By raw call: the kernel answers "(unreachable)/..." for a directory outside the root. */
    if (syscall(SYS_getcwd, now, sizeof now - 1) < 0)
        job_fail(errno, order->cwd, "getcwd");
    if (now[0] != '/')
        job_fail(EXDEV, order->cwd, "unreachable");
}

static _Noreturn void run_job(const struct order *order, pid_t init)
{
    const struct head *head = order->head;
    char number[16];
    pid_t self = getpid();
    tell(JOB, &self, sizeof self);
    /* From here on the job holds its own descriptors and one pipe: no cwd leads through them. */
    close(gate);
    setsid();
    set_signals(0, 0);
    umask(head->umask);
    report->stage = "rlimit";
    for (uint32_t i = 0; i < head->rlimits; i++) {
        struct rlimit64 limit = { order->limits[i].soft, order->limits[i].hard };
        snprintf(number, sizeof number, "%u", order->limits[i].resource);
        if (syscall(SYS_prlimit64, 0, order->limits[i].resource, &limit, NULL) < 0)
            job_fail(errno, number, "");
    }
    bound_capabilities(head->bounding);
    become_user(head, order->groups);
    take_capabilities(head);
    /* Without a pid namespace nothing else ties the job to its init; a change of user would have
     * cleared it. In a pid namespace the kernel sees to it. */
    report->stage = "parent";
    if (init != 1 && (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != init))
        job_fail(ESRCH, "", "");
    enter_cwd(order);
    report->stage = "seccomp";
    struct sock_fprog program = { head->filters, order->filter };
    if (head->filters && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        job_fail(errno, "", "");
    execute(order->argv, order->envp);
}

/* ---- the init, after the fork --------------------------------------------------------------- */

static void give_up_privilege(const struct order *order, pid_t init)
{
    /* Without a pid namespace the job's death signal comes from this process, as by kill(2): to
     * another user that needs the capability. */
    uint64_t kept = init == 1 ? 0 : 1ull << CAP_KILL;
    for (int fd = 0; fd < 3; fd++)
        close(fd); /* the job's readers must get end of file when the job ends */
    for (uint32_t i = 0; i < order->head->keep; i++)
        close(order->keep[i]);
    if (order->head->flags & DROP_INIT_CAPS) {
        for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
            prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        int error = set_capabilities(kept, kept, 0);
        if (error)
            fail("init-capabilities", error, "", "");
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* a change of credentials may have cleared it */
}

/* The job's pipe has ended: it has executed its command, said why not, or died on the way. */
static void tell_started(pid_t job)
{
    char how[32] = "";
    siginfo_t info;
    if (!report->failed && strcmp(report->stage, "exec") == 0) {
        tell(STARTED, &job, sizeof job);
        munmap(report, sizeof *report);
        return;
    }
    if (waitid(P_PID, job, &info, WEXITED) == 0 && !report->failed)
        snprintf(how, sizeof how, "signal:%d", info.si_status);
    fail(report->stage, report->error, report->path, report->failed ? report->detail : how);
}

static void tell_exited(const siginfo_t *info, const struct rusage *used)
{
    struct { int32_t status, reserved; uint64_t utime_us, stime_us, maxrss_kib; } exited = {
        .status = info->si_code == CLD_EXITED ? info->si_status << 8
                  : info->si_status | (info->si_code == CLD_DUMPED ? 0x80 : 0),
        .utime_us = used->ru_utime.tv_sec * 1000000ull + used->ru_utime.tv_usec,
        .stime_us = used->ru_stime.tv_sec * 1000000ull + used->ru_stime.tv_usec,
        .maxrss_kib = used->ru_maxrss };
    tell(EXITED, &exited, sizeof exited);
}

/* Reaps what has ended. True if there may be more: the gate comes first, also in a fork storm. */
static bool reap(pid_t job, bool released, bool *told)
{
    for (int i = 0; i < REAP_AT_ONCE; i++) {
        siginfo_t info = { 0 };
        struct rusage used;
        if (syscall(SYS_waitid, P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT, &used) < 0
            || info.si_pid == 0)
            return false;
        if (info.si_pid == job && !*told) {
            tell_exited(&info, &used);
            *told = true;
        }
        if (info.si_pid == job && !released)
            return false;
        syscall(SYS_waitid, P_PID, info.si_pid, &info, WEXITED | WNOHANG, NULL);
    }
    return true;
}

static _Noreturn void watch(pid_t job, int sync, int signals)
{
    struct pollfd watched[3] = { { gate, POLLIN, 0 }, { sync, POLLIN, 0 }, { signals, POLLIN, 0 } };
    bool released = false, told = false, more = false;
    char scratch[1024];
    for (;;) {
        if (poll(watched, 3, more ? 0 : -1) < 0)
            continue;
        if (watched[0].revents) {
            if (read(gate, scratch, sizeof scratch) <= 0)
                _exit(0);
            released = true;
        }
        if (watched[1].revents) {
            close(sync);
            watched[1].fd = -1; /* poll(2): a negative one is passed over */
            tell_started(job);
        }
        if (watched[2].revents && read(signals, scratch, sizeof scratch) < 0)
            _exit(INIT_FAILED);
        if (watched[1].fd < 0)
            more = reap(job, released, &told);
    }
}

/* ---- the init, until the fork ---------------------------------------------------------------- */

static void settle_in(char **argv, char **envp)
{
    char *end;
    long number = argv[0] && argv[1] ? strtol(argv[1], &end, 10) : -1;
    if (number < 3 || number > INT_MAX || *end || fcntl(number, F_SETFD, FD_CLOEXEC) < 0
        || fcntl(number, F_SETFL, 0) < 0)
        _exit(INIT_FAILED);
    gate = number;
    set_signals(1 /* SIG_IGN */, 1ul << (SIGCHLD - 1));
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* /proc/1/{exe,fd,environ,mem} close to the job */
    prctl(PR_SET_NAME, "execdrv-init", 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* died already? then the gate says so */
    if (getpid() != 1)
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for (; *envp; envp++)
        memset(*envp, 0, strlen(*envp)); /* liblxc passes some */
    umask(0);
    if (chdir("/") < 0)
        fail("chdir", errno, "/", "");
    tell(READY, NULL, 0);
}

int main(int argc, char **argv, char **envp)
{
    struct order order = { 0 };
    unsigned long mask = 1ul << (SIGCHLD - 1);
    uint32_t length;
    int sync[2], error;
    (void)argc;
    settle_in(argv, envp);
    read_gate(&length, sizeof length);
    if (length > ORDER_BYTES_MAX)
        fail("order", EMSGSIZE, "", "");
    char *bytes = malloc(length);
    if (!bytes)
        fail("order", ENOMEM, "", "");
    read_gate(bytes, length);
    if ((error = parse_order(&order, bytes, length)))
        fail("order", error, "", "");
    close_others(&order);
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED)
        fail("fork", errno, "", "");
    report->stage = "fork";
    int signals = syscall(SYS_signalfd4, -1, &mask, 8, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0 || pipe2(sync, O_CLOEXEC) < 0)
        fail("fork", errno, "", "");
    pid_t init = getpid(), job = fork();
    if (job < 0)
        fail("fork", errno, "", "");
    if (job == 0) {
        close(sync[0]);
        close(signals);
        run_job(&order, init);
    }
    close(sync[1]);
    give_up_privilege(&order, init);
    free(order.argv);
    free(bytes);
    watch(job, sync[0], signals);
}
