#include "cli/text.h"

#include "base/err.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool gw_text_colours(FILE *out)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(out)) && (no == NULL || *no == '\0') && term != NULL && strcmp(term, "dumb") != 0;
}

const char *gw_text_colour(bool colours, enum gw_colour colour)
{
    static const char *const codes[] = {"\033[0m", "\033[1m", "\033[2m", "\033[32m", "\033[33m", "\033[31m"};
    return colours ? codes[colour] : "";
}

const char *gw_text_duration(int64_t ms, char buf[32])
{
    int64_t s = ms / 1000;
    if (ms < 1000)
        (void)snprintf(buf, 32, "%" PRId64 " ms", ms < 0 ? 0 : ms);
    else if (s < 60)
        (void)snprintf(buf, 32, "%" PRId64 ".%" PRId64 " s", s, ms % 1000 / 100);
    else if (s < 3600)
        (void)snprintf(buf, 32, "%" PRId64 " m %" PRId64 " s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(buf, 32, "%" PRId64 " h %" PRId64 " m", s / 3600, s % 3600 / 60);
    else
        (void)snprintf(buf, 32, "%" PRId64 " d %" PRId64 " h", s / 86400, s % 86400 / 3600);
    return buf;
}

const char *gw_text_of(const json_t *object, const char *key, const char *otherwise, char *buf, size_t size)
{
    const json_t *value = json_object_get(object, key);
    const char *text = json_is_string(value) ? json_string_value(value) : otherwise;
    gw_one_line(text, strlen(text), buf, size);
    return buf;
}

void gw_text_count(struct gw_buf *b, int64_t n, const char *noun)
{
    gw_buf_addf(b, "%" PRId64 " %s%s", n, noun, n == 1 ? "" : "s");
}

void gw_text_bar(struct gw_buf *b, int64_t gone, int64_t whole, unsigned width)
{
    double part = whole > 0 ? (double)gone / (double)whole : 1;
    unsigned full = part >= 1 ? width : part <= 0 ? 0 : (unsigned)(part * width);
    gw_buf_adds(b, "[");
    for (unsigned i = 0; i < width; i++)
        gw_buf_adds(b, i < full ? "#" : "-");
    gw_buf_adds(b, "]");
}

unsigned gw_text_columns(FILE *out)
{
    struct winsize size;
    return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

int gw_text_failed(const struct gw_err *err)
{
    (void)fprintf(stderr, "gwhost: %s\n", err->text);
    return 1;
}

void gw_text_json(const json_t *object)
{
    char *text = gw_json_text(object);
    (void)puts(text);
    free(text);
}
