/* Which supervisor is seen, from which facts. */
#include "os/supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct row {
    const char *env[6]; /* "NAME=value" */
    const char *comm, *argument, *dir, *cgroup;
    const char *name, *service, *command; /* what is seen; "" and "" go with NULL */
};

static const char *lookup(void *ud, const char *name)
{
    const struct row *row = ud;
    size_t n = strlen(name);
    for (int i = 0; i < 6 && row->env[i] != NULL; i++)
        if (strncmp(row->env[i], name, n) == 0 && row->env[i][n] == '=')
            return row->env[i] + n + 1;
    return NULL;
}

static struct gw_supervisor see(const struct row *row, pid_t pid, bool container_file)
{
    struct gw_supervisor s;
    struct gw_supervisor_facts facts = {.env = lookup,
                                        .env_ud = (void *)row,
                                        .pid = pid,
                                        .parent_comm = row->comm != NULL ? row->comm : "bash",
                                        .parent_argument = row->argument != NULL ? row->argument : "",
                                        .parent_dir = row->dir != NULL ? row->dir : "",
                                        .cgroup = row->cgroup != NULL ? row->cgroup : "0::/session-3.scope\n",
                                        .container_file = container_file};
    gw_supervisor_detect(&facts, &s);
    return s;
}

/* Our pid is 100 in all of them. */
static void check(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct gw_supervisor s = see(&rows[i], 100, false);
        if (rows[i].name == NULL)
            assert_null(s.name);
        else
            assert_string_equal(s.name != NULL ? s.name : "(nobody)", rows[i].name);
        assert_string_equal(s.service, rows[i].service != NULL ? rows[i].service : "");
        assert_string_equal(s.stop_command, rows[i].command != NULL ? rows[i].command : "");
    }
}
#define CHECK(rows) check(rows, sizeof(rows) / sizeof *(rows))

#define GATEWAY "0::/system.slice/gateway.service\n"
#define OF_GATEWAY "gateway.service", "systemctl stop gateway.service"

static void systemd_is_proved_by_the_pid_that_it_executed(void **state)
{
    static const struct row rows[] = {
        {.env = {"SYSTEMD_EXEC_PID=100"}, .cgroup = GATEWAY, .name = "systemd", OF_GATEWAY},
        {.env = {"SYSTEMD_EXEC_PID=100"}, .cgroup = "0::/\n", .name = "systemd"},
        {.env = {"SYSTEMD_EXEC_PID=100"}, .cgroup = "", .name = "systemd"},
        {.env = {"SYSTEMD_EXEC_PID=99"}, .cgroup = GATEWAY},
        {.env = {"SYSTEMD_EXEC_PID="}, .cgroup = GATEWAY},
        {.env = {"SYSTEMD_EXEC_PID=100x"}, .cgroup = GATEWAY},
        {.env = {"SYSTEMD_EXEC_PID=1000"}, .cgroup = GATEWAY},
    };
    CHECK(rows);
}

static void what_shells_and_children_inherit_proves_nothing(void **state)
{
    static const struct row rows[] = {
        {.env = {"INVOCATION_ID=5f3a", "JOURNAL_STREAM=8:1234"}, .cgroup = GATEWAY},
        {.env = {"INVOCATION_ID=5f3a", "NOTIFY_SOCKET=/run/systemd/notify"}},
        {.env = {"INVOCATION_ID=5f3a", "NOTIFY_SOCKET=/run/systemd/notify"}, .cgroup = "0::/\n"},
        {.env = {"SUPERVISOR_ENABLED=1", "SUPERVISOR_PROCESS_NAME=gateway"}, .comm = "bash"},
        {.env = {NULL}, .cgroup = GATEWAY},
    };
    CHECK(rows);
}

static void a_notify_socket_counts_in_the_own_group_of_a_service(void **state)
{
    static const struct row rows[] = {
        {.env = {"NOTIFY_SOCKET=/run/systemd/notify"}, .cgroup = GATEWAY, .name = "systemd", OF_GATEWAY},
        {.env = {"NOTIFY_SOCKET=@manager", "SYSTEMD_EXEC_PID=99"}, .cgroup = GATEWAY, .name = "systemd", OF_GATEWAY},
        {.env = {"NOTIFY_SOCKET="}, .cgroup = GATEWAY},
        // A shell of a user's manager: a service is above it, but it is in a scope.
        {.env = {"NOTIFY_SOCKET=/x"}, .cgroup = "0::/user.slice/user-1.slice/user@1.service/app.slice/vte-1.scope\n"},
        {.env = {"NOTIFY_SOCKET=/x"}, .cgroup = "0::/system.slice/docker.service/payload\n"},
        {.env = {"NOTIFY_SOCKET=/x"}, .cgroup = "0::/system.slice/.service\n"},
        {.env = {"NOTIFY_SOCKET=/x"}, .cgroup = "4:memory:/system.slice/gateway.service\n"},
    };
    CHECK(rows);
}

static void the_unit_is_read_from_old_mixed_and_users_groups(void **state)
{
    static const struct row rows[] = {
        {.env = {"SYSTEMD_EXEC_PID=100"}, .cgroup = "4:cpu:/x.service\n1:name=systemd:/system.slice/gateway.service\n",
         .name = "systemd", OF_GATEWAY},
        {.env = {"SYSTEMD_EXEC_PID=100"}, .cgroup = "1:name=systemd:/system.slice/gateway.service\n0::/\n",
         .name = "systemd", OF_GATEWAY},
        {.env = {"SYSTEMD_EXEC_PID=100"}, .cgroup = "1:name=systemd:/\n" GATEWAY, .name = "systemd", OF_GATEWAY},
        {.env = {"SYSTEMD_EXEC_PID=100"}, .cgroup = "0::/system.slice/gateway.service", .name = "systemd", OF_GATEWAY},
        {.env = {"SYSTEMD_EXEC_PID=100"},
         .cgroup = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/gateway.service\n",
         .name = "systemd",
         "gateway.service",
         "systemctl --user stop gateway.service"},
    };
    CHECK(rows);
}

static void s6_and_runit_are_known_by_the_parents_name(void **state)
{
    static const struct row rows[] = {
        {.env = {NULL}, "s6-supervise", "gateway", "/run/service/gateway", NULL, "s6", "/run/service/gateway",
         "s6-svc -d /run/service/gateway"},
        {.env = {NULL}, "s6-supervise", "gateway", NULL, NULL, "s6", "gateway", "s6-svc -d gateway"},
        {.env = {NULL}, "s6-supervise", NULL, NULL, NULL, "s6"},
        {.env = {NULL}, "runsv", "gateway", "/etc/service/gateway", NULL, "runit", "/etc/service/gateway",
         "sv stop /etc/service/gateway"},
        {.env = {NULL}, "runsvdir", "/etc/service", "/"},
        {.env = {NULL}, "s6-svscan", NULL, "/run/service"},
    };
    CHECK(rows);
}

static void supervisord_needs_its_variable_too(void **state)
{
    static const struct row rows[] = {
        {.env = {"SUPERVISOR_ENABLED=1", "SUPERVISOR_PROCESS_NAME=gw", "SUPERVISOR_GROUP_NAME=gw"}, "supervisord",
         .name = "supervisord", "gw", "supervisorctl stop gw"},
        {.env = {"SUPERVISOR_ENABLED=1", "SUPERVISOR_PROCESS_NAME=gw", "SUPERVISOR_GROUP_NAME=web"}, "supervisord",
         .name = "supervisord", "web:gw", "supervisorctl stop web:gw"},
        {.env = {"SUPERVISOR_ENABLED=1"}, "supervisord", .name = "supervisord"},
        {.env = {"SUPERVISOR_PROCESS_NAME=gw"}, "supervisord"},
    };
    CHECK(rows);
}

static void launchd_is_known_by_its_label_but_not_by_a_terminals(void **state)
{
    static const struct row rows[] = {
        {.env = {"LAUNCH_JOB_LABEL=org.gwhost"}, .name = "launchd", "org.gwhost", "launchctl remove org.gwhost"},
        {.env = {"XPC_SERVICE_NAME=org.gwhost"}, .name = "launchd", "org.gwhost", "launchctl remove org.gwhost"},
        {.env = {"XPC_SERVICE_NAME=0"}},
        {.env = {"XPC_SERVICE_NAME=application.com.terminal.1"}},
    };
    CHECK(rows);
}

static void an_explicit_word_overrules_everything(void **state)
{
    static const struct row rows[] = {
        {.env = {"GWHOST_SUPERVISOR=none", "SYSTEMD_EXEC_PID=100"}, .cgroup = GATEWAY},
        {.env = {"GWHOST_SUPERVISOR=none"}, "runsv", NULL, "/etc/service/gateway"},
        {.env = {"GWHOST_SUPERVISOR=external"}, .name = "external"},
        {.env = {"GWHOST_SUPERVISOR=external", "SYSTEMD_EXEC_PID=100"}, .cgroup = GATEWAY, .name = "external"},
        {.env = {"GWHOST_SUPERVISOR=", "SYSTEMD_EXEC_PID=100"}, .cgroup = GATEWAY, .name = "systemd", OF_GATEWAY},
        {.env = {"GWHOST_SUPERVISOR=maybe"}},
    };
    CHECK(rows);
}

static void a_name_from_outside_stays_one_line(void **state)
{
    static const struct row row = {.env = {NULL}, "runsv", NULL, "/srv/a\nb\x1b[2J"};
    struct gw_supervisor s = see(&row, 100, false);
    assert_string_equal(s.stop_command, "sv stop /srv/a b [2J");
}

static void a_parent_that_is_pid_1_ends_with_us_unless_it_manages_services(void **state)
{
    struct gw_supervisor s;
    static const struct row nothing = {.comm = NULL};
    struct gw_supervisor_facts facts = {.env = lookup,
                                        .env_ud = (void *)(uintptr_t)&nothing,
                                        .pid = 7,
                                        .parent_comm = "tini",
                                        .parent_argument = "",
                                        .parent_dir = "",
                                        .cgroup = "",
                                        .stop_file = "",
                                        .parent = 1};
    gw_supervisor_detect(&facts, &s);
    assert_true(s.init_above);
    assert_false(s.container);
    facts.pid_namespace = true;
    gw_supervisor_detect(&facts, &s);
    assert_true(s.container);
    facts.parent_comm = "systemd";
    gw_supervisor_detect(&facts, &s);
    assert_false(s.init_above);
    facts.parent = 300;
    facts.parent_comm = "bash";
    gw_supervisor_detect(&facts, &s);
    assert_false(s.init_above);
}

static void container_and_pid_1_are_facts_of_their_own(void **state)
{
    static const struct row named = {.env = {"container=podman"}}, empty = {.env = {"container="}};
    assert_true(see(&named, 100, false).container);
    assert_false(see(&empty, 100, false).container);
    assert_true(see(&empty, 100, true).container);
    assert_true(see(&empty, 1, false).pid1);
    assert_false(see(&empty, 100, false).pid1);
    assert_null(see(&named, 1, true).name);
}

static void this_process_can_look_at_itself(void **state)
{
    struct gw_supervisor s;
    (void)setenv("GWHOST_SUPERVISOR", "external", 1);
    gw_supervisor_look(&s);
    assert_string_equal(s.name, "external");
    char pid[16];
    (void)snprintf(pid, sizeof pid, "%d", (int)getpid());
    (void)unsetenv("GWHOST_SUPERVISOR");
    (void)setenv("SYSTEMD_EXEC_PID", pid, 1);
    gw_supervisor_look(&s);
    assert_string_equal(s.name, "systemd");
    (void)unsetenv("SYSTEMD_EXEC_PID");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(systemd_is_proved_by_the_pid_that_it_executed),
        cmocka_unit_test(what_shells_and_children_inherit_proves_nothing),
        cmocka_unit_test(a_notify_socket_counts_in_the_own_group_of_a_service),
        cmocka_unit_test(the_unit_is_read_from_old_mixed_and_users_groups),
        cmocka_unit_test(s6_and_runit_are_known_by_the_parents_name),
        cmocka_unit_test(supervisord_needs_its_variable_too),
        cmocka_unit_test(launchd_is_known_by_its_label_but_not_by_a_terminals),
        cmocka_unit_test(an_explicit_word_overrules_everything),
        cmocka_unit_test(a_name_from_outside_stays_one_line),
        cmocka_unit_test(a_parent_that_is_pid_1_ends_with_us_unless_it_manages_services),
        cmocka_unit_test(container_and_pid_1_are_facts_of_their_own),
        cmocka_unit_test(this_process_can_look_at_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
