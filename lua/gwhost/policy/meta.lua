---@meta gwhost.policy
--- Types of what a policy gets and may answer, for the Lua language server. Nothing runs this file.
--- Every time is in milliseconds. A fact that is not known is nil.

--- What a policy file returns. A hook that is left out means the built-in answer.
---@class gwhost.Policy
---@field api? 1
---@field name? string shown in the status; the file's name otherwise
---@field description? string
---@field restart_mode? fun(ctx: gwhost.RestartContext): gwhost.RestartMode|gwhost.RestartAnswer, string?
---@field drain_budget? fun(ctx: gwhost.DrainContext): integer|"unlimited"|gwhost.DrainAnswer, string?
---@field format_blockers? fun(blockers: gwhost.Blocker[], ctx: gwhost.BlockersContext): string?, string?
---@field authorize_sigusr1? fun(ctx: gwhost.SignalContext): boolean|"when_idle", string?

---@alias gwhost.RestartMode "in_process"|"respawn"|"reexec"|"supervised"
---@alias gwhost.Supervisor "systemd"|"launchd"|"s6"|"runit"|"supervisord"|"external"

---@class gwhost.RestartAnswer
---@field mode gwhost.RestartMode
---@field why? string
---@field exec? string absolute path of the program to start instead of the running one
---@field health_timeout_ms? integer how long a successor may take to serve
---@field exit_delay_ms? integer how long to wait before the old process exits

---@class gwhost.DrainAnswer
---@field budget_ms? integer|"unlimited" the built-in budget when it is left out
---@field lanes? table<string, integer|"unlimited"> the work of a lane is cut at its own budget
---@field report_every_ms? integer at least 100
---@field accept? "refuse"|"queue" whether new tasks are taken, for the next generation

--- The facts that every hook gets.
---@class gwhost.Context
---@field action "restart"|"stop"
---@field source "signal"|"control"|"http"|"app"
---@field reason string
---@field signal? string "SIGTERM", "SIGUSR1" …
---@field sender? gwhost.Sender
---@field intent? gwhost.Intent what the request asked for, whichever way it came
---@field force boolean
---@field update boolean
---@field generation integer
---@field boot_id string
---@field pid integer
---@field uid integer the host's own user
---@field uptime_ms integer
---@field supervisor? gwhost.Supervisor
---@field container? boolean|string
---@field respawn_disabled boolean
---@field exec_running boolean a task that runs a command is running
---@field work gwhost.Work
---@field elapsed_ms integer since the request was accepted
---@field deferred_ms? integer how long the request waited for an idle moment
---@field last_restart_ms? integer
---@field restarts integer in the last hour
---@field vars table<string, string> what was given with --set
---@field now_ms integer Unix time; stands still during a question
---@field seed integer of math.random in this question

---@class gwhost.RestartContext : gwhost.Context
---@field builtin gwhost.RestartMode

---@class gwhost.DrainContext : gwhost.Context
---@field builtin integer|"unlimited"

---@class gwhost.BlockersContext : gwhost.Context
---@field builtin? string
---@field blockers_total? integer how many there are, when only the first are listed

---@class gwhost.SignalContext : gwhost.Context
---@field sender gwhost.Sender
---@field builtin boolean|"when_idle"

---@class gwhost.Sender
---@field pid integer
---@field uid integer
---@field exe? string nil when the sender is gone
---@field descendant? boolean whether it descends from the host; nil when the sender is gone

---@class gwhost.Intent
---@field force? boolean
---@field wait_ms? integer 0: unlimited
---@field reason? string

---@class gwhost.Work
---@field tasks integer
---@field runs integer
---@field queued integer
---@field unwritten? integer ends that wait for a store that cannot be written
---@field lanes table<string, gwhost.LaneWork>

---@class gwhost.LaneWork
---@field active integer
---@field queued integer
---@field concurrency integer

---@class gwhost.Blocker
---@field id string
---@field kind "task"|"run"
---@field status string "running" or "compacting"; "waits_for_store": it has ended, which cannot be written now
---@field runtime? string
---@field lane? string
---@field run_id? string
---@field label? string
---@field title? string
---@field age_ms integer
---@field progress? string
