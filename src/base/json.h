/* json.h - jansson with our rules: duplicate keys refused, depth and size as given, UTF-8 only. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gw_err;

/* Parses exactly one value of any type from n bytes.
 * Returns 0 and the caller's reference, or -EINVAL with line and column in err. */
int gw_json_parse(const char *text, size_t n, json_t **ret_value, struct gw_err *err);

/* Compact text, caller frees; never NULL. Any value, scalars too. */
char *gw_json_text(const json_t *value);

/* A string of any bytes: invalid UTF-8 is repaired with U+FFFD. Never NULL. */
json_t *gw_json_string(const char *s);
json_t *gw_json_stringn(const char *s, size_t n);

/* Sets key to value and takes the reference; a NULL value means JSON null. */
void gw_json_set(json_t *object, const char *key, json_t *value);

/* Milliseconds from a JSON number; see gw_ms_floor(). */
bool gw_json_ms(const json_t *value, int64_t min, int64_t *ret_ms);
