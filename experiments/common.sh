# To be sourced by the run.sh of every experiment, with the script's arguments parsed by `arguments`:
#   run.sh [demo] [SEED…] [OVERRIDE…]
# An OVERRIDE holds a "=" and goes to every stage; with one, the table is written beside the runs and not over table.md.
# What is done is skipped, and what was interrupted goes on. Environment: ERV_RUNS, ERV_DATA, ERV_CACHE; DEVICES, what a grid
# runs at once ([0,1,2,3]: four GPUs; on a CPU any two entries are two processes); ARMS, some of the arms only.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
experiment="$(basename "$(dirname "$0")")"
runs="${ERV_RUNS:-runs}"
base="$runs/demo_seeds" # the towers, verifiers and SFT models that experiments on the embedded corpus begin with
export ERV_PROGRESS_S="${ERV_PROGRESS_S:-5}"

arguments() { # the seeds if none are given, then the arguments; sets demo, seeds (0,1,…), overrides, devices and table
  local default="$1" argument
  demo="" seeds="" overrides=() table="experiments/$experiment/table.md"
  shift
  for argument in "$@"; do
    if [[ "$argument" == demo ]]; then demo=1
    elif [[ "$argument" == *=* ]]; then overrides+=("$argument")
    elif [[ "$argument" =~ ^[0-9]+$ ]]; then seeds+="${seeds:+,}$argument"
    else echo "usage: run.sh [demo] [SEED…] [OVERRIDE…]; got $argument" >&2; exit 2
    fi
  done
  seeds="${seeds:-$default}"
  devices="${DEVICES:-[0,1]}"
  [[ ${#overrides[@]} -eq 0 ]] || table="$runs/$experiment.md"
}

grid() { # train every combination of the overrides, for all seeds
  echo "erv.train -m $*"
  python -m erv.train -m "launch.devices=$devices" "seed=$seeds" "$@" "${overrides[@]}"
}

evaluate() { # the same for evaluations
  echo "erv.evaluate -m $*"
  python -m erv.evaluate -m "launch.devices=$devices" "seed=$seeds" "$@" "${overrides[@]}"
}

base_stages() { # of the seeds, unless another experiment has made them
  grid +exp=towers_demo,verifier_demo group=demo_seeds
  grid +exp=sft_demo group=demo_seeds
}

of_seeds() { # those runs in the folders that have one of the seeds, one a line
  local folder run
  for folder in "$@"; do
    for run in "$folder"/*/; do
      if grep -qE "^seed: (${seeds//,/|})$" "$run/config.yaml"; then echo "$run"; fi
    done
  done
}

need() { # data sets; says what is missing and stops
  local name missing=()
  for name in "$@"; do
    python -m erv.doctor "data=$name" sample=1 >/dev/null || missing+=("$name")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  echo "$experiment needs ${missing[*]}, which must be asked for from their authors and lie below ERV_DATA (docs/data.md). Look with"
  printf '  python -m erv.doctor data=%s\n' "${missing[@]}"
  echo "The same arms on the embedded corpus: experiments/$experiment/run.sh demo"
  exit 1
} >&2

labels() { # the verifier's labelled sentences; says what is missing and stops
  [[ -f "${LABELS:-}" && -f "${AUGMENTED:-}" ]] && return 0
  echo "$experiment needs labelled sentences about training clips: LABELS=FILE, and AUGMENTED=FILE with more of the rare emotions. Make them with"
  echo "  python -m erv.label task.input=TEXTS.jsonl task.taxonomy=mafw data=dfew_mafw"
  echo "  python -m erv.label task=augment task.input=LABELS task.taxonomy=mafw task.target=500"
  exit 1
} >&2
