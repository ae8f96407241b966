#include "os/listen.h"

#include "base/err.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096, FIRST_PASSED = 3, PORT_TRIES = 20 };

static int bad_word(const char *word, struct gw_err *err)
{
    return gw_err_set(err, -EINVAL, "'%s' is not an address: give HOST:PORT, [V6]:PORT, unix:PATH or fd:N", word);
}

/* Splits HOST:PORT and [V6]:PORT; host is copied without brackets. */
static bool split(const char *word, char **ret_host, const char **ret_port)
{
    const char *colon = strrchr(word, ':');
    int64_t port;
    if (colon == NULL || colon == word || !gw_parse_int(colon + 1, 0, 65535, &port))
        return false;
    size_t n = (size_t)(colon - word);
    bool brackets = word[0] == '[';
    if (brackets ? word[n - 1] != ']' || n < 3 : memchr(word, ':', n) != NULL)
        return false;
    *ret_host = brackets ? gw_memdup0(word + 1, n - 2) : gw_memdup0(word, n);
    *ret_port = colon + 1;
    return true;
}

int gw_listen_check(const char *word, struct gw_err *err)
{
    int64_t fd;
    struct sockaddr_un un;
    if (strncmp(word, "unix:", 5) == 0) {
        if (word[5] == '\0')
            return bad_word(word, err);
        if (word[5] == '@')
            return gw_err_set(err, -EINVAL, "'%s' asks for an abstract socket, and those have neither owner nor mode: give a path "
                              "(unix:./%s is a file of that name)", word, word + 5);
        // A longer path would be cut silently by the kernel's structure.
        if (strlen(word + 5) >= sizeof un.sun_path)
            return gw_err_set(err, -EINVAL, "the path of '%s' is longer than %zu bytes", word,
                              sizeof un.sun_path - 1);
        return 0;
    }
    if (strncmp(word, "fd:", 3) == 0)
        return gw_parse_int(word + 3, 0, 1 << 20, &fd) ? 0 : bad_word(word, err);
    char *host;
    const char *port;
    if (!split(word, &host, &port))
        return bad_word(word, err);
    free(host);
    return 0;
}

static bool is_loopback(const struct sockaddr_storage *ss)
{
    if (ss->ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)ss)->sin_addr.s_addr) >> 24 == 127;
    if (ss->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)ss)->sin6_addr);
    return ss->ss_family == AF_UNIX;
}

/* Fills address and loopback from what the kernel says about fd. */
static int describe(struct gw_listen_socket *s, struct gw_err *err)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof ss;
    int listening = 0;
    socklen_t optlen = sizeof listening;
    if (getsockname(s->fd, (struct sockaddr *)&ss, &len) < 0)
        return gw_err_set(err, -errno, "'%s' is not a socket: %s", s->word, gw_strerror(errno));
    if (getsockopt(s->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &optlen) < 0 || !listening)
        return gw_err_set(err, -EINVAL, "'%s' is not a listening stream socket", s->word);
    char host[64] = "";
    if (ss.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&ss;
        (void)inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        s->address = gw_asprintf("%s:%u", host, ntohs(in->sin_port));
    } else if (ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&ss;
        (void)inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
        s->address = gw_asprintf("[%s]:%u", host, ntohs(in->sin6_port));
    } else if (ss.ss_family == AF_UNIX) {
        s->address = gw_asprintf("unix:%s", ((const struct sockaddr_un *)&ss)->sun_path);
    } else {
        return gw_err_set(err, -EAFNOSUPPORT, "'%s' is neither TCP nor a unix socket", s->word);
    }
    s->loopback = is_loopback(&ss);
    return 0;
}

static void append(struct gw_listen_socket **io_sockets, size_t *io_count, const struct gw_listen_socket *s)
{
    *io_sockets = gw_realloc(*io_sockets, (*io_count + 1) * sizeof *s);
    (*io_sockets)[(*io_count)++] = *s;
}

static void drop(struct gw_listen_socket *s)
{
    if (s->fd >= 0)
        (void)close(s->fd);
    free(s->address);
    free(s->word);
    free(s->name);
}

static int open_fd(int fd, const char *word, struct gw_listen_socket *ret, struct gw_err *err)
{
    struct gw_listen_socket s = {.fd = fd, .word = gw_strdup(word), .inherited = true};
    int rc = describe(&s, err);
    if (rc < 0) {
        s.fd = -1; // not ours to close
        drop(&s);
        return rc;
    }
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    *ret = s;
    return 0;
}

/* Whether somebody listens at path; the connection that shows it ends at once. */
static bool answers(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    memcpy(un.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 ? -errno : connect(fd, (const struct sockaddr *)&un, sizeof un) < 0 ? -errno : 0;
    if (fd >= 0)
        (void)close(fd);
    return rc != -ECONNREFUSED && rc != -ENOENT;
}

/* Removes a socket file that nobody listens on. */
static int clear_stale(const char *path, struct gw_err *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return gw_err_set(err, -EEXIST, "'%s' exists and is not a socket: remove it or listen elsewhere", path);
    if (answers(path))
        return gw_err_set(err, -EADDRINUSE, "another process listens on '%s'", path);
    return unlink(path) < 0 ? gw_err_set(err, -errno, "cannot remove the stale socket '%s': %s", path, gw_strerror(errno))
                            : 0;
}

static int bind_and_listen(int family, const struct sockaddr *sa, socklen_t len, const char *word, int *ret_fd,
                           struct gw_err *err)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    if (fd < 0)
        return gw_err_set(err, -errno, "listen on '%s': %s", word, gw_strerror(errno));
    if (family != AF_UNIX)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, sa, len) < 0 || listen(fd, BACKLOG) < 0) {
        int code = -errno;
        (void)close(fd);
        return gw_err_set(err, code, "cannot listen on '%s': %s%s", word, gw_strerror(code),
                          code == -EADDRINUSE ? "; stop what listens there (ss -ltnp shows it) or give --listen"
                                              : "");
    }
    *ret_fd = fd;
    return 0;
}

static const char *path_of(const struct gw_listen_socket *s)
{
    bool named = strncmp(s->address, "unix:", 5) == 0 && s->address[5] != '\0'; // else TCP, or abstract
    return named ? s->address + 5 : NULL;
}

static int open_unix(const char *word, struct gw_listen_socket *ret, struct gw_err *err)
{
    struct gw_listen_socket s = {.fd = -1};
    int rc = clear_stale(word + 5, err);
    if (rc == 0)
        rc = s.fd = gw_unixsock_bind(word + 5, 0, BACKLOG, &s.file, err);
    if (rc < 0)
        return rc;
    s.word = gw_strdup(word);
    rc = describe(&s, err);
    if (rc < 0)
        drop(&s);
    else
        *ret = s;
    return rc;
}

static in_port_t *port_of(struct sockaddr *sa)
{
    return sa->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)sa)->sin6_port : &((struct sockaddr_in *)sa)->sin_port;
}

/* All addresses of a word; where it leaves the port open it is one port for all of them, that of the first. */
static int open_each(struct addrinfo *list, const char *word, struct gw_listen_socket **io_sockets, size_t *io_count,
                     struct gw_err *err)
{
    size_t before = *io_count;
    int rc = 0;
    in_port_t port = *port_of(list->ai_addr);
    for (struct addrinfo *ai = list; rc == 0 && ai != NULL; ai = ai->ai_next) {
        struct gw_listen_socket s = {.fd = -1, .word = gw_strdup(word)};
        *port_of(ai->ai_addr) = port;
        rc = bind_and_listen(ai->ai_family, ai->ai_addr, ai->ai_addrlen, word, &s.fd, err);
        // A name may resolve to a family that this machine does not have.
        if ((rc == -EADDRNOTAVAIL || rc == -EAFNOSUPPORT) && (ai->ai_next != NULL || *io_count > before)) {
            drop(&s);
            rc = 0;
            continue;
        }
        if (rc == 0)
            rc = describe(&s, err);
        if (rc == 0 && port == 0)
            port = htons((in_port_t)strtoul(strrchr(s.address, ':') + 1, NULL, 10));
        if (rc == 0)
            append(io_sockets, io_count, &s);
        else
            drop(&s);
    }
    while (rc < 0 && *io_count > before)
        drop(&(*io_sockets)[--*io_count]);
    return rc;
}

static int open_inet(const char *word, struct gw_listen_socket **io_sockets, size_t *io_count, struct gw_err *err)
{
    char *host;
    const char *port;
    if (!split(word, &host, &port))
        return bad_word(word, err);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list = NULL;
    int gai = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &list);
    if (gai != 0) {
        bool passes = gai == EAI_AGAIN || gai == EAI_MEMORY || gai == EAI_SYSTEM;
        int rc = gw_err_set(err, passes ? -EAGAIN : -EINVAL, "cannot resolve '%s': %s", host, gai_strerror(gai));
        free(host);
        return rc;
    }
    free(host);
    bool any_port = *port_of(list->ai_addr) == 0;
    int rc;
    unsigned tries = 0;
    do { // the port that is free for the first may be taken for the next
        if (any_port)
            *port_of(list->ai_addr) = 0;
        rc = open_each(list, word, io_sockets, io_count, err);
    } while (rc == -EADDRINUSE && any_port && list->ai_next != NULL && ++tries < PORT_TRIES);
    freeaddrinfo(list);
    return rc;
}

int gw_listen_open(const char *word, struct gw_listen_socket **io_sockets, size_t *io_count, struct gw_err *err)
{
    int rc = gw_listen_check(word, err);
    if (rc < 0)
        return rc;
    struct gw_listen_socket s;
    if (strncmp(word, "unix:", 5) == 0)
        rc = open_unix(word, &s, err);
    else if (strncmp(word, "fd:", 3) == 0)
        rc = open_fd(atoi(word + 3), word, &s, err);
    else
        return open_inet(word, io_sockets, io_count, err);
    if (rc == 0)
        append(io_sockets, io_count, &s);
    return rc;
}

/* Whether a socket that is bound to address is what word asks for: the same words, or a host that has it. */
static bool is_bound_to(const struct gw_listen_socket *s, const char *word)
{
    if (strcmp(s->address, word) == 0 || (strncmp(word, "fd:", 3) == 0 && strcmp(s->word, word) == 0))
        return true;
    char *host;
    const char *port;
    if (strncmp(word, "unix:", 5) == 0 || strncmp(word, "fd:", 3) == 0 || !split(word, &host, &port))
        return false;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list = NULL;
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof bound;
    bool any_port = strcmp(port, "0") == 0, found = false;
    bool known = getsockname(s->fd, (struct sockaddr *)&bound, &len) == 0 &&
                 getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &list) == 0;
    for (struct addrinfo *ai = list; known && !found && ai != NULL; ai = ai->ai_next) {
        if (ai->ai_family == AF_INET && bound.ss_family == AF_INET) {
            const struct sockaddr_in *x = (const void *)ai->ai_addr, *y = (const void *)&bound;
            found = x->sin_addr.s_addr == y->sin_addr.s_addr && (any_port || x->sin_port == y->sin_port);
        } else if (ai->ai_family == AF_INET6 && bound.ss_family == AF_INET6) {
            const struct sockaddr_in6 *x = (const void *)ai->ai_addr, *y = (const void *)&bound;
            found = memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0 &&
                    (any_port || x->sin6_port == y->sin6_port);
        }
    }
    if (list != NULL)
        freeaddrinfo(list);
    free(host);
    return found;
}

/* The nth of "a:b:c"; the caller's, NULL when there is none. */
static char *nth_name(const char *names, int64_t n)
{
    for (; names != NULL && n > 0; n--) {
        names = strchr(names, ':');
        names = names != NULL ? names + 1 : NULL;
    }
    return names != NULL && *names != '\0' && *names != ':' ? gw_memdup0(names, strcspn(names, ":")) : NULL;
}

/* Which word wants s, that has none yet; word_count: none. */
static size_t wanted_by(const struct gw_listen_socket *s, const char *const *words, size_t word_count, const bool *has)
{
    size_t i = 0;
    while (i < word_count && (has[i] || !is_bound_to(s, words[i])))
        i++;
    return i;
}

/* Keeps s under the word that wants it; else closes it and keeps what it is called. */
static void keep_or_drop(struct gw_listen_socket *s, const char *const *words, size_t word_count, bool *has,
                         struct gw_listen_socket **io_sockets, size_t *io_count, struct gw_listen_unwanted **io_unwanted,
                         size_t *io_n)
{
    size_t i = wanted_by(s, words, word_count, has);
    if (i < word_count) {
        has[i] = true;
        free(s->word);
        s->word = gw_strdup(words[i]);
    }
    if (i < word_count || word_count == 0) {
        append(io_sockets, io_count, s);
        return;
    }
    *io_unwanted = gw_realloc(*io_unwanted, (*io_n + 1) * sizeof **io_unwanted);
    (*io_unwanted)[(*io_n)++] = (struct gw_listen_unwanted){.name = s->name, .address = s->address};
    s->name = s->address = NULL;
    drop(s);
}

int gw_listen_passed(const char *const *words, size_t word_count, struct gw_listen_socket **io_sockets,
                     size_t *io_count, struct gw_listen_unwanted **ret_unwanted, size_t *ret_unwanted_count, struct gw_err *err)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    char *names = gw_strdup(getenv("LISTEN_FDNAMES"));
    int64_t n = 0, owner = 0;
    bool ours = pid != NULL && count != NULL && gw_parse_int(pid, 1, INT32_MAX, &owner) && owner == getpid() &&
                gw_parse_int(count, 0, 1024, &n);
    bool *has = gw_calloc(word_count + 1, sizeof *has);
    int rc = 0;
    *ret_unwanted = NULL;
    *ret_unwanted_count = 0;
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
    for (int64_t i = 0; rc == 0 && ours && i < n; i++) {
        char own[32];
        struct gw_listen_socket s;
        (void)snprintf(own, sizeof own, "fd:%d", (int)(FIRST_PASSED + i));
        rc = open_fd((int)(FIRST_PASSED + i), own, &s, err);
        if (rc < 0) {
            (void)gw_err_prefix(err, "LISTEN_FDS");
            break;
        }
        s.name = nth_name(names, i);
        s.kept = true;
        // Whoever kept it may have removed its file, or the folder; a file that is there may be a dead one's.
        const char *path = path_of(&s);
        if (path != NULL && strlen(path) < sizeof ((struct sockaddr_un *)NULL)->sun_path && answers(path))
            s.file = gw_unixsock_look(path);
        keep_or_drop(&s, words, word_count, has, io_sockets, io_count, ret_unwanted, ret_unwanted_count);
    }
    free(has);
    free(names);
    return rc;
}

int gw_listen_adopt(int fd, const char *word, const char *address, bool inherited, const struct gw_unixsock_file *file,
                    struct gw_listen_socket **io_sockets, size_t *io_count, struct gw_err *err)
{
    struct gw_listen_socket s;
    int rc = open_fd(fd, word, &s, err);
    if (rc == 0 && strcmp(s.address, address) != 0) {
        rc = gw_err_set(err, -EPROTO, "the socket that was handed over for %s is bound to %s", address, s.address);
        s.fd = -1; // the caller's still
        drop(&s);
    }
    if (rc < 0)
        return rc;
    s.inherited = inherited;
    if (file != NULL && file->ino != 0)
        s.file = *file;
    else if (path_of(&s) != NULL)
        s.file = gw_unixsock_look(path_of(&s));
    append(io_sockets, io_count, &s);
    return 0;
}

bool gw_listen_last_call(const struct gw_listen_socket *socket)
{
    // The kernel drops a segment that only begins a connection; its client tries again, and is refused then.
    enum { FLAGS = 13, SYN = 0x02, ACK = 0x10 };
    static struct sock_filter only_known[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS),
                                              BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN | ACK),
                                              BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1),
                                              BPF_STMT(BPF_RET | BPF_K, 0), BPF_STMT(BPF_RET | BPF_K, UINT32_MAX)};
    const struct sock_fprog program = {.len = sizeof only_known / sizeof *only_known, .filter = only_known};
    if (socket->inherited)
        return false;
    if (strncmp(socket->word, "unix:", 5) == 0) {
        gw_unixsock_remove(socket->word + 5, &socket->file); // who has found the name already is let in
        return true;
    }
    return setsockopt(socket->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

bool gw_listen_lost(const struct gw_listen_socket *s)
{
    const char *path = path_of(s);
    return path != NULL && !gw_unixsock_leads_to(path, &s->file);
}

int gw_listen_bind_anew(struct gw_listen_socket *s, int *ret_old_fd, struct gw_err *err)
{
    struct gw_listen_socket fresh;
    int rc = open_unix(s->address, &fresh, err);
    if (rc < 0)
        return rc;
    *ret_old_fd = s->fd;
    s->fd = fresh.fd;
    s->file = fresh.file;
    s->inherited = strncmp(s->word, "unix:", 5) != 0; // one that was given by its number cannot be opened again
    s->kept = false;
    free(s->name);
    s->name = NULL;
    fresh.fd = -1;
    drop(&fresh);
    return 0;
}

size_t gw_listen_close(struct gw_listen_socket *sockets, size_t count, bool all)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        struct gw_listen_socket *s = &sockets[i];
        if (s->inherited && !all) {
            sockets[left++] = *s;
            continue;
        }
        if (!s->inherited && !s->kept && strncmp(s->word, "unix:", 5) == 0)
            gw_unixsock_remove(s->word + 5, &s->file);
        drop(s);
    }
    return left;
}
