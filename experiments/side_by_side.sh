# To be sourced: `train` runs one stage here, `side_by_side` several at once, one thread each (faster than two threads).
export TQDM_MININTERVAL="${TQDM_MININTERVAL:-2}"

train() { # overrides of one stage
  echo "erv.train $*"
  python -m erv.train "$@"
}

side_by_side() { # each argument: the overrides of one stage, separated by spaces
  local pids=() names=() logs=() failed=0 log job i
  for job in "$@"; do
    echo "erv.train $job"
    log="$(mktemp)"
    # shellcheck disable=SC2086 # the words of a job are its overrides
    python -m erv.train $job >"$log" 2>&1 &
    pids+=($!) names+=("$job") logs+=("$log")
  done
  while kill -0 "${pids[@]}" 2>/dev/null; do
    _progress "${logs[@]}"
    sleep 2
  done
  if [[ -t 1 ]]; then printf '\r\033[K'; fi
  for i in "${!pids[@]}"; do
    if wait "${pids[$i]}"; then
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
