"""Models from folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

import backend.folder  # noqa: E402
from backend.loading import geometry_of_pipeline, load_pipeline  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from traces.errors import BadInput  # noqa: E402


def test_a_folder_loads_in_the_dtype_asked_for(model_folder: Path) -> None:
    pipeline = load_pipeline(str(model_folder), dtype="float64")
    assert pipeline.unet.dtype == torch.float64
    assert not pipeline.unet.training


def test_threads_may_load_at_the_same_time(model_folder: Path) -> None:
    """As replicas on threads do, while the libraries patch torch for all of them."""
    with ThreadPoolExecutor(2) as threads:
        pipelines = list(threads.map(load_pipeline, [str(model_folder)] * 4))
    assert len({float(pipeline.unet.conv_in.weight.sum()) for pipeline in pipelines}) == 1


def test_geometry_is_read_off_the_configuration() -> None:
    sdxl = geometry_of_pipeline(tiny_pipelines.sdxl(), "mine")
    assert (sdxl.latent_factor, sdxl.latent_channels, sdxl.size_multiple, sdxl.native_size) == (2, 4, 4, (64, 64))
    flux = geometry_of_pipeline(tiny_pipelines.flux(), "mine")
    assert (flux.latent_factor, flux.patch, flux.size_multiple) == (2, 2, 4)
    wan = geometry_of_pipeline(tiny_pipelines.wan(), "mine")
    assert (wan.latent_channels, wan.frame_factor, wan.patch) == (16, 4, 2)


@pytest.mark.parametrize(
    ("model", "options", "complaint"),
    [
        ("nowhere", {}, "neither an embedded model"),
        ("sdxl", {}, "'sdxl' is known by its shape alone, .* give the folder of its weights"),
        (None, {"dtype": "int4"}, "unknown dtype 'int4'"),
        (None, {"device": "gpu"}, "device is 'gpu', expected cpu, cuda, cuda:1, xpu or mps"),
        (None, {"device": "cpu:1"}, "device 'cpu:1' is not available: torch sees 1 of cpu, counted from 0"),
        pytest.param(
            None,
            {"device": "cuda"},
            "sees no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device"),
        ),
    ],
)
def test_what_cannot_be_loaded_is_said(
    model_folder: Path, model: str | None, options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(BadInput, match=complaint):
        load_pipeline(model or str(model_folder), **options)


def _json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _weights(folder: Path, part: str) -> Path:
    return next((folder / part).glob("*.safetensors"))


def _retensor(folder: Path, part: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = _weights(folder, part)
    tensors = dict(load_file(file))
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def _pickled(folder: Path) -> None:
    file = _weights(folder, "unet")
    torch.save({"x": torch.zeros(1)}, file.with_name("diffusion_pytorch_model.bin"))
    file.unlink()


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6087000\n")


def _moved(folder: Path, part: str, *variants: str) -> None:
    file = _weights(folder, part)
    for variant in variants:
        shutil.copy(file, file.with_name(file.name.replace(".safetensors", f".{variant}.safetensors")))
    file.unlink()


PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickles only": (_pickled, r"unet holds no weights.*diffusion_pytorch_model.bin is a pickle"),
    **{f"pointer {p}": ((lambda d, p=p: _pointer(_weights(d, p))), rf"{p}/.* git-lfs pointer") for p in PARTS},
    **{
        f"half {p}": (
            (lambda d, p=p: _weights(d, p).write_bytes(_weights(d, p).read_bytes()[:-99])),
            rf"{p}/.* bytes of the \d+ that",
        )
        for p in PARTS
    },
    "in the header": (lambda d: _weights(d, "vae").write_bytes(_weights(d, "vae").read_bytes()[:99]), "within its h"),
    "empty weights": (lambda d: _weights(d, "vae").write_bytes(b""), r"vae/.* is no file of safetensors \(0 bytes"),
    "html": (lambda d: _weights(d, "vae").write_text("<html>Too many requests</html>"), "no file of safetensors"),
    "a broken header": (lambda d: _weights(d, "vae").write_bytes(b"\x08" + b"\0" * 7 + b"nonsense"), "its header"),
    "longer": (lambda d: _weights(d, "vae").open("ab").write(b"more"), "bytes of the"),
    "tokenizer pointer": (lambda d: _pointer(d / "tokenizer/tokenizer.json"), "tokenizer/tokenizer.json is a git-lfs"),
    "half a tokenizer": (
        lambda d: (d / "tokenizer_2/tokenizer.json").write_bytes((d / "tokenizer/tokenizer.json").read_bytes()[:200]),
        r"tokenizer_2/tokenizer.json is not JSON .* downloaded to its end",
    ),
    "empty config": (lambda d: (d / "unet/config.json").write_text(""), "unet/config.json is not JSON"),
    "no config": (lambda d: (d / "unet/config.json").unlink(), r"unet: OSError"),
    "latin 1": (lambda d: (d / "unet/config.json").write_bytes('{"a": "\xe4"}'.encode("latin-1")), "is not UTF-8"),
    "byte order mark": (
        lambda d: (d / "model_index.json").write_bytes(b"\xef\xbb\xbf" + (d / "model_index.json").read_bytes()),
        "model_index.json begins with a byte order mark",
    ),
    "index is a list": (lambda d: (d / "model_index.json").write_text("[]"), "_class_name is None"),
    "class 5": (lambda d: _json(d / "model_index.json", _class_name=5), "_class_name is 5, expected the name"),
    "class unknown": (
        lambda d: _json(d / "model_index.json", _class_name="NoSuchPipeline"),
        "no pipeline of diffusers",
    ),
    "class no pipeline": (lambda d: _json(d / "model_index.json", _class_name="AutoencoderKL"), "no pipeline of"),
    "class is a base": (lambda d: _json(d / "model_index.json", _class_name="DiffusionPipeline"), "no pipeline of"),
    "code of its own": (lambda d: _json(d / "model_index.json", _class_name=["pipeline", "Mine"]), "which is not run"),
    "a module": (lambda d: _json(d / "model_index.json", unet=["antigravity", "Unet"]), "'unet' is of 'antigravity'"),
    "no such component": (lambda d: _json(d / "model_index.json", unet=["diffusers", "Unet9"]), "no component 'Unet9'"),
    "not a component": (lambda d: _json(d / "model_index.json", unet=["diffusers"]), r"expected \[library, class\]"),
    "out of the folder": (lambda d: _json(d / "model_index.json", **{"../unet": ["diffusers", "Unet"]}), "no name of"),
    "component gone": (lambda d: shutil.rmtree(d / "vae"), "folder of component 'vae' is missing"),
    "weights gone": (lambda d: _weights(d, "vae").unlink(), "vae holds no weights"),
    "tensor gone": (
        lambda d: _retensor(d, "unet", lambda t: t.pop("conv_in.weight")),
        r"unet: the weights lack 1 tensor \(conv_in.weight\)",
    ),
    "text tensors gone": (
        lambda d: _retensor(d, "text_encoder", lambda t: [t.pop(name) for name in list(t) if ".k_proj." in name]),
        r"text_encoder: the weights lack 4 tensors \(.*, \.\.\.\)",
    ),
    "tensor of another shape": (
        lambda d: _retensor(d, "unet", lambda t: t.update({"conv_in.bias": torch.zeros(3)})),
        r"'conv_in.bias' has the shape \[3\], its configuration wants \[16\]",
    ),
    "text of another shape": (
        lambda d: _json(d / "text_encoder/config.json", intermediate_size=8),
        r"text_encoder: tensor .* has the shape",
    ),
    "config of fewer layers": (
        lambda d: _json(d / "text_encoder/config.json", num_hidden_layers=1),
        "text_encoder: the weights have 16 tensors .* configuration does not know",
    ),
    "unknown tensor": (
        lambda d: _retensor(d, "vae", lambda t: t.update({"more": torch.zeros(3)})),
        r"vae: the weights have 1 tensor \(more\)",
    ),
    **{
        f"sampler {key}": (
            (lambda d, key=key: _json(d / "scheduler/scheduler_config.json", **{key: "banana"})),
            "banana",
        )
        for key in ("beta_schedule", "prediction_type", "timestep_spacing")
    },
    "two variants": (
        lambda d: _moved(d, "unet", "ema", "distilled"),
        r"unet holds the variants distilled, ema of its weights and no plain ones",
    ),
    "a part gone": (
        lambda d: (d / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "diffusion_pytorch_model-00002-of-00002.safetensors"}})
        ),
        r"00002-of-00002.safetensors is missing; .*index.json names it",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_said_in_one_line(tmp_path: Path, model_folder: Path, what: str) -> None:
    shutil.copytree(model_folder, tmp_path / "m")
    break_it, complaint = BROKEN[what]
    break_it(tmp_path / "m")
    with pytest.raises(BadInput, match=complaint) as caught:
        load_pipeline(str(tmp_path / "m"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_and_an_empty_folder_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "."):
        with pytest.raises(BadInput, match="nor a diffusers folder"):
            load_pipeline(str(tmp_path / name))


@pytest.mark.parametrize(("variants", "dtype"), [(("fp16",), "float32"), (("fp16", "bf16"), "bfloat16")])
def test_the_only_variant_or_the_dtypes_is_loaded(
    tmp_path: Path, model_folder: Path, variants: tuple[str, ...], dtype: str
) -> None:
    shutil.copytree(model_folder, tmp_path / "m")
    for part in PARTS:
        _moved(tmp_path / "m", part, *variants)
    for other in variants[:-1]:  # whatever is not chosen is not looked at
        _pointer(next((tmp_path / "m/unet").glob(f"*.{other}.safetensors")))
    loaded, plain = load_pipeline(str(tmp_path / "m"), dtype=dtype), load_pipeline(str(model_folder), dtype=dtype)
    assert all(torch.equal(a, b) for a, b in zip(loaded.unet.parameters(), plain.unet.parameters(), strict=True))


def test_weights_in_parts_are_loaded_quietly(
    tmp_path: Path, model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = load_pipeline(str(model_folder))
    capfd.readouterr()
    plain.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    assert len(list((tmp_path / "m/unet").glob("*.safetensors"))) > 2
    capfd.readouterr()
    loaded = load_pipeline(str(tmp_path / "m"))
    assert capfd.readouterr() == ("", "")
    for part in PARTS:
        ours, theirs = getattr(loaded, part).state_dict(), getattr(plain, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_tokenizer_in_pieces_names_what_it_needs(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model_folder, tmp_path / "m")
    (tmp_path / "m/tokenizer/tokenizer.json").unlink()
    (tmp_path / "m/tokenizer/spiece.model").write_bytes(b"pieces")
    monkeypatch.setattr(backend.folder, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"tokenizer/spiece.model needs sentencepiece.*comes with tilecast\[backend\]"):
        load_pipeline(str(tmp_path / "m"))


def test_every_small_pipeline_is_the_same_from_its_folder(tmp_path: Path) -> None:
    for make in (tiny_pipelines.flux, tiny_pipelines.wan, tiny_pipelines.sd3, tiny_pipelines.cogvideox):
        made = make()
        made.save_pretrained(tmp_path / make.__name__)
        loaded = load_pipeline(str(tmp_path / make.__name__))
        for name, module in made.components.items():
            if isinstance(module, torch.nn.Module):
                theirs = getattr(loaded, name).state_dict()
                assert all(torch.equal(value, theirs[key]) for key, value in module.state_dict().items()), name


def test_a_tokenizer_in_pieces_is_loaded(tmp_path: Path, model_folder: Path) -> None:
    import sentencepiece

    shutil.copytree(model_folder, tmp_path / "m")
    shutil.rmtree(tmp_path / "m/tokenizer")
    (tmp_path / "m/tokenizer").mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a cat and a dog", "the dog and the cat"] * 9),
        model_prefix=str(tmp_path / "m/tokenizer/spiece"),
        vocab_size=16,
        minloglevel=9,
    )
    (tmp_path / "m/tokenizer/spiece.vocab").unlink()
    (tmp_path / "m/tokenizer/tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}')
    _json(tmp_path / "m/model_index.json", tokenizer=["transformers", "T5Tokenizer"])
    assert load_pipeline(str(tmp_path / "m")).tokenizer("a cat").input_ids
