#compdef gwhost
# Completion of gwhost for zsh; the installed file is share/zsh/site-functions/_gwhost.

_gwhost_run() {
  _arguments \
    '--policy[the policy]:file:_files -g "*.lua"' \
    '--app[the hosted application]:file:_files -g "*.lua"' \
    '--handlers[task handlers NAME.lua]:folder:_files -/' \
    '*--listen[HOST\:PORT, \[V6\]\:PORT, unix\:PATH or fd\:N]:address:' \
    '--state-dir[lock, token, store, bundles]:folder:_files -/' \
    '*--set[ctx.vars.KEY in hooks and the application]:KEY=VALUE:' \
    '*--lane[concurrency of a lane]:NAME=N:' \
    '--keep-tasks[age, number and size of ended tasks that are kept]:LIMITS:' \
    '--allow-exec[the built-in gateway may run commands]' \
    '--token-file[the bearer token]:file:_files' \
    '--open[no token; loopback and unix listeners only]' \
    '*--origin[pages that may use it]:SCHEME\://HOST[\:PORT]:' \
    '--defer-timeout[longest wait for an idle moment]:duration:' \
    '--start-timeout[longest start of an application]:duration:' \
    '--watch[reload the policy when its file changes]' \
    '--log-format[format of the log]:format:(text json)' \
    '--log-level[lowest level]:level:(debug info warn error)'
}

_gwhost() {
  local state_dir='--state-dir[of which host]:folder:_files -/'
  local -a commands=(
    'run:start a host in the foreground'
    'status:what the running host is doing'
    'restart:restart it and wait for the outcome'
    'stop:stop it'
    'reload:load the policy afresh'
    'submit:hand it a task'
    'tasks:the work in hand'
    'policy:check or test policies'
    'bundle:crash and time-out reports'
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe command commands
    return
  fi
  local command=$words[2]
  (( CURRENT > 2 )) && [[ $command != -* ]] && { shift words; (( CURRENT-- )) }
  case $command in
    status) _arguments '--json[for machines]' $state_dir ;;
    restart)
      _arguments '--reason[why]:text:' '(--force)--wait[drain budget; 0\: no limit]:duration:' \
        '(--wait)--force[wait for nothing]' '--when-idle[when nothing runs]' '--update[to another image]' \
        '--exec[the program to update to]:file:_files' '--no-wait[print the id and leave]' \
        '--dry-run[show what would happen]' '--signal[by intent and SIGUSR1]' '--cancel[withdraw a request]:id:' \
        '--json[for machines]' $state_dir ;;
    stop) _arguments '--no-wait[do not wait for its end]' $state_dir ;;
    reload) _arguments '--back[the version before]' $state_dir ;;
    submit)
      _arguments '--lane[the lane]:lane:' '--title[shown among what holds a restart back]:text:' \
        '--wait[wait for its end]' $state_dir '1:handler:(sleep echo exec)' '*:: :_normal' ;;
    tasks)
      _arguments '--json[for machines]' $state_dir \
        '--status[of this status]:status:(queued running succeeded failed timed_out cancelled interrupted lost all)' ;;
    policy) _arguments '1:what:(check test)' '*:file:_files -g "*.lua"' ;;
    bundle) _arguments '1:what:(list show)' "2:id:($(gwhost bundle list 2>/dev/null))" $state_dir ;;
    *) _gwhost_run ;;
  esac
}

_gwhost "$@"
