/* notifysink.c - a service manager's notify socket: prints each datagram as one line, newlines as "\n".
 * Usage: notifysink PATH. Says "bound" first; ends when it is killed, or with whoever reads its output. */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof at.sun_path)
        return 2;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    memcpy(at.sun_path, argv[1], strlen(argv[1]));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        perror("notifysink");
        return 1;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)puts("bound");
    for (;;) {
        char text[8192];
        ssize_t n = recv(fd, text, sizeof text, 0);
        if (n < 0)
            return 1;
        for (ssize_t i = 0; i < n; i++) {
            if (text[i] == '\n')
                (void)fputs("\\n", stdout);
            else
                (void)putchar(text[i]);
        }
        if (putchar('\n') == EOF)
            return 0;
    }
}
