/* store_fixture.h - a rig for each test, and the next boot on the same store. */
#pragma once

#include "unit/work/rig.h"

static struct rig r;

static int up2(void **state)
{
    rig_up(&r, 2);
    return 0;
}

static int up0(void **state)
{
    rig_init(&r);
    return 0;
}

static int down(void **state)
{
    rig_fini(&r);
    return 0;
}

static const struct gw_task_spec echo = {.handler = "echo", .priority = GW_PRIORITY_NORMAL};

static void next_boot(const char *boot_id)
{
    rig_close(&r);
    if (rig_open(&r, boot_id) != 0)
        fail_msg("%s", r.err.text);
}
