std = "lua54"
max_line_length = 140
files["lua/gwhost/meta.lua"] = { ignore = { "211", "212", "241", "631" } }
files["**/*_test.lua"] = { read_globals = { "test", "eq", "fails", "facts", "ask", "builtin", "policy" } }
exclude_files = { "tests/fixtures" }
files["tests/bench/submit.lua"] = { globals = { "wrk", "response", "done" } }
