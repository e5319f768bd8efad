"""The doctor: counts and bytes without allocation, equal to what really happens where that can be run."""

import json
import subprocess
import sys

import pytest
import torch
from commands import environment
from test_policy_forward import tiny

from erv.grpo.stream import stream_states
from erv.lit import memory
from erv.policy.model import HumanOmni

ALL = ("language_model", "mm_projector", "audio_projector", "bert_gate")


def doctor(root, *arguments, check=True):
    command = [sys.executable, "-m", "erv.doctor", *arguments]
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def really_saved(config, setup):
    """Bytes that autograd keeps when the step's trunk and projector run on real tensors."""
    model = HumanOmni(config).set_trainable(setup.train).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    prompt = memory.prompt_tokens(config)
    sizes = (prompt, setup.group_size * setup.new_tokens)
    prompts, answers = (
        torch.zeros(setup.prompts, size, config.text_config.hidden_size, requires_grad=True) for size in sizes
    )
    video = torch.zeros(setup.prompts, config.num_frames, config.grid**2, config.vision_config.hidden_size)
    trunk = model.language_model.model
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = stream_states(trunk, prompts, None, answers, setup.group_size), model.mm_projector(video)
    assert outputs
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("layers", [2, 3])
def test_activations_are_what_autograd_really_keeps(layers):
    config = tiny("all_in_one_small", 32, layers=layers)
    setup = memory.Setup(train=ALL, prompts=2, group_size=3, new_tokens=11)
    found = memory.estimate(config, setup)["activations"]
    assert found == pytest.approx(really_saved(config, setup), rel=0.02)


def test_weights_gradients_and_states_follow_from_the_parameters():
    config = tiny("all_in_one_small", 32)
    setup = memory.Setup(train=ALL, prompts=2, group_size=3, new_tokens=11)
    model = HumanOmni(config).set_trainable(ALL)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = memory.estimate(config, setup)
    assert found["weights"] == 4 * total
    assert found["gradients"] == found["reference"] == 4 * trained
    assert found["optimiser"] == 8 * trained
    half = memory.estimate(config, memory.Setup(ALL, 2, 3, 11, precision="bf16-true", strategy="fsdp", devices=4))
    assert half["weights"] == total * 2 // 4
    assert half["optimiser"] == trained
    stage_2 = memory.estimate(config, memory.Setup(ALL, 2, 3, 11, strategy="deepspeed_stage_2", devices=4))
    assert (stage_2["weights"], stage_2["gradients"]) == (4 * total, trained)


def test_the_kv_cache_holds_a_prompt_once_and_its_answers_each():
    config = tiny("all_in_one_small", 32)
    found = memory.estimate(config, memory.Setup(ALL, prompts=2, group_size=3, new_tokens=11))
    per_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, width, bytes
    assert found["kv cache"] == per_token * 2 * (memory.prompt_tokens(config) + 3 * 11)


def test_what_saves_memory_saves_memory():
    config = tiny("all_in_one_small", 32, layers=8)
    base = {"train": ALL, "prompts": 4, "group_size": 4, "new_tokens": 20}
    plain = memory.estimate(config, memory.Setup(**base))
    checkpointed = memory.estimate(config, memory.Setup(**base, gradient_checkpointing=True))
    assert checkpointed["activations"] < 0.5 * plain["activations"]
    lora = memory.estimate(config, memory.Setup(**base, lora={"r": 2}))
    assert lora["optimiser"] < plain["optimiser"]
    cut = memory.estimate(config, memory.Setup(**base, token_budget=1))
    assert cut["activations"] < 0.3 * plain["activations"]


@pytest.mark.parametrize(
    ("name", "projector", "prompt"), [("humanomni_0_5b", 34_762_944, 956), ("humanomni_7b", 770_759_488, 2132)]
)  # fmt: skip
def test_the_public_sizes_in_json(tmp_path, name, projector, prompt):
    found = json.loads(doctor(tmp_path, f"policy={name}", "trainer=gpu", "--json").stdout)["policy"]
    assert found["parts"]["mm_projector"] == {"parameters": projector, "trained": projector}
    assert found["parts"]["vision_tower"]["trained"] == found["parts"]["bert_model"]["trained"] == 0
    assert found["prompt_tokens"] == prompt
    assert found["bytes_per_device"]["peak"] > found["bytes_per_device"]["weights"]
    assert found["fits_here"] is (None if not torch.cuda.is_available() else found["fits_here"])


def test_the_page_names_parts_memory_and_the_remedy(tmp_path):
    page = doctor(tmp_path, "policy=humanomni_7b", "trainer=gpu").stdout
    for word in ("mm_projector", "770,759,488", "activations", "kv cache", "tower cache: 14.72 MB a clip"):
        assert word in page
    assert "smallest card: none of up to 192 GB" in page
    assert "policy.gradient_checkpointing=true" in page
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_allocated_and_lightning_is_not_imported(tmp_path):
    code = (
        "import sys, resource, erv.doctor\n"
        "erv.doctor.main()\n"
        "print('lightning' in sys.modules, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, "policy=humanomni_7b", "trainer=gpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    imported, kilobytes = done.stdout.split()[-2:]
    assert imported == "False"
    assert int(kilobytes) < 2_000_000  # the weights alone are 38 GB


def test_settings_that_cannot_be(tmp_path):
    done = doctor(tmp_path, "policy=tiny", "policy.train=[lm]", check=False)
    assert done.returncode == 2
    assert "policy.train takes language_model, mm_projector" in done.stderr
    done = doctor(tmp_path, "polcy=tiny", check=False)
    assert done.returncode == 2
    assert "did you mean 'policy'" in done.stderr


def test_the_environment_without_a_policy(tmp_path):
    found = json.loads(doctor(tmp_path, "--json").stdout)
    assert set(found) == {"environment"}
    assert found["environment"]["versions"]["torch"] == torch.__version__
    assert found["environment"]["free_gb"]["runs"] > 0
