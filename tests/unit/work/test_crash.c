#include "unit/work/rig.h"

#include "base/str.h"
#include "base/time.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 30
#define OUTSTANDING 24 /* submits that a child keeps on their way */
#define MAX_IDS 200000

static struct rig r;

/* Every third task asks to be tried again; the id's owner is told by the label. */
struct child {
    bool opened; /* and nothing was amiss */
    struct gw_work *w;
    int accepted_fd, executed_fd;
    unsigned n, alive;
    struct rig_id running[64];
    size_t running_n;
};

static void write_id(int fd, const char *id)
{
    char line[41];
    int n = snprintf(line, sizeof line, "%s\n", id);
    if (write(fd, line, (size_t)n) != n) // one write, so that a kill leaves whole lines
        _exit(3);
}

static void submit_next(struct child *c);

static void child_accepted(void *ud, int code, const struct gw_task *task, bool existing,
                           const struct gw_err *err)
{
    struct child *c = ud;
    (void)existing, (void)err;
    if (code != 0)
        _exit(4);
    write_id(c->accepted_fd, task->id);
    submit_next(c);
}

static void submit_next(struct child *c)
{
    const struct gw_task_spec spec = {.handler = "echo",
                                      .priority = (enum gw_priority)(c->n % 2),
                                      .label = c->n % 3 == 0 ? "retry" : "once",
                                      .retry_on_crash = c->n % 3 == 0};
    c->n++;
    gw_task_submit(c->w, &spec, child_accepted, c);
}

static void child_execute(void *ud, const struct gw_task *task)
{
    struct child *c = ud;
    write_id(c->executed_fd, task->id);
    memcpy(c->running[c->running_n++].id, task->id, sizeof task->id);
}

static void child_abort_task(void *ud, const char *id, enum gw_abort why)
{
    (void)ud, (void)id, (void)why;
}

static void child_abort_run(void *ud, struct gw_run *run, enum gw_abort why)
{
    (void)ud, (void)run, (void)why;
}

static void child_nothing(void *ud)
{
    (void)ud;
}

static void child_opened(void *ud, const struct gw_work_opened *opened)
{
    struct child *c = ud;
    c->opened = opened->moved == NULL && opened->acknowledged == 0;
}

static const struct gw_work_ops child_ops = {.execute = child_execute,
                                             .abort_task = child_abort_task,
                                             .abort_run = child_abort_run,
                                             .drained = child_nothing,
                                             .idle = child_nothing,
                                             .opened = child_opened};

/* Accepts and executes until it is killed. Now and then it closes and opens again, or changes the generation.
 */
_Noreturn static void child_main(const char *dir, int round, int accepted_fd, int executed_fd)
{
    static struct child c;
    struct gw_lane_spec lane = {"main", 8, -1};
    char boot_id[32];
    (void)snprintf(boot_id, sizeof boot_id, "child-%d", round);
    c = (struct child){.accepted_fd = accepted_fd, .executed_fd = executed_fd, .n = (unsigned)round};
    struct gw_work_config config = {.state_dir = dir,
                                    .boot_id = boot_id,
                                    .lanes = &lane,
                                    .lane_count = 1,
                                    .retry_after_crash = true,
                                    .ops = &child_ops,
                                    .ud = &c};
    if (gw_work_open(&config, &c.w, NULL) != 0)
        _exit(5);
    for (int i = 0; i < 100 && !c.opened; i++) {
        struct pollfd p = {.fd = gw_work_fd(c.w), .events = POLLIN};
        (void)poll(&p, 1, 1000);
        gw_work_dispatch(c.w);
    }
    if (!c.opened)
        _exit(5);
    unsigned generation = 1;
    gw_work_start(c.w, generation);
    for (int i = 0; i < OUTSTANDING; i++)
        submit_next(&c);
    for (unsigned turn = 1;; turn++) {
        struct pollfd p = {.fd = gw_work_fd(c.w), .events = POLLIN};
        (void)poll(&p, 1, 1000);
        gw_work_dispatch(c.w);
        // Half of what runs stays running for a while, so that a kill finds some.
        for (size_t i = c.running_n; i > c.running_n / 2; i--)
            if (gw_task_finish(c.w, c.running[i - 1].id, generation, GW_TASK_SUCCEEDED, NULL, NULL) != 0)
                _exit(6);
        c.running_n /= 2;
        if (turn % 12 == 0) {
            gw_work_fence(c.w, true);
            gw_work_cut(c.w, NULL, NULL, NULL);
            gw_work_boundary(c.w);
            c.running_n = 0;
            gw_work_start(c.w, ++generation);
        }
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct rig_id *)a)->id, ((const struct rig_id *)b)->id);
}

static struct rig_id *ids;
static size_t ids_n;

/* Reads ids until the child has told that many, then kills it, wherever it is. */
static void kill_after(pid_t pid, int fd, int want)
{
    FILE *f = fdopen(fd, "r");
    char line[64];
    bool killed = false;
    for (int n = 0; fgets(line, sizeof line, f) != NULL; n++) {
        line[strcspn(line, "\n")] = '\0';
        assert_true(ids_n < MAX_IDS);
        memcpy(ids[ids_n++].id, line, sizeof ids[0].id);
        if (n == want && !killed)
            killed = kill(pid, SIGKILL) == 0;
    }
    (void)fclose(f);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("the child ended by itself, status %d", WEXITSTATUS(status));
}

static size_t times(const struct rig_id *sorted, size_t n, const char *id)
{
    struct rig_id key;
    (void)snprintf(key.id, sizeof key.id, "%s", id);
    const struct rig_id *hit = bsearch(&key, sorted, n, sizeof *sorted, compare);
    if (hit == NULL)
        return 0;
    size_t count = 1;
    for (const struct rig_id *p = hit; p > sorted && compare(p - 1, hit) == 0; p--)
        count++;
    for (const struct rig_id *p = hit; p + 1 < sorted + n && compare(p + 1, hit) == 0; p++)
        count++;
    return count;
}

static size_t read_executed(const char *path, struct rig_id *executed)
{
    FILE *f = fopen(path, "r");
    char line[64];
    size_t n = 0;
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        assert_true(n < MAX_IDS);
        memcpy(executed[n++].id, line, sizeof executed[0].id);
    }
    (void)fclose(f);
    qsort(executed, n, sizeof *executed, compare);
    return n;
}

static void what_was_accepted_survives_thirty_kills(void **state)
{
    unsigned seed = (unsigned)getpid();
    rig_init(&r);
    ids = calloc(MAX_IDS, sizeof *ids);
    struct rig_id *executed = calloc(MAX_IDS, sizeof *executed);
    char *path = rig_path(&r, "executed");
    print_message("seed %u\n", seed);
    for (int round = 0; round < ROUNDS; round++) {
        int accepted[2];
        assert_int_equal(pipe2(accepted, O_CLOEXEC), 0);
        pid_t pid = fork();
        if (pid == 0) {
            int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
            (void)close(accepted[0]);
            child_main(r.dir, round, accepted[1], fd);
        }
        (void)close(accepted[1]);
        kill_after(pid, accepted[0], rand_r(&seed) % 400);
    }

    // What is left is looked at by a boot that executes nothing.
    r.lanes[0] = (struct gw_lane_spec){"main", 8, -1};
    r.lane_count = 1;
    if (rig_open(&r, "last") != 0)
        fail_msg("%s", r.err.text);
    assert_null(r.moved);
    size_t executed_n = read_executed(path, executed), queued = 0, lost = 0, interrupted = 0;
    assert_true(ids_n > ROUNDS && executed_n > ROUNDS);
    for (size_t i = 0; i < ids_n; i++) {
        struct rig_reply got = rig_get(&r, ids[i].id);
        if (got.code != 0)
            fail_msg("accepted task %s is forgotten", ids[i].id);
        size_t n = times(executed, executed_n, ids[i].id);
        bool retry = strcmp(json_string_value(json_object_get(got.task, "label")), "retry") == 0;
        if (got.status != GW_TASK_QUEUED && !gw_task_status_final(got.status))
            fail_msg("task %s is %s", ids[i].id, gw_task_status_name(got.status));
        if (n > (retry ? 3u : 1u))
            fail_msg("task %s was executed %zu times", ids[i].id, n);
        if (got.status == GW_TASK_SUCCEEDED && n == 0)
            fail_msg("task %s succeeded without being executed", ids[i].id);
        if (got.status == GW_TASK_QUEUED && !retry && n > 0)
            fail_msg("task %s was executed and waits again", ids[i].id);
        queued += got.status == GW_TASK_QUEUED;
        lost += got.status == GW_TASK_LOST;
        interrupted += got.status == GW_TASK_INTERRUPTED;
        rig_reply_fini(&got);
    }
    print_message("%zu accepted, %zu executions, %zu queued, %zu lost, %zu interrupted\n", ids_n, executed_n,
                  queued, lost, interrupted);
    assert_true(lost > 0); // else the kills struck nothing
    // Executed means accepted by the store, whether or not the submitter lived to hear of it.
    for (size_t i = 0; i < executed_n; i += 7) {
        struct rig_reply got = rig_get(&r, executed[i].id);
        assert_int_equal(got.code, 0);
        rig_reply_fini(&got);
    }
    free(path);
    free(executed);
    free(ids);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_accepted_survives_thirty_kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
