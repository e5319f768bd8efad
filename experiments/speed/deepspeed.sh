#!/usr/bin/env bash
# Seconds that a GRPO iteration takes on DEVICES devices of one machine, for each trainer that uses several: the difference of a run
# of LONG and one of SHORT iterations, ROUNDS times in turn, so that loading and evaluation fall out. All words are overrides.
#
#   make demo && bash experiments/speed/deepspeed.sh +exp=grpo_demo
#   DEVICES=8 bash experiments/speed/deepspeed.sh +exp=grpo_dfew policy.checkpoint=models/sft verifier.model.checkpoint=models/erv
set -euo pipefail

python=${PYTHON:-.venv/bin/python}
read -ra trainers <<<"${TRAINERS:-ddp fsdp2 deepspeed_z2 deepspeed_z3}"
short=${SHORT:-4} long=${LONG:-12}

# seconds TRAINER ITERATIONS NAME OVERRIDE…
seconds() {
    local trainer=$1 iterations=$2 name=$3 begun
    shift 3
    begun=$(date +%s.%N)
    "$python" -m erv.train "$@" "trainer=$trainer" "trainer.devices=${DEVICES:-2}" "algo.iterations=$iterations" \
        "trainer.val_check_interval=null" "group=devices" "name=$name" >&2
    echo "$begun $(date +%s.%N)" | awk '{print $2 - $1}'
}

for round in $(seq "${ROUNDS:-3}"); do
    for trainer in "${trainers[@]}"; do
        few=$(seconds "$trainer" "$short" "$trainer-$short-$round-$$" "$@")
        many=$(seconds "$trainer" "$long" "$trainer-$long-$round-$$" "$@")
        echo "$round $trainer $few $many $short $long" | awk '{printf "round %s  %-13s %.2f s an iteration\n", $1, $2, ($4 - $3) / ($6 - $5)}'
    done
done
