#include "base/json.h"

#include "base/err.h"
#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <string.h>

int gw_json_parse(const char *text, size_t n, json_t **ret_value, struct gw_err *err)
{
    json_error_t je;
    size_t mark = n > 0 ? gw_utf8_mark(text, n) : 0;
    json_t *v = json_loadb(text + mark, n - mark, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (v == NULL)
        return gw_err_set(err, -EINVAL, "line %d, column %d: %s", je.line, je.column, je.text);
    *ret_value = v;
    return 0;
}

char *gw_json_text(const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    gw_assert(text != NULL);
    return text;
}

json_t *gw_json_stringn(const char *s, size_t n)
{
    json_t *v = json_stringn(s, n);
    if (v == NULL) {
        struct gw_buf b = {0};
        gw_utf8_repair(&b, s, n);
        v = json_stringn(b.data != NULL ? b.data : "", b.len);
        gw_buf_fini(&b);
    }
    gw_assert(v != NULL);
    return v;
}

json_t *gw_json_string(const char *s)
{
    return gw_json_stringn(s, strlen(s));
}

void gw_json_set(json_t *object, const char *key, json_t *value)
{
    int rc = json_object_set_new(object, key, value != NULL ? value : json_null());
    gw_assert(rc == 0);
}

bool gw_json_ms(const json_t *value, int64_t min, int64_t *ret_ms)
{
    if (json_is_real(value))
        return gw_ms_floor(json_real_value(value), min, ret_ms);
    json_int_t ms = json_integer_value(value);
    if (!json_is_integer(value) || ms < min || ms > GW_MS_MAX)
        return false;
    *ret_ms = ms;
    return true;
}
