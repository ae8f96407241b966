# Completion of gwhost for bash; the installed file is share/bash-completion/completions/gwhost.

_gwhost_statuses="queued running succeeded failed timed_out cancelled interrupted lost all"

_gwhost() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command="" i
  local commands="run status restart stop reload submit tasks policy bundle"
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case " $commands " in *" ${COMP_WORDS[i]} "*) command=${COMP_WORDS[i]}; break ;; esac
  done
  case $prev in
    --state-dir | --handlers) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    --policy | --app | --token-file | --exec) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    --log-format) mapfile -t COMPREPLY < <(compgen -W "text json" -- "$cur"); return ;;
    --log-level) mapfile -t COMPREPLY < <(compgen -W "debug info warn error" -- "$cur"); return ;;
    --status) mapfile -t COMPREPLY < <(compgen -W "$_gwhost_statuses" -- "$cur"); return ;;
    --listen | --origin | --set | --lane | --keep-tasks | --defer-timeout | --start-timeout | --reason | --wait | --cancel | --title)
      # submit's --wait takes no value
      [[ $prev == --wait && $command == submit ]] || return ;;
  esac
  local words=""
  case $command in
    "" | run)
      words="--policy --app --handlers --listen --state-dir --set --lane --keep-tasks --allow-exec --token-file --open --origin
        --defer-timeout --start-timeout --watch --log-format --log-level --help --version"
      [[ -n $command ]] || words="$commands $words" ;;
    status) words="--json --state-dir --help" ;;
    restart) words="--reason --wait --force --when-idle --update --exec --no-wait --dry-run --signal --cancel --json
        --state-dir --help" ;;
    stop) words="--no-wait --state-dir --help" ;;
    reload) words="--back --state-dir --help" ;;
    submit) words="--lane --title --wait --state-dir --help sleep echo exec" ;;
    tasks) words="--json --status --state-dir --help" ;;
    policy)
      if [[ $prev == policy ]]; then words="check test"
      else mapfile -t COMPREPLY < <(compgen -f -X '!*.lua' -- "$cur"; compgen -d -- "$cur"); return; fi ;;
    bundle)
      case $prev in
        bundle) words="list show --state-dir --help" ;;
        show) words=$(gwhost bundle list 2>/dev/null) ;;
      esac ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _gwhost gwhost
