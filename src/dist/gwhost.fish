# Completion of gwhost for fish; the installed file is share/fish/vendor_completions.d/gwhost.fish.

set -l commands run status restart stop reload submit tasks policy bundle
set -l none "not __fish_seen_subcommand_from $commands"
set -l run "not __fish_seen_subcommand_from status restart stop reload submit tasks policy bundle"

complete -c gwhost -f
complete -c gwhost -n $none -a run -d 'Start a host in the foreground'
complete -c gwhost -n $none -a status -d 'What the running host is doing'
complete -c gwhost -n $none -a restart -d 'Restart it and wait for the outcome'
complete -c gwhost -n $none -a stop -d 'Stop it'
complete -c gwhost -n $none -a reload -d 'Load the policy afresh'
complete -c gwhost -n $none -a submit -d 'Hand it a task'
complete -c gwhost -n $none -a tasks -d 'The work in hand'
complete -c gwhost -n $none -a policy -d 'Check or test policies'
complete -c gwhost -n $none -a bundle -d 'Crash and time-out reports'
complete -c gwhost -l help -d 'Show help'
complete -c gwhost -l state-dir -r -a '(__fish_complete_directories)' -d 'Of which host'

complete -c gwhost -n $run -l policy -rF -d 'The policy'
complete -c gwhost -n $run -l app -rF -d 'The hosted application'
complete -c gwhost -n $run -l handlers -rF -d 'Task handlers NAME.lua'
complete -c gwhost -n $run -l listen -x -d 'HOST:PORT, [V6]:PORT, unix:PATH or fd:N'
complete -c gwhost -n $run -l set -x -d 'KEY=VALUE for hooks and the application'
complete -c gwhost -n $run -l lane -x -d 'NAME=N[:QUEUE]'
complete -c gwhost -n $run -l keep-tasks -x -d 'Age, number and size of ended tasks that are kept'
complete -c gwhost -n $run -l allow-exec -d 'The gateway may run commands'
complete -c gwhost -n $run -l token-file -rF -d 'The bearer token'
complete -c gwhost -n $run -l open -d 'No token; loopback and unix only'
complete -c gwhost -n $run -l origin -x -d 'Pages that may use it'
complete -c gwhost -n $run -l defer-timeout -x -d 'Longest wait for an idle moment'
complete -c gwhost -n $run -l start-timeout -x -d 'Longest start of an application'
complete -c gwhost -n $run -l watch -d 'Reload the policy when its file changes'
complete -c gwhost -n $run -l log-format -x -a 'text json' -d 'Format of the log'
complete -c gwhost -n $run -l log-level -x -a 'debug info warn error' -d 'Lowest level'

set -l restart '__fish_seen_subcommand_from restart'
complete -c gwhost -n $restart -l reason -x -d Why
complete -c gwhost -n $restart -l wait -x -d 'Drain budget; 0: no limit'
complete -c gwhost -n $restart -l force -d 'Wait for nothing'
complete -c gwhost -n $restart -l when-idle -d 'When nothing runs'
complete -c gwhost -n $restart -l update -d 'To another image'
complete -c gwhost -n $restart -l exec -rF -d 'The program to update to'
complete -c gwhost -n $restart -l no-wait -d 'Print the id and leave'
complete -c gwhost -n $restart -l dry-run -d 'Show what would happen'
complete -c gwhost -n $restart -l signal -d 'By intent and SIGUSR1'
complete -c gwhost -n $restart -l cancel -x -d 'Withdraw a request'
complete -c gwhost -n '__fish_seen_subcommand_from restart status tasks' -l json -d 'For machines'
complete -c gwhost -n '__fish_seen_subcommand_from stop' -l no-wait -d 'Do not wait for its end'
complete -c gwhost -n '__fish_seen_subcommand_from reload' -l back -d 'The version before'
complete -c gwhost -n '__fish_seen_subcommand_from submit' -l lane -x -d 'The lane'
complete -c gwhost -n '__fish_seen_subcommand_from submit' -l title -x -d 'Shown to operators'
complete -c gwhost -n '__fish_seen_subcommand_from submit' -l wait -d 'Wait for its end'
complete -c gwhost -n '__fish_seen_subcommand_from submit' -a 'sleep echo exec'
complete -c gwhost -n '__fish_seen_subcommand_from tasks' -l status -x -a 'queued running succeeded failed timed_out cancelled interrupted lost all' -d 'Of this status'
complete -c gwhost -n '__fish_seen_subcommand_from policy' -a 'check test'
complete -c gwhost -n '__fish_seen_subcommand_from policy' -F
complete -c gwhost -n '__fish_seen_subcommand_from bundle' -a 'list show'
complete -c gwhost -n '__fish_seen_subcommand_from bundle; and __fish_seen_subcommand_from show' -a '(gwhost bundle list 2>/dev/null)'
