/* log.h - one event a line, to standard error, for people or for machines.
 *
 * Event names and fields are those of the contract. Only whoever handles an error logs it; below
 * host/ and cli/ nothing logs above debug. The log is the one global of the program. Loop thread only. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum gw_level { GW_DEBUG, GW_INFO, GW_WARN, GW_ERROR };
enum gw_log_format { GW_LOG_TEXT, GW_LOG_JSON };

void gw_log_setup(enum gw_log_format format, enum gw_level level, int fd);
void gw_log_identity(const char *boot_id); /* borrowed for the life of the process */
void gw_log_generation(unsigned generation);
bool gw_log_is_json(void); /* from any thread */
bool gw_log_level_parse(const char *name, enum gw_level *ret_level);

/* Logs event with fields (an object or NULL; the reference is taken) and a sentence for people.
 * The sentence says what happened and what comes next; field values are appended for people too. */
void gw_log(enum gw_level level, const char *event, json_t *fields, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The object that gw_log() would write, as the caller's reference; fields are borrowed. */
json_t *gw_log_object(enum gw_level level, const char *event, const json_t *fields, const char *msg);

/* Has tap called with the object of each event of level info and above, whatever is written; NULL ends it. */
void gw_log_tap(void (*tap)(void *ud, const json_t *object), void *ud);

/* Nobody waits for who reads the log. Where there is no room up to 1 MiB waits here, what is more is lost and counted;
 * a line says how many once it goes on.
 *
 * stalled is called when something begins to wait: gw_log_flush() then, now and again. */
void gw_log_on_stall(void (*stalled)(void *ud), void *ud);
bool gw_log_flush(void);             /* true: nothing waits any more */
void gw_log_finish(unsigned max_ms); /* before an end or an exec: waits for the reader, but not for long */
unsigned long gw_log_lost(void);     /* lines, ever */
