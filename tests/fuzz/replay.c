/* replay.c - runs a fuzz target over every file of a folder, without a fuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int replay(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return -1;
    size_t n = fread(data, 1, sizeof data, file);
    (void)fclose(file);
    (void)printf("%s\n", path);
    (void)fflush(stdout);
    uint8_t *copy = malloc(n > 0 ? n : 1); // of its exact size, so that a sanitizer sees who reads beyond it
    for (size_t i = 0; i < n; i++)
        copy[i] = data[i];
    (void)LLVMFuzzerTestOneInput(copy, n);
    free(copy);
    return 0;
}

int main(int argc, char **argv)
{
    int replayed = 0;
    DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
    if (dir == NULL) {
        (void)fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char path[4096];
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        if (replay(path) < 0)
            return 1;
        replayed++;
    }
    (void)closedir(dir);
    return replayed > 0 ? 0 : 1; // an empty corpus proves nothing
}
