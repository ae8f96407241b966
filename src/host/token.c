/* token.c - what callers have to present: --token-file, else $GWHOST_TOKEN, else STATE/token, made at the first start.
 *
 * A file is read again with each reload and at each start of a generation, so that a secret that is rotated, or one that
 * has become known, is another one from then on. Connections that are open have been asked already. */
#include "host/inside.h"

#include "os/statedir.h"

#include <stdlib.h>
#include <string.h>

int gw_token_open(struct gw_host *h, struct gw_err *err)
{
    const char *given = getenv("GWHOST_TOKEN");
    h->token_given = h->options.token_file == NULL && given != NULL && *given != '\0';
    if (h->token_given)
        h->token = gw_strdup(given);
    (void)unsetenv("GWHOST_TOKEN"); // no child shall see it
    if (h->token_given)
        return 0;
    return gw_token_load(h->dir_fd, h->options.state_dir, h->options.token_file, &h->token, err);
}

char *gw_token_path(const struct gw_host *h)
{
    if (h->token_given)
        return NULL;
    return h->options.token_file != NULL ? gw_strdup(h->options.token_file)
                                         : gw_asprintf("%s/token", h->options.state_dir);
}

void gw_token_renew(struct gw_host *h)
{
    char *path = gw_token_path(h), *token = NULL;
    struct gw_err err = {0};
    if (path == NULL || h->token == NULL || h->options.open) {
        free(path);
        return;
    }
    if (gw_token_load(-1, NULL, path, &token, &err) < 0) {
        gw_log(GW_WARN, "token.kept", json_pack("{soso}", "path", gw_json_string(path), "error", gw_json_string(err.text)),
               "the token stays what it was until there is a reload that can read it: %s", err.text);
    } else if (strcmp(token, h->token) != 0) {
        free(h->token);
        h->token = token;
        token = NULL;
        gw_log(GW_INFO, "token.changed", json_pack("{so}", "path", gw_json_string(path)),
               "the token is another one from here on; the one before is refused");
    }
    free(token);
    free(path);
}
