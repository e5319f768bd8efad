"""Forward and backward of HumanOmni: ours against a plain composition of the same library modules.

    python experiments/speed/policy_forward.py --engine erv|plain [--policy tiny|humanomni_0_5b] [--clips 8] [--steps 10]

One step is what SFT does with a batch of clips with picture and sound: towers, projectors, splice, language model, loss,
gradients. `plain` is how one would put the modules together: clip by clip through whole towers, BERT for every clip, media and
text joined piece by piece, and the library's loss over logits at every position. Random weights, the same in both engines,
and the same loss. Prints the medians per step after one warm-up, CPU seconds of the process, as JSON on the last line.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from erv.cli.command import conf_folder
from erv.policy import Policy
from erv.policy.base import IGNORE_INDEX
from erv.policy.humanomni.config import HumanOmniConfig
from erv.policy.humanomni.model import HumanOmni
from erv.policy.humanomni.processor import Processor
from erv.policy.humanomni.prompts import AUDIO_ID, VIDEO_ID
from erv.policy.humanomni.tokenizer import train_bert_tokenizer, train_tokenizer
from erv.policy.policy import DEFAULT_TRAIN
from erv.rationale import compose
from erv.taxonomy import DFEW
from erv.training.datamodule import Sample
from erv.training.optim import OptimizerSettings
from erv.training.sft import SFT
from erv.types import Clip

Engine = tuple[Callable[[], Any], Callable[[Any], Tensor]]  # encode, and the loss of what was encoded
RATIONALES = (
    "The brows are drawn together. The voice is low.",
    "A man in a red shirt stands still. The mouth corners fall, and the voice trembles a little. All of it speaks of grief.",
    "The eyes are wide open.",
    "The voice rises and the jaw drops. Nothing else moves.",
)


def make(name: str) -> Policy:
    """The policy `name` of conf/policy with random weights, its vocabulary as configured."""
    torch.manual_seed(0)
    tokenizer, bert = train_tokenizer([*RATIONALES] * 9), train_bert_tokenizer([*RATIONALES] * 9)
    sizes = HumanOmniConfig(**yaml.safe_load((conf_folder() / "policy" / f"{name}.yaml").read_text())["config"])
    model = HumanOmni(sizes).set_trainable(DEFAULT_TRAIN).train()
    image, bins = sizes.vision_config.image_size, sizes.audio_config.num_mel_bins
    return Policy(
        model, Processor(tokenizer, bert, image, sizes.num_frames, bins, sizes.audio_seconds, "which emotion?")
    )


def clips(policy: Policy, count: int) -> list[Sample]:
    """Clips with pixels `[T, 3, S, S]` and log-mel `[M, L]`."""
    sizes = policy.model.config
    frames = (sizes.num_frames, 3, sizes.vision_config.image_size, sizes.vision_config.image_size)
    mel = (sizes.audio_config.num_mel_bins, 2 * sizes.audio_config.max_source_positions)
    return [
        (
            Clip(
                id=str(i),
                video="",
                label="sad",
                split="train",
                rationale=RATIONALES[i % len(RATIONALES)],
                source="speed",
            ),
            {"video": torch.randn(frames), "audio": torch.randn(mel)},
        )
        for i in range(count)
    ]


def erv_engine(policy: Policy, batch: list[Sample]) -> Engine:
    """(encode, loss of what was encoded), through the code that trains."""
    sft = SFT(policy, DFEW, OptimizerSettings(lr=1e-5), ("video", "audio"), len(batch), 1)

    def encode() -> list[Sample]:
        video = policy.model.encode_video(torch.stack([media["video"] for _, media in batch]))
        audio = policy.model.encode_audio(torch.stack([media["audio"] for _, media in batch]))
        return [(c, {"video": v, "audio": a}) for (c, _), v, a in zip(batch, video, audio, strict=True)]

    return encode, lambda samples: sft.loss(samples)[0]


def plain_engine(policy: Policy, batch: list[Sample]) -> Engine:
    """The same computation, composed plainly."""
    model, processor = policy.model, policy.processor
    prompt = processor.prompt()
    words = model.language_model.get_input_embeddings()

    @torch.no_grad()
    def encode() -> list[tuple[Tensor, Tensor]]:
        found = []
        for _, media in batch:
            states = model.vision_tower(media["video"], output_hidden_states=True).hidden_states
            heard = model.audio_tower(media["audio"][None]).last_hidden_state
            found.append((states[-2], torch.nn.functional.avg_pool1d(heard.transpose(1, 2), 3, 3).transpose(1, 2)[0]))
        return found

    def loss(encoded: list[tuple[Tensor, Tensor]]) -> Tensor:
        rows, labels = [], []
        for (clip, _), (video, audio) in zip(batch, encoded, strict=True):
            asked = processor.bert_tokenizer([prompt.bert], return_tensors="pt")
            with torch.no_grad():
                read = model.bert_model(**asked).last_hidden_state[:, 0]
            gate = torch.softmax(model.bert_gate(read), dim=-1)[0]
            tokens = sum(w * branch[0] for w, branch in zip(gate, model.mm_projector(video[None]), strict=True))
            target = processor.target_ids(compose(str(clip.rationale), clip.label))
            row, label = [], []
            for piece in (*prompt.ids, *target):
                place = {VIDEO_ID: tokens, AUDIO_ID: model.audio_projector(audio)}.get(piece) if piece < 0 else None
                row.append(words(torch.tensor([piece])) if place is None else place)
                label += [IGNORE_INDEX] * len(row[-1])
            label[len(label) - len(target) :] = target
            rows.append(torch.cat(row))
            labels.append(torch.tensor(label))
        embeds, wanted = (
            pad_sequence(rows, batch_first=True),
            pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
        )
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(embeds.shape[1])[None] < lengths[:, None]).long()
        return model.language_model(inputs_embeds=embeds, attention_mask=mask, labels=wanted).loss

    return encode, loss


def main() -> None:
    """Measure one engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engine", choices=("erv", "plain"), required=True)
    parser.add_argument("--policy", default="tiny", choices=("tiny", "humanomni_0_5b"))
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    policy = make(given.policy)
    encode, loss_of = {"erv": erv_engine, "plain": plain_engine}[given.engine](policy, clips(policy, given.clips))
    times: dict[str, list[float]] = {"towers": [], "forward": [], "backward": []}
    for step in range(given.steps + 1):
        marks = [time.process_time()]
        encoded = encode()
        marks.append(time.process_time())
        loss = loss_of(encoded)
        marks.append(time.process_time())
        loss.backward()
        marks.append(time.process_time())
        policy.model.zero_grad()
        if step:
            for name, start, end in zip(times, marks[:-1], marks[1:], strict=True):
                times[name].append(end - start)
    medians = {f"{name}_cpu_s": round(statistics.median(values), 5) for name, values in times.items()}
    medians["total_cpu_s"] = round(sum(medians.values()), 5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**vars(given), "loss": round(float(loss), 5), **medians, "peak_rss_mb": round(peak)}))


if __name__ == "__main__":
    main()
