std = "lua54"
max_line_length = 120
files["lua/gwhost/meta.lua"] = { ignore = { "211", "212", "241" } }
