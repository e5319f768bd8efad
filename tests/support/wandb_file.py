"""Reads back what W&B wrote offline: `run-ID.wandb` is a LevelDB log of protobuf records behind a header of 7 bytes."""

import json
import struct

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER, START = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(file):
    """The records in their order."""
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    offset, parts, result = START, [], []
    while offset + HEADER <= len(content):
        if BLOCK - offset % BLOCK < HEADER:  # the rest of a block that is too small for a header is zeros
            offset += BLOCK - offset % BLOCK
            continue
        length, kind = struct.unpack("<HB", content[offset + 4 : offset + 7])
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        parts.append(content[offset + HEADER : offset + HEADER + length])
        offset += HEADER + length
        if kind in (FULL, LAST):
            result.append(Record.FromString(b"".join(parts)))
            parts = []
    assert not parts
    return result


def history(records):
    """What was logged, a dict per call; W&B's own keys left out."""
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
    return rows


def axes(records):
    """Metric -> the axis that it was given ("" for an axis), by exact name or by pattern."""
    metrics = [record.metric for record in records if record.WhichOneof("record_type") == "metric"]
    return {metric.glob_name or metric.name: metric.step_metric for metric in metrics}


def artifacts(records):
    """(name, type, whether it was used rather than made) of every artifact that is no table."""
    listed = [
        r.request.log_artifact.artifact for r in records if r.request.WhichOneof("request_type") == "log_artifact"
    ]
    listed += [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    return [(a.name, a.type, a.use_after_commit) for a in listed if not a.type.startswith("wandb-run-")]
