# To be sourced: `train` runs one stage here, `side_by_side` several at once, one thread each (faster than two threads).
export TQDM_MININTERVAL="${TQDM_MININTERVAL:-2}"

train() { # overrides of one stage
  echo "erv.train $*"
  python -m erv.train "$@"
}

side_by_side() { # each argument: the overrides of one stage, separated by spaces
  local pids=() names=() logs=() codes=() watcher="" failed=0 log job i
  for job in "$@"; do
    echo "erv.train $job"
    log="$(mktemp)"
    # shellcheck disable=SC2086 # the words of a job are its overrides
    python -m erv.train $job >"$log" 2>&1 &
    pids+=($!) names+=("$job") logs+=("$log")
  done
  if [[ -t 1 ]]; then
    (while sleep 2; do _progress "${logs[@]}"; done) &
    watcher=$!
  fi
  # Nothing is started while statuses are collected: bash forgets a finished job when a new child gets its process number.
  for i in "${!pids[@]}"; do
    if wait "${pids[$i]}"; then codes+=(0); else codes+=($?); fi
  done
  if [[ -n "$watcher" ]]; then
    kill "$watcher"
    wait "$watcher" || true
    printf '\r\033[K'
  fi
  for i in "${!pids[@]}"; do
    if [[ "${codes[$i]}" == 0 ]]; then
      grep -E '^done' "${logs[$i]}" || true
    else
      failed=1
      echo "failed: erv.train ${names[$i]}" >&2
      tail -n 40 "${logs[$i]}" >&2
    fi
    rm -f "${logs[$i]}"
  done
  return "$failed"
}

_progress() { # the last line of every log, side by side
  [[ -t 1 ]] || return 0
  local line text="" width
  width="$(tput cols 2>/dev/null || echo 80)"
  for log in "$@"; do
    line="$(tail -c 400 "$log" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 | cut -c1-60 || true)" # a log may be empty
    text+="${line}   "
  done
  printf '\r\033[K%s' "${text:0:$width}"
}
