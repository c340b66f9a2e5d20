"""Streamed safetensors against the safetensors library, and every folder that must be refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from m2rl_core.errors import DataError
from m2rl_core.weights import LEAF, Checkpoint, Writer, copy_companions, fingerprint, stream_named, workers

INDEX = "model.safetensors.index.json"


def tensors() -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(7)
    return {
        "a.weight": torch.randn(5, 3, generator=noise).bfloat16(),
        "b.weight": torch.randn(7, generator=noise),
        "c.weight": torch.randn(2, 2, 2, generator=noise).half(),
        "d.scale": torch.randn((), generator=noise),
        "e.empty": torch.empty(0, 4),
    }


def shard(folder: Path, parts: list[dict[str, Tensor]]) -> None:
    folder.mkdir()
    names = [f"model-{i:05d}-of-{len(parts):05d}.safetensors" for i in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        save_file(part, folder / name)
    index = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def write(folder: Path, values: dict[str, Tensor], shard_bytes: int = 1 << 30) -> None:
    folder.mkdir()
    layout = {name: (value.dtype, tuple(value.shape)) for name, value in values.items()}
    with Writer(folder, layout, shard_bytes=shard_bytes) as writer:
        for name, value in reversed(values.items()):
            half = value.numel() // 2
            writer.write(name, half, value.flatten()[half:])
            writer.write(name, 0, value.flatten()[:half])


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


def test_reads_what_safetensors_wrote(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert same(dict(stream_named(tmp_path)), tensors())


def test_reads_shards_through_their_index(tmp_path: Path) -> None:
    items = list(tensors().items())
    shard(tmp_path / "sharded", [dict(items[:2]), dict(items[2:])])
    assert same(dict(stream_named(tmp_path / "sharded")), tensors())


def test_reads_any_range_into_a_reused_buffer(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    with Checkpoint.open(tmp_path) as checkpoint:
        buffer = torch.empty(4, dtype=torch.bfloat16)
        for offset in (0, 3, 11):
            raw = checkpoint.read("a.weight", offset, buffer)
            assert torch.equal(buffer, tensors()["a.weight"].flatten()[offset : offset + 4])
            assert len(raw) == 8


def test_safetensors_reads_what_the_writer_wrote(tmp_path: Path) -> None:
    write(tmp_path / "one", tensors())
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["model.safetensors"]
    assert same(load_file(tmp_path / "one" / "model.safetensors"), tensors())


def test_the_writer_cuts_shards_and_lists_them(tmp_path: Path) -> None:
    write(tmp_path / "cut", tensors(), shard_bytes=48)
    index = json.loads((tmp_path / "cut" / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert index["metadata"]["total_size"] == sum(t.numel() * t.itemsize for t in tensors().values())
    assert same({k: v for file in files for k, v in load_file(tmp_path / "cut" / file).items()}, tensors())
    assert same(dict(stream_named(tmp_path / "cut")), tensors())


def test_every_tensor_is_aligned_to_its_type(tmp_path: Path) -> None:
    write(tmp_path / "aligned", tensors())
    with Checkpoint.open(tmp_path / "aligned") as checkpoint:
        assert all(stored.start % stored.dtype.itemsize == 0 for stored in checkpoint.tensors.values())


def test_the_fingerprint_sees_values_names_and_types_but_not_shards_or_threads(tmp_path: Path) -> None:
    big = {"big": torch.arange(LEAF * 2 + 5, dtype=torch.float32), **tensors()}
    write(tmp_path / "one", big)
    write(tmp_path / "many", big, shard_bytes=100)
    found = fingerprint(tmp_path / "one")
    assert len(found) == 64
    assert found == fingerprint(tmp_path / "many", threads=3)
    changed = {name: value.clone() for name, value in big.items()}
    changed["big"][-1] += 1
    write(tmp_path / "value", changed)
    write(tmp_path / "name", {("z" if name == "big" else name): value for name, value in big.items()})
    write(tmp_path / "type", {**big, "b.weight": big["b.weight"].half()})
    assert len({found, *(fingerprint(tmp_path / other) for other in ("value", "name", "type"))}) == 4


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        Checkpoint.open(folder)
    return str(caught.value)


def test_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere" in refused(tmp_path / "nowhere")


def test_refuses_pickles_by_name(tmp_path: Path) -> None:
    torch.save(tensors(), tmp_path / "pytorch_model.bin")
    message = refused(tmp_path)
    assert "pytorch_model.bin" in message
    assert "save_pretrained" in message


def test_refuses_an_empty_folder_and_an_empty_file(tmp_path: Path) -> None:
    assert "no weights" in refused(tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    assert "no tensor" in refused(tmp_path)


def test_refuses_a_file_of_something_else(tmp_path: Path) -> None:
    for content in (b"", b"\x00" * 4, b"\xff" * 64, (9).to_bytes(8, "little") + b"[1, 2, 3]"):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert "is no safetensors file" in refused(tmp_path)


def test_refuses_a_cut_off_file_naming_the_tensor(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    with Checkpoint.open(tmp_path) as checkpoint:
        last = list(checkpoint.tensors)[-1]
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-1])
    assert f"ends within tensor '{last}'" in refused(tmp_path)


def test_refuses_types_that_are_not_float(tmp_path: Path) -> None:
    save_file({"position_ids": torch.arange(4)}, tmp_path / "model.safetensors")
    message = refused(tmp_path)
    assert "position_ids" in message
    assert "I64" in message


def test_refuses_what_cannot_be_read(tmp_path: Path) -> None:
    """A folder in a file's place, and a disk that fails: memory without a page at 0 is read like one."""
    (tmp_path / "model.safetensors").mkdir()
    assert refused(tmp_path) == (
        f"{tmp_path / 'model.safetensors'} cannot be read. Found: Is a directory. Next: mend or copy it again"
    )
    (tmp_path / "model.safetensors").rmdir()
    (tmp_path / "model.safetensors").symlink_to("/proc/self/mem")
    assert f"{tmp_path / 'model.safetensors'} cannot be read" in refused(tmp_path)
    shard(tmp_path / "m", [tensors()])
    (tmp_path / "m" / INDEX).unlink()
    (tmp_path / "m" / INDEX).mkdir()
    assert f"{tmp_path / 'm' / INDEX} cannot be read" in refused(tmp_path / "m")


def header(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Of a safetensors file, and its data."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"shape": [-5, -3]}, "no safetensors file. Found: tensor 'a.weight' of shape [-5, -3]"),
        ({"shape": [5.0, 3.0]}, "no safetensors file. Found: tensor 'a.weight' of shape [5.0, 3.0]"),
        ({"data_offsets": [0]}, "is no safetensors file"),
        ({"data_offsets": ["a", "b"]}, "is no safetensors file"),
        ({"data_offsets": [-30, 0]}, "tensor 'a.weight' is not where it should be"),
        ({"data_offsets": [0, 30]}, "is not where it should be"),  # over another
        ({"data_offsets": [10_000, 10_030]}, "is not where it should be"),
        ({"dtype": 5}, "is no safetensors file"),
    ],
    ids=str,
)
def test_refuses_a_header_that_would_read_other_bytes(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    found, data = header((tmp_path / "model.safetensors").read_bytes())
    assert found["a.weight"]["data_offsets"] != [0, 30]
    found["a.weight"] |= entry
    text = json.dumps(found).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    assert message in refused(tmp_path)


def test_refuses_a_missing_shard(tmp_path: Path) -> None:
    items = list(tensors().items())
    shard(tmp_path / "m", [dict(items[:2]), dict(items[2:])])
    (tmp_path / "m" / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in refused(tmp_path / "m")


def test_refuses_an_index_that_does_not_match(tmp_path: Path) -> None:
    items = list(tensors().items())
    shard(tmp_path / "m", [dict(items[:2]), dict(items[2:])])
    index = json.loads((tmp_path / "m" / INDEX).read_text())
    del index["weight_map"]["a.weight"]
    (tmp_path / "m" / INDEX).write_text(json.dumps(index))
    assert "a.weight" in refused(tmp_path / "m")
    for text in ("[]", "{", '{"weight_map": ["a.weight"]}', '{"weight_map": {"a.weight": 5}}', "[" * 100_000):
        (tmp_path / "m" / INDEX).write_text(text)
        assert "is no index of shards" in refused(tmp_path / "m")


def test_refuses_a_tensor_in_two_shards(tmp_path: Path) -> None:
    shard(tmp_path / "m", [tensors(), {"a.weight": torch.zeros(1)}])
    assert "a.weight" in refused(tmp_path / "m")


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    with Checkpoint.open(tmp_path) as checkpoint:
        with (tmp_path / "model.safetensors").open("r+b") as file:
            file.truncate(16)
        with pytest.raises(DataError, match=r"b\.weight"):
            checkpoint.load("b.weight")


def test_companions_are_what_a_model_needs_beside_weights_and_configuration(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    needed = ["tokenizer.json", "tokenizer_config.json", "spiece.model", "merges.txt", "vocab.json"]
    needed += ["chat_template.jinja", "generation_config.json", "modeling_own.py"]
    for name in [*needed, "config.json", "model.safetensors", INDEX, "trainer_state.json", "optimizer.pt", "README.md"]:
        (source / name).write_text(name)
    (source / "tokenizer_files").mkdir()
    (folder / "generation_config.json").write_text("another")
    copy_companions(source, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: name for name in needed}


def test_a_companion_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "tokenizer.json").symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=r"tokenizer\.json cannot be read"):
        copy_companions(tmp_path / "source", tmp_path)


def test_workers_settle_torchs_own_threads_in_every_thread() -> None:
    before, barrier = torch.get_num_threads(), threading.Barrier(3)

    def settled(_: int) -> int:
        barrier.wait(60)  # so that every thread gets one of them
        return torch.get_num_threads()

    for each in (1, 2):
        with workers(3, each=each) as pool:
            assert list(pool.map(settled, range(3))) == [each] * 3
    assert torch.get_num_threads() == before
