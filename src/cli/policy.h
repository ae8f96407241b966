/* policy.h - `gwhost policy check FILE...` and `gwhost policy test FILE...`. */
#pragma once

/* argv[0] is "policy". lua_dir: the folder in which gwhost/ with the shipped Lua lies. Makes and ends the
 * policy timer of the process. Returns the exit code: 0, 1 when something is wrong with a FILE, 2 on wrong
 * usage. */
int gw_cli_policy(int argc, char **argv, const char *lua_dir);
